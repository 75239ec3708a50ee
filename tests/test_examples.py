"""The blocks of README and docs. Those of python and console run as they stand, a page's in order in one folder, files under the names
that they begin with; of sh the lines of rlmix are read by their command, which is stopped where its work begins."""

import importlib
import os
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_package
from PIL import Image

import rlmix
from rlmix.common.names import check_name
from rlmix.models import build_model
from rlmix.scripts.main import COMMANDS
from rlmix.scripts.main import main as rlmix_main

ROOT = Path(__file__).parents[1]
PAGES = {str(page.relative_to(ROOT)): page.read_text() for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])}
APART = ["docs/examples.md"]
"""Pages whose sections know nothing of each other."""
NEEDS = {
    "docs/examples.md: Lightning": ["lightning"],
    "docs/examples.md: Hugging Face's Trainer": ["transformers", "accelerate"],
    "docs/examples.md: Fine-tuning one of timm's networks with AdamW": ["timm"],
    "docs/examples.md: Weights & Biases, offline": ["wandb"],
}


def blocks_of(text, *languages):
    """(language, code) of the fenced blocks, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(language, code) for language, code in found if language in languages]


def titled(page, text):
    """What runs together, by its title: a page, or a section of it."""
    if page not in APART:
        return {page: text}
    return {
        f"{page}: {title}": body for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    }


EXAMPLES = {
    title: blocks
    for page, text in PAGES.items()
    for title, part in titled(page, text).items()
    if (blocks := blocks_of(part, "python", "console"))
}


def loop():
    """What a reader has already: a loader and a model."""
    torch.manual_seed(0)
    images, labels = torch.rand(16, 3, 32, 32), torch.arange(16) % 10
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=8)
    return {"model": build_model("preactresnet18_w16", num_classes=10), "images": images, "labels": labels, "loader": loader}


def pairs():
    """Two torch data sets of (image, label)."""
    return {"train": toy_package.Noise(0, 120), "test": toy_package.Noise(1, 12)}


def exported():
    """The programs of a run, and a batch for them."""
    options = {"data": "toy_package:data", "model": "toy_package:network", "epochs": 1, "batch_size": 8, "num_patches": (2,)}
    rlmix.train(rlmix.Config.flat(**options, out="run"), quiet=True)
    rlmix_main(["export", "run", "--out", "."])
    pair = {"partner": torch.arange(5).roll(1), "lam": torch.tensor(0.5), "progress": torch.tensor(0.0)}
    return {"images": torch.rand(5, 3, 16, 16), "maps": torch.rand(5, 8, 8), "logits": torch.randn(5, 3), **pair}


GIVEN = {"README.md": loop, "docs/methods.md": loop, "docs/data.md": pairs, "docs/export.md": exported}


@pytest.mark.parametrize("title", EXAMPLES)
@pytest.mark.filterwarnings("ignore")  # of other people's trainers
def test_a_page_runs_as_it_stands(title, tmp_path, monkeypatch):
    for package in NEEDS.get(title, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = {"__name__": "example"} | (GIVEN[title]() if title in GIVEN else {})
    for kind, code in EXAMPLES[title]:
        named = re.match(r"# (\w+)\.py\n", code)
        if kind == "console":
            for line in code.splitlines():
                run_line(shlex.split(line), monkeypatch)
        elif named:
            (tmp_path / f"{named[1]}.py").write_text(code)
            sys.modules.pop(named[1], None)
            importlib.invalidate_caches()
        else:
            exec(compile(code, title, "exec"), found)
    assert os.getcwd() == str(tmp_path)
    if title in SHOWN:
        SHOWN[title](found)


def run_line(words, monkeypatch):
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert words[0] == "rlmix"
    rlmix_main(words[1:])
    if "--out" in words:
        assert Path(words[words.index("--out") + 1]).is_dir()


def picture_drawn(found):
    with Image.open("mixed.png") as picture:
        assert np.asarray(picture).std() > 10


def agent_learned(found):
    ((_, code),) = EXAMPLES["docs/tutorials/own_agent.md"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    assert found["finished"]
    assert all(parameter.grad.abs().sum() > 0 for parameter in found["policy"].parameters())


SHOWN = {
    "README.md": picture_drawn,
    "docs/tutorials/own_agent.md": agent_learned,
}


# -- lines that are only read


def lines_of(text):
    """The words of each ``rlmix`` line of a page's sh blocks: variables filled in, without comments and what only stands for more."""
    found = []
    for _, code in blocks_of(text, "sh"):
        known = {}
        for line in code.replace("\\\n", " ").splitlines():
            if assigned := re.match(r'(\w+)="(.*)"', line):
                known[assigned[1]] = assigned[2]
                continue
            for name, value in known.items():
                line = line.replace(f"${name}", value)
            reader = shlex.shlex(re.sub(r"> ?\S+", "", line), posix=True, punctuation_chars=";&|")
            reader.whitespace_split, reader.commenters = True, "#"
            words: list[str] = []
            for word in [*reader, ";"]:
                if set(word) <= set(";&|"):
                    names = [place for place, each in enumerate(words) if re.fullmatch(r"(\S*/)?rlmix", each)]
                    if names and not any(each.endswith(".py") for each in words[: names[0]]):  # not an argument of a script
                        found.append([each for each in words[names[0] + 1 :] if each != "..."])
                    words = []
                else:
                    words.append(word)
    return found


