"""AugMix: no second image, but chains of simple augmentations, and a loss that asks for the same answer to all of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn

from rlmix.common.groups import check_values
from rlmix.common.ranges import above, at_least, within
from rlmix.common.transfer import to_device
from rlmix.maps.gradient import check_images
from rlmix.mixing.core import device_of, soft_targets
from rlmix.mixing.objective import Objective, Scored
from rlmix.mixing.registry import METHODS, Setting
from rlmix.models.outputs import logits_of


class AugDraw(NamedTuple):
    """What chance decides about the augmented views of a batch."""

    operations: Int[Tensor, "batch chain step"]
    """Index into :data:`OPERATIONS`; -1 where the chain is over."""
    levels: Float[Tensor, "batch chain step"]
    """Strength, 0.1 to the severity; its sign is the direction of a geometric operation."""
    chain_weights: Float[Tensor, "batch chain"]
    """Of each chain's result in the augmented image; they sum to 1."""
    weight: Float[Tensor, " batch"]
    """Of the augmented image in the view; the clean one has the rest."""


@METHODS.register("augmix")
@dataclass(frozen=True, eq=False)
class AugMix:
    """AugMix (Hendrycks et al., ICLR 2020, "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty").

    A view of an image is itself mixed with three chains of one to three operations drawn from :data:`OPERATIONS`,

        view = (1 - m) x + m sum_i w_i chain_i(x),    w ~ Dir(1, 1, 1),    m ~ Beta(1, 1),

    and the loss on the clean image and two views, with p the softmax of the three and M their mean, is

        CE(x) + 12 JSD,    JSD = (KL(p_0 | M) + KL(p_1 | M) + KL(p_2 | M)) / 3.

    Every image draws its own weights, operations and levels (``U(0.1, severity)``); operations and their ranges are those of the
    published code, on bytes as Pillow's: autocontrast, equalize, posterize, rotate, solarize, shear and translate.

    Cost: three passes (one, of a batch three times as large), and 12 operations an image: 2.9 to 3.2 times vanilla
    (preactresnet18_w16, batch 100, CPU).

    Differences from the published code: it augments on the host, image by image; here each operation runs on the device, on all
    images that drew it. The divergence is computed from log-probabilities, without a clamp. Interpolated values are rounded, where
    Pillow cuts them off, which darkens an image by half a grey level in 255 an operation.

    Any batch size will do; images mix with themselves only. Images that did not come from bytes are rounded to them in the chains.

    Args:
        mean: Of the training images in [0, 1], a channel, by which ``images`` are normalised.
        std: The same.
        alpha: Of the Dirichlet and the Beta distribution, above 0.
        severity: The largest level, in [0.1, 10].
        num_chains: Chains a view, at least 1.
        max_depth: Operations in the longest chain, at least 1.
        consistency: Weight of the divergence, at least 0.
    """

    mean: Sequence[float] | Float[Tensor, " channel"]
    std: Sequence[float] | Float[Tensor, " channel"]
    alpha: Annotated[float, above(0)] = 1.0
    severity: Annotated[float, within(0.1, 10)] = 3.0
    num_chains: Annotated[int, at_least(1)] = 3
    max_depth: Annotated[int, at_least(1)] = 3
    consistency: Annotated[float, at_least(0)] = 12.0

    def __post_init__(self) -> None:
        check_values(self)

    @classmethod
    def for_training(cls, setting: Setting, **hyperparameters: Any) -> "AugMix":
        """For the data's own normalisation."""
        return cls(setting.mean, setting.std, **hyperparameters)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Objective:
        """Draw and make two views of a batch; the objective's logits are those of the clean images.

        Raises:
            ValueError: If the images have other channels than ``mean`` and ``std``.
        """
        check_images(images)
        if not len(self.mean) == len(self.std) == images.shape[1]:
            raise ValueError(f"mean and std must have {images.shape[1]} channels, got {len(self.mean)} and {len(self.std)}")
        draw = sample_augmentations(2 * len(images), self.alpha, self.severity, self.num_chains, self.max_depth, generator)
        given = (values if isinstance(values, Tensor) else torch.tensor(values, device="cpu") for values in (self.mean, self.std))
        mean, std = (to_device(values.float(), images.device) for values in given)
        augmented = augment(torch.cat([images, images]), draw, mean, std)
        views = torch.cat([images, augmented])
        targets = soft_targets(labels, num_classes)

        def score(network: nn.Module) -> Scored:
            logits = logits_of(network(views)).float().unflatten(0, (3, -1))
            divergence = jensen_shannon(logits.log_softmax(2))
            return Scored(F.cross_entropy(logits[0], targets) + self.consistency * divergence, logits[0])

        return Objective(targets, score, augmented[: len(images)])


