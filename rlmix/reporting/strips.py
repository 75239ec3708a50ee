"""Rows of small pictures, a row a method, of the same images: as a figure and as PNG bytes."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rlmix.reporting.output import literal


class Tile(NamedTuple):
    """A picture, and what stands below it."""

    pixels: NDArray[np.uint8] | None
    """(height, width, 3), or None where there is nothing to show."""
    lines: Sequence[str] = ()

    @property
    def png(self) -> bytes:
        assert self.pixels is not None
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG")
        return file.getvalue()


class Strip(NamedTuple):
    """A row of pictures, and what it is called."""

    title: str
    tiles: Sequence[Tile]


class Strips(NamedTuple):
    """Rows of the same images, and what is the same for all of them."""

    rows: Sequence[Strip]
    caption: str


def draw_strips(strips: Strips) -> Figure:
    """A row a strip, its title at the left, each picture's lines below it, the caption at the bottom."""
    count = max(len(strip.tiles) for strip in strips.rows)
    lines = max(len(tile.lines) for strip in strips.rows for tile in strip.tiles)
    figure = Figure(figsize=(1.15 * count + 1.6, (1.1 + 0.16 * lines) * len(strips.rows) + 0.4), layout="constrained")
    panels = figure.subplots(len(strips.rows), count, squeeze=False)
    for strip, row in zip(strips.rows, panels, strict=True):
        row[0].set_ylabel(literal(strip.title), rotation=0, ha="right", va="center")
        for axes, tile in zip(row, strip.tiles, strict=False):
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(literal("\n".join(tile.lines)), fontsize=7, labelpad=2)
            if tile.pixels is None:
                axes.text(0.5, 0.5, "features\nmixed", ha="center", va="center", fontsize=7)
            else:
                axes.imshow(tile.pixels)
        for axes in row[len(strip.tiles) :]:
            axes.remove()
    figure.supxlabel(literal(strips.caption), fontsize=8)
    return figure
