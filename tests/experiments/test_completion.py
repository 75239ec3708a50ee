"""What bash and zsh offer after ``rlmix``, asked of a shell that has read the script."""

import shlex
import shutil
import subprocess

import pytest

from rlmix.agents.policies import POLICIES
from rlmix.envs.rewards import REWARDS
from rlmix.experiments.families import FAMILIES
from rlmix.mixing.registry import METHODS
from rlmix.scripts.completion import KINDS
from rlmix.scripts.main import COMMANDS
from rlmix.scripts.main import main as rlmix_main

ZSH = """
compinit() { }  # which asks a terminal
compdef() { given=("$@") }
source SCRIPT
compadd() { print -rl -- "$@" }
_default() { print FILES }
words=(WORDS) CURRENT=${#words}
${(z)given[1]}
"""
"""What ``complete`` gave to zsh's compdef is called as for a line, with what it calls in turn printing: all names, of which zsh chooses."""


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    """Gives what is offered for a line's last word."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not there")
    script = tmp_path_factory.mktemp("shell") / "rlmix"

    def ask(capsys, *words):
        if not script.exists():
            rlmix_main(["completion", "bash"])
            script.write_text(capsys.readouterr().out)
        line = (
            f"COMP_WORDS=({shlex.join(['rlmix', *words])}); COMP_CWORD={len(words)}; _rlmix 2>/dev/null; echo ${{COMPREPLY[@]}}"
        )
        done = subprocess.run(["bash", "-c", f"source {script} && {line}"], capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout.split()

    return ask


OFFERED = [
    ([""], list(COMMANDS)),
    (["re"], ["reproduce"]),
    (["train", "--method", ""], [*POLICIES, *METHODS]),
    (["train", "--epochs", "3", "--method", "rm"], ["rmix", "rmix-p8"]),
    (["train", "--reward", "cosine_"], [name for name in REWARDS if name.startswith("cosine_")]),
    (["compare", "--methods", "rlmix", "rmix", "cutm"], ["cutmix"]),
    (["train", "--fli"], ["--flip"]),
    (["train", "--no-fl"], ["--no-flip"]),
    (["train", "--agent.gam"], ["--agent.gamma"]),
    (["compare", "--no-t"], ["--no-timing"]),
    (["train", "--data", "np"], ["npz:"]),
    (["train", "--data", "npz", ":", ""], []),  # a path: bash's own
    (["train", "--model", "resnet50", "--out", "ru"], []),
    (["evaluate", "--localization", ""], ["comixup", "zhou"]),
    (["reproduce", "table1"], ["table1", "table10", "table11", "table12"]),
    (["list", "rew"], ["rewards"]),
    (["policies", "--policies", ""], []),  # folders
    (["completion", ""], ["bash", "zsh"]),
    (["nothing", "--a"], []),
]


@pytest.mark.parametrize(("words", "expected"), OFFERED)
def test_bash_offers(offered, capsys, words, expected):
    found = offered(capsys, *words)
    assert len(found) == len(set(found))
    assert set(found) == set(expected) if words[-1] == "" else found == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], [*COMMANDS]),
        (["train", "--epochs", "3", "--method", "rm"], [*POLICIES, *METHODS]),
        (["list", ""], [*FAMILIES, "options"]),
        (["train", "--out", "ru"], ["FILES"]),
    ],
)
def test_zsh_offers(words, expected, tmp_path, capsys):
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not there")
    rlmix_main(["completion", "zsh"])
    (tmp_path / "rlmix").write_text(capsys.readouterr().out)
    asked = ZSH.replace("SCRIPT", str(tmp_path / "rlmix")).replace("WORDS", shlex.join(["rlmix", *words]))
    done = subprocess.run([zsh, "-f", "-c", asked], capture_output=True, text=True, check=True)
    assert not done.stderr
    assert [name for name in done.stdout.split() if name not in ("-", "-S")] == expected


def test_zsh_reads_what_bash_reads(capsys):
    rlmix_main(["completion", "bash"])
    bash = capsys.readouterr().out
    rlmix_main(["completion", "zsh"])
    _, begins, then, *rest = capsys.readouterr().out.splitlines()
    assert "compinit" in begins
    assert then == "autoload -Uz bashcompinit && bashcompinit"
    assert rest == bash.splitlines()[1:]


def test_every_command_is_completed():
    assert list(KINDS) == list(COMMANDS)


@pytest.mark.parametrize("words", [["completion", "fish"], ["completion"]])
def test_another_shell_is_refused_in_one_line(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rlmix: error: ")
    assert "bash" in line
