"""Whether a run may go on with the options given: what was trained so far must be what they would have trained."""

from pathlib import Path
from typing import Any

from rlmix.agents.actors import read_actor
from rlmix.common.saved_config import updated
from rlmix.config import Config
from rlmix.experiments.settings import learns
from rlmix.training.progress import count_mixed
from rlmix.training.schedules import SCHEDULES
from rlmix.training.trainer import Training

FREE = frozenset({"data_root", "download", "workers", "metrics", "on_nonfinite", "devices", "nodes", "time_limit"})
FREE |= {"picture_every", "log_every", "loggers", "checkpoint_every", "checkpoint_epochs", "eval_every", "patience"}
"""Options that what is trained does not depend on."""
STEADY = ("ppo", "a2c", "bandit")
"""Algorithms that learn alike however long the training will be; dqn explores less and less over it."""


def check_resumable(options: Config, training: Training, saved: dict[str, Any], state: dict[str, Any] | None) -> None:
    """Raise ValueError where the run in ``options.folder`` is not that of ``options``, and name what differs.

    Args:
        options: What is wanted, resolved.
        training: Built from ``options``.
        saved: The run's config.yaml.
        state: Its newest checkpoint.
    """
    wanted, folder = options.as_dict(), options.folder
    where = folder / "config.yaml"
    if state is not None:
        saved, where = state.get("config"), folder / "checkpoints"  # type: ignore[assignment]
        saved = updated(saved) if isinstance(saved, dict) else saved
        if not isinstance(saved, dict):
            raise ValueError(f"the newest checkpoint in {where} must hold its run's configuration, got {type(saved).__name__}")
    saved = completed(saved)
    different = [name for name in wanted if name in saved and saved[name] != wanted[name] and name not in FREE]
    for name in different:
        reason = epochs_are_settled(options, training, saved, state) if name == "epochs" else "is another training"
        if reason:
            raise ValueError(
                f"a run must be resumed with its own options ({', '.join(different)} differ): "
                f"{name} is {saved[name]!r} in {where}, and {wanted[name]!r} {reason}"
            )
    if state is not None and state.get("data") != training.data.checksum():
        raise ValueError(
            f"the data must be those that the run in {folder} began with; the images or labels of {options.data.name} differ"
        )


def completed(saved: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration with the agent's hyperparameters that came later, as they are by default."""
    return saved | ({"agent": Config().as_dict()["agent"] | saved["agent"]} if isinstance(saved.get("agent"), dict) else {})


def epochs_are_settled(options: Config, training: Training, saved: dict[str, Any], state: dict[str, Any] | None) -> str | None:
    """Why the number of epochs cannot change any more, or None where a run with the new number would be the same so far."""
    if state is None:
        return None
    schedule = options.recipe.schedule
    if not SCHEDULES.entry(schedule).traits.get("anytime"):
        return f"would have had other learning rates from the first step (schedule {schedule})"
    if options.run.method == "automix":
        return "would have had another momentum from the first step (method automix)"
    ahead = what_looks_ahead(options)
    if ahead:
        return f"would have had other choices from the first step ({ahead} looks at how much of the training is over)"
    begun = int(state["epoch"]) + (int(state["steps"]) > 0)
    part, lengths = options.mixing.mix_until, (int(saved["epochs"]), training.recipe.epochs)
    if len({min(begun, count_mixed(part, epochs)) for epochs in lengths}) > 1:
        return f"would have mixed in other epochs by now (mix_until {part:g})"
    per_epoch = training.updates.per_epoch
    step = per_epoch * int(state["epoch"]) + training.updates.done(int(state["steps"]))
    if per_epoch * training.recipe.epochs < step:
        return f"are fewer than are done ({step / per_epoch:g})"
    old, new = (
        [milestone for part in training.recipe.milestones if (milestone := round(part * per_epoch * epochs)) < step]
        for epochs in lengths
    )
    return None if old == new else f"would have had other learning rates by now (schedule {schedule})"


def what_looks_ahead(options: Config) -> str | None:
    """The option by which choices depend on how long the training will be, with its value; None where they do not."""
    run, agent, observation = options.run, options.agent, options.env.observation
    if run.policy is not None:
        source = Path(run.policy)
        return None if source.exists() and read_actor(source).observation == "paper" else f"policy {run.policy}"
    if not learns(run.method):
        return None
    if observation != "paper":
        return f"observation {observation}"
    return None if agent.algorithm in STEADY else f"algorithm {agent.algorithm}"
