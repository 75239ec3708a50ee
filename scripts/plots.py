"""Plots of a comparison: learning curves, rewards, and what was chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Curves = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
"""Method, seed, and the lines of that run's metrics.jsonl."""


def draw(curves: Curves, folder: Path, num_top_k: int) -> list[Path]:
    """Write the plots into ``folder`` and give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "learning_curves": _curves(curves, "test_top1", "test top-1, %"),
        "train_loss": _curves(curves, "train_loss", "training loss (of the mixed batches)"),
        "reward": _curves(curves, "reward_mean", "mean reward"),
        "top_k": top_k_histograms(curves, num_top_k),
    }
    written = []
    for name, figure in figures.items():
        if figure is not None:
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=110, metadata={"Software": ""})
            written.append(path)
    return written


def _curves(curves: Curves, key: str, label: str) -> Figure | None:
    """Mean over the seeds by epoch, with a band of one standard deviation; methods without the figure are left out."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for index, (method, runs) in enumerate(curves.items()):
        lines = [[record[key] for record in records] for records in runs.values() if records and key in records[0]]
        if not lines:
            continue
        values = np.array(lines)
        epochs, mean = np.arange(1, values.shape[1] + 1), values.mean(0)
        (line,) = axes.plot(epochs, mean, label=method, color=f"C{index}", marker="." if len(epochs) < 30 else None)
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            axes.fill_between(epochs, mean - spread, mean + spread, color=line.get_color(), alpha=0.2, linewidth=0)
    if not axes.lines:
        return None
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def top_k_histograms(curves: Curves, num_top_k: int) -> Figure | None:
    """How often each top-k value was chosen, epoch by epoch: a picture a method, summed over the seeds."""
    shares = {}
    for method, runs in curves.items():
        counts = [[record["top_k_counts"] for record in records] for records in runs.values() if "top_k_counts" in records[0]]
        if counts:
            total = np.array(counts, float).sum(0)  # (epoch, value)
            shares[method] = total / total.sum(1, keepdims=True)
    if not shares:
        return None
    top = max(share.max() for share in shares.values())
    figure = Figure(figsize=(1.5 + 3.2 * len(shares), 3.6), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    image = None
    for axes, (method, share) in zip(panels, shares.items(), strict=True):
        extent = (0.5, len(share) + 0.5, -0.5, num_top_k - 0.5)
        image = axes.imshow(share.T, origin="lower", aspect="auto", vmin=0, vmax=top, cmap="viridis", extent=extent)
        axes.set(title=method, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_yticks(range(num_top_k), [f"{value:.2f}" for value in np.linspace(0, 0.99, num_top_k)])
    panels[0].set_ylabel("top-k value")
    if image is not None:
        figure.colorbar(image, ax=list(panels), label="share of the images")
    return figure
