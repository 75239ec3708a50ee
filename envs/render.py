"""Pictures of mixed batches."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from rlmix.maps.patches import enlarge


def mixing_picture(
    clean: UInt8[Tensor, "batch height width channel"],
    map: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch patch patch"],
    mixed: UInt8[Tensor, "batch height width channel"],
    *,
    scale: int = 2,
    gap: int = 2,
) -> NDArray[np.uint8]:
    """A column an image; rows: the clean images, their saliency, what is salient of them, and the mixed images.

    Args:
        clean: Pixels; the first three channels are shown.
        map: Saliency maps; each is shown from its own 0 to its own largest value.
        mask: Salient patches; the rest of the image is darkened.
        mixed: Pixels.
        scale: Screen pixels a pixel.
        gap: White pixels between pictures.
    """
    rows = [_rgb(clean), heat(map), _rgb(shaded(clean, mask)), _rgb(mixed)]
    stack = torch.stack([row.cpu() for row in rows])  # (row, image, H, W, 3)
    stack = stack.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    framed = torch.nn.functional.pad(stack, (0, 0, gap, 0, gap, 0), value=255)
    num_rows, batch, height, width, _ = framed.shape
    return framed.permute(0, 2, 1, 3, 4).reshape(num_rows * height, batch * width, 3).numpy()


def heat(map: Float[Tensor, "batch height width"]) -> UInt8[Tensor, "batch height width 3"]:
    """Saliency maps in colours, on the host; each from its own 0 to its own largest value."""
    from matplotlib import colormaps

    peak = map.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.from_numpy(colormaps["magma"]((map / peak).nan_to_num().cpu().numpy(), bytes=True)[..., :3])


def shaded(
    pixels: UInt8[Tensor, "batch height width channel"], mask: Bool[Tensor, "batch patch patch"]
) -> UInt8[Tensor, "batch height width channel"]:
    """Images, what is not salient of them darkened."""
    shade = torch.where(enlarge(mask, pixels.shape[1:3]), 1.0, 0.2)[..., None]
    return (pixels * shade).to(torch.uint8)


def _rgb(pixels: Tensor) -> Tensor:
    return pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].expand(*pixels.shape[:-1], 3)
