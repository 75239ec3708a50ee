"""The configuration that a run's folder keeps, and options from YAML files."""

import re
from pathlib import Path
from typing import Any

import yaml

_POLICIES = ("rlmix", "rmix", "rmix-p8", "constant", "coin", "policy")
"""Methods under which an imagefolder's runs that name no alpha were mixed with 1, before R-Mix's own for ImageNet was the default."""

_EVERY_RUNS = {"data", "model", "epochs", "batch_size", "schedule", "learning_rate", "weight_decay", "seed", "method"}
"""Options that the configuration of every version's runs has."""

_KEY = re.compile(r"\s*([\w.-]+)\s*:")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the run in ``folder``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not a mapping.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} must be a run's folder, and holds no config.yaml")
    return updated(read_yaml(path))


def is_run_config(config: dict[str, Any]) -> bool:
    """Whether a configuration is a run's, which says everything, or one that somebody wrote."""
    return config.keys() >= _EVERY_RUNS


def updated(config: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration as today's version says the same: what came later was not there."""
    config = {"clip_norm": 0.0, "saliency_mode": "exact"} | config
    on_folder = config.get("method") in _POLICIES and str(config.get("data")).startswith("imagefolder:")
    if on_folder and config.get("alpha", 1.0) is None:
        return config | {"alpha": 1.0}
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file; ValueError where it is something else."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be a YAML file of options, and there is none")
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{path} must be YAML: {_describe(error, path.read_text().splitlines())}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a mapping of options, got {type(config).__name__}")
    return config


def _describe(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    """What is wrong, in which line, and the key that stands there or was begun before."""
    mark = error.context_mark or error.problem_mark
    problem = " ".join(filter(None, (error.context, error.problem)))
    if mark is None:
        return problem
    keys = (key for line in reversed(lines[: mark.line + 1]) if (key := _KEY.match(line)))
    key = next(keys, None)
    return f"{problem}, line {mark.line + 1}" + (f", key {key[1]}" if key else "")


def place_of(path: Path, name: str) -> str:
    """Where in a YAML file a flat option stands: ``bad.yaml, line 3``; the file alone where it is not found."""
    own = name.rpartition(".")[2]
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if re.search(rf"(^|[\s{{,]){re.escape(own)}\s*:", line):
            return f"{path}, line {number}"
    return str(path)
