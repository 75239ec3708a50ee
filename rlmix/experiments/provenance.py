"""Where a report comes from: when it was made, by what, with which command, on what machine."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import torch

import rlmix


def provenance(threads: int) -> dict[str, str]:
    """Facts by name; the commit where rlmix lies in a checkout of its own.

    Args:
        threads: CPU threads of each training.
    """
    commit = checkout()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = f"{os.cpu_count()} logical cores, {threads} thread{'s' * (threads > 1)} a training"
    return {
        "report made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z").strip(),
        "rlmix": rlmix.__version__ + (f", commit {commit}" if commit else ""),
        "with": f"torch {torch.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "command": command(),
        "hardware": f"{processor()}, {cores}" + "".join(f"; {name}" for name in gpus),
    }


def checkout() -> str | None:
    """The commit of the checkout that rlmix is run from, and whether files differ from it; None where it is installed otherwise."""
    root = Path(rlmix.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + (" with changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def command() -> str:
    """What was typed; in a program of one's own, its name and arguments."""
    program = Path(sys.argv[0])
    ours = program.name == "rlmix" or program.parts[-2:] == ("scripts", "main.py")
    return shlex.join(["rlmix" if ours else program.name, *sys.argv[1:]])


def processor() -> str:
    """The CPU's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
