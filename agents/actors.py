"""Where a learned policy is read from: a run's folder, or the zip of a Stable-Baselines3 algorithm."""

import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from rlmix.agents.algorithms import ALGORITHMS
from rlmix.agents.features import num_features
from rlmix.common.archives import load_tensors
from rlmix.common.saved_config import read_config
from rlmix.envs.observations import OBSERVATIONS
from rlmix.mixing.actions import ACTIONS, Action, action_table
from rlmix.training.checkpoints import newest_state

SPACE = "rlmix_action"
"""What an algorithm of Stable-Baselines3 remembers, in a zip too, of the action space that it learned in."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"Tanh": nn.Tanh, "ReLU": nn.ReLU, "ELU": nn.ELU, "LeakyReLU": nn.LeakyReLU}


class Actor(NamedTuple):
    """A policy's network, and what it was learned for."""

    network: nn.Sequential
    """From features to a score for each choice."""
    actions: Action
    """What there is to choose from."""
    observation: str
    greedy: bool
    """Whether the best value is taken, and nothing drawn."""


def read_actor(source: Path) -> Actor:
    """Read the policy of a run's folder, or of a zip.

    Raises:
        OSError: If there is neither.
        ValueError: If nobody learned in the run, or the zip holds no policy of features.
    """
    return _of_zip(source) if source.suffix == ".zip" else _of_run(source)


def _of_run(folder: Path) -> Actor:
    config, state = read_config(folder), newest_state(folder)
    if "parameters" not in state.get("decider", {}):
        raise ValueError(f"policy must be the folder of a run in which an agent learned, got {folder} of {config.get('method')}")
    algorithm, trained = (str(source.get("algorithm", "ppo")) for source in (config, state.get("config", config)))
    if algorithm != trained:
        raise ValueError(f"the policy in {folder} must be one of {algorithm}, as its config.yaml says, got one of {trained}")
    check_algorithm(state["decider"], algorithm)
    pattern, greedy = _traits(algorithm)
    if pattern is None:
        raise ValueError(
            f"policy must be one that looks at images, and that of algorithm {algorithm} in {folder} is none (it has no trait layers)"
        )
    network = build_network(state["decider"]["parameters"]["policy"], pattern)
    actions = action_table(str(config.get("action") or "top_k"), int(config["num_top_k"]))
    return Actor(network, actions, str(config.get("observation") or "paper"), greedy)


def _of_zip(path: Path) -> Actor:
    """Of its weights, and of what is plain in its data: what is pickled in the zip is not read, and what it names is not imported."""
    try:
        with zipfile.ZipFile(path) as archive:
            weights: Any = load_tensors(io.BytesIO(archive.read("policy.pth")))
            data = json.loads(archive.read("data"))
    except (zipfile.BadZipFile, KeyError, pickle.UnpicklingError, ValueError) as error:
        raise ValueError(f"policy must be a zip that Stable-Baselines3 saved, and {path} is none: {error}") from error
    for name in ("ppo", "dqn"):  # what others of Stable-Baselines3 and sb3-contrib save is called as in one of them
        pattern, greedy = _traits(name)
        network = build_network(weights, str(pattern), _activation(data, "ReLU" if greedy else "Tanh"))
        if len(network):
            break
    else:
        raise ValueError(f"policy {path} must have an actor or a q-network of linear layers, and has {', '.join(weights)[:200]}")
    first, last = (layer.weight for layer in (network[0], network[-1]) if isinstance(layer, nn.Linear))
    num_inputs, num_values = first.shape[1], len(last)
    sizes = {num_features(name): name for name in OBSERVATIONS}
    if num_inputs not in sizes:
        known = " or ".join(f"{size} features ({name})" for size, name in sizes.items())
        raise ValueError(f"policy {path} must read {known} of an image, and reads {num_inputs}")
    return Actor(network, _of_size(str(data.get(SPACE, "top_k")), num_values, path), sizes[num_inputs], greedy)


def _of_size(name: str, number: int, path: Path) -> Action:
    """The table of so many choices of the action space called so; a zip's own word imports no module."""
    if name not in ACTIONS:
        raise ValueError(
            f"policy {path} must choose by a registered action, got {name}: give the folder of its run, or register it under this name"
        )
    for num_top_k in range(1, number + 1):
        actions = action_table(name, num_top_k)
        if len(actions) == number:
            return actions
    raise ValueError(f"policy {path} must score the choices of action {name}, and scores {number}")


def _traits(algorithm: str) -> tuple[Any, bool]:
    traits = ALGORITHMS.entry(algorithm).traits
    return traits.get("layers"), bool(traits.get("greedy"))


def _activation(data: dict[str, Any], default: str) -> type[nn.Module]:
    """Between layers, as the zip's readable part names it; the library's own default where it does not."""
    found = re.search(r"activation\.(\w+)'", str((data.get("policy_kwargs") or {}).get("activation_fn", "")))
    name = found[1] if found else default
    if name not in ACTIVATIONS:
        raise ValueError(f"a policy's activation must be one of {', '.join(ACTIVATIONS)}, got {name}")
    return ACTIVATIONS[name]


def build_network(weights: dict[str, Tensor], pattern: str, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """The linear layers of a state_dict whose names fit ``pattern``, in its order, an activation between them."""
    names = [name.removesuffix(".weight") for name in weights if re.fullmatch(rf"({pattern})\.weight", name)]
    layers: list[nn.Module] = []
    for name in names:
        linear = nn.Linear(weights[f"{name}.weight"].shape[1], weights[f"{name}.weight"].shape[0])
        linear.load_state_dict({part: weights[f"{name}.{part}"] for part in ("weight", "bias")})
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


def check_algorithm(state: dict[str, Any], algorithm: str) -> None:
    """Raise ValueError where an agent's state is another algorithm's; those of before it was recorded do not say."""
    if state.get("algorithm", algorithm) != algorithm:
        raise ValueError(f"the agent's state must be one of {algorithm}, got one of {state['algorithm']}")
