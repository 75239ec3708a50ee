"""Arrays of images from anywhere as bytes, channels last, of one size."""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

CHANNELS = (1, 3, 4)
SMALLEST = 8
"""Pixels a side of an image, as of an imagefolder's; so that channels, which are fewer, cannot be taken for pixels."""
_CHUNK = 1024
"""Images that are converted at a time, which bounds the memory this takes."""


def to_bytes(values: np.ndarray, value_range: tuple[float, ...], name: str) -> UInt8[np.ndarray, "..."]:
    """Numbers from ``value_range``, low to high, as 0 to 255, rounded.

    Raises:
        ValueError: If there are others; it names ``name``.
    """
    low, high = value_range
    if values.dtype.kind not in "biuf" or values.ndim == 0:
        raise ValueError(f"{name} must hold numbers, got {values.dtype} of shape {values.shape}")
    if values.size and not (values.min() >= low and values.max() <= high):
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], the value_range, got {values.min():g} to {values.max():g}")
    pixels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        pixels[part] = np.rint((values[part].astype(np.float64) - low) * (255 / (high - low)))
    return pixels


def channels_last(images: np.ndarray, name: str) -> UInt8[np.ndarray, "n height width channel"]:
    """Images (n, H, W, C), told by what C, H and W may be: no shape can be read both ways."""
    shape = images.shape if images.ndim == 4 else (*images.shape, 1)
    if images.dtype == np.uint8 and len(shape) == 4:
        if shape[3] in CHANNELS and min(shape[1:3]) >= SMALLEST:
            return images.reshape(shape)
        if shape[1] in CHANNELS and min(shape[2:]) >= SMALLEST:
            warnings.warn(
                f"{name} is of shape {shape}: taken as {shape[1]} channels of {shape[2]}x{shape[3]} pixels", stacklevel=3
            )
            return np.moveaxis(images, 1, 3)
    scaled = "" if images.dtype == np.uint8 else "; --value-range LOW HIGH takes other numbers"
    raise ValueError(
        f"{name} must be uint8 of shape (n, H, W), (n, H, W, C) or (n, C, H, W) with C of 1, 3 or 4 and H and W of at least {SMALLEST}, "
        f"got {images.dtype} of shape {images.shape}{scaled}"
    )


def fit_square(
    images: UInt8[np.ndarray, "n height width channel"], side: int, how: str, name: str
) -> UInt8[np.ndarray, "n side side c"]:
    """Images of ``side`` pixels a side.

    Args:
        images: Of one size.
        side: Pixels a side.
        how: ``pad``, with black on all sides, or ``resize``, bilinearly with antialiasing, whatever the proportion.
        name: What an error calls them.

    Raises:
        ValueError: If they are larger than what they are to be padded to.
    """
    from torchvision.transforms import v2  # with torch's compiler, 2 s: those whose images have one size need not wait

    height, width = images.shape[1:3]
    if (height, width) == (side, side):
        return images
    if how == "pad":
        if max(height, width) > side:
            raise ValueError(f"image_size must be at least the {height}x{width} of {name} with image_fit pad, got {side}")
        top, left = (side - height) // 2, (side - width) // 2
        return np.pad(images, ((0, 0), (top, side - height - top), (left, side - width - left), (0, 0)))
    parts = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).split(_CHUNK)
    resized = torch.cat([v2.functional.resize(part, [side, side], antialias=True) for part in parts])
    return resized.permute(0, 2, 3, 1).contiguous().numpy()


def three_channels(images: UInt8[np.ndarray, "n height width channel"]) -> UInt8[Tensor, "n height width c"]:
    """Gray images repeated to three channels."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return tensor.repeat(1, 1, 1, 3) if tensor.shape[3] == 1 else tensor


def enlarged(scans: Tensor, side: int) -> UInt8[np.ndarray, "n side side"]:
    """Gray images (n, 1, h, w) in [0, 1], enlarged bilinearly, as bytes."""
    images = F.interpolate(scans, size=(side, side), mode="bilinear", align_corners=False)
    return (images[:, 0] * 255).round().to(torch.uint8).numpy()
