"""Damaged inputs: each is refused in one line, or does no harm. None is a traceback, a hang, a wrong result or code run."""

import os
import pickle
import random
import shutil
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sameness import assert_same_run, assert_same_state
from toys import NETWORK, write_folder, write_npz

from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint

LIMIT_SECONDS = 10
CASES, FAST = 240, 24
"""How many there are; those after the first few are slow."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""Of images."""


class Canary:
    """Creates a folder when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A run of two epochs, the same one stopped in the second, another one of other settings, and their data."""
    root = tmp_path_factory.mktemp("originals")
    data = write_npz(root, 8)
    options = ["--data", data, "--batch-size", "16", "--epochs", "2", "--model", NETWORK, "--checkpoint-every", "2"]
    rlmix_main(["train", *options, "--method", "rmix", "--out", str(root / "whole")])
    rlmix_main(["train", *options, "--method", "rmix", "--seed", "1", "--out", str(root / "other")])
    shutil.copytree(root / "whole", root / "half")
    newest = list_checkpoints(root / "half" / "checkpoints")[-1]
    newest.unlink()  # epoch-0002; epoch-0001-step-2 stays
    (root / "half" / "result.json").unlink()
    write_folder(root / "images", num_train=4, num_val=2, num_classes=2, size=(12, 10))
    for path in (root / "images").glob("*/class1/*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    return root, Path(data.removeprefix("npz:")), options


# -- ways to damage a file


def truncate(draw, path, scratch):
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def flip_bits(draw, path, scratch):
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 3, 50))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def zero_a_block(draw, path, scratch):
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content))
    length = min(512, len(content) - start)
    content[start : start + length] = bytes(length)
    path.write_bytes(content)


def other_bytes(draw, path, scratch):
    path.write_bytes(draw.choice((b"", b"\n", b"hello", b"{}", b"[1, 2]", b"\x80\x02.", b"PK\x03\x04", draw.randbytes(1000))))


def folder_in_its_place(draw, path, scratch):
    path.unlink()
    path.mkdir()


def canary(draw, path, scratch):
    evil = Canary(scratch / "executed")
    if path.suffix == ".npz":
        np.savez(path, x_train=np.array([evil], dtype=object), y_train=np.zeros(1, int), x_test=np.zeros(1), y_test=np.zeros(1))
    elif path.suffix == ".pt":
        draw.choice((lambda: torch.save({"epoch": 1, "training": evil}, path), lambda: path.write_bytes(pickle.dumps(evil))))()
    elif path.suffix in (".png", ".jpg"):  # Pillow hands PostScript to Ghostscript
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 10\n%%EndComments\nshowpage\n%%EOF\n")
    else:
        path.write_text(f"method: !!python/object/apply:os.mkdir ['{scratch / 'executed'}']\n")


ANY = (truncate, flip_bits, zero_a_block, other_bytes, folder_in_its_place)


def another_runs(name):
    def swap(draw, path, scratch):
        shutil.copy(
            list_checkpoints(scratch.parent / "other" / "checkpoints")[-1] if name == ".pt" else _other(path, scratch), path
        )

    return swap


def _other(path, scratch):
    return scratch.parent / "other" / path.name


def wrong_types(draw, path, scratch):
    with np.load(path) as archive:
        arrays = dict(archive)
    key = draw.choice(list(arrays))
    array = arrays[key]
    arrays[key] = draw.choice((array.astype(float), array[:0], array[:-1], array[None], array.astype("U8"), np.array(3)))
    np.savez(path, **arrays)


def resave_without_seal(draw, path, scratch):
    state = torch.load(path, weights_only=True)
    state["training"]["model"]["stem.weight"] += 1
    torch.save(state, path)


def other_format(draw, path, scratch):
    """Under its old name; ICO and PCX are not read."""
    Image.open(path).copy().save(path, draw.choice((*FORMATS, "ICO", "PCX")))


def other_mode(draw, path, scratch):
    Image.open(path).convert(draw.choice(("1", "L", "LA", "P", "RGBA", "I;16"))).save(path, "PNG")


def other_size(draw, path, scratch):
    """A header that promises more or fewer pixels than there are: up to 2**31, more than Pillow takes, and just less."""
    width, height = draw.choice(
        ((2**31 - 1, 2**31 - 1), (65535, 65535), (13000, 13000), (65535, 1), (1, 65535), (12, 11), (12, 3), (0, 10))
    )
    content = bytearray(path.read_bytes())
    if path.suffix == ".png":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", min(height, 65535), min(width, 65535))
    path.write_bytes(content)


