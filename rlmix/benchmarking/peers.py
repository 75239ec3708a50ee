"""Other people's mix-up, beside which ours is timed: each a method of the mixing protocol, in the training loop that ours has.

What they draw comes from the global random states, as in the packages; only published R-Mix takes a generator.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torchvision.transforms import v2

from rlmix.common.registry import Registry
from rlmix.mixing.core import Mixed, sample_pairing, sample_top_k, soft_targets
from rlmix.mixing.objective import Method
from rlmix.option_groups import MASK_PATCHES

PEERS: Registry[Callable[[int], Method]] = Registry("peer")
"""Functions of the number of classes. Traits: ``package``, what must be installed beyond rlmix's own dependencies, or None; ``ours``, our
own method of the same kind."""
ALIKE = {"cutmix": {"probability": 1.0}}
"""Hyperparameters of ours beside peers: those mix every batch."""


def missing_package(peer: str) -> str | None:
    """The package that a peer needs and that is not installed, or None."""
    package = PEERS.entry(peer).traits["package"]
    return None if package is None or find_spec(package) else package


def check_installed(peer: str) -> None:
    """Raise ValueError where a peer's package is not installed."""
    package = missing_package(peer)
    if package is not None:
        raise ValueError(f"methods must leave out {peer}, for {_install(package)}")


def with_peers(methods: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """Give ``methods``, our own of every kind that peers are of, and the peers; and a line for each package that is not installed."""
    missing: dict[str, list[str]] = {}
    found: list[str] = []
    for peer in PEERS:
        package = missing_package(peer)
        if package is None:
            found.append(peer)
        else:
            missing.setdefault(package, []).append(peer)
    ours = [PEERS.entry(peer).traits["ours"] for peer in found]
    notices = [f"left out: {' and '.join(peers)}, for {_install(package)}" for package, peers in missing.items()]
    return tuple(dict.fromkeys((*methods, *ours, *found))), notices


def _install(package: str) -> str:
    return f'{package} is not installed: pip install {package}, or "rlmix[peers]"'


@dataclass(frozen=True)
class Transform:
    """A package's transform of batches as a method."""

    transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """Of images, which it may change, and targets."""
    soft: bool = False
    """Whether it takes soft targets and no labels."""

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed:
        return Mixed(*self.transform(images, soft_targets(labels, num_classes) if self.soft else labels))


@PEERS.register("torchvision-mixup", package=None, ours="input_mixup")
def torchvision_mixup(num_classes: int) -> Method:
    """torchvision.transforms.v2.MixUp."""
    return Transform(v2.MixUp(alpha=1.0, num_classes=num_classes))


@PEERS.register("torchvision-cutmix", package=None, ours="cutmix")
def torchvision_cutmix(num_classes: int) -> Method:
    """torchvision.transforms.v2.CutMix."""
    return Transform(v2.CutMix(alpha=1.0, num_classes=num_classes))


@PEERS.register("timm-mixup", package="timm", ours="input_mixup")
def timm_mixup(num_classes: int) -> Method:
    """timm.data.Mixup, mixing whole images."""
    return _timm("timm-mixup", num_classes, mixup_alpha=1.0, cutmix_alpha=0.0)


@PEERS.register("timm-cutmix", package="timm", ours="cutmix")
def timm_cutmix(num_classes: int) -> Method:
    """timm.data.Mixup, pasting boxes."""
    return _timm("timm-cutmix", num_classes, mixup_alpha=0.0, cutmix_alpha=1.0)


def _timm(name: str, num_classes: int, **alphas: float) -> Method:
    from timm.data import Mixup

    mixup = Mixup(label_smoothing=0.0, num_classes=num_classes, **alphas)

    def transform(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if len(images) % 2:  # image i is mixed with the i-th from behind
            raise ValueError(f"batch_size must be even with {name}, got {len(images)}")
        mixed: tuple[Tensor, Tensor] = mixup(images, labels)
        return mixed

    return Transform(transform)


@PEERS.register("mixup-mixup", package="mixup", ours="input_mixup")
def mixup_mixup(num_classes: int) -> Method:
    """VanillaMixUp of the package mixup."""
    import mixup

    return Transform(mixup.VanillaMixUp(alpha=1.0), soft=True)


@PEERS.register("mixup-cutmix", package="mixup", ours="cutmix")
def mixup_cutmix(num_classes: int) -> Method:
    """CutMix of the package mixup."""
    import mixup

    return Transform(mixup.CutMix(alpha=1.0), soft=True)


@PEERS.register("rmix-published", package=None, ours="rmix")
def published_rmix(num_classes: int) -> Method:
    """R-Mix as its authors compute it."""
    return PublishedRMix()


@dataclass(frozen=True)
class PublishedRMix:
    """R-Mix as its authors compute it: a whole ``loss.backward()`` for the map, whose weights' gradients nobody reads.

    The clean pass counts in the running statistics of batch norms, every image's map is cut at every image's quantile, and masks are
    compared pixel by pixel.

    Args:
        num_patches: Patches per side of the masks, one drawn a batch; each divides the image's sides.
        alpha: Parameter of ``lam ~ Beta(alpha, alpha)``, > 0.

    Source: the code of "Expeditious Saliency-guided Mix-up through Random Gradient Thresholding" (Luu et al. 2022).
    """

    num_patches: tuple[int, ...] = MASK_PATCHES
    alpha: float = 1.0

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed:
        gradient = whole_backward(model, images, labels)
        pairing = sample_pairing(len(images), self.num_patches, self.alpha, generator)
        partner = pairing.partner.to(images.device)
        top_k = sample_top_k(len(images), 10, generator).to(images.device)
        mask = F.interpolate(published_mask(gradient, pairing.num_patches, top_k)[:, None].float(), size=images.shape[2:])
        theirs = mask[partner]
        same = (mask == theirs).float()
        blended = pairing.lam * images + (1 - pairing.lam) * images[partner]
        mixed = same * blended + (1 - same) * (mask * images + theirs * images[partner])
        both, own = same.mean((1, 2, 3))[:, None], ((1 - same) * mask).mean((1, 2, 3))[:, None]
        share = own + both * pairing.lam
        targets = soft_targets(labels, num_classes)
        return Mixed(mixed.to(images.dtype), share * targets + (1 - share) * targets[partner])


def whole_backward(
    model: nn.Module, images: Float[Tensor, "batch channel height width"], labels: Shaped[Tensor, "batch *classes"]
) -> Float[Tensor, "batch channel height width"]:
    """The loss's gradient with respect to the images, by a backward pass that computes every weight's too, which are thrown away."""
    inputs = images.detach().clone().requires_grad_()
    model.zero_grad()
    F.cross_entropy(model(inputs).float(), labels).backward()
    model.zero_grad()
    assert inputs.grad is not None
    return inputs.grad


def published_mask(
    gradient: Float[Tensor, "batch channel height width"], num_patches: int, top_k: Float[Tensor, " batch"]
) -> Bool[Tensor, "batch patch patch"]:
    """Salient patches: the quantiles of every image at every ``top_k``, of which each image's own is taken."""
    maps = gradient.float().square().mean(1).sqrt()
    pooled = F.avg_pool2d(maps, maps.shape[-1] // num_patches)
    patches = pooled / pooled.sum((1, 2), keepdim=True)
    return patches >= torch.quantile(patches.flatten(1), top_k, dim=1).diagonal()[:, None, None]
