"""The logits in whatever a classifier gives: a tensor, or one within an output object, a mapping or a tuple."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def logits_of(output: Any) -> Tensor:
    """Give the logits (B, N) of a classifier's output.

    Args:
        output: A tensor; an object with ``.logits``, as of Hugging Face; a mapping with ``"logits"``, or with ``"out"``, as some of
            torchvision's; or a tuple that begins with the logits, such as those with auxiliary heads.

    Raises:
        ValueError: If there are none in it.
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits", output.get("out"))
    elif not isinstance(output, Tensor) and hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, tuple | list) and output:
        found = output[0]
    if not isinstance(found, Tensor) or found.ndim != 2:
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise ValueError(f"model must give logits (batch, classes), or hold them as .logits, got {type(output).__name__}{shape}")
    return found