def sample_augmentations(
    batch_size: int, alpha: float, severity: float, num_chains: int, max_depth: int, generator: torch.Generator | None = None
) -> AugDraw:
    """Draw a view of each image, on the host: weights, the depth of each chain, its operations and their levels."""
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator, device=device_of(generator))))
    shape = (batch_size, num_chains, max_depth)
    depth = rng.integers(1, max_depth + 1, shape[:2])
    operations = np.where(np.arange(max_depth) < depth[:, :, None], rng.integers(0, len(OPERATIONS), shape), -1)
    levels = rng.uniform(0.1, severity, shape) * rng.choice((-1, 1), shape)
    chain_weights = rng.dirichlet(np.full(num_chains, alpha), batch_size)
    weight = rng.beta(alpha, alpha, batch_size)
    return AugDraw(
        torch.from_numpy(operations),
        torch.from_numpy(levels).float(),
        torch.from_numpy(chain_weights).float(),
        torch.from_numpy(weight).float(),
    )


def augment(
    images: Float[Tensor, "batch channel height width"],
    draw: AugDraw,
    mean: Float[Tensor, " channel"],
    std: Float[Tensor, " channel"],
) -> Float[Tensor, "batch channel height width"]:
    """``(1 - m) x + m sum_i w_i chain_i(x)`` of normalised images."""
    device = images.device
    levels, chain_weights, weight = (to_device(values, device) for values in (draw.levels, draw.chain_weights, draw.weight))
    mean, std = 255 * mean[:, None, None], 255 * std[:, None, None]
    pixels = (images.float() * std + mean).round().clamp(0, 255).to(torch.uint8)
    num_chains, num_steps = draw.operations.shape[1:]
    chains = pixels.repeat_interleave(num_chains, 0)
    for step in range(num_steps):
        operations, step_levels = draw.operations[:, :, step].flatten(), levels[:, :, step].flatten()
        for index, operation in enumerate(OPERATIONS.values()):
            rows = to_device((operations == index).nonzero()[:, 0], device)  # found on the host: nothing to wait for
            if len(rows):
                chains[rows] = operation(chains[rows], step_levels[rows])
    chains = chains.unflatten(0, (-1, num_chains)).float()
    blended = (chains * chain_weights[:, :, None, None, None]).sum(1)  # no einsum: autocast would make it bfloat16
    augmented = (blended - mean) / std
    return torch.lerp(images.float(), augmented, weight[:, None, None, None]).to(images.dtype)


def jensen_shannon(log_probabilities: Float[Tensor, "view batch classes"]) -> Float[Tensor, ""]:
    """Mean over views and images of ``KL(p | M)``, M being the views' mean."""
    log_mean = log_probabilities.logsumexp(0) - math.log(len(log_probabilities))
    return (log_probabilities.exp() * (log_probabilities - log_mean)).sum(2).mean()


Pixels = UInt8[Tensor, "batch channel height width"]
Levels = Float[Tensor, " batch"]


