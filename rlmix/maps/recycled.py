"""Saliency for nothing: what the mixed step's own backward pass tells of the images in it, kept until they come again."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlmix.common.transfer import to_device
from rlmix.maps.approximate import SALIENCY_MODES, Evidence, ExactPass, Moment, SaliencySource, Surroundings
from rlmix.maps.composition import Pairs
from rlmix.maps.gradient import Saliency, gradient_map
from rlmix.maps.store import Draw, MapStore

RATE = 0.25
"""How far a map moves towards what a step has told: several steps' mean, where 1 would be the last one's noise."""
POOLED = 8
"""Patches a side of the small maps."""


MOST = 2
"""Weight of an image in a pixel, summed over the mixtures: that of a pair's two. What is more is scaled down to it."""


class Told(NamedTuple):
    """Every image's part in the mixtures that it was in, in the batch's frame."""

    total: Float[Tensor, "batch height width"]
    """Of the mixtures' gradient maps, each of mean 1, times the image's weight in them."""
    weight: Float[Tensor, "batch height width"]
    """Of the image in all of them, 0 to 2 a pixel."""
    logits: Float[Tensor, "batch classes"]
    """Of the mixture in which the image has the largest share; nan where it is in none, or the step was not finite."""


def read_evidence(evidence: Evidence) -> Told:
    """Share every mixture's gradient map out to the images in it, by their weights pixel by pixel.

    With G the mixture's map scaled to mean 1, and w the weight of an image in it, the image is told ``w G``
    (:class:`~rlmix.maps.composition.Composition`). A mixture whose gradient is nothing, or not finite, tells nothing of any.
    """
    gradient, logits, made, finite = evidence
    map = gradient_map(gradient)
    mean = map.mean((1, 2), keepdim=True)
    known = mean.isfinite() & (mean > 0)
    if finite is not None:
        known = known & finite
        logits = torch.where(finite, logits, float("nan"))
    total = made.share_out(torch.where(known, map / mean, 0.0))
    weight = made.share_out(known.to(map.dtype).expand_as(map))
    less = MOST / weight.clamp(min=MOST)
    return Told(less * total, less * weight, made.of_largest(logits, map.shape[1:]))


def recycle(
    map: Float[Tensor, "batch rows columns"],
    total: Float[Tensor, "batch rows columns"],
    weight: Float[Tensor, "batch rows columns"],
    rate: float = RATE,
) -> Float[Tensor, "batch rows columns"]:
    """Move maps towards what was told of them: ``map + rate (total - weight map)``; where nothing was, they stay.

    Args:
        map: Kept so far.
        total: As of :class:`Told`, in the map's frame.
        weight: Likewise.
        rate: In (0, 1/2], for a weight is up to 2.
    """
    return map + rate * (total - weight * map)


