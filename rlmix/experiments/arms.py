"""Trainings that belong together: every arm under every seed."""

from dataclasses import dataclass
from pathlib import Path

from rlmix.common.files import check_place
from rlmix.config import Config
from rlmix.experiments.settings import settled


@dataclass(frozen=True)
class Arm:
    """What is trained under every seed: a row of the table."""

    name: str
    """Of the row in files, and of its runs' folders."""
    options: Config
    """Seed and folder aside."""
    baseline: str
    """Name of the arm that its paired differences are from."""
    label: str
    """For people; with the model it names the row."""


@dataclass(frozen=True)
class Study:
    """Arms, trained under the same seeds."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    out: Path
    timed: bool = True
    """Time a step of each arm's method relative to vanilla, interleaved, before the training."""

    def run(self, arm: Arm, seed: int) -> Config:
        """Options of one run."""
        return arm.options.changed(seed=seed, out=self.out / "runs" / f"{arm.name}-s{seed}")

    def title(self, arm: Arm) -> str:
        """What plots call an arm: its label, and its model where there are several."""
        several = len({other.options.model.name for other in self.arms}) > 1
        return f"{arm.options.model.name} {arm.label}" if several else arm.label

    def check(self) -> None:
        """Raise ValueError where an option is out of range, or the folder is no comparison's, before anything is written."""
        check_out(self.out)
        if not self.seeds:
            raise ValueError("seeds must name at least one, got none")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        for arm in self.arms:
            for seed in self.seeds:
                settled(self.run(arm, seed))


def check_out(folder: Path) -> None:
    """Raise ValueError where ``folder`` holds a run or is a file: a comparison cannot lie there."""
    if (folder / "config.yaml").exists():
        raise ValueError(f"out must be a comparison's folder or a new one, and {folder} holds a run")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, got the file {folder}")
    check_place(folder, "out")
