"""Maps that are kept between epochs, each in its own image's frame, and moved there and back with the augmentation."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rlmix.common.memory import free_memory
from rlmix.common.ranks import Ranks
from rlmix.data.augmentation import CropFlip, ResizedCrop, crop_flip, inverse
from rlmix.maps.patches import enlarge, pool

Draw = CropFlip | ResizedCrop
"""How a batch's images were cut from their own."""

FINE = 4
"""Points a side of a kept map's pixel at which a crop is looked up."""


def to_batch(
    maps: Float[Tensor, "batch rows columns"], draw: Draw | None, padding: int, size: tuple[int, int]
) -> Float[Tensor, "batch height width"]:
    """Move maps from their images' frames into the batch's: what a crop brings in anew is zero.

    Args:
        maps: Of the images as they were before augmentation; coarser than these, if square and of patches.
        draw: How the batch was augmented; None where it was not.
        padding: By which crops were padded.
        size: Of the batch's images.
    """
    if isinstance(draw, ResizedCrop):
        return F.grid_sample(maps[:, None], _points(draw, size), mode="bilinear", padding_mode="border", align_corners=False)[
            :, 0
        ]
    if tuple(maps.shape[1:]) != size:
        maps = enlarge(maps, size)
    return maps if draw is None else crop_flip(maps[..., None], draw, padding)[..., 0]


def to_images(
    maps: Float[Tensor, "batch height width"], draw: Draw | None, padding: int, size: tuple[int, int]
) -> Float[Tensor, "batch rows columns"]:
    """Move maps from the batch's frame back into their images': what the crop had left out is zero.

    Args:
        maps: Of the batch's images.
        draw: As of :func:`to_batch`.
        padding: As of :func:`to_batch`.
        size: Of the kept maps.
    """
    if isinstance(draw, ResizedCrop):
        fine = (FINE * size[0], FINE * size[1])
        coarse = F.adaptive_avg_pool2d(maps[:, None], fine) if maps.shape[1] > fine[0] else maps[:, None]
        found = F.grid_sample(coarse, _points_back(draw, fine), mode="bilinear", padding_mode="zeros", align_corners=False)
        return F.avg_pool2d(found, FINE)[:, 0]
    if draw is not None:
        maps = crop_flip(maps[..., None], inverse(draw, padding), padding)[..., 0]
    return maps if tuple(maps.shape[1:]) == size else pool(maps, size[0])


