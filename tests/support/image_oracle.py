"""Boxes, holes and fine-grained saliency in plain NumPy loops, written from their equations; shares no code with rlmix."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RADII = (12, 24, 48, 28, 56, 112)


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which timm draws from, and put it back."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def inside(row: int, column: int, center: tuple[int, int], sides: tuple[int, int]) -> bool:
    """Whether a pixel lies in the box: sides pixels long, from sides // 2 before its centre."""
    return all(0 <= at - (middle - side // 2) < side for at, middle, side in zip((row, column), center, sides, strict=True))


def cut_sides(lam: float, height: int, width: int) -> tuple[int, int]:
    return int(height * math.sqrt(1 - lam)), int(width * math.sqrt(1 - lam))


def paste(
    images: Array, targets: Array, partner: NDArray[np.int64], centers: list[tuple[int, int]], sides: tuple[int, int]
) -> tuple[Array, Array]:
    """CutMix and SaliencyMix, pixel by pixel."""
    batch, _, height, width = images.shape
    mixed, mixed_targets = images.copy(), targets.copy()
    for image in range(batch):
        count = 0
        for row in range(height):
            for column in range(width):
                if inside(row, column, centers[image], sides):
                    mixed[image, :, row, column] = images[partner[image], :, row, column]
                    count += 1
        share = count / (height * width)
        mixed_targets[image] = (1 - share) * targets[image] + share * targets[partner[image]]
    return mixed, mixed_targets


def fine_grained(gray: Array, rounded: bool) -> Array:
    """Fine-grained saliency of one gray image; ``rounded`` to bytes where OpenCV does (8-bit images at every step)."""
    truncate = np.floor if rounded else np.asarray
    for _ in range(2):
        padded, blurred = np.pad(gray, 1, mode="reflect"), np.zeros(gray.shape)
        for row, weight_row in enumerate((1, 2, 1)):
            for column, weight_column in enumerate((1, 2, 1)):
                shifted = padded[row : row + gray.shape[0], column : column + gray.shape[1]]
                blurred += weight_row * weight_column / 16 * shifted
        gray = np.floor(blurred + 0.5) if rounded else blurred
    on, off = np.zeros(gray.shape), np.zeros(gray.shape)
    for radius in RADII:
        for (row, column), value in np.ndenumerate(gray):
            window = gray[max(row - radius + 1, 0) : row + radius + 1, max(column - radius + 1, 0) : column + radius + 1]
            difference = value - (window.sum() - value) / (window.size - 1)
            on[row, column] += truncate(max(difference, 0))
            off[row, column] += truncate(max(-difference, 0))
    parts = [part / part.max() if part.max() > 0 else part for part in (on, off)]
    if rounded:
        return sum(np.floor(255 * part) for part in parts) / 255
    return sum(parts)


def luma(image: Array) -> Array:
    """Gray of one RGB image (3, H, W), or the channels' mean of any other."""
    return np.tensordot([0.299, 0.587, 0.114], image, 1) if len(image) == 3 else image.mean(0)
