"""Cheaper saliency, by name: stand-ins for the exact map of every step. What each costs in fidelity: docs/performance.md."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlmix.common.ranks import Ranks
from rlmix.common.registry import Registry
from rlmix.maps.composition import Composition
from rlmix.maps.gradient import Saliency
from rlmix.maps.store import Draw, MapStore

ExactPass = Callable[[Tensor, Tensor], Saliency]
"""The exact pass: images and labels to their saliency."""


class Moment(NamedTuple):
    """When a map is wanted, and of which images."""

    epoch: int
    """From 1."""
    batch: int
    """Of the epoch, from 1."""
    places: Int[Tensor, " batch"] | None = None
    """In the training split; None where the data set does not say."""
    draw: Draw | None = None
    """How they were cropped and mirrored."""

    def whose(self, mode: str) -> tuple[Int[Tensor, " batch"], Draw]:
        """Give places and draw; ValueError, for the mode of this name, where the data set does not say."""
        if self.places is None or self.draw is None:
            raise ValueError(f"saliency_mode {mode} needs data that say which images a batch holds, and how they were cropped")
        return self.places, self.draw


class Evidence(NamedTuple):
    """What a step on mixed images has told of those that were mixed."""

    gradient: Float[Tensor, "batch channel height width"]
    """Of the loss with respect to the mixed images, times any constant."""
    logits: Float[Tensor, "batch classes"]
    """Of the mixed images."""
    made: Composition
    """Of what they are made."""
    finite: Bool[Tensor, ""] | None = None
    """Whether the step was; None where that is known."""


class Surroundings(NamedTuple):
    """What a source of maps may need to know of the training."""

    num_images: int
    """Of the training split."""
    image_size: tuple[int, int]
    num_classes: int
    crop_padding: int
    device: torch.device
    ranks: Ranks
    """Each process sees a part of every batch."""
    seed: int
    """Of what is drawn."""

    def store(self, pooled: int | None = None, start: float = 1.0) -> MapStore:
        """Make a store of maps for the training's images; arguments and errors as of :class:`~rlmix.maps.store.MapStore`."""
        sizes = (self.num_images, self.image_size, self.num_classes, self.crop_padding)
        return MapStore(*sizes, self.device, pooled, self.ranks, start)


SALIENCY_MODES: Registry["Callable[[Surroundings], SaliencySource]"] = Registry(
    "saliency_mode", homes=tuple(f"rlmix.maps.{name}" for name in ("approximate", "recycled", "controls"))
)


@SALIENCY_MODES.register("exact")
class SaliencySource:
    """The exact map, in every step; the other sources stand in for it."""

    learns = False
    """Whether :meth:`learn` is to be told what every step has found, for which the gradient at the mixed images is taken."""

    def __init__(self, setting: Surroundings) -> None:
        self.setting = setting

    def __call__(
        self,
        look: ExactPass,
        images: Float[Tensor, "batch channel height width"],
        labels: Int[Tensor, " batch"],
        moment: Moment,
    ) -> Saliency:
        return look(images, labels)

    def learn(self, evidence: Evidence, moment: Moment) -> None:
        """Nothing to learn of a step on the batch that was drawn at ``moment``."""

    def unknown(self, images: Tensor) -> Saliency:
        """Where nothing is known: a map of zeros, which :func:`rlmix.patch_saliency` makes uniform, and equal logits."""
        map = torch.zeros(len(images), *images.shape[2:], device=images.device)
        return Saliency(map, torch.zeros(len(images), self.setting.num_classes, device=images.device))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


@SALIENCY_MODES.register("bfloat16")
class Bfloat16(SaliencySource):
    """The pass under bfloat16 autocast, whatever the training's own precision."""

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        with torch.autocast(images.device.type, torch.bfloat16):
            return look(images, labels)


@SALIENCY_MODES.register("half")
class HalfResolution(SaliencySource):
    """The pass on images of half the height and width, a quarter of the work; a value of the map stands for 2x2 pixels.

    Of an odd side the last row or column stands alone.
    """

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        height, width = images.shape[2:]
        map, logits = look(F.avg_pool2d(images, 2, ceil_mode=True), labels)
        return Saliency(map.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width], logits)


@SALIENCY_MODES.register("alternate")
class EveryOtherStep(SaliencySource):
    """The exact map in every other step. Between them all maps are uniform, and R-Mix is Input Mix-up."""

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        return look(images, labels) if moment.batch % 2 else self.unknown(images)


@SALIENCY_MODES.register("previous")
class PreviousEpoch(SaliencySource):
    """The exact map in odd epochs; in even ones the previous epoch's map of the same image, moved with its crop and flip.

    Maps are kept in the frame of the image before augmentation (:class:`~rlmix.maps.store.MapStore`). What a crop had left out, or brings
    in anew, is zero. An image of which there is no map yet has an even one.
    """

    def __init__(self, setting: Surroundings) -> None:
        super().__init__(setting)
        self.store = setting.store(start=0.0)

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        places, draw = moment.whose("previous")
        if moment.batch == 1:
            self.store.exchange()
        if moment.epoch % 2 == 0:
            return Saliency(self.store.seen(places, draw), self.store.logits[places])
        saliency = look(images, labels)
        scaled = saliency.map / saliency.map.mean((1, 2), keepdim=True)
        self.store.put(places, self.store.found(scaled.nan_to_num(), draw), saliency.logits)
        return saliency

    def state_dict(self) -> dict[str, Any]:
        return self.store.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what was remembered."""
        self.store.load_state_dict(state)


def build_source(mode: str, setting: Surroundings) -> SaliencySource:
    """The source called ``mode``; ValueError for an unknown one, or one that cannot serve such images."""
    return SALIENCY_MODES[mode](setting)
