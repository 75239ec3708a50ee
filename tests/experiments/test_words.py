"""Options by the names that other libraries have, several values in a word, and what an error says of many names and of files."""

import errno
import os
import re
from types import SimpleNamespace

import pytest

from rlmix.common import files
from rlmix.common.groups import aliases_of
from rlmix.common.names import check_name
from rlmix.config import Config
from rlmix.experiments.commands.compare import Compare
from rlmix.experiments.help import describe
from rlmix.experiments.options import ELSEWHERE, parse
from rlmix.experiments.reading import read_options
from rlmix.scripts.main import main as rlmix_main


def refused(capsys, *words):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main([*words])
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("rlmix: error: ")


NAMES = {"n_steps": "rollout_steps", "batch_size": "minibatch_size", "n_epochs": "passes", "ent_coef": "entropy_coefficient"}
NAMES |= {name: name for name in ("learning_rate", "gamma", "gae_lambda", "clip_range")}


@pytest.mark.parametrize("name", NAMES)
def test_an_agents_option_by_stable_baselines3s_name(name, tmp_path):
    wanted = Config.flat(**{f"agent.{NAMES[name]}": 2 if name[:2] in ("n_", "ba") else 0.5})
    value = "2" if name[:2] in ("n_", "ba") else "0.5"
    for flag in (f"--agent.{name}", f"--agent.{name.replace('_', '-')}"):
        assert read_options([flag, value]).agent == read_options([f"{flag}={value}"]).agent == wanted.agent
    assert Config.flat(agent={name: float(value) if "." in value else int(value)}) == wanted
    (tmp_path / "config.yaml").write_text(f"agent:\n  {name}: {value}\n")
    assert Config.from_yaml(tmp_path / "config.yaml").agent == wanted.agent
    assert NAMES[name] in wanted.as_dict()["agent"]  # what is saved has one name
    assert re.search(rf"--agent.{name.replace('_', '-')} |\({name.replace('_', '-')}\)", describe(Config, "train"))


def test_both_names_at_once_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"option agent\.n_epochs must be given once, and is agent\.passes too"):
        Config.from_mapping({"agent": {"passes": 2, "n_epochs": 3}})


def test_an_error_has_the_name_that_was_typed(capsys):
    assert refused(capsys, "train", "--agent.n-epochs", "0") == "--agent.n-epochs must be above 0, got 0"
    assert refused(capsys, "train", "--agent.passes", "0") == "--agent.passes must be above 0, got 0"
    line = refused(capsys, "train", "--algorithm", "a2c", "--agent.n-epochs", "2")
    assert line == "--agent.n-epochs must be left out with --algorithm a2c: it would do nothing"


def test_no_name_is_two_options():
    assert not set(aliases_of(Config)) & set(Config().as_dict())
    assert set(aliases_of(Config).values()) == {f"agent.{own}" for name, own in NAMES.items() if name != own}


@pytest.mark.parametrize("name", ["lr", "bs", "wd", "dataset", "num-epochs", "arch"])
def test_what_an_option_is_called_elsewhere(name, capsys):
    meant = ELSEWHERE[name.replace("-", "_")].replace("_", "-")
    assert refused(capsys, "train", f"--{name}", "1").endswith(f"(did you mean --{meant}?)")


@pytest.mark.parametrize("words", ["0,1", "0, 1", "0 1", "0,1,"])
def test_values_with_commas(words):
    assert parse(Compare, "compare", ["--seeds", *words.split()]).seeds == (0, 1)
    if " " not in words:
        assert parse(Compare, "compare", [f"--seeds={words}"]).seeds == (0, 1)
    assert parse(Compare, "compare", ["--methods", "rmix,vanilla", "--epochs", "3"]).methods == ("rmix", "vanilla")


def test_paths_keep_their_commas():
    assert read_options(["--data", "npz:a,b.npz"]).data.name == "npz:a,b.npz"


def test_of_many_names_the_nearest_are_told():
    names = [f"net{number}" for number in range(30)]
    with pytest.raises(ValueError, match=r"^model must be one of the 30 of rlmix list models, got 'nett'") as error:
        check_name("model", "nett", names, "rlmix list models")
    assert str(error.value).count("'net") == 4  # what was typed, and three
    with pytest.raises(ValueError, match=r"one of net0, net1, net2, got 'x'$"):
        check_name("model", "x", names[:3], "rlmix list models")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: resnet18\nepochs: [3\nseed: 1\n", r"must be YAML: .*, line \d, key (epochs|seed)"),
        ("seed: 1\nepochs: many\n", r"epochs must be .*, got 'many'; in \S+bad.yaml, line 2"),
        ("seed: 1\n\nepoch: 3\n", r"option must be one of the \d+ of rlmix list options, got 'epoch'.*; in \S+bad.yaml, line 3"),
        ("agent:\n  gama: 1\n", r"option must be one of .*got 'gama'.*; in \S+bad.yaml, line 2"),
    ],
)
def test_a_broken_file_is_told_by_line_and_key(text, said, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text(text)
    line = refused(capsys, "train", "--config", str(tmp_path / "bad.yaml"))
    assert re.search(said, line), line


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_full_disk_says_how_much_is_needed(error, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=500_000))
    calls = []

    def write(handle):
        handle.write(b"0" * 7_300_000)
        calls.append(handle)
        if len(calls) == 1:
            raise error

    with pytest.raises(OSError, match=r"file needs 7\.3 MB, and 0\.5 MB are left on a full disk$"):
        files.write_atomically(tmp_path / "file", write)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"
