"""What rlmix promises: its public names, their examples, a user's file, and the help."""

import doctest
import importlib
import re
import sys
import types
import typing
from pathlib import Path

import pytest
import torch
import user

import rlmix
from rlmix.benchmarking.options import Fidelity
from rlmix.common.groups import options_of
from rlmix.config import Config
from rlmix.experiments.commands.compare import Compare
from rlmix.experiments.commands.evaluate import Evaluate
from rlmix.experiments.commands.policies import Policies
from rlmix.experiments.commands.reproduce import Reproduce
from rlmix.experiments.commands.visualize import Visualize
from rlmix.experiments.help import describe, first_sentence
from rlmix.models import build_model
from rlmix.scripts.main import COMMANDS
from rlmix.scripts.main import main as rlmix_main

KINDS = {"train": Config, "compare": Compare, "policies": Policies, "fidelity": Fidelity, "visualize": Visualize}
KINDS |= {"reproduce": Reproduce, "evaluate": Evaluate}


@pytest.mark.parametrize("module", ["config", "common.registry", "agents.transform"])
def test_examples_run(module):
    found = doctest.testmod(importlib.import_module(f"rlmix.{module}"))
    assert (found.failed, found.attempted > 0) == (0, True)


def test_every_public_name_is_there_and_known_to_type_checkers():
    source = Path(rlmix.__file__).read_text()
    typed = set(re.findall(r"^    from [\w.]+ import (\w+) as \1$", source, re.M))
    assert typed == set(rlmix.__all__)
    assert all(getattr(rlmix, name) is not None for name in rlmix.__all__)


def test_a_users_file_does_what_it_says(tmp_path):
    assert 0 <= user.train(tmp_path) <= 100
    assert user.environments() == (16, 16)
    assert user.compare(tmp_path) == ["rmix", "vanilla"]
    mixed = user.mix(build_model("preactresnet18_w16", 10).train(), torch.rand(4, 3, 32, 32), torch.arange(4))
    assert [each.targets.shape for each in mixed] == [(4, 10)] * 3


@pytest.mark.parametrize("command", KINDS)
def test_the_help_is_short_and_names_every_option(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        rlmix_main([command, "--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 120
    assert max(map(len, text.splitlines())) <= 120
    assert f"rlmix {command} " in text.split("First of all")[0].split("\n", 2)[2]  # an example
    for name, option in options_of(KINDS[command]).items():
        if "Suppress" not in str(option.hint):
            flag = name.upper() if option.positional else name.replace("_", "-")
            assert re.search(rf"(--(no-|\[no-\])?|^  ){re.escape(flag)}\b", text, re.M), name
            assert option.doc, name


def test_the_first_screen_is_enough_for_a_first_run():
    screen = describe(Config, "train").splitlines()[:24]
    first = [line.split()[0] for line in screen[screen.index("First of all:") + 1 :] if line.startswith("  --")]
    assert first[:6] == ["--method", "--data", "--model", "--epochs", "--seed", "--out"]
    assert first_sentence("One e.g. of it. And more.") == "One e.g"  # so texts do without abbreviations


def test_options_say_what_they_may_be_once():
    """No option has two defaults, and the ranges stand at the fields."""
    kinds = typing.get_type_hints(Config)
    assert list(kinds)[1:] == ["data", "model", "optim", "mixing", "env", "agent", "device", "run"]
    for kind in (Compare, Reproduce, Policies, Fidelity, Visualize):
        own = options_of(kind)
        for name, option in options_of(Config).items():
            excused = {("data", Reproduce), ("epochs", Visualize), ("seed", Policies), ("policy", Visualize)}
            if name in own and (name, kind) not in excused and name not in ("out", "metrics", "reward"):
                assert own[name].default == option.default, (name, kind)


def test_every_command_has_a_line_and_a_file():
    for command in COMMANDS:
        assert importlib.import_module(f"rlmix.scripts.{command}").main


def test_a_command_is_one_file_and_one_line(monkeypatch, capsys):
    said = []
    module = types.ModuleType("rlmix.scripts.toy")
    module.main = said.append
    monkeypatch.setitem(sys.modules, "rlmix.scripts.toy", module)
    monkeypatch.setitem(COMMANDS, "toy", "plays")
    rlmix_main(["toy", "--loud"])
    assert said == [["--loud"]]
    with pytest.raises(SystemExit, match="0"):
        rlmix_main(["--help"])
    assert "  toy         plays\n" in capsys.readouterr().out
