"""Write what a run has learned in the formats of other libraries.

rlmix export DIR
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tyro.conf import Positional

from rlmix.agents.ppo import PPOAgent
from rlmix.checkpoints import write_atomically
from rlmix.runs import Run, read_config
from rlmix.scripts.options import parse, read_args, to_args
from rlmix.scripts.session import Task
from rlmix.scripts.train import Train


@dataclass(frozen=True)
class Export:
    """Write a run's policy as Stable-Baselines3's zip and its classifier as a state_dict. rlmix itself never reads the zip."""

    run: Positional[Path]
    """The run's folder."""
    out: Path | None = None
    """Where to write; the run's folder where not given."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse and export."""
    for path in export(parse(Export, "export", read_args(args))):
        print(path)  # noqa: T201


def export(options: Export) -> list[Path]:
    """``policy.zip`` for ``stable_baselines3.PPO.load``, where the run has an agent, and ``classifier.pt`` for ``load_state_dict``.

    Raises:
        ValueError: If the run has no checkpoint.
        OSError: If it cannot be read, or the files not written.
    """
    settings = Train(**vars(parse(Train, "train", to_args(Train, read_config(options.run))))).resolved()
    _, state = Run.reopen(options.run)
    if state is None:
        raise ValueError(f"{options.run} must hold a checkpoint, and there is none yet")
    task, out = Task(settings), options.out or options.run
    task.load_state_dict(state)
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "classifier.pt"]
    write_atomically(written[0], lambda handle: torch.save(task.training.model.state_dict(), handle))
    if isinstance(task.agent, PPOAgent):
        ppo = task.agent.ppo
        written.append(out / "policy.zip")
        # the buffer's class is rlmix's own: without it the zip loads where rlmix is not installed
        write_atomically(written[1], lambda handle: ppo.save(handle, exclude=["rollout_buffer_class", "replay_buffer_class"]))
    return written


if __name__ == "__main__":
    from rlmix.scripts.main import run_command

    run_command(main)
