"""Archives from strangers: what they say they hold is looked at before anything is read, so that a small file stays small."""

import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

EXPANSION = 200
"""How many times its size in the file an array may have; photographs have 1 to 3, deflate's limit is 1032."""
_FREE = 16 * 2**20
"""Bytes that no array is refused for."""

ELEMENT_BYTES = {"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4}
ELEMENT_BYTES |= {"ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "UntypedStorage": 1}
ELEMENT_BYTES |= {"ComplexFloatStorage": 8, "ComplexDoubleStorage": 16}
"""Of the storages that torch's pickles name; others, of quantised tensors, are no network's of ours."""


class ArchiveError(ValueError):
    """A file that claims to hold other than it does."""


def load_tensors(file: IO[bytes]) -> Any:
    """``torch.load`` of tensors and plain values on the host, of an archive whose every claim about sizes is true. Executes nothing.

    torch itself believes them: members may be compressed to a thousandth, and a tensor may claim more memory than its member holds.

    Raises:
        ArchiveError: If members or tensors claim more than the file holds.
        pickle.UnpicklingError: If it holds more than tensors and plain values.
        Exception: Whatever a damaged file makes torch and zipfile stumble over.
    """
    if zipfile.is_zipfile(file):  # torch's format from before 2020 is none; it compares what it reads
        _check_stored(file)
    file.seek(0)
    state = torch.load(file, map_location="cpu", weights_only=True)
    for tensor in _tensors(state):
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ArchiveError(f"a tensor of {tuple(tensor.shape)} is {tensor.layout} on {tensor.device}")
        held = tensor.untyped_storage().nbytes()
        if tensor.numel() * tensor.itemsize > held:
            raise ArchiveError(
                f"a tensor of {tuple(tensor.shape)} claims {tensor.numel() * tensor.itemsize} bytes and holds {held}"
            )
    return state


def check_npz(path: Path, keys: tuple[str, ...]) -> None:
    """Raise ArchiveError where one of the arrays ``keys`` is far larger than its part of the file, or is not what its header says.

    Raises:
        OSError, zipfile.BadZipFile: If the file cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        for name in (f"{key}.npy" for key in keys if f"{key}.npy" in archive.namelist()):
            member = archive.getinfo(name)
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without a bound
                raise ArchiveError(f"{name} must be stored or deflated, as numpy does it")
            if member.file_size > max(_FREE, EXPANSION * member.compress_size):
                times = f"{member.file_size} bytes from {member.compress_size}, more than {EXPANSION} times as many"
                raise ArchiveError(f"{name} expands to {times}; save it with numpy.savez, uncompressed")
            with archive.open(member) as handle:
                claimed = _claimed(handle)
            if claimed > member.file_size:
                raise ArchiveError(f"{name} claims {claimed} bytes and holds {member.file_size}")


def _claimed(handle: IO[bytes]) -> int:
    """Bytes that an array's header claims."""
    version = np.lib.format.read_magic(handle)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(handle)
    else:
        raise ArchiveError(f"a member must be an array of numpy's format 1.0 or 2.0, got {version}")
    return 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize  # numpy refuses objects


def _check_stored(file: IO[bytes]) -> None:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
        claimed = sum(member.file_size for member in members)
        if packed or claimed > size:
            what = f"{packed[0]} is compressed, " if packed else ""
            raise ArchiveError(f"{what}its members claim {claimed} bytes in a file of {size}, which torch stores as they are")
        if archive.testzip() is not None:  # torch does not look at the archive's own checksums
            raise ArchiveError("a member is not what was written")
        for name in archive.namelist():
            if name.rpartition("/")[2] == "data.pkl":
                with archive.open(name) as handle:
                    claims = _Claims(handle)
                    claims.load()
                _check_claims(claims.storages, archive, name.removesuffix("data.pkl"))


def _check_claims(storages: list[tuple[Any, ...]], archive: zipfile.ZipFile, folder: str) -> None:
    for claim in storages:
        _, kind, key, _, count = claim
        size, held = ELEMENT_BYTES[kind.__name__], archive.getinfo(f"{folder}data/{key}").file_size
        if not 0 <= count * size <= held:
            raise ArchiveError(f"a tensor claims {count} x {size} bytes and its member {key} holds {held}")


class _Nothing:
    """Stands for whatever a pickle wants to make: takes everything, does nothing."""

    def __new__(cls, *args: Any, **options: Any) -> "_Nothing":
        return object.__new__(cls)

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


class _Claims(pickle.Unpickler):
    """Reads what storages a pickle of torch's refers to, and makes nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: list[tuple[Any, ...]] = []

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Nothing,), {})

    def persistent_load(self, claim: Any) -> Any:
        self.storages.append(claim)
        return _Nothing()


def _tensors(state: Any) -> Iterator[Tensor]:
    """All of them in nested mappings and sequences."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple | set | frozenset):
        for value in state:
            yield from _tensors(value)
