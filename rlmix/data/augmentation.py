"""Augmentation of a whole batch on the device, each image by its own draw. Sampling and applying are apart."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from rlmix.common.transfer import to_device


class CropFlip(NamedTuple):
    """Where each image is cropped, and whether it is mirrored."""

    top: Int[Tensor, " batch"]
    left: Int[Tensor, " batch"]
    mirror: Bool[Tensor, " batch"]


class ResizedCrop(NamedTuple):
    """Which part of its picture each image shows, and whether it is mirrored; edges as parts of the picture's height and width."""

    top: Float[Tensor, " batch"]
    left: Float[Tensor, " batch"]
    height: Float[Tensor, " batch"]
    width: Float[Tensor, " batch"]
    mirror: Bool[Tensor, " batch"]


def sample_crop_flip(batch_size: int, padding: int, flip: bool, generator: torch.Generator) -> CropFlip:
    """Draw offsets in {0, ..., 2 padding} and, with ``flip``, a fair coin for each image."""
    offsets = torch.randint(2 * padding + 1, (2, batch_size), generator=generator)
    mirror = torch.randint(2, (batch_size,), generator=generator).bool()
    return CropFlip(offsets[0], offsets[1], mirror if flip else torch.zeros_like(mirror))


def crop_flip(
    images: Shaped[Tensor, "batch height width channel"], draw: CropFlip, padding: int
) -> Shaped[Tensor, "batch height width channel"]:
    """Pad with zeros (black), crop to the old size at each image's own offset, and mirror where drawn; one gather."""
    batch, height, width, _ = images.shape
    device = images.device
    top, left, mirror = (to_device(tensor, device)[:, None] for tensor in draw)
    padded = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding)) if padding else images
    rows = top + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(batch, -1)
    columns = left + torch.where(mirror, columns.flip(1), columns)
    return padded[torch.arange(batch, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def inverse(draw: CropFlip, padding: int) -> CropFlip:
    """The draw that puts every pixel back where it was; what the first crop had left out comes back as zeros."""
    back = 2 * padding - draw.left
    return CropFlip(2 * padding - draw.top, torch.where(draw.mirror, draw.left, back), draw.mirror)


def normalize(
    images: UInt8[Tensor, "batch height width channel"], mean: Float[Tensor, " channel"], std: Float[Tensor, " channel"]
) -> Float[Tensor, "batch channel height width"]:
    """Bytes to float32 of zero mean and unit variance a channel; the result is laid out channels last."""
    return images.float().sub_(255 * mean).div_(255 * std).permute(0, 3, 1, 2)


def denormalize(
    images: Float[Tensor, "batch channel height width"], mean: Float[Tensor, " channel"], std: Float[Tensor, " channel"]
) -> UInt8[Tensor, "batch height width channel"]:
    """The inverse of :func:`normalize`, rounded."""
    pixels = images.detach().float().permute(0, 2, 3, 1) * (255 * std) + 255 * mean
    return pixels.round().clamp(0, 255).to(torch.uint8)
