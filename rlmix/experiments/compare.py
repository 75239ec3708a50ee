"""The same classifier, data and schedule under several methods and seeds, and what they come to."""

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from rlmix.agents.sb3.ppo import PPOConfig
from rlmix.common.names import check_name
from rlmix.config import TrainingConfig
from rlmix.experiments.executors import EngineOptions
from rlmix.experiments.settings import ALL_METHODS, NO_ALPHA, Train
from rlmix.experiments.study import Arm, Study, drawn_from, run_study
from rlmix.reporting import tables
from rlmix.reporting.output import make_console
from rlmix.reporting.report import write_report


@dataclass(frozen=True)
class Compare(EngineOptions, TrainingConfig):
    """Compare methods: the same classifier, data and schedule under each, over the same seeds."""

    methods: tuple[str, ...] = ("rlmix", "rmix", "vanilla")
    """Any of rlmix train's methods but constant."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each method is trained once with each; --seed is not read."""
    models: tuple[str, ...] = ()
    """Compare on each of these models, in one table; on --model where not given."""
    observation: Literal["paper", "pair"] = "pair"
    """What an agent sees of an image, as for rlmix train."""
    credit: Literal["own", "pair", "batch"] = "pair"
    """Who earns an image's reward, as for rlmix train."""
    baseline: str | None = None
    """Paired differences are from this method, on the same model; where not given, from rmix if it is compared, else vanilla, else the
    first one that does not learn to mix."""
    control: bool = True
    """Beside rlmix and rmix, which cut the same masks, show rmix-p8: R-Mix at the 8 patches that the paper gave its agent."""
    timing: bool = True
    """Time a step of each method, interleaved, before the training."""
    agent: PPOConfig = field(default_factory=PPOConfig)
    """PPO's hyperparameters."""
    out: Path = Path("runs/compare")
    """The comparison's folder; the runs lie in DIR/runs."""

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The methods, and the control where it belongs."""
        wanted = [*self.methods]
        if self.control and {"rlmix", "rmix"} <= set(wanted):
            wanted.append("rmix-p8")
        return tuple(dict.fromkeys(wanted))

    @property
    def base(self) -> str:
        """What paired differences are from."""
        order = ["rmix", "vanilla", *(method for method in self.methods if method != "rlmix"), *self.methods]
        return self.baseline or next(method for method in order if method in self.methods)

    @property
    def study(self) -> Study:
        """What is to be trained."""
        models = self.models or (self.recipe.model,)
        arms = [self.arm(model, method) for model in models for method in self.all_methods]
        return Study(tuple(arms), self.seeds, self.out, self.timing)

    def arm(self, model: str, method: str) -> Arm:
        """A method on a model."""
        shared = {entry.name: getattr(self, entry.name) for entry in fields(TrainingConfig)} | {"model": model}
        if method in NO_ALPHA:
            shared["alpha"] = None
        if method == "rmix-p8":
            shared["num_patches"] = None
        options = Train(**shared, method=method, agent=self.agent)
        prefix = f"{model}-" if self.models else ""
        return Arm(prefix + method, options, prefix + self.base, method)

    def check(self) -> None:
        """Raise ValueError where an option is out of range, before anything is written."""
        for method in self.methods:
            check_name("method", method, ALL_METHODS)
        if not self.methods:
            raise ValueError("methods must name at least one, got none")
        if "constant" in self.methods:
            raise ValueError(f"methods must be of {', '.join(ALL_METHODS)} but constant, got {self.methods}")
        if self.base not in self.all_methods:
            raise ValueError(f"baseline must be one of the methods {', '.join(self.all_methods)}, got {self.baseline!r}")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models must differ, got {self.models}")


def compare(options: Compare, *, quiet: bool = False) -> dict[str, Any]:
    """Run a comparison to its end, write its files, and give what compare.json holds.

    Raises:
        ValueError: If an option is out of range, a run in the folder was made with other options, or runs failed.
        OSError: If the data or the folder cannot be used.
    """
    options.check()
    study = options.study
    report = run_study(study, options, quiet=quiet)
    write_report(study.out, report, drawn_from(study), "Comparison")
    if not quiet:
        console = make_console() if sys.stdout.isatty() else make_console(width=180)
        console.print(tables.as_table(report))
        console.print(f"written to {options.out}", soft_wrap=True)
    return report