def autocontrast(pixels: Pixels, levels: Levels) -> Pixels:
    """Stretch each channel to 0 to 255; one of a single value stays. ``levels`` do not matter."""
    low, high = (bound[:, :, None, None].int() for bound in (pixels.flatten(2).amin(2), pixels.flatten(2).amax(2)))
    stretched = (255 * (pixels - low)).div((high - low).clamp(min=1), rounding_mode="floor")
    return torch.where(high > low, stretched, pixels).to(torch.uint8)


def equalize(pixels: Pixels, levels: Levels) -> Pixels:
    """Make each channel's histogram as flat as a table of values can, by Pillow's definition. ``levels`` do not matter."""
    values = pixels.flatten(2).long()
    histogram = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=pixels.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    brightest = histogram.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - brightest) // 255
    below = histogram.cumsum(2) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table.gather(2, values), values).to(torch.uint8).reshape(pixels.shape)


def posterize(pixels: Pixels, levels: Levels) -> Pixels:
    """Keep the 4 highest bits, fewer at high levels."""
    dropped = 4 + (levels.abs() * 4 / 10).int()[:, None, None, None]
    return pixels.int().bitwise_right_shift(dropped).bitwise_left_shift(dropped).to(torch.uint8)


def solarize(pixels: Pixels, levels: Levels) -> Pixels:
    """Invert values from a threshold on, 256 at level 0 and 0 at level 10."""
    threshold = 256 - (levels.abs() * 256 / 10).int()[:, None, None, None]
    return torch.where(pixels < threshold, pixels, 255 - pixels)


def rotate(pixels: Pixels, levels: Levels) -> Pixels:
    """Counter-clockwise about the centre, by whole degrees, 30 at level 10."""
    angle = (levels * 30 / 10).trunc().deg2rad()
    cosine, sine = angle.cos(), angle.sin()
    height, width = pixels.shape[2:]
    x, y = width / 2, height / 2
    return warp(pixels, (cosine, -sine, x - cosine * x + sine * y), (sine, cosine, y - sine * x - cosine * y))


def shear_x(pixels: Pixels, levels: Levels) -> Pixels:
    """Along x, 0.3 pixels a row at level 10."""
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    return warp(pixels, (one, levels * 0.3 / 10, zero), (zero, one, zero))


def shear_y(pixels: Pixels, levels: Levels) -> Pixels:
    """Along y, 0.3 pixels a column at level 10."""
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    return warp(pixels, (one, zero, zero), (levels * 0.3 / 10, one, zero))


def translate_x(pixels: Pixels, levels: Levels) -> Pixels:
    """By whole pixels, a third of the width at level 10."""
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    return warp(pixels, (one, zero, (levels * (pixels.shape[3] / 3) / 10).trunc()), (zero, one, zero))


def translate_y(pixels: Pixels, levels: Levels) -> Pixels:
    """By whole pixels, a third of the height at level 10."""
    one, zero = torch.ones_like(levels), torch.zeros_like(levels)
    return warp(pixels, (one, zero, zero), (zero, one, (levels * (pixels.shape[2] / 3) / 10).trunc()))


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "rotate": rotate,
    "solarize": solarize,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
"""What a chain is made of: bytes (B, C, H, W) and a signed level an image in, bytes out."""


def warp(pixels: Pixels, x: tuple[Tensor, Tensor, Tensor], y: tuple[Tensor, Tensor, Tensor]) -> Pixels:
    """Each result pixel from ``(x0 u + x1 v + x2, y0 u + y1 v + y2)``, bilinear; black where that is outside.

    ``(u, v)`` is the pixel's centre, counted from the image's corner, as in Pillow.
    """
    height, width = pixels.shape[2:]
    u, v = (torch.arange(side, dtype=torch.float32, device=pixels.device) + 0.5 for side in (width, height))
    v = v[:, None]
    columns, rows = (c[0][:, None, None] * u + c[1][:, None, None] * v + c[2][:, None, None] for c in (x, y))
    grid = torch.stack([2 * columns / width - 1, 2 * rows / height - 1], 3)
    sampled = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return (sampled * inside[:, None]).round().to(torch.uint8)
