"""Cheaper saliency, by name: stand-ins for the exact map of every step. What each costs in fidelity: docs/performance.md."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rlmix.common.registry import Registry
from rlmix.data.augmentation import CropFlip, crop_flip, inverse
from rlmix.maps.gradient import Saliency

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
    draw: CropFlip | None = None
    """How they were cropped and mirrored."""


class Surroundings(NamedTuple):
    """What a source of maps may need to know of the training."""

    num_images: int | None
    """Of the training split; None where this process does not see all of them."""
    image_size: tuple[int, int]
    num_classes: int
    crop_padding: int
    device: torch.device


SALIENCY_MODES: Registry["Callable[[Surroundings], SaliencySource]"] = Registry("saliency_mode")


@SALIENCY_MODES.register("exact")
class SaliencySource:
    """The exact map, in every step; the other sources stand in for it."""

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

    Maps are kept in float16, scaled to mean 1, in the frame of the image before augmentation: two bytes a pixel of the training split.
    What a crop had left out, or brings in anew, is zero. An image of which there is no map yet has a uniform one.
    """

    def __init__(self, setting: Surroundings) -> None:
        super().__init__(setting)
        if setting.num_images is None:
            raise ValueError("saliency_mode previous must be used on one device, as each sees other images in every epoch")
        self.maps = torch.zeros(setting.num_images, *setting.image_size, dtype=torch.float16, device=setting.device)
        self.logits = torch.zeros(setting.num_images, setting.num_classes, device=setting.device)

    def __call__(self, look: ExactPass, images: Tensor, labels: Tensor, moment: Moment) -> Saliency:
        places, draw = moment.places, moment.draw
        if places is None or draw is None:
            raise ValueError("saliency_mode previous needs a data set in memory, got a folder that is decoded as it is read")
        if moment.epoch % 2 == 0:
            return Saliency(self._move(self.maps[places].float(), draw), self.logits[places])
        saliency = look(images, labels)
        scaled = saliency.map / saliency.map.mean((1, 2), keepdim=True)
        padding = self.setting.crop_padding
        self.maps[places] = self._move(scaled.nan_to_num(), inverse(draw, padding)).half()
        self.logits[places] = saliency.logits
        return saliency

    def _move(self, maps: Float[Tensor, "batch height width"], draw: CropFlip) -> Float[Tensor, "batch height width"]:
        return crop_flip(maps[..., None], draw, self.setting.crop_padding)[..., 0]

    def state_dict(self) -> dict[str, Any]:
        return {"maps": self.maps, "logits": self.logits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what was remembered."""
        self.maps.copy_(state["maps"])
        self.logits.copy_(state["logits"])


def build_source(mode: str, setting: Surroundings) -> SaliencySource:
    """The source called ``mode``; ValueError for an unknown one, or one that cannot serve such images."""
    return SALIENCY_MODES[mode](setting)
