"""Pictures from a folder, as a classifier takes them."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlmix.data.image_files import ENDINGS, describe_left_out, kind_left_out, open_image, upright_rgb


def read_pictures(folder: Path, size: tuple[int, int], limit: int, skip_corrupt: bool = False) -> dict[str, Tensor]:
    """The first pictures of a folder by name, each uint8 (height, width, 3), scaled to ``size`` (height, width).

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds fewer than two pictures, or a corrupt one without ``skip_corrupt``.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"images must be a folder, and there is no {folder}")
    files = sorted(folder.iterdir())
    kinds = ["folder" if path.is_dir() else kind_left_out(path.name) for path in files]
    pictures: dict[str, Tensor] = {}
    corrupt: dict[str, ValueError] = {}
    for path in (path for path, kind in zip(files, kinds, strict=True) if not kind):
        if len(pictures) == limit:
            break
        try:
            with open_image(path) as image:
                scaled = upright_rgb(image).resize(size[::-1], Image.Resampling.BILINEAR)
            pictures[path.name] = torch.from_numpy(np.array(scaled))
        except ValueError as error:
            corrupt[path.name] = error
    left_out = describe_left_out(kinds)
    if corrupt and not skip_corrupt:
        first = next(iter(corrupt.values()))
        raise ValueError(f"images must be readable (or give --skip-corrupt), got {', '.join(corrupt)} in {folder}: {first}")
    if len(pictures) < 2:
        besides = f", and left out {left_out}" if left_out else ""
        allowed = ", ".join(ENDINGS)
        raise ValueError(
            f"images must be a folder with at least 2 pictures ({allowed}), got {len(pictures)} in {folder}{besides}"
        )
    if left_out:
        warnings.warn(f"files in {folder} that no image is read from are left out: {left_out}", stacklevel=2)
    return pictures
