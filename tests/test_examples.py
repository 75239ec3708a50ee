"""docs/examples.md runs as it stands: every section's blocks in order, files under the names that they begin with."""

import importlib
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from rlmix.scripts.main import main as rlmix_main

TEXT = (Path(__file__).parents[1] / "docs" / "examples.md").read_text()
SECTIONS = {
    title: re.findall(r"```(python|console)\n(.*?)```", body, re.DOTALL)
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
}
NEEDS = {
    "Lightning": ["lightning"],
    "Hugging Face's Trainer": ["transformers", "accelerate"],
    "Fine-tuning one of timm's networks with AdamW": ["timm"],
    "Weights & Biases, offline": ["wandb"],
}


@pytest.mark.parametrize("title", [title for title, blocks in SECTIONS.items() if blocks])
@pytest.mark.filterwarnings("ignore")  # of other people's trainers
def test_a_section_runs_as_it_stands(title, tmp_path, monkeypatch):
    for package in NEEDS.get(title, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for kind, code in SECTIONS[title]:
        named = re.match(r"# (\w+)\.py\n", code)
        if kind == "console":
            words = shlex.split(code)
            while "=" in words[0]:
                monkeypatch.setenv(*words.pop(0).split("=", 1))
            assert words[0] == "rlmix"
            rlmix_main(words[1:])
            assert Path(words[words.index("--out") + 1]).is_dir()
        elif named:
            (tmp_path / f"{named[1]}.py").write_text(code)
            sys.modules.pop(named[1], None)
            importlib.invalidate_caches()
        else:
            exec(compile(code, f"examples.md: {title}", "exec"), {"__name__": "example"})
    assert os.getcwd() == str(tmp_path)


def test_every_section_that_needs_a_package_is_there():
    assert NEEDS.keys() <= SECTIONS.keys()
    assert len(SECTIONS) >= 9
