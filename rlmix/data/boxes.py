"""Bounding boxes of the objects in a folder's images, as measuring localization takes them."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision import tv_tensors

from rlmix.data.folder import FolderData
from rlmix.data.image_files import open_image, orientation, stored_size

COLUMNS = ("split", "path", "x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Boxes:
    """True boxes of a split's images after their resizing and cropping, and what became of the file's other rows."""

    by_image: dict[int, list[tuple[float, float, float, float]]]
    """Left, top, right and bottom edge, by the image's position in the split."""
    skipped: Counter[str]
    """How many rows were left out, by reason."""


def read_boxes(path: Path, data: FolderData, split: str = "test") -> Boxes:
    """Boxes from a CSV file with the header ``split,path,x0,y0,x1,y1``: inclusive pixels of the file's own image.

    An image's own pixels are those stored, before it is turned as its EXIF orientation asks; its boxes are turned with it. ``path``
    is relative to the data's root; rows of images of other splits are passed over. Left out and counted are boxes that are
    degenerate (x1 < x0 or y1 < y0), reach outside the image, name no image of the data, or end up outside the test crop.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no such table, or an image that it names is none.
    """
    position = {str(Path(name).relative_to(data.root)): index for index, name in enumerate(data.splits[split].paths)}
    others = {str(Path(name).relative_to(data.root)) for files in data.splits.values() for name in files.paths} - position.keys()
    by_image: dict[int, list[tuple[float, float, float, float]]] = {}
    skipped: Counter[str] = Counter()
    with open(path, newline="") as handle:
        table = csv.DictReader(handle)
        if not set(COLUMNS) <= set(table.fieldnames or ()):
            raise ValueError(f"{path} must have the columns {','.join(COLUMNS)}, got {','.join(table.fieldnames or ())}")
        for number, row in enumerate(table, start=2):
            try:
                edges = [int(row[name]) for name in COLUMNS[2:]]
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path} line {number} must have whole numbers for {', '.join(COLUMNS[2:])}, got {row}"
                ) from error
            if row["path"] in others:
                continue
            if row["path"] not in position:
                skipped["naming no image"] += 1
                continue
            reason, box = _move(edges, data, data.splits[split].paths[position[row["path"]]])
            if reason:
                skipped[reason] += 1
            else:
                by_image.setdefault(position[row["path"]], []).append(box)
    return Boxes(by_image, skipped)


def _move(edges: list[int], data: FolderData, image: str) -> tuple[str, tuple[float, float, float, float]]:
    """Why a box is left out ("" where it is not), and the box as the test transform moves and clips it."""
    x0, y0, x1, y1 = edges
    nowhere = (0.0, 0.0, 0.0, 0.0)
    if x1 < x0 or y1 < y0:
        return "degenerate", nowhere
    with open_image(image) as header:
        (width, height), turned = stored_size(header), orientation(header)
    if x0 < 0 or y0 < 0 or x1 >= width or y1 >= height:
        return "outside the image", nowhere
    edges_upright, (width, height) = turn_upright((x0, y0, x1 + 1, y1 + 1), (width, height), turned)
    box = tv_tensors.BoundingBoxes(torch.tensor([edges_upright]).float(), format="XYXY", canvas_size=(height, width))
    left, top, right, bottom = data.test_transform(box)[0].tolist()
    if right <= left or bottom <= top:
        return "outside the crop", nowhere
    return "", (left, top, right, bottom)


def turn_upright(
    box: tuple[int, int, int, int], size: tuple[int, int], orientation: int
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """A box and its image's width and height, as they are once a stored image is turned as its EXIF orientation asks.

    Args:
        box: Left, top, right and bottom edge in the stored image.
        size: Its width and height.
        orientation: 1 to 8. From 5 on rows become columns; then 2, 3, 6 and 7 are mirrored sideways, and 3, 4, 7 and 8 upside down.
    """
    left, top, right, bottom = box
    width, height = size
    if orientation >= 5:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return (left, top, right, bottom), (width, height)
