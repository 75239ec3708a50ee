"""Rows of small pictures, a row a method, of the same images: as a figure and as PNG bytes."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

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


def paste_strips(strips: Strips, side: int = 72) -> NDArray[np.uint8]:
    """The same as :func:`draw_strips` in a few milliseconds, for pictures that are made while a training waits.

    Args:
        strips: The rows.
        side: Pixels of a picture's longer side.
    """
    font = ImageFont.load_default(12)
    ink = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    gap, line = 6, 15
    left = 2 * gap + int(max(ink.textlength(strip.title, font) for strip in strips.rows))
    count = max(len(strip.tiles) for strip in strips.rows)
    wide = max(
        side, *(int(ink.textlength(text, font)) + 1 for strip in strips.rows for tile in strip.tiles for text in tile.lines)
    )
    heights = [side + gap + line * max(len(tile.lines) for tile in strip.tiles) for strip in strips.rows]
    width = max(left + count * (wide + gap), 2 * gap + int(ink.textlength(strips.caption, font)))
    page = Image.new("RGB", (width, gap + sum(heights) + line + gap), "white")
    ink, top = ImageDraw.Draw(page), gap
    for strip, height in zip(strips.rows, heights, strict=True):
        ink.text((gap, top + side // 2 - line // 2), strip.title, "black", font)
        for column, tile in enumerate(strip.tiles):
            x = left + column * (wide + gap)
            if tile.pixels is not None:
                picture = Image.fromarray(tile.pixels)
                ratio = side / max(picture.size)
                size = [max(1, round(ratio * length)) for length in picture.size]
                page.paste(picture.resize((size[0], size[1]), Image.Resampling.NEAREST), (x, top))
            for index, text in enumerate(tile.lines):
                ink.text((x, top + side + index * line), text, "black", font)
        top += height
    ink.text((gap, top), strips.caption, "black", font)
    return np.asarray(page)


def as_pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as (height, width, 3) bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
