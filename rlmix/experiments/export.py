"""What a run has learned, in the formats of other libraries."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tyro.conf import Positional

from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.common.files import write_atomically
from rlmix.config import Config
from rlmix.experiments.saved_run import read_settings
from rlmix.experiments.session import Task
from rlmix.experiments.settings import settled
from rlmix.mixing.core import top_k_values
from rlmix.training.average import averaged_weights
from rlmix.training.run_folder import Run


@dataclass(frozen=True)
class Export:
    """Write a run's policy and classifier for other libraries: Stable-Baselines3's zip, state_dicts. rlmix itself never reads the zip."""

    run: Positional[Path]
    """The run's folder."""
    out: Path | None = None
    """Where to write; the run's folder where not given."""


def export(options: Export) -> dict[Path, str]:
    """``classifier.pt``, ``classifier-ema.pt`` of a run with an average, and where an agent learned, its policy.

    That lies under the algorithm's name: ``policy-ppo.zip``, ``policy-bandit.pt``.

    Returns:
        What was written, and what loads it.

    Raises:
        ValueError: If the run has no checkpoint.
        OSError: If it cannot be read, or the files not written.
    """
    settings = settled(read_settings(options.run))
    _, state = Run.reopen(options.run)
    if state is None:
        raise ValueError(f"{options.run} must hold a checkpoint, and has none")
    task, out, name = Task(settings.changed(weights=None)), options.out or options.run, settings.agent.algorithm
    task.load_state_dict(state)
    out.mkdir(parents=True, exist_ok=True)
    written = {out / "classifier.pt": f"a state_dict of {settings.model.name}"}
    write_atomically(out / "classifier.pt", lambda handle: torch.save(task.training.model.state_dict(), handle))
    if task.training.average is not None:
        averaged = averaged_weights(task.training.average.state_dict())
        write_atomically(out / "classifier-ema.pt", lambda handle: torch.save(averaged, handle))
        written[out / "classifier-ema.pt"] = "the average of the weights, likewise"
    if isinstance(task.agent, PPOAgent):
        ppo, path = task.agent.ppo, out / f"policy-{name}.zip"
        # the buffer's class is rlmix's own: without it the zip loads where rlmix is not installed
        write_atomically(path, lambda handle: ppo.save(handle, exclude=["rollout_buffer_class", "replay_buffer_class"]))
        written[path] = f"stable_baselines3.{name.upper()}.load, and no other algorithm's"
    elif task.agent is not None:
        path, policy = out / f"policy-{name}.pt", describe_policy(task.agent.policy, settings)
        write_atomically(path, lambda handle: torch.save(policy, handle))
        written[path] = "torch.load: algorithm, observation, layers (linear, tanh between them), values (top-k), state_dict"
    return written


def describe_policy(policy: nn.Module, settings: Config) -> dict[str, Any]:
    """A network of tanh layers, from :func:`~rlmix.agents.features.policy_features` to a score for each of the K top-k values."""
    linear = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)]
    return {
        "algorithm": settings.agent.algorithm,
        "observation": settings.env.observation,
        "layers": [linear[0].in_features, *(layer.out_features for layer in linear)],
        "values": top_k_values(settings.mixing.num_top_k).tolist(),
        "state_dict": policy.state_dict(),
    }
