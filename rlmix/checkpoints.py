"""Files that are there whole or not at all, and checkpoints that load without running code."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

KEPT = 2
"""Checkpoints a run keeps."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary file beside ``path``, sync it, and rename it; on an error the old file stays and nothing is left over."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_checkpoint(folder: Path, epoch: int, state: dict[str, Any]) -> Path:
    """Write ``epoch-NNNN.pt`` into ``folder`` and drop all but the newest :data:`KEPT`.

    Raises:
        OSError: If it cannot be written (a full disk among others).
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"epoch-{epoch:04d}.pt"
    try:
        write_atomically(path, lambda handle: torch.save(state, handle))
    except RuntimeError as error:  # torch's zip writer reports the disk's errors so
        raise OSError(f"{path} could not be written: {error}") from error
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("epoch-*.pt"), key=lambda path: int(path.stem.removeprefix("epoch-")))


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


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors and plain values on the host; executes nothing the file holds.

    Raises:
        ValueError: If the file is damaged or holds anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a readable checkpoint: it holds more than tensors and plain values") from error
    except Exception as error:  # whatever a damaged file makes the readers stumble over
        raise ValueError(f"{path} is not a readable checkpoint: {type(error).__name__} {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a readable checkpoint: {damaged or type(state).__name__} is not what was written")
    return state
