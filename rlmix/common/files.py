"""Files that are there whole or not at all."""

import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary file beside ``path``, sync it, rename it, and sync the folder.

    On an error the old file stays and nothing is left over; a machine that stops at any moment leaves the old file or the new one.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "w+b") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        full = _is_full(error, path.parent)
        temporary.unlink(missing_ok=True)
        if full:
            raise _full_disk(path, count_bytes(write)) from error
        raise
    _sync_folder(path.parent)


def append(path: Path, content: bytes) -> None:
    """Append to a file, which is made where there is none, whole or not at all."""
    try:
        with open(path, "ab", buffering=0) as handle:
            size, rest = handle.tell(), content
            try:
                while rest:
                    rest = rest[handle.write(rest) :]
            except OSError:
                handle.truncate(size)
                raise
    except OSError as error:
        if _is_full(error, path.parent):
            raise _full_disk(path, len(content)) from error
        raise


def check_place(folder: Path, option: str) -> None:
    """Raise OSError where nothing can be written into a folder, or where it cannot be made; ``option`` is what named it."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{option} must be a folder, or where one can be made, got {folder}: {there} is a file")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{option} must be a folder that can be written, got {folder}: {there} is read-only")


def _is_full(error: BaseException, folder: Path) -> bool:
    """Whether the disk's end was met; torch's writer says that something was not written, and not why."""
    if isinstance(error, RuntimeError):
        return shutil.disk_usage(folder).free < 1e6
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _full_disk(path: Path, needed: int) -> OSError:
    free = shutil.disk_usage(path.parent).free
    return OSError(f"{path} needs {_spell(needed)}, and {_spell(free)} are left on a full disk")


def _spell(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def count_bytes(write: Callable[[BinaryIO], object]) -> int:
    """How large a file ``write`` makes."""
    handle = io.BytesIO()
    write(handle)
    return handle.seek(0, os.SEEK_END)


def write_json(path: Path, value: Any) -> None:
    """Write a value, whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda handle: handle.write(text.encode()))


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
