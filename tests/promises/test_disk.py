"""A disk that fills up and a folder that becomes read-only in mid-run: one line, and the last good checkpoint goes on."""

import contextlib
import re
import subprocess

import pytest
from sameness import assert_same_run
from toys import write_npz

from rlmix.experiments.session import Session
from rlmix.scripts import train as command
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint


def mount(*args):
    return subprocess.run(["mount", *map(str, args)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A file system of 15 MB: two checkpoints of 5.7 MB fit, a third does not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=15m", "tmpfs", folder):
        pytest.skip("mounting is not permitted")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    data = write_npz(tmp_path_factory.mktemp("toy"), 8)
    return ["--data", data, "--batch-size", "16", "--epochs", "4", "--model", "preactresnet18_w16", "--method", "rmix"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, options):
    folder = tmp_path_factory.mktemp("whole") / "run"
    command.main([*options, "--out", str(folder)])
    return folder


def refused(capsys, args):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main([str(arg) for arg in args])
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_full_disk(disk, options, whole, capsys):
    out = disk / "run"
    line = refused(capsys, ["train", *options, "--out", out])
    newest = out / "checkpoints" / "epoch-0002.pt"
    needed, left = re.search(r"epoch-0003.pt needs (\S+) MB, and (\S+) MB are left on a full disk", line).groups()
    assert float(left) < float(needed) == pytest.approx(newest.stat().st_size / 1e6, abs=0.1)
    assert f"2 of 4 epochs are kept in {out}/checkpoints/epoch-0002.pt; go on with: rlmix train --resume {out}" in line
    assert [load_checkpoint(path)["epoch"] for path in list_checkpoints(out / "checkpoints")] == [1, 2]
    assert mount("-o", "remount,size=60m", disk)
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(whole, out)


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.out.tfevents.*"])
def test_a_disk_that_is_full_where_no_checkpoint_is_written(disk, options, whole, name, monkeypatch, capsys):
    """The file is filled up to a page, which is what a tmpfs gives, and so is the disk: the next byte has no place."""
    out, end_epoch, filler = disk / "run", Session.end_epoch, disk / "filler"

    def fill(session, update):
        if session._record["epoch"] == 3:
            (path,) = out.glob(name)
            with open(path, "ab") as handle:
                handle.write(b"\0" * (-path.stat().st_size % 4096))
            sizes.append(path.stat().st_size)
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as handle:
                while True:
                    handle.write(b"\0" * 4096)
        end_epoch(session, update)

    sizes = []
    with monkeypatch.context() as patch:
        patch.setattr(Session, "end_epoch", fill)
        line = refused(capsys, ["train", *options, "--out", out])
    (path,) = out.glob(name)
    found = re.search(
        r"error: (\S+) needs (\S+) kB, and 0.0 kB are left on a full disk.*; 2 of 4 epochs are kept in (\S+);", line
    )
    assert (found[1], found[3]) == (str(path), str(out / "checkpoints" / "epoch-0002.pt"))
    assert 0 < float(found[2]) < 4
    assert line.endswith(f"go on with: rlmix train --resume {out}")
    assert [path.stat().st_size] == sizes  # nothing of the record
    filler.unlink()
    assert mount("-o", "remount,size=60m", disk)
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(whole, out)


def test_a_folder_that_becomes_read_only(disk, options, whole, monkeypatch, capsys):
    """Root may write everywhere but on a file system that is read-only."""
    out, end_epoch = disk / "run", Session.end_epoch
    checkpoints = out / "checkpoints"
    assert mount("-o", "remount,size=60m", disk)

    def lock(session, update):
        if session._record["epoch"] == 2:
            assert mount("--bind", checkpoints, checkpoints)
            assert mount("-o", "remount,ro,bind", checkpoints)
        end_epoch(session, update)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "end_epoch", lock)
        line = refused(capsys, ["train", *options, "--out", out])
    subprocess.run(["umount", str(checkpoints)], check=True)
    assert "Read-only file system" in line
    assert f"1 of 4 epochs are kept in {checkpoints}/epoch-0001.pt" in line
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(whole, out)
