"""What ``rlmix export`` is asked for."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Export:
    """Write a run's classifier and policy: state_dicts, Stable-Baselines3's zip, and programs that need no rlmix."""

    run: Positional[Path]
    """The run's folder."""
    out: Path | None = None
    """Where to write; the run's folder where not given."""
    formats: tuple[str, ...] = ("pt", "pt2")
    """pt: state_dicts, and an agent's own file. pt2: programs of torch.export, onnx, safetensors: with normalisation and class names, to be
    read without rlmix; the last two need the extra export."""
