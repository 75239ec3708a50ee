"""Two hundred damaged inputs: each is refused in one line, or does no harm. None is a traceback, a hang, a wrong result or code run."""

import os
import pickle
import random
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sameness import assert_same_run
from toys import write_npz

from rlmix.checkpoints import list_checkpoints
from rlmix.scripts.main import main as rlmix_main

LIMIT_SECONDS = 10
FAST = 20
"""Cases in the fast tests; the rest are slow."""


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
    options = ["--data", data, "--batch-size", "16", "--epochs", "2", "--model", "preactresnet18_w16", "--checkpoint-every", "2"]
    rlmix_main(["train", *options, "--method", "rmix", "--out", str(root / "whole")])
    rlmix_main(["train", *options, "--method", "rmix", "--seed", "1", "--out", str(root / "other")])
    shutil.copytree(root / "whole", root / "half")
    newest = list_checkpoints(root / "half" / "checkpoints")[-1]
    newest.unlink()  # epoch-0002; epoch-0001-step-2 stays
    (root / "half" / "result.json").unlink()
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


CASES = {
    "checkpoint": (*ANY, flip_bits, truncate, canary, another_runs(".pt"), resave_without_seal),
    "config": (*ANY, flip_bits, flip_bits, canary, another_runs(".yaml")),
    "npz": (*ANY, flip_bits, truncate, canary, wrong_types, wrong_types),
    "metrics": ANY,
    "events": (*ANY, another_runs("events")),
}


def target_of(kind, draw, run, data):
    if kind == "npz":
        return data
    if kind == "checkpoint":
        return draw.choice(list_checkpoints(run / "checkpoints"))
    if kind == "events":
        return next(run.glob("events.out.tfevents.*"))
    return run / {"config": "config.yaml", "metrics": "metrics.jsonl"}[kind]


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case >= FAST else ()) for case in range(200)], ids=str
)
def test_a_damaged_input(case, originals, tmp_path, capsys):
    draw = random.Random(case)
    kind = list(CASES)[case % len(CASES)]
    damage = draw.choice(CASES[kind])
    root, original_data, options = originals
    for folder in ("half", "other"):
        shutil.copytree(root / folder, tmp_path / folder)
    run, data, scratch = tmp_path / "half", original_data, tmp_path / "scratch"
    scratch.mkdir()
    if kind == "events":
        shutil.copy(next((root / "other").glob("events*")), tmp_path / "other" / next(run.glob("events*")).name)
    if kind == "npz":
        data = Path(shutil.copy(original_data, tmp_path / "data.npz"))
        args = ["train", "--data", f"npz:{data}", *options[2:], "--method", "rmix", "--out", str(tmp_path / "run")]
    else:
        args = ["train", "--resume", str(run)]
    damage(draw, target_of(kind, draw, run, data), scratch)

    began, code = time.monotonic(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the checkpoint before is used
        try:
            rlmix_main(args)
        except SystemExit as stop:
            code = stop.code
    assert time.monotonic() - began < LIMIT_SECONDS
    assert not list(scratch.iterdir()), "code was executed"
    errors = capsys.readouterr().err.splitlines()
    if code:
        assert code == 2
        assert len(errors) == 1, errors
        assert errors[0].startswith("rlmix: error: ")
        return
    assert errors == []
    if kind == "npz":
        ours, theirs = (list_checkpoints(folder / "checkpoints")[-1] for folder in (tmp_path / "run", root / "whole"))
        first, second = (torch.load(path, weights_only=True)["training"] for path in (ours, theirs))
        assert str(first) == str(second)
    else:
        assert_same_run(root / "whole", run)
