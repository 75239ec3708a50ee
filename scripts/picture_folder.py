"""Pictures from a folder, as a classifier takes them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlmix.image_files import open_image

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def read_pictures(folder: Path, size: tuple[int, int], limit: int, skip_corrupt: bool = False) -> dict[str, Tensor]:
    """The first pictures of a folder by name, each uint8 (height, width, 3), scaled to ``size`` (height, width).

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds fewer than two pictures, or a corrupt one without ``skip_corrupt``.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"images must be a folder, and there is no {folder}")
    pictures: dict[str, Tensor] = {}
    corrupt: list[str] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS):
        if len(pictures) == limit:
            break
        try:
            with open_image(path) as image:
                scaled = image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
            pictures[path.name] = torch.from_numpy(np.array(scaled))
        except ValueError:
            corrupt.append(path.name)
    if corrupt and not skip_corrupt:
        raise ValueError(f"images must be readable (or give --skip-corrupt), got {', '.join(corrupt)} in {folder}")
    if len(pictures) < 2:
        raise ValueError(
            f"images must be a folder with at least 2 pictures ({', '.join(ENDINGS)}), got {len(pictures)} in {folder}"
        )
    return pictures
