"""Files that claim to hold more than they do: refused in one line before the claim is believed."""

import io
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from toys import write_npz

from rlmix.common.archives import load_tensors
from rlmix.config import Config
from rlmix.data.registry import load_data
from rlmix.models.weights import read_weights
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import load_checkpoint

MEGABYTE = 2**20


def rewrite(source, target, change=lambda name, content: content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_weights_and_checkpoints_do_not_expand(tmp_path, compression):
    torch.save({"weight": torch.zeros(5 * MEGABYTE)}, tmp_path / "plain.pt")
    rewrite(tmp_path / "plain.pt", tmp_path / "bomb.pt", compression=compression)
    assert (tmp_path / "bomb.pt").stat().st_size < MEGABYTE
    for load in (read_weights, lambda path: load_checkpoint(path, sealed=False)):
        with pytest.raises(ValueError, match=r"bomb\.pt .* is compressed, its members claim 2\d{7} bytes in a file of \d+"):
            load(tmp_path / "bomb.pt")


def test_members_cannot_share_their_bytes(tmp_path):
    """Many entries of the directory that lead to the same data."""
    torch.save({"weight": torch.zeros(MEGABYTE)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt", "a") as archive:
        (member,) = (entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
        archive.filelist.extend([member] * 20)
        archive._didModify = True
    with pytest.raises(ValueError, match="its members claim"):
        read_weights(tmp_path / "plain.pt")


def test_a_tensor_cannot_claim_more_than_its_member_holds(tmp_path):
    """torch reads beyond the member's end where the pickle's number of elements is too large."""
    torch.save({"weight": torch.arange(1000, dtype=torch.float32)}, tmp_path / "plain.pt")

    def swell(name, content):
        if not name.endswith("data.pkl"):
            return content
        assert content.count(pickle.BININT2 + (1000).to_bytes(2, "little")) == 2  # the storage's length and the tensor's
        return content.replace(pickle.BININT2 + (1000).to_bytes(2, "little"), pickle.BININT + (10**9).to_bytes(4, "little"))

    rewrite(tmp_path / "plain.pt", tmp_path / "swollen.pt", swell)
    with pytest.raises(ValueError, match=r"a tensor claims 1000000000 x 4 bytes and its member 0 holds 4000"):
        read_weights(tmp_path / "swollen.pt")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(1).expand(10**10), torch.zeros(10**6, 10**6, device="meta"), torch.zeros(10**9, layout=torch.sparse_coo)],
)
def test_a_tensor_cannot_repeat_what_it_holds(tmp_path, tensor):
    torch.save({"training": {"model": [{"weight": tensor}]}}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"a tensor of \(.*\) (claims 40000000000 bytes and holds 4|is torch\.)"):
        load_checkpoint(tmp_path / "file.pt", sealed=False)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_writes_is_read(legacy):
    shared = torch.randn(6)
    state = {
        "a": torch.randn(3, 4).t(),
        "b": torch.tensor(True),
        "c": [shared[:3], shared[3:]],
        "d": torch.ones(2, dtype=torch.bfloat16),
    }
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    found = load_tensors(file)
    assert str(found) == str(state)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_data_do_not_expand(tmp_path, compression, capsys):
    images = {"x_train": np.zeros((20_000, 32, 32, 3), np.uint8), "y_train": np.arange(20_000) % 2}
    np.savez(tmp_path / "plain.npz", **images, x_test=images["x_train"][:2], y_test=np.arange(2))
    load_data(Config.flat(data=f"npz:{tmp_path}/plain.npz"))
    rewrite(tmp_path / "plain.npz", tmp_path / "bomb.npz", compression=compression)
    assert (tmp_path / "bomb.npz").stat().st_size < MEGABYTE
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", "--data", f"npz:{tmp_path}/bomb.npz", "--out", str(tmp_path / "run")])
    (line,) = capsys.readouterr().err.splitlines()
    said = "must be stored or deflated" if compression == zipfile.ZIP_LZMA else "expands to 61440128 bytes from "
    assert f"{tmp_path}/bomb.npz must be an .npz archive of plain arrays: x_train.npy {said}" in line


def test_pictures_compress_as_they_like(tmp_path):
    """Ones that deflate makes a twentieth of, and small ones of any sort."""
    images = np.repeat(np.random.default_rng(0).integers(256, size=(400, 1, 1, 3), dtype=np.uint8), 32 * 32, 1).reshape(
        400, 32, 32, 3
    )
    np.savez_compressed(tmp_path / "flat.npz", x_train=images, y_train=np.arange(400) % 2, x_test=images[:2], y_test=np.arange(2))
    assert len(load_data(Config.flat(data=f"npz:{tmp_path}/flat.npz")).train_labels) == 400


def test_an_array_cannot_claim_more_than_its_member_holds(tmp_path):
    data = tmp_path / "swollen.npz"
    shutil.copy(write_npz(tmp_path, 8).removeprefix("npz:"), tmp_path / "plain.npz")

    def swell(name, content):
        return content.replace(b"(64, 8, 8, 3)", b"(9999999999, 8, 8, 3)") if name == "x_train.npy" else content

    rewrite(tmp_path / "plain.npz", data, swell)
    with pytest.raises(ValueError, match=r"x_train\.npy claims 1919999999808 bytes and holds \d+"):
        load_data(Config.flat(data=f"npz:{data}"))


def test_a_small_file_takes_little_memory(tmp_path):
    """600 MB in 600 kB, in a process of its own."""
    torch.save({"weight": torch.zeros(150 * MEGABYTE)}, tmp_path / "plain.pt")
    rewrite(tmp_path / "plain.pt", tmp_path / "bomb.pt", compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pt").stat().st_size < MEGABYTE
    code = f"""
import resource, sys
from pathlib import Path
from rlmix.models.weights import read_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_weights(Path({str(tmp_path / "bomb.pt")!r}))
except ValueError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 50 * 1024 * (1 if sys.platform != "darwin" else 1024)