LINES = {page: lines for page, text in PAGES.items() if (lines := lines_of(text))}


class Begun(Exception):  # noqa: N818  (no error: the command has read its options, and begins)
    pass


def begin(*args, **options):
    raise Begun


WORK = {
    "train": ["experiments.train:train", "experiments.launching:launch"],
    "policies": ["experiments.policies:measure"],
    "benchmark": ["benchmarking.measure:benchmark", "experiments.suite:run_suite"],
    "fidelity": ["benchmarking.fidelity:fidelity"],
}
"""What a command calls when it has read its options, where that is not ``experiments.NAME:NAME``."""


@pytest.mark.parametrize("page", LINES)
def test_command_lines_are_read(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_a_readers_own(tmp_path)
    for command, *words in LINES[page]:
        check_name("command", command, COMMANDS)
        script = importlib.import_module(f"rlmix.scripts.{command}")
        for flag, word in pairwise(words):
            if flag in ("--freeze-from", "--resume"):
                leave_run(Path(word))
            elif flag == "--config":
                leave_run(Path(word).parent)
        if command in ("list", "completion"):  # they only print
            script.main(words)
            continue
        for path in WORK.get(command, [f"experiments.{command}:{command}"]):
            module, name = path.split(":")
            monkeypatch.setattr(importlib.import_module(f"rlmix.{module}"), name, begin)
            monkeypatch.setattr(script, name, begin, raising=False)
        try:
            with pytest.raises(Begun):
                script.main(words)
        except (ValueError, OSError, SystemExit) as error:
            raise AssertionError(f"rlmix {command} {shlex.join(words)}: {error}") from error


def leave_run(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("data: digits\nmethod: rmix\n")


def write_a_readers_own(folder):
    """The package that pages name where a reader's own stands."""
    own = {"nets": "network", "sets": "data", "rewards": "share_reward as mine"}
    (folder / "mypackage").mkdir()
    for module, name in own.items():
        (folder / "mypackage" / f"{module}.py").write_text(f"from toy_package import {name}\n")


# -- and none escapes


def test_no_block_is_of_a_language_that_is_not_tried():
    for page, text in PAGES.items():
        assert set(re.findall(r"^```(\w+)", text, re.MULTILINE)) <= {"python", "console", "sh", "text"}, page


def test_what_pages_need_and_are_given_is_of_pages_that_there_are():
    assert NEEDS.keys() | GIVEN.keys() | SHOWN.keys() <= EXAMPLES.keys()
    assert len(EXAMPLES) >= 16
    assert sum(map(len, LINES.values())) >= 60
