"""CutMix: a box of the partner pasted into every image. Its boxes serve Cutout and SaliencyMix too."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from rlmix.common.groups import check_values
from rlmix.common.ranges import above, within
from rlmix.common.transfer import to_device
from rlmix.maps.gradient import check_images
from rlmix.mixing.core import Mixed, device_of, sample_lam, sample_partner, soft_targets
from rlmix.mixing.registry import METHODS, Setting


def box_sides(lam: float, size: tuple[int, ...] | torch.Size) -> tuple[int, int]:
    """Height and width of a box that leaves about ``lam`` of an image of ``size``: ``int(side * sqrt(1 - lam))`` of either side."""
    height, width = size
    ratio = math.sqrt(1 - lam)
    return int(height * ratio), int(width * ratio)


def sample_centers(
    num_boxes: int, size: tuple[int, ...] | torch.Size, generator: torch.Generator | None = None
) -> Int[Tensor, "box 2"]:
    """Draw the pixel (row, column) at the centre of each box, every pixel of the image equally likely."""
    return torch.stack([torch.randint(side, (num_boxes,), generator=generator, device=device_of(generator)) for side in size], 1)


def box_mask(
    centers: Int[Tensor, "box 2"], sides: tuple[int, int], size: tuple[int, ...] | torch.Size
) -> Bool[Tensor, "box height width"]:
    """Where an image of ``size`` lies inside each box, clipped at its border.

    A box of ``side`` pixels begins ``side // 2`` above and left of its centre.
    """
    rows, columns = (_within(centers[:, axis], side, length) for axis, (side, length) in enumerate(zip(sides, size, strict=True)))
    return rows[:, :, None] & columns[:, None, :]


def _within(centers: Int[Tensor, " box"], side: int, length: int) -> Bool[Tensor, "box length"]:
    offset = torch.arange(length, device=centers.device) - (centers[:, None] - side // 2)
    return (offset >= 0) & (offset < side)


def paste(
    images: Float[Tensor, "batch channel height width"],
    targets: Float[Tensor, "batch classes"],
    mask: Bool[Tensor, "#batch height width"],
    partner: Int[Tensor, " batch"],
) -> Mixed:
    """Each image with the partner's pixels where ``mask`` is set, one mask for all or one an image; targets by share of pixels."""
    share = mask.float().mean((1, 2))[:, None]
    return Mixed(
        torch.where(mask[:, None], images[partner], images),
        (1 - share) * targets + share * targets[partner],
    )


@METHODS.register("cutmix")
@dataclass(frozen=True)
class CutMix:
    """Paste one box of the partner into each image: ``x[partner]`` inside the box, ``x`` outside.

    One permutation, one ``lam ~ Beta(alpha, alpha)`` and one box a batch: sides ``int(side * sqrt(1 - lam))``, a uniform centre,
    clipped at the border. A target is ``(1 - share) * y + share * y[partner]`` with the share of pixels that the clipped box has.
    A batch of one is its own partner and stays. Cost: 1 pass.

    Args:
        alpha: Parameter of the Beta distribution, > 0.
        probability: Of mixing a batch at all, in [0, 1]; the paper's is 0.5 for CIFAR, 1 for ImageNet.

    Source: Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features". The published
    code cuts ``side // 2`` pixels to both sides of the centre, which loses a row and a column of every odd box; here a box has the
    side that the equation gives.
    """

    alpha: Annotated[float, above(0)] = 1.0
    probability: Annotated[float, within(0, 1)] = 0.5

    def __post_init__(self) -> None:
        check_values(self)

    @classmethod
    def for_training(cls, setting: Setting, **hyperparameters: Any) -> "CutMix":
        """The paper's probability for ImageNet with an imagefolder."""
        return cls(**({"probability": 1.0} if setting.data == "imagefolder" else {}) | hyperparameters)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed:
        check_images(images)
        targets = soft_targets(labels, num_classes)
        if float(torch.rand((), dtype=torch.float32, generator=generator, device=device_of(generator))) >= self.probability:
            return Mixed(images, targets)
        partner = to_device(sample_partner(len(images), generator), images.device)
        sides = box_sides(sample_lam(self.alpha, generator), images.shape[2:])
        centers = self.centers(images, partner, generator)
        return paste(images, targets, box_mask(centers, sides, images.shape[2:]), partner)

    def centers(
        self,
        images: Float[Tensor, "batch channel height width"],
        partner: Int[Tensor, " batch"],
        generator: torch.Generator | None,
    ) -> Int[Tensor, "box 2"]:
        """Pixel (row, column) at the centre of the box; one row for a box that all images share, or one an image."""
        return to_device(sample_centers(1, images.shape[2:], generator), images.device)
