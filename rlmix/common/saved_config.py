"""The configuration that a run's folder keeps, and options from YAML files."""

from pathlib import Path
from typing import Any

import yaml

_POLICIES = ("rlmix", "rmix", "rmix-p8", "constant", "coin", "policy")
"""Methods under which an imagefolder's runs that name no alpha were mixed with 1, before R-Mix's own for ImageNet was the default."""


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


def updated(config: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration as today's version says the same: what came later was not there."""
    config = {"clip_norm": 0.0} | config
    on_folder = config.get("method") in _POLICIES and str(config.get("data")).startswith("imagefolder:")
    if on_folder and config.get("alpha", 1.0) is None:
        return config | {"alpha": 1.0}
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file; ValueError where it is something else."""
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a mapping of options, got {type(config).__name__}")
    return config
