"""From a class activation map to the box of an object: the protocol of Co-Mixup, which the paper follows, and that of Zhou et al."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from rlmix.common.names import check_name

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge; pixel x reaches from x to x + 1."""


@dataclass(frozen=True)
class Protocol:
    """How a map becomes a box."""

    enlarge: Callable[[Float[Tensor, "batch height width"], tuple[int, int]], Float[Tensor, "batch height2 width2"]]
    """The maps at the images' size."""
    box: Callable[[NDArray[np.float32], float], Box]
    """Of a map (H, W), and a threshold in (0, 1)."""
    threshold: float
    """The protocol's own."""
    meaning: str
    """What the threshold is a part of."""


def enlarge_smoothed(maps: Float[Tensor, "batch height width"], size: tuple[int, int]) -> Float[Tensor, "batch height2 width2"]:
    """Each position's sum with its eight neighbours (none beyond the border), enlarged bicubically."""
    sums = 9 * F.avg_pool2d(maps[:, None], 3, stride=1, padding=1)  # counts the padding, so that nine times the mean is the sum
    return F.interpolate(sums, size=size, mode="bicubic", align_corners=False)[:, 0]


def enlarge_plain(maps: Float[Tensor, "batch height width"], size: tuple[int, int]) -> Float[Tensor, "batch height2 width2"]:
    """Bilinearly."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def box_of_range(map: NDArray[np.float32], threshold: float = 0.25) -> Box:
    """The box around the region that encloses most, of those at or above ``threshold`` of the way from a map's minimum to its maximum.

    Corners connect, and what a region surrounds belongs to it. A map that is the same everywhere has no region: the whole image is its box.

    Args:
        map: (H, W).
        threshold: In (0, 1); Co-Mixup takes 0.25.

    Source: Kim et al. 2021, "Co-Mixup: Saliency Guided Joint Mixup with Supermodular Diversity", and its published evaluation, which rounds
    the map to 8 bits and measures a region by the polygon through its border's pixels; here it is measured in pixels.
    """
    low, high = float(map.min()), float(map.max())
    if not high > low:
        return _whole(map)
    regions, _ = ndimage.label((map - low) / (high - low) >= threshold, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(regions)
    enclosed = [int(ndimage.binary_fill_holes(regions[box] == index + 1).sum()) for index, box in enumerate(boxes)]
    return _edges(boxes[int(np.argmax(enclosed))])


def box_of(map: NDArray[np.float32], threshold: float = 0.2) -> Box:
    """The box around the largest connected region (sides touch) of a map at or above ``threshold`` times its maximum.

    A map that is nowhere above zero has no such region: the whole image is its box.

    Args:
        map: (H, W).
        threshold: In (0, 1); Zhou et al. take 0.2.

    Source: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization".
    """
    peak = float(map.max())
    if not peak > 0:
        return _whole(map)
    regions, _ = ndimage.label(map >= threshold * peak)
    largest = int(np.bincount(regions.ravel())[1:].argmax())
    return _edges(ndimage.find_objects(regions)[largest])


PROTOCOLS = {
    "comixup": Protocol(enlarge_smoothed, box_of_range, 0.25, "of the map's range"),
    "zhou": Protocol(enlarge_plain, box_of, 0.2, "of the map's maximum"),
}


def protocol_of(name: str) -> Protocol:
    """The protocol called ``name``; ValueError for an unknown one."""
    check_name("localization", name, PROTOCOLS)
    return PROTOCOLS[name]


def _whole(map: NDArray[np.float32]) -> Box:
    return 0.0, 0.0, float(map.shape[1]), float(map.shape[0])


def _edges(region: tuple[slice, ...]) -> Box:
    rows, columns = region
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)