class MapStore:
    """A map and the logits of every training image, by its place.

    Maps are scaled to mean 1 and kept in float16, two bytes a pixel of the training split, or of ``pooled`` patches a side of each image;
    logits in float32, four bytes a class. Even maps, as they are at the start, say nothing. Of several processes each sees a part of every
    epoch's images: at :meth:`exchange` they tell each other what is new.

    Args:
        num_images: In the training split.
        image_size: Height and width of a batch's images.
        num_classes: Logits an image.
        padding: By which crops are padded.
        device: Where the maps lie.
        pooled: Patches a side; every pixel where None.
        ranks: The processes that train together.
        start: Value of all maps at first, at least 0.

    Raises:
        ValueError: If there is no memory for so many maps.
    """

    def __init__(
        self,
        num_images: int,
        image_size: tuple[int, int],
        num_classes: int,
        padding: int,
        device: torch.device,
        pooled: int | None = None,
        ranks: Ranks | None = None,
        start: float = 1.0,
    ) -> None:
        self.image_size, self.padding, self.ranks = image_size, padding, ranks or Ranks()
        self.size = image_size if pooled is None else (pooled, pooled)
        free = free_memory(device)
        needed, small = (num_images * (2 * rows * columns + 4 * num_classes) for rows, columns in (self.size, (8, 8)))
        if free is not None and needed > free:
            raise ValueError(
                f"saliency maps and logits of {num_images} images must fit into memory: {needed / 1e9:.1f} GB in "
                f"{self.size[0]}x{self.size[1]} pixels, {free / 1e9:.1f} GB are free; saliency_mode recycled_8x8 takes {small / 1e9:.1f} GB"
            )
        self.maps = torch.full((num_images, *self.size), start, dtype=torch.float16, device=device)
        self.logits = torch.zeros(num_images, num_classes, device=device)
        self._new = torch.zeros(num_images, dtype=torch.bool, device=device)

    def map(self, places: Int[Tensor, " batch"]) -> Float[Tensor, "batch rows columns"]:
        """Give the maps of images, in their own frame, float32."""
        return self.maps[places].float()

    def seen(self, places: Int[Tensor, " batch"], draw: Draw | None) -> Float[Tensor, "batch height width"]:
        """Give the maps of images, in the frame of a batch that was drawn so."""
        return to_batch(self.map(places), draw, self.padding, self.image_size)

    def found(self, maps: Float[Tensor, "batch height width"], draw: Draw | None) -> Float[Tensor, "batch rows columns"]:
        """Move a batch's maps into their images' frames."""
        return to_images(maps, draw, self.padding, self.size)

    def put(
        self, places: Int[Tensor, " batch"], maps: Float[Tensor, "batch rows columns"], logits: Float[Tensor, "batch classes"]
    ) -> None:
        """Keep maps, in their images' frames, and logits."""
        self.maps[places] = maps.half()
        self.logits[places] = logits.to(self.logits.dtype)
        self._new[places] = True

    def exchange(self) -> None:
        """Learn what other processes have put since the last time; by all alike, before any image is put a second time.

        Of an image that several have put, such as those by which ``DistributedSampler`` fills up, they keep the mean.
        """
        if self.ranks.size > 1:
            for kept in (self.maps, self.logits):
                rows = self._new.reshape(-1, *[1] * (kept.ndim - 1))
                whole = self.ranks.gather(torch.where(rows, kept, 0)).sum(0, dtype=torch.float32).to(kept.device)
                times = self.ranks.gather(self._new).sum(0).to(kept.device).reshape(rows.shape)
                kept.copy_(torch.where(times > 0, whole / times.clamp(min=1), kept))
            self._new.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Give everything that changes; by all processes alike."""
        self.exchange()
        return {"maps": self.maps, "logits": self.logits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what was remembered.

        Raises:
            ValueError: If those are maps of other images.
        """
        for name, kept in (("maps", self.maps), ("logits", self.logits)):
            if state[name].shape != kept.shape:
                raise ValueError(
                    f"{name} must have shape {tuple(kept.shape)}, as the images here, got {tuple(state[name].shape)}"
                )
            kept.copy_(state[name])
        self._new.zero_()


def _points(draw: ResizedCrop, size: tuple[int, int]) -> Float[Tensor, "batch height width 2"]:
    """Where each pixel of a crop lies in its image, which reaches from -1 to 1."""
    down, across = (_centres(length, draw.top) for length in size)
    across = torch.where(draw.mirror[:, None], 1 - across, across)
    rows = 2 * (draw.top[:, None] + draw.height[:, None] * down) - 1
    columns = 2 * (draw.left[:, None] + draw.width[:, None] * across) - 1
    return _grid(rows, columns)


def _points_back(draw: ResizedCrop, size: tuple[int, int]) -> Float[Tensor, "batch height width 2"]:
    """Where each of ``size`` points of an image lies in its crop, which reaches from -1 to 1."""
    down, across = (_centres(length, draw.top) for length in size)
    rows = 2 * (down - draw.top[:, None]) / draw.height[:, None] - 1
    columns = 2 * (across - draw.left[:, None]) / draw.width[:, None] - 1
    return _grid(rows, torch.where(draw.mirror[:, None], -columns, columns))


def _centres(length: int, like: Tensor) -> Float[Tensor, "1 length"]:
    return ((torch.arange(length, device=like.device) + 0.5) / length)[None]


def _grid(rows: Float[Tensor, "batch height"], columns: Float[Tensor, "batch width"]) -> Float[Tensor, "batch height width 2"]:
    shape = (len(rows), rows.shape[1], columns.shape[1])
    return torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1)
