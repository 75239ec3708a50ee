"""Files are there whole or not at all; damaged or hostile checkpoints are refused and nothing is executed."""

import hashlib
import os
import pickle
import stat
import zipfile
from pathlib import Path

import pytest
import torch

from rlmix.common.files import write_atomically
from rlmix.training.checkpoints import BEST, list_checkpoints, load_checkpoint, save_checkpoint


class Canary:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def state(epoch: int = 0) -> dict[str, object]:
    generator = torch.Generator().manual_seed(epoch)
    weights = torch.randn(50, 4, generator=generator)
    return {"model": {"weight": weights}, "epoch": epoch, "text": "résumé", "list": [1, 2.5, None, (True, "a")]}


def assert_same(left: dict, right: dict) -> None:
    assert torch.equal(left["model"]["weight"], right["model"]["weight"])
    assert {name: value for name, value in left.items() if name != "model"} == {
        name: value for name, value in right.items() if name != "model"
    }


def test_what_is_saved_is_loaded(tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints", 7, state(7))
    assert_same(load_checkpoint(path), state(7))
    assert [entry.name for entry in path.parent.iterdir()] == ["epoch-0007.pt"]


def test_a_best_one_is_serialised_and_hashed_once_and_is_two_files(tmp_path, monkeypatch):
    calls = []
    for module, name in ((torch, "save"), (hashlib, "file_digest")):
        kept = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, kept=kept, name=name: (calls.append(name), kept(*args))[1])
    path = save_checkpoint(tmp_path, 3, state(3), best=True)
    assert calls == ["save", "file_digest"]
    assert path.read_bytes() == (tmp_path / BEST).read_bytes()
    path.write_bytes(b"damaged")
    assert_same(load_checkpoint(tmp_path / BEST), state(3))


def test_only_the_two_newest_are_kept(tmp_path):
    for epoch in range(1, 6):
        save_checkpoint(tmp_path, epoch, state(epoch))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["epoch-0004.pt", "epoch-0005.pt"]
    assert len(list(tmp_path.iterdir())) == 2
    assert_same(load_checkpoint(list_checkpoints(tmp_path)[-1]), state(5))


def test_the_newest_is_kept_past_epoch_9999(tmp_path):
    """'epoch-10000.pt' sorts before 'epoch-9999.pt' as text."""
    for epoch in (9998, 9999, 10000, 10001):
        assert save_checkpoint(tmp_path, epoch, state(epoch)).exists()
    assert [load_checkpoint(path)["epoch"] for path in list_checkpoints(tmp_path)] == [10000, 10001]


def test_atomic_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a longer old content")
    write_atomically(path, lambda handle: handle.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_atomic_writing_keeps_the_old_file_on_an_error(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(handle):
        handle.write(b"half of the ne")
        handle.flush()
        assert path.read_bytes() == b"old"  # nothing shows before all is written
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_fails_is_an_oserror_and_keeps_the_old_checkpoints(tmp_path, monkeypatch):
    for epoch in (1, 2):
        save_checkpoint(tmp_path, epoch, state(epoch))

    def full_disk(state, handle):
        handle.write(b"some bytes")
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match=r"epoch-0003\.pt could not be written: "):
        save_checkpoint(tmp_path, 3, state(3))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["epoch-0001.pt", "epoch-0002.pt"]
    assert_same(load_checkpoint(tmp_path / "epoch-0002.pt"), state(2))


def test_missing_checkpoint_is_an_oserror(tmp_path):
    with pytest.raises(OSError, match=r"none\.pt"):
        load_checkpoint(tmp_path / "none.pt")


def refused(path: Path) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_checkpoint(path)
    assert str(path) in str(error.value), f"{type(error.value).__name__}: {error.value}"


def test_truncated_checkpoints_are_refused_at_every_length(tmp_path):
    content = save_checkpoint(tmp_path, 1, state()).read_bytes()
    path = tmp_path / "part.pt"
    for length in [1, 2, 3, 4, 30, *range(100, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        refused(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"hello", b"\x80\x02.", b"a" * 50, b"{}", bytes(100)], ids=repr)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other.pt").write_bytes(content)
    refused(tmp_path / "other.pt")


def test_a_flipped_byte_anywhere_is_refused(tmp_path):
    content = save_checkpoint(tmp_path, 1, state()).read_bytes()
    path = tmp_path / "flipped.pt"
    for offset in [*range(0, len(content), 7), *range(len(content) - 90, len(content))]:
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 0x20]) + content[offset + 1 :])
        refused(path)


def test_the_seal_is_the_comment_of_a_zip_archive(tmp_path):
    """The digest is that of all before it, so that any tool can check it, and torch reads the file as ever."""
    path = save_checkpoint(tmp_path, 1, state())
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.comment.decode() == hashlib.sha256(content[:-64]).hexdigest()
        assert archive.testzip() is None
    assert_same(torch.load(path, weights_only=True), state())


@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_files_from_elsewhere_need_no_seal_and_flipped_values_are_refused_by_the_archive(tmp_path, member):
    path = tmp_path / "foreign.pt"
    torch.save(state(), path)
    assert_same(load_checkpoint(path, sealed=False), state())
    refused(path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (payload,) = (archive.read(name) for name in archive.namelist() if name.endswith("/" + member))
    start = content.index(payload)
    for offset in range(start, start + len(payload), 5):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 0x04]) + content[offset + 1 :])
        with pytest.raises(ValueError, match="is not a readable checkpoint"):
            load_checkpoint(path, sealed=False)


def test_checkpoints_within_an_epoch_come_after_it(tmp_path):
    for epoch, steps in ((1, 0), (9, 12), (9, 3), (10, 0), (9, 0)):
        save_checkpoint(tmp_path, epoch, state(epoch), steps)
        (tmp_path / "keep").mkdir(exist_ok=True)
        for path in list_checkpoints(tmp_path):
            os.replace(path, tmp_path / "keep" / path.name)
    names = ["epoch-0001.pt", "epoch-0009.pt", "epoch-0009-step-3.pt", "epoch-0009-step-12.pt", "epoch-0010.pt"]
    assert [path.name for path in list_checkpoints(tmp_path / "keep")] == names


def test_the_best_is_kept_beside_the_newest(tmp_path):
    for epoch in range(1, 6):
        save_checkpoint(tmp_path, epoch, state(epoch), best=epoch in (1, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "epoch-0004.pt", "epoch-0005.pt"]
    assert_same(load_checkpoint(tmp_path / "best.pt"), state(2))


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / "epoch-0001.pt.tmp").write_bytes(b"half of")
    save_checkpoint(tmp_path, 1, state())
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001.pt"]


def test_file_and_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(stat.S_ISDIR(os.fstat(file).st_mode)), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("renamed"), replace(*paths)))
    write_atomically(tmp_path / "file", lambda handle: handle.write(b"new"))
    assert done == [False, "renamed", True]


def dump_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("wrap", [lambda canary: canary, lambda canary: {"model": {"weight": canary}}], ids=["bare", "nested"])
@pytest.mark.parametrize("save", [torch.save, dump_pickle])
def test_code_in_a_checkpoint_is_refused_and_never_executed(tmp_path, save, wrap):
    path, executed = tmp_path / "evil.pt", tmp_path / "executed"
    save(wrap(Canary(executed)), path)
    refused(path)
    assert not executed.exists()


def test_a_checkpoint_that_is_no_dictionary_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    refused(tmp_path / "list.pt")
