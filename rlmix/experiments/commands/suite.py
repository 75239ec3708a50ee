"""What ``rlmix benchmark --suite`` reads of what is typed, and what it trains. Imports no torch."""

from collections.abc import Collection
from typing import Any

from rlmix.benchmarking.options import Benchmark, SuiteConfig
from rlmix.common.groups import check_values, options_of
from rlmix.config import Config
from rlmix.experiments.arms import Arm, Study, check_out
from rlmix.experiments.reading import check_read
from rlmix.experiments.settings import check_model, settled

ARMS: dict[str, dict[str, Any]] = {
    "vanilla": {"method": "vanilla"},
    "rmix": {"method": "rmix", "saliency_mode": "exact"},
    "rmix-recycled": {"method": "rmix", "saliency_mode": "recycled"},
    "rlmix": {"method": "rlmix"},
}
"""What is trained, by its name in the table."""
BASELINE = "rmix"
COMPARED_EPOCHS, SCHEDULE_EPOCHS = 30, 300
SEEDS = (0, 1, 2)
OF_TRAINING = ("data_root", "download")
"""Options that only a training reads."""


def check_suite(options: Benchmark, typed: Collection[str]) -> None:
    """Raise ValueError where an option was typed that is not read, or is out of range.

    Args:
        options: All of them.
        typed: Names of those that were typed.
    """
    known = options_of(Benchmark)
    own = [name for name in sorted(typed) if known[name].group is SuiteConfig and name != "suite"]
    if options.suite.name is None:
        if own:
            raise ValueError(f"--{own[0].replace('_', '-')} must be left out without --suite: it would do nothing")
        return
    others = sorted(set(typed) - {*own, "suite", "device"})
    if others:
        raise ValueError(f"--{others[0].replace('_', '-')} must be left out with --suite, which settles it itself")
    check_values(options)
    suite = options.suite
    if len(suite.models) != 2:
        raise ValueError(f"models must name two networks, for images of 32 pixels and of 224, got {suite.models}")
    for model in suite.models:
        check_model(model, "models")
    check_out(suite.out)
    unread = [name for name in OF_TRAINING if name in typed]
    if suite.data is None:
        if unread:
            raise ValueError(f"--{unread[0].replace('_', '-')} must be left out without --data: it would do nothing")
        return
    configs = [arm_config(options, name, COMPARED_EPOCHS, {}) for name in ARMS]
    check_read(configs, unread)
    for config in configs:
        settled(config)


def arm_config(options: Benchmark, name: str, epochs: int, recipe: dict[str, Any]) -> Config:
    """A training of :data:`ARMS`.

    Args:
        options: The suite's.
        name: The arm's.
        epochs: At scale 1.
        recipe: What else differs from the data's own recipe.
    """
    suite = options.suite
    values = {
        "data": suite.data,
        "data_root": suite.data_root,
        "download": suite.download,
        "model": suite.models[0],
        "device": options.device,
        "epochs": max(1, round(suite.scale * epochs)),
    }
    return Config.flat(**values | recipe | ARMS[name])


def compared(options: Benchmark, seeds: tuple[int, ...], recipe: dict[str, Any]) -> Study:
    """Every arm for 30 epochs under each of ``seeds``; what fewer seeds have trained is there already."""
    arms = [Arm(name, arm_config(options, name, COMPARED_EPOCHS, recipe), BASELINE, name) for name in ARMS]
    return Study(tuple(arms), seeds, options.suite.out / "compared", timed=False)


def schedule(options: Benchmark, name: str, recipe: dict[str, Any]) -> Study:
    """One arm for the paper's 300 epochs, under the first seed."""
    arm = Arm(name, arm_config(options, name, SCHEDULE_EPOCHS, recipe), name, name)
    return Study((arm,), SEEDS[:1], options.suite.out / "schedule", timed=False)
