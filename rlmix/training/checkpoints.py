"""Checkpoints that say when they are damaged and load without running code."""

import copy
import hashlib
import io
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from rlmix.common.archives import load_tensors
from rlmix.common.files import write_atomically

KEPT = 2
"""Checkpoints a run keeps, beside the best."""
BEST = "best.pt"
"""The checkpoint of the first epoch with the highest accuracy on the validation split."""
_NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.pt")
_DIGEST = 64
"""Length of a SHA-256 in hexadecimal digits."""


def save_checkpoint(folder: Path, epoch: int, state: dict[str, Any], steps: int = 0, best: bool = False) -> Path:
    """Write a checkpoint into ``folder`` and drop all but the newest :data:`KEPT`.

    It is a zip archive as torch writes it, whose comment is the SHA-256 of all that comes before. A best one is written and hashed once,
    and copied.

    Args:
        folder: Of the checkpoints.
        epoch: Epochs done.
        state: Tensors and plain values.
        steps: Steps done of the epoch after these.
        best: Keep it under the name :data:`BEST` as well, in place of the one before.

    Raises:
        OSError: If it cannot be written (a full disk among others).
    """
    folder.mkdir(exist_ok=True)
    path = checkpoint_path(folder, epoch, steps)

    def write(handle: BinaryIO) -> None:
        torch.save(state, handle)
        _seal(handle)

    def copy(handle: BinaryIO) -> None:
        with open(folder / BEST, "rb") as written:
            shutil.copyfileobj(written, handle, 2**20)

    # the best first: killed between the two, a run does its epoch again
    for target, fill in ((folder / BEST, write), (path, copy)) if best else ((path, write),):
        try:
            write_atomically(target, fill)
        except RuntimeError as error:  # torch's zip writer reports the disk's errors so
            raise OSError(f"{target} could not be written: {error}") from error
    for old in [*list_checkpoints(folder)[:-KEPT], *folder.glob("*.tmp")]:  # a killed process leaves its temporary file
        old.unlink()
    return path


def checkpoint_path(folder: Path, epoch: int, steps: int = 0) -> Path:
    """Where the checkpoint lies that is taken so many steps after an epoch."""
    return folder / (f"epoch-{epoch:04d}-step-{steps}.pt" if steps else f"epoch-{epoch:04d}.pt")


def on_host(state: Any) -> Any:
    """A copy of tensors and plain values that no step changes, all of it on the host; tensors that share their memory still do."""
    return _copied(state, {})


def _copied(value: Any, seen: dict[tuple[Any, ...], Tensor]) -> Any:
    if isinstance(value, Tensor):
        place = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if place not in seen:
            seen[place] = value.detach().to("cpu", copy=True)
        return seen[place]
    if isinstance(value, dict):
        result = copy.copy(value)  # keeps what a network's state_dict says of its modules' versions
        result.update((name, _copied(one, seen)) for name, one in value.items())
        return result
    if isinstance(value, list | tuple):
        return type(value)(_copied(one, seen) for one in value)
    return value


def list_checkpoints(folder: Path) -> list[Path]:
    """Oldest first, by what has been trained; the best one's copy is not among them."""
    found = {path: match for path in folder.glob("epoch-*.pt") if (match := _NAME.fullmatch(path.name))}
    return sorted(found, key=lambda path: (int(found[path][1]), int(found[path][2] or 0)))


def newest_state(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of the run in ``folder``, read only.

    Raises:
        FileNotFoundError: If it holds none.
        ValueError: If that checkpoint is damaged.
    """
    paths = list_checkpoints(folder / "checkpoints")
    if not paths:
        raise FileNotFoundError(f"{folder} must be the folder of a run with a checkpoint, and holds none")
    return load_checkpoint(paths[-1])


def load_checkpoint(path: Path, sealed: bool = True) -> dict[str, Any]:
    """Tensors and plain values on the host; executes nothing the file holds.

    Args:
        path: The file.
        sealed: Whether it must carry the checksum that :func:`save_checkpoint` writes; files from elsewhere carry none.

    Raises:
        ValueError: If the file is damaged or holds anything else.
    """
    content = path.read_bytes()
    if sealed and hashlib.sha256(content[:-_DIGEST]).hexdigest().encode() != content[-_DIGEST:]:
        raise ValueError(f"{path} is not a readable checkpoint: its checksum is not that of what was written")
    try:
        state = load_tensors(io.BytesIO(content))
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a readable checkpoint: it holds more than tensors and plain values") from error
    except Exception as error:  # whatever a damaged file makes the readers stumble over
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__} "
        raise ValueError(f"{path} is not a readable checkpoint: {kind}{error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a readable checkpoint: {type(state).__name__} is not what was written")
    return state


def _seal(handle: BinaryIO) -> None:
    """Append the SHA-256 of the archive as its comment: it stays a zip archive that every reader takes."""
    handle.seek(-2, os.SEEK_END)
    handle.write(_DIGEST.to_bytes(2, "little"))
    handle.seek(0)
    digest = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
    handle.seek(0, os.SEEK_END)
    handle.write(digest.encode())