class RecycledMaps:
    """Maps for :class:`rlmix.RMix` in a loop of one's own, which then needs no saliency pass.

    After ``loss.backward()`` a call of :meth:`learn` takes in what the step has told of its images. Of several processes each keeps maps of
    its own until ``store.exchange()``, which all of them may call at an epoch's end.

    Args:
        num_images: In the training set.
        image_size: Height and width of a batch's images.
        padding: By which crops are padded, where they are named (:class:`~rlmix.data.augmentation.CropFlip`).
        pooled: Patches a side that are kept, for large sets; every pixel where None.
        rate: How far a map moves towards what a step has told, in (0, 1/2].
        device: Where the maps lie.

    Raises:
        ValueError: If ``rate`` is out of range, or there is no memory for so many maps.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from rlmix import RecycledMaps, RMix
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        >>> maps = RecycledMaps(num_images=100, image_size=(16, 16))
        >>> mixed = RMix(recycle=maps, num_classes=5)(model, torch.rand(4, 3, 16, 16), torch.arange(4), indices=torch.arange(4))
        >>> nn.functional.cross_entropy(model(mixed.images), mixed.targets).backward()
        >>> maps.learn(mixed.images.grad)
    """

    def __init__(
        self,
        num_images: int,
        image_size: tuple[int, int],
        *,
        padding: int = 0,
        pooled: int | None = None,
        rate: float = RATE,
        device: str | torch.device = "cpu",
    ) -> None:
        if not 0 < rate <= 0.5:
            raise ValueError(f"rate must be in (0, 1/2], got {rate}")
        self.rate = rate
        self.store = MapStore(num_images, image_size, 0, padding, torch.device(device), pooled)
        self._waiting: tuple[Tensor, Draw | None, Tensor, Tensor] | None = None

    def seen(
        self, images: Tensor, indices: Int[Tensor, " batch"] | None, draw: Draw | None
    ) -> Float[Tensor, "batch height width"]:
        """Give the maps of a batch.

        Raises:
            ValueError: If the indices are missing, or none of the training set's, or the images have another size.
        """
        if not isinstance(indices, Tensor) or indices.shape != (len(images),) or indices.is_floating_point():
            found = tuple(indices.shape) if isinstance(indices, Tensor) else indices
            raise ValueError(f"indices must be integers of shape ({len(images)},) under recycle, one an image, got {found}")
        size = tuple(images.shape[2:])
        if size != tuple(self.store.image_size):
            raise ValueError(f"images must have the recycled maps' size {self.store.image_size}, got {size}")
        number = len(self.store.maps)
        if indices.device.type == "cpu" and not bool(((indices >= 0) & (indices < number)).all()):
            raise ValueError(f"indices must be in [0, {number}), got {indices.min()} to {indices.max()}")
        return self.store.seen(to_device(indices, self.store.maps.device), draw)

    def expect(self, indices: Tensor, draw: Draw | None, weights: Tensor, partner: Tensor) -> None:
        """Remember how a batch was mixed, until :meth:`learn`."""
        self._waiting = to_device(indices, self.store.maps.device), draw, weights.detach(), partner

    def learn(self, gradient: Float[Tensor, "batch channel height width"] | None) -> None:
        """Take in the gradient of the loss with respect to the mixed images of the last batch; one that is not finite tells nothing.

        Args:
            gradient: ``mixed.images.grad`` after the backward pass, or it times any constant.

        Raises:
            RuntimeError: If no batch waits, or there has been no backward pass.
        """
        if self._waiting is None or gradient is None:
            missing = "a call of RMix(recycle=...)" if self._waiting is None else "loss.backward()"
            raise RuntimeError(f"learn() must follow {missing}")
        (places, draw, weights, partner), self._waiting = self._waiting, None
        device = self.store.maps.device
        nothing = torch.empty(len(places), 0, device=device)
        evidence = Evidence(gradient.to(device), nothing, Pairs(weights.to(device), partner.to(device)))
        learn(self.store, evidence, places, draw, self.rate)

    def state_dict(self) -> dict[str, Any]:
        """Give the maps."""
        return self.store.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what was remembered; ValueError where those are maps of other images."""
        self.store.load_state_dict(state)
        self._waiting = None


def learn(store: MapStore, evidence: Evidence, places: Int[Tensor, " batch"], draw: Draw | None, rate: float = RATE) -> None:
    """Take a step's evidence into the maps of a store."""
    told = read_evidence(evidence)
    maps = recycle(store.map(places), store.found(told.total, draw), store.found(told.weight, draw), rate)
    before = store.logits[places]
    store.put(places, maps, torch.where(told.logits.isfinite().all(1, keepdim=True), told.logits.float(), before))


@SALIENCY_MODES.register("recycled")
class Recycled(SaliencySource):
    """No pass of its own: maps are made of the mixed steps' gradients, and kept from epoch to epoch, two bytes a pixel and four a class.

    A mixed step's backward pass gives the gradient at the mixed images for the price of the first layer's. Each image keeps a map in its
    own frame, even at the start, which :func:`recycle` moves towards what the mixtures have told that it was in; its logits are those of
    the last one.
    """

    learns = True
    pooled: int | None = None

    def __init__(self, setting: Surroundings) -> None:
        super().__init__(setting)
        self.store = setting.store(self.pooled)

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        places, draw = moment.whose("recycled")
        if moment.batch == 1:
            self.store.exchange()
        return Saliency(self.store.seen(places, draw), self.store.logits[places])

    def learn(self, evidence: Evidence, moment: Moment) -> None:
        learn(self.store, evidence, *moment.whose("recycled"))

    def state_dict(self) -> dict[str, Any]:
        return self.store.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what was remembered."""
        self.store.load_state_dict(state)


@SALIENCY_MODES.register("recycled_8x8")
class RecycledPatches(Recycled):
    """The same in 8x8 patches, 128 bytes an image beside its logits: for many or large images."""

    pooled = POOLED
