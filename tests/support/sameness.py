"""Whether two runs are the same, bit for bit, times aside."""

from pathlib import Path
from typing import Any

import torch

from rlmix.training.checkpoints import list_checkpoints, load_checkpoint
from rlmix.training.run_folder import read_metrics


def without_times(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "epoch_seconds"} for record in read_metrics(folder)]


def assert_same_state(first: Any, second: Any, where: str = "state") -> None:
    """Checkpoints, bit for bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same_state(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same_state(one, other, f"{where}[{index}]")
    else:
        assert first == second, where


def newest_state(folder: Path) -> dict[str, Any]:
    """A run's newest checkpoint, without the seconds it took."""
    state = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])
    return {key: value for key, value in state.items() if key not in ("seconds", "records")}


def assert_same_run(first: Path, second: Path) -> None:
    """Metrics, and everything in the newest checkpoint: weights, optimizer, policy, random states."""
    assert without_times(first) == without_times(second)
    assert_same_state(newest_state(first), newest_state(second))
