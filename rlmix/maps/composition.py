"""Of what the mixtures of a batch are made, and so what a map of theirs tells of the images in them."""

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlmix.maps.patches import Size, enlarge, pixel_share


class Composition(Protocol):
    """How much of each pixel of every mixture is whose: a linear map of the images to the mixtures, of which this is the transpose."""

    def share_out(self, maps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
        """Give each image the mixtures' maps, times its weight in them, at the pixels that are shown there; a sum over the mixtures."""
        ...

    def of_largest(self, rows: Float[Tensor, "batch columns"], size: Size) -> Float[Tensor, "batch columns"]:
        """Give each image the row of the mixture in which it has the largest share of the pixels; nan where it is in none."""
        ...


class Pairs(NamedTuple):
    """Each image and one partner, patch by patch, either as it is or its patches moved."""

    weights: Float[Tensor, "batch patch patch"]
    """How much of each patch is the image's own, in [0, 1]; the rest is its partner's."""
    partner: Int[Tensor, " batch"]
    """A permutation."""
    source: Int[Tensor, "2 batch blocks"] | None = None
    """Which patch of the image, and of its partner, comes to each place, numbered row by row; None where none moves. Of the places that
    show an image no two have the same patch. The patches must divide the image then."""

    def share_out(self, maps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
        """See :class:`Composition`: ``w G`` for an image that leads a mixture, ``(1 - w) G`` for its partner.

        What has moved is moved back. A patch of an image that shows nowhere in a mixture is told nothing by it: its weight is 0.
        """
        size = maps.shape[1:]
        own, theirs = (enlarge(part, size) * maps for part in (self.weights, 1 - self.weights))
        if self.source is not None:
            own = move_back(own, self.source[0], self.weights > 0)
            theirs = move_back(theirs, self.source[1], self.weights < 1)
        return own + theirs[self.partner.argsort()]

    def of_largest(self, rows: Float[Tensor, "batch columns"], size: Size) -> Float[Tensor, "batch columns"]:
        """See :class:`Composition`; of two alike the one that it leads."""
        share, host = pixel_share(self.weights, size), self.partner.argsort()
        leads = share >= 1 - share[host]
        return torch.where(leads[:, None], rows, rows[host])


class Collage(NamedTuple):
    """In each patch the mean of two images of the batch, at the same place; any number of images a mixture."""

    sources: Int[Tensor, "batch patch patch 2"]
    """The two, or one twice; the patches divide the image."""

    @property
    def weights(self) -> Float[Tensor, "batch images patch patch"]:
        """How much of each patch of a mixture is each image's: 0, 1/2 or 1."""
        images = torch.arange(len(self.sources), device=self.sources.device)[:, None, None, None]
        return (self.sources[:, None] == images).float().mean(4)

    def share_out(self, maps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
        """See :class:`Composition`."""
        num_patches = self.sources.shape[1]
        of_patch = self.weights.flatten(2).permute(2, 1, 0)
        shared = of_patch @ _to_tiles(maps, num_patches).transpose(0, 1)
        return _from_tiles(shared.transpose(0, 1), num_patches, maps.shape[1:])

    def of_largest(self, rows: Float[Tensor, "batch columns"], size: Size) -> Float[Tensor, "batch columns"]:
        """See :class:`Composition`; of several alike the first."""
        share, best = self.weights.mean((2, 3)).max(0)
        return torch.where(share[:, None] > 0, rows[best], float("nan"))


def move_back(
    maps: Float[Tensor, "batch height width"], source: Int[Tensor, "batch blocks"], shows: Bool[Tensor, "batch patch patch"]
) -> Float[Tensor, "batch height width"]:
    """Undo a move of blocks: what lies in place j goes to block ``source[k, j]`` of image k; a block that shows nowhere is zero.

    Args:
        maps: As moved.
        source: Which block came to each place, numbered row by row.
        shows: Which places count; no two of an image have the same block.
    """
    blocks = source.shape[1]
    num_patches = math.isqrt(blocks)
    places = torch.arange(blocks, device=source.device).expand_as(source)
    # one column more, for the places that do not count; nobody reads it
    place_of = torch.full_like(F.pad(source, (0, 1)), blocks)
    place_of = place_of.scatter(1, torch.where(shows.flatten(1), source, blocks), places)[:, :blocks, None]
    tiles = F.pad(_to_tiles(maps, num_patches), (0, 0, 0, 1))
    return _from_tiles(tiles.gather(1, place_of.expand(-1, -1, tiles.shape[2])), num_patches, maps.shape[1:])


def _to_tiles(maps: Tensor, num_patches: int) -> Float[Tensor, "batch blocks pixels"]:
    height, width = (side // num_patches for side in maps.shape[1:])
    tiles = maps.unflatten(2, (num_patches, width)).unflatten(1, (num_patches, height))
    return tiles.transpose(2, 3).flatten(3).flatten(1, 2)


def _from_tiles(tiles: Tensor, num_patches: int, size: Size) -> Float[Tensor, "batch height width"]:
    height, width = (side // num_patches for side in size)
    return tiles.unflatten(2, (height, width)).unflatten(1, (num_patches, num_patches)).transpose(2, 3).reshape(-1, *size)