def thin(draw, path, scratch):
    """A small file, and gigabytes once its shorter side is as long as a picture's."""
    length = draw.choice((900, 60_000))
    Image.new("RGB", draw.choice(((length, 1), (1, length))), "red").save(path, "PNG")


def pipe_in_its_place(draw, path, scratch):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "checkpoint": (*ANY, flip_bits, truncate, canary, another_runs(".pt"), resave_without_seal),
    "config": (*ANY, flip_bits, flip_bits, canary, another_runs(".yaml")),
    "npz": (*ANY, flip_bits, truncate, canary, wrong_types, wrong_types),
    "metrics": ANY,
    "events": (*ANY, another_runs("events")),
    "image": (
        *ANY,
        flip_bits,
        truncate,
        canary,
        other_format,
        other_format,
        other_mode,
        other_size,
        other_size,
        thin,
        pipe_in_its_place,
    ),
}


def target_of(kind, draw, run, data):
    if kind == "npz":
        return data
    if kind == "image":
        return draw.choice(sorted(data.rglob("*.*g")))
    if kind == "checkpoint":
        return draw.choice(list_checkpoints(run / "checkpoints"))
    if kind == "events":
        return next(run.glob("events.out.tfevents.*"))
    return run / {"config": "config.yaml", "metrics": "metrics.jsonl"}[kind]


def on_images(folder, out):
    """Two steps on 8 images, of which each is looked at."""
    options = ["--image-size", "8", "--batch-size", "4", "--epochs", "1", "--model", NETWORK, "--method", "vanilla"]
    return ["train", "--data", f"imagefolder:{folder}", *options, "--learning-rate", "0.05", "--out", str(out)]


def train_on_what_is_there(images, place):
    """The images that Pillow can decode, as PNG, and a run on them."""
    for path in sorted(images.rglob("*.*g")):
        copy = place / "clean" / path.relative_to(images).with_suffix(".png")
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with Image.open(path if path.is_file() else os.devnull, formats=FORMATS) as image:
                if max(image.size) <= 1000 * min(image.size):
                    if image.mode == "I;16":
                        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
                    image.convert("RGB").save(copy)
        except Exception:
            continue
    rlmix_main([*on_images(place / "clean", place / "expected"), "--workers", "0"])
    return place / "expected"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program of that name that makes the canary's folder."""
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nmkdir {tmp_path / 'scratch' / 'executed'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


@pytest.mark.usefixtures("ghostscript")
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case >= FAST else ()) for case in range(CASES)], ids=str
)
def test_a_damaged_input(case, originals, tmp_path, capfd):
    draw = random.Random(case)
    kind = list(DAMAGES)[case % len(DAMAGES)]
    damage = draw.choice(DAMAGES[kind])
    root, original_data, options = originals
    run, data, scratch = tmp_path / "half", original_data, tmp_path / "scratch"
    scratch.mkdir()
    if kind == "npz":
        data = Path(shutil.copy(original_data, tmp_path / "data.npz"))
        args = ["train", "--data", f"npz:{data}", *options[2:], "--method", "rmix", "--out", str(tmp_path / "run")]
    elif kind == "image":
        data = shutil.copytree(root / "images", tmp_path / "images")
        args = [*on_images(data, tmp_path / "run"), "--workers", draw.choice("002"), *draw.choice(([], ["--skip-corrupt"]))]
    else:
        for folder in ("half", "other"):
            shutil.copytree(root / folder, tmp_path / folder)
        args = ["train", "--resume", str(run)]
    if kind == "events":
        shutil.copy(next((root / "other").glob("events*")), tmp_path / "other" / next(run.glob("events*")).name)
    damage(draw, target := target_of(kind, draw, run, data), scratch)

    began, code = time.monotonic(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the checkpoint before is used, or that images are left out
        try:
            rlmix_main(args)
        except SystemExit as stop:
            code = stop.code
    assert time.monotonic() - began < LIMIT_SECONDS
    assert not list(scratch.iterdir()), "code was executed"
    errors = capfd.readouterr().err.splitlines()
    if code:
        assert code == 2
        assert len(errors) == 1, errors
        assert errors[0].startswith("rlmix: error: ")
        if kind == "image":
            assert "--skip-corrupt" not in args
            assert f"{target} must be an image: " in errors[0]
        return
    assert errors == []
    if kind in ("npz", "image"):
        whole = root / "whole" if kind == "npz" else train_on_what_is_there(data, tmp_path)
        assert_same_state(
            *(load_checkpoint(list_checkpoints(one / "checkpoints")[-1])["training"] for one in (whole, tmp_path / "run"))
        )
    else:
        assert_same_run(root / "whole", run)
