"""How images are cut into patches: p a side, whatever the size; and what a patch is to its pixels."""

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

Size = tuple[int, ...] | torch.Size
"""Height and width in pixels."""


def patch_sides(length: int, num_patches: int) -> list[int]:
    """Pixels of each patch along a side of ``length``: patch i begins at ``floor(i * length / p)``, so they differ by one at most."""
    edges = [index * length // num_patches for index in range(num_patches + 1)]
    return [stop - start for start, stop in pairwise(edges)]


def check_patches(num_patches: int | Iterable[int], size: Size) -> None:
    """Raise ValueError where an image of ``size`` has fewer pixels a side than there are to be patches."""
    counts = [num_patches] if isinstance(num_patches, int) else list(num_patches)
    wrong = [count for count in counts if not 1 <= count <= min(size)]
    if wrong:
        raise ValueError(
            f"num_patches must be in [1, {min(size)}] where images have {size[0]}x{size[1]} pixels, got {_listed(wrong)}"
        )


def check_dividing(num_patches: int | Iterable[int], size: Size, owner: str) -> None:
    """Raise ValueError where the patches of ``owner``, which must all be alike, do not divide the image size."""
    counts = [num_patches] if isinstance(num_patches, int) else list(num_patches)
    wrong = [count for count in counts if any(side % count for side in size)]
    if wrong:
        raise ValueError(f"num_patches must divide the image size {size[0]}x{size[1]} under {owner}, got {_listed(wrong)}")


def pool(map: Float[Tensor, "batch height width"], num_patches: int) -> Float[Tensor, "batch patch patch"]:
    """The mean over each patch's own pixels, float32.

    Raises:
        ValueError: If there are more patches than pixels a side.
    """
    height, width = map.shape[1:]
    check_patches(num_patches, (height, width))
    if height % num_patches == 0 == width % num_patches:
        return F.avg_pool2d(map.float()[:, None], (height // num_patches, width // num_patches))[:, 0]
    rows = map.float().split(patch_sides(height, num_patches), 1)  # adaptive pooling's windows would overlap
    columns = torch.stack([row.mean(1) for row in rows], 1).split(patch_sides(width, num_patches), 2)
    return torch.stack([column.mean(2) for column in columns], 2)


def enlarge(patches: Shaped[Tensor, "batch patch patch"], size: Size) -> Shaped[Tensor, "batch height width"]:
    """Repeat every patch over the pixels it covers."""
    num_patches = patches.shape[1]
    height, width = size
    if height % num_patches == 0 == width % num_patches:
        tiles = patches[:, :, None, :, None].expand(-1, -1, height // num_patches, -1, width // num_patches)
        return tiles.reshape(-1, height, width)
    rows, columns = (_patch_of_pixel(length, num_patches, patches.device) for length in (height, width))
    return patches[:, rows[:, None], columns]


def pixel_share(weights: Float[Tensor, "batch patch patch"], size: Size) -> Float[Tensor, " batch"]:
    """Mean over the pixels of an image whose patches have these weights."""
    num_patches = weights.shape[1]
    height, width = size
    if height % num_patches == 0 == width % num_patches:
        return weights.mean((1, 2))
    down, across = (_edges(length, num_patches, weights.device).diff().to(weights.dtype) for length in (height, width))
    return (weights * (down[:, None] * across)).sum((1, 2)) / (height * width)


def _edges(length: int, num_patches: int, device: torch.device) -> Tensor:
    """Of :func:`patch_sides`, computed there: a copy from the host would wait for the device."""
    return (torch.arange(num_patches + 1, device=device) * length).div(num_patches, rounding_mode="floor")


def _patch_of_pixel(length: int, num_patches: int, device: torch.device) -> Tensor:
    """Index of the patch in which each pixel lies: pixel y is in patch i where ``i * length < (y + 1) * p`` last holds."""
    return ((torch.arange(length, device=device) + 1) * num_patches - 1).div(length, rounding_mode="floor")


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
