"""Weights into a network; and where they do not fit, whose they are."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlmix.common.archives import load_tensors
from rlmix.models import build_model, model_names

PREFIXES = ("module.", "_orig_mod.")
"""What DDP and torch.compile put before every name."""


def read_weights(path: Path) -> dict[str, object]:
    """A state_dict from a file: bare, or under ``state_dict`` or ``model``, with or without :data:`PREFIXES`. Executes nothing.

    Raises:
        OSError: If there is no such file.
        ValueError: If it holds anything else, or ends in ``.safetensors`` and that library is not installed.
    """
    try:
        with open(path, "rb") as handle:
            state: Any = _load_safetensors(path) if path.suffix == ".safetensors" else load_tensors(handle)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} must be a state_dict: it is damaged, or holds more than tensors and plain values") from error
    except Exception as error:  # whatever a file of another kind makes the reader stumble over
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__} "
        raise ValueError(f"{path} must be a state_dict: {kind}{error}") from error
    if isinstance(state, Mapping) and {"training", "config"} <= set(state):
        raise ValueError(f"{path} must be a state_dict, and is a run's checkpoint: name the run's folder, {path.parent.parent}")
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} must be a state_dict, got {type(state).__name__}")
    for prefix in PREFIXES:
        state = {str(name).removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError("to be read it needs safetensors: pip install safetensors") from error
    state: dict[str, Tensor] = load_file(path)
    return state


def load_weights(model: nn.Module, name: str, state: Mapping[str, object], source: str) -> None:
    """Load a state_dict.

    Args:
        model: The network.
        name: What it is called.
        state: Of :meth:`torch.nn.Module.state_dict`.
        source: Where the state is from, for the error.

    Raises:
        ValueError: If it is another network's, naming both, or this one's for another number of classes.
    """
    shapes = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
    expected = _shapes(model)
    if shapes == expected:
        model.load_state_dict(dict(state))
        return
    num_classes, own_classes = _num_classes(shapes), _num_classes(expected)
    found = identify(shapes)
    if found == name and num_classes != own_classes:
        raise ValueError(f"{source} must hold {name} for the data's {own_classes} classes, and holds it for {num_classes}")
    raise ValueError(f"{source} must hold the weights of {name}, and holds those of {found or _describe(shapes)}")


def identify(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Which of the networks by name has tensors of these names and shapes; None where none has (RegNets are not looked at)."""
    num_classes = _num_classes(shapes)
    if num_classes is None:
        return None
    for name in model_names():
        try:
            with torch.device("meta"):  # shapes without memory
                candidate = build_model(name, num_classes)
        except NotImplementedError:  # RegNets compute their widths by tensors
            continue
        if _shapes(candidate) == dict(shapes):
            return name
    return None


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items() if isinstance(value, Tensor)}


def _num_classes(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Rows of the last matrix."""
    matrices = [shape for shape in shapes.values() if len(shape) == 2]
    return matrices[-1][0] if matrices else None


def _describe(shapes: Mapping[str, tuple[int, ...]]) -> str:
    if not shapes:
        return "no network: no tensors"
    first = next(iter(shapes))
    return f"another network ({len(shapes)} tensors, the first {first} of {'x'.join(map(str, shapes[first])) or 'one number'})"
