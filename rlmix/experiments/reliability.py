"""The bins of a run's reliability diagram, kept in the run's folder."""

import json
from pathlib import Path

import torch

from rlmix.common.files import write_atomically
from rlmix.evaluation import ReliabilityBins, reliability_bins
from rlmix.experiments.saved_run import load_run
from rlmix.training.checkpoints import list_checkpoints
from rlmix.training.run_folder import RELIABILITY


def save_reliability(folder: Path) -> None:
    """Write the bins of the run in ``folder``, by its newest checkpoint and its test images."""
    training = load_run(folder).training
    bins = reliability_bins(training.predict().softmax(1), training.data.labels("test"))
    text = json.dumps({name: values.tolist() for name, values in bins._asdict().items()}) + "\n"
    write_atomically(folder / RELIABILITY, lambda handle: handle.write(text.encode()))


def load_reliability(folder: Path) -> ReliabilityBins | None:
    """The bins of a finished run, computed where that was not done yet; None where its checkpoints are gone."""
    if not (folder / RELIABILITY).exists():
        if not list_checkpoints(folder / "checkpoints"):
            return None
        save_reliability(folder)
    sums = json.loads((folder / RELIABILITY).read_text())
    return ReliabilityBins(*(torch.tensor(sums[name], dtype=torch.float64) for name in ReliabilityBins._fields))
