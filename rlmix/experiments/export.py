"""What a run has learned, in the formats of other libraries."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.common.files import write_atomically
from rlmix.common.names import check_name
from rlmix.config import Config
from rlmix.experiments.commands.export import Export
from rlmix.experiments.saved_run import read_settings
from rlmix.experiments.settings import leaves_policy, settled
from rlmix.experiments.standalone import FORMATS, Standalone, classifier_of, policy_of
from rlmix.experiments.task import Task
from rlmix.mixing.actions import action_table
from rlmix.reporting.bar import Bar
from rlmix.training.run_folder import Run


def export(options: Export) -> dict[Path, str]:
    """Write ``classifier.*``, ``classifier-ema.*`` of a run with an average, and where an agent learned, its policy.

    An agent's own file lies under the algorithm's name: ``policy-ppo.zip``, ``policy-bandit.pt``.

    Returns:
        What was written, and what loads it.

    Raises:
        ValueError: If the run has no checkpoint, a format needs a package that is not there, or cannot hold the network.
        OSError: If it cannot be read, or the files not written.
    """
    check_formats(options.formats)
    settings = settled(read_settings(options.run))
    with Bar(f"reading {options.run}", 3) as bar:
        _, state = Run.reopen(options.run)
        if state is None:
            raise ValueError(f"{options.run} must hold a checkpoint, and has none")
        task = Task(settings.changed(weights=None))
        task.load_state_dict(state)
        bar.advance(what="writing the classifier")
        out = options.out or options.run
        out.mkdir(parents=True, exist_ok=True)
        written = _write_classifiers(out, task, settings, options.formats)
        if task.agent is not None:
            bar.advance(what="writing the policy")
            written |= _write_policy(out, task, settings, options)
    return written


def _write_classifiers(out: Path, task: Task, settings: Config, formats: tuple[str, ...]) -> dict[Path, str]:
    written: dict[Path, str] = {}
    for name, model in _classifiers(task):
        if "pt" in formats:
            weights = model.state_dict()
            write_atomically(out / f"{name}.pt", lambda handle, weights=weights: torch.save(weights, handle))  # type: ignore[misc]
            written[out / f"{name}.pt"] = f"a state_dict of {settings.model.name}"
        written |= write_modules(out / name, classifier_of(model, task.training.data, settings), formats)
    return written


def _write_policy(out: Path, task: Task, settings: Config, options: Export) -> dict[Path, str]:
    written: dict[Path, str] = {}
    if "pt" in options.formats:
        written |= _write_agent(out, task.agent, settings)
    if leaves_policy(settings) and settings.env.observation in ("paper", "pair"):
        policy = policy_of(LearnedPolicy(options.run, 0), task.training.data.num_classes)
        written |= write_modules(out / "policy", policy, options.formats)
    return written


def check_formats(formats: tuple[str, ...]) -> None:
    """Raise ValueError where a format is unknown, or a package that it needs is not installed."""
    for name in formats:
        check_name("formats", name, ("pt", *FORMATS))
        missing = [package for package in (FORMATS[name].needs if name in FORMATS else ()) if find_spec(package) is None]
        if missing:
            raise ValueError(f'formats {name} must have {" and ".join(missing)} installed: pip install "rlmix[export]"')


def write_modules(path: Path, what: Standalone, formats: tuple[str, ...]) -> dict[Path, str]:
    """Write a module in those of ``formats`` that stand alone, under ``path`` with their endings.

    Returns:
        What was written, and what loads it.

    Raises:
        ValueError: If a format cannot hold it.
    """
    written = {}
    for name in (name for name in formats if name in FORMATS):
        file = path.with_name(f"{path.name}.{name}")
        try:
            FORMATS[name].write(file, what)
        except OSError:
            raise
        except Exception as error:  # of torch.export and ONNX, of what kind ever
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"formats must be without {name} for {what.about.get('model', 'this policy')}: {reason}") from error
        written[file] = FORMATS[name].reader
    return written


def describe_policy(policy: nn.Module, settings: Config) -> dict[str, Any]:
    """A network of tanh layers, from :func:`~rlmix.agents.features.policy_features` to a score for each choice."""
    actions = action_table(settings.env.action, settings.mixing.num_top_k)
    linear = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)]
    return {
        "algorithm": settings.agent.algorithm,
        "observation": settings.env.observation,
        "layers": [linear[0].in_features, *(layer.out_features for layer in linear)],
        "values": actions.rows.tolist(),
        "state_dict": policy.state_dict(),
    }


def _classifiers(task: Task) -> list[tuple[str, nn.Module]]:
    """By file name; the average of the weights after them."""
    training = task.training
    found: list[tuple[str, nn.Module]] = [("classifier", training.model)]
    return found if training.average is None else [*found, ("classifier-ema", training.average.module)]


def _write_agent(out: Path, agent: Any, settings: Config) -> dict[Path, str]:
    name = settings.agent.algorithm
    if isinstance(agent, PPOAgent):
        path = out / f"policy-{name}.zip"
        # the buffer's class is rlmix's own: without it the zip loads where rlmix is not installed
        write_atomically(path, lambda handle: agent.ppo.save(handle, exclude=["rollout_buffer_class", "replay_buffer_class"]))
        return {path: f"stable_baselines3.{name.upper()}.load, and no other algorithm's"}
    path = out / f"policy-{name}.pt"
    looks = leaves_policy(settings)
    policy = describe_policy(agent.policy, settings) if looks else {"algorithm": name, "state_dict": agent.policy.state_dict()}
    write_atomically(path, lambda handle: torch.save(policy, handle))
    more = "observation, layers (linear, tanh between them), values (top-k), " if looks else ""
    return {path: f"torch.load: algorithm, {more}state_dict"}
