"""Trains a run to its end while killing it: ``kill_driver.py SEED KILLS FOLDER OPTIONS...``; prints a line a kill.

Each life of the run is a forked child, which is cheap, with one fault planted in it: at the n-th step, or at the n-th time a file is
synced, renamed, half written or removed, it sends itself SIGKILL. Where a run ends before it was killed often enough, another is begun.
"""

import io
import os
import random
import signal
import sys
import warnings
from pathlib import Path

import torch

from rlmix.scripts import train as command
from rlmix.training.run_folder import Run
from rlmix.training.trainer import Training

FAULTS = {
    "before a step": (Training, "step", 6),
    "before a checkpoint's first byte": (torch, "save", 3),
    "half way through a checkpoint": (torch, "save", 3),
    "before a file is synced": (os, "fsync", 6),
    "before a file is renamed": (os, "replace", 4),
    "after a file was renamed": (os, "replace", 4),
    "before a file is removed": (Path, "unlink", 3),
    "half way through a line of metrics": (Run, "log_epoch", 1),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def plant(fault: str, count: int) -> None:
    """Make the ``count``-th call of the fault's function the last thing this process does."""
    owner, name, _ = FAULTS[fault]
    function = getattr(owner, name)
    calls = 0

    def deadly(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls < count:
            return function(*args, **kwargs)
        if fault == "half way through a checkpoint":
            content = io.BytesIO()
            function(args[0], content)
            args[1].write(content.getvalue()[: len(content.getvalue()) // 2])
            args[1].flush()
        elif fault == "half way through a line of metrics":
            with open(args[0].folder / "metrics.jsonl", "ab") as handle:
                handle.write(b'{"epoch": 1, "st')
        elif fault.startswith("after"):
            function(*args, **kwargs)
        die()

    setattr(owner, name, deadly)


def live(folder: Path, options: list[str], fault: str | None, count: int) -> int:
    """One life; the child's wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        warnings.simplefilter("ignore")
        if fault is not None:
            plant(fault, count)
        begun = (folder / "config.yaml").exists()
        command.main(["--resume", str(folder)] if begun else [*options, "--out", str(folder)])
        os._exit(0)
    except BaseException as error:
        print("failed", repr(error), flush=True)  # noqa: T201
        os._exit(1)


def main(seed: int, kills: int, folder: Path, options: list[str]) -> None:
    draw, killed, runs = random.Random(seed), 0, 0
    while killed < kills or runs == 0:
        while True:
            fault = draw.choice(list(FAULTS)) if killed < kills else None
            count = 0 if fault is None else draw.randint(1, FAULTS[fault][2])
            status = live(folder / str(runs), options, fault, count)
            if os.WIFSIGNALED(status):
                killed += 1
                print(f"killed {fault}, time {count}", flush=True)  # noqa: T201
            elif os.WEXITSTATUS(status) == 0:
                break
            else:
                sys.exit(f"the run failed after it was killed {killed} times, last {fault}, time {count}")
        runs += 1


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
