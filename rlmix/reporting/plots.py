"""Plots of a study: learning curves, accuracy against time, reliability, rewards, and what was chosen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rlmix.common.registry import Registry
from rlmix.evaluation import ReliabilityBins
from rlmix.evaluation.calibration import pool_bins
from rlmix.reporting.output import literal
from rlmix.reporting.reward_accuracy import FEWEST_RUNS
from rlmix.reporting.statistics import summarize

Curves = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
"""Arm, seed, and the lines of that run's metrics.jsonl."""
MARKED_EPOCHS = 30
"""A curve with fewer epochs shows each as a point."""
PANELS_A_ROW = 4
MOST_TICKS = 10
LEGEND_INSIDE = 5
"""A longer legend stands beside the plot."""


Bins = Mapping[str, Sequence[ReliabilityBins | None]]
"""Arm, and the reliability of each of its runs."""
PLOTS: Registry[Callable[[Curves, Bins], Figure | None]] = Registry("plot")
"""Functions that give a figure, or None where there is nothing to show. Their line of documentation is the caption. Traits: ``wide``,
whether it is of several panels; ``banded``, whether bands show the seeds' spread."""
_BANDS = "; the bands are one standard deviation over the seeds."


def draw(curves: Curves, bins: Bins, folder: Path) -> dict[Path, str]:
    """Write the plots into ``folder``; gives each one's path and what it shows."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = max(len(runs) for runs in curves.values())
    written = {}
    for entry in PLOTS.entries():
        figure = entry.thing(curves, bins)
        if figure is not None:
            path = folder / f"{entry.name}.png"
            figure.savefig(path, dpi=110, metadata={"Software": ""})
            banded = entry.traits.get("banded") and seeds > 1
            written[path] = entry.doc.removesuffix(".") + _BANDS if banded else entry.doc
    return written


@PLOTS.register("seeds")
def seeds(curves: Curves, bins: Bins) -> Figure | None:
    """Test top-1 of every seed after the last epoch; the diamond is their mean, the line its 95 % interval."""
    return seed_dots(curves)


@PLOTS.register("learning_curves", banded=True)
def learning_curves(curves: Curves, bins: Bins) -> Figure | None:
    """Test top-1 by epoch, a dot a seed and a line their mean."""
    return curves_by_epoch(curves, "test_top1", "test top-1, %")


@PLOTS.register("accuracy_by_time")
def top1_by_time(curves: Curves, bins: Bins) -> Figure | None:
    """Test top-1 against the time spent training, mean over the seeds."""
    return accuracy_by_time(curves)


@PLOTS.register("train_loss", banded=True)
def train_loss(curves: Curves, bins: Bins) -> Figure | None:
    """Training loss by epoch, a dot a seed and a line their mean."""
    return curves_by_epoch(curves, "train_loss", "training loss (of the mixed batches)")


@PLOTS.register("reward", banded=True)
def reward(curves: Curves, bins: Bins) -> Figure | None:
    """Mean reward by epoch, a dot a seed and a line their mean."""
    return curves_by_epoch(curves, "reward_mean", "mean reward")


@PLOTS.register("reward_top1")
def reward_top1(curves: Curves, bins: Bins) -> Figure | None:
    """Reward of the last mixed epoch against the last test top-1 over the runs: a point a run."""
    return reward_scatter(curves)


@PLOTS.register(
    "reliability",
    doc="Reliability: how often a classifier is right by how sure it is, all seeds together. On the diagonal it is calibrated; "
    "the grey bars show how many test images fall into each bin.",
    wide=True,
)
def reliability(curves: Curves, bins: Bins) -> Figure | None:
    """Reliability diagrams, one an arm."""
    return reliability_diagrams(bins)


@PLOTS.register("top_k", wide=True)
def top_k(curves: Curves, bins: Bins) -> Figure | None:
    """How often each top-k value was chosen, epoch by epoch."""
    return top_k_histograms(curves)


def seed_dots(curves: Curves) -> Figure | None:
    """Each run's last test top-1, a line an arm, with the mean and its interval."""
    last = [(color, name, values[:, -1]) for color, name, values in series(curves, "test_top1")]
    figure = Figure(figsize=(7, 0.9 + 0.36 * len(last)), layout="constrained")
    axes = figure.subplots()
    for row, (color, _, values) in enumerate(last):
        found = summarize(dict(enumerate(values)))
        axes.hlines(row, found.low, found.high, color=color, alpha=0.4, linewidth=2)
        axes.plot(found.mean, row, color=color, marker="D", markersize=7)
        axes.plot(values, np.full(len(values), row), color=color, marker="o", linestyle="", markersize=4, markeredgecolor="white")
    axes.set_yticks(range(len(last)), [literal(name) for _, name, _ in last])
    axes.invert_yaxis()
    axes.set_xlabel("test top-1, %")
    axes.grid(alpha=0.3)
    return figure if last else None


def curves_by_epoch(curves: Curves, key: str, label: str) -> Figure | None:
    """Mean over the seeds by epoch, with a band of one standard deviation; arms without the figure are left out."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for color, name, values in series(curves, key):
        epochs, mean = np.arange(1, values.shape[1] + 1), values.mean(0)
        axes.plot(epochs, mean, label=literal(name), color=color, marker=_marker(epochs))
        if len(values) > 1:
            if len(epochs) < MARKED_EPOCHS:
                axes.plot(epochs, values.T, color=color, marker="o", linestyle="", markersize=2.5, alpha=0.5)
            spread = values.std(0, ddof=1)
            axes.fill_between(epochs, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(figure, axes)


def accuracy_by_time(curves: Curves) -> Figure | None:
    """Test top-1 against the seconds of training so far, both means over the seeds."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    seconds = {name: values.cumsum(1).mean(0) for _, name, values in series(curves, "epoch_seconds")}
    for color, name, values in series(curves, "test_top1"):
        axes.plot(seconds[name], values.mean(0), label=literal(name), color=color, marker=_marker(seconds[name]))
    axes.set(xlabel="training time, s", ylabel="test top-1, %")
    axes.set_xlim(left=0)
    return _finish(figure, axes)


def reward_scatter(curves: Curves) -> Figure | None:
    """The last mixed epoch's mean reward against test top-1, a point a run; None where fewer than four runs have a reward."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    accuracies = {name: values[:, -1] for _, name, values in series(curves, "test_top1")}
    rewards = {name: (color, values[:, -1]) for color, name, values in series(curves, "reward_mean")}
    if sum(len(values) for _, values in rewards.values()) < FEWEST_RUNS:
        return None
    for name, (color, values) in rewards.items():
        axes.plot(values, accuracies[name], label=literal(name), color=color, marker="o", linestyle="")
    axes.set(xlabel="mean reward", ylabel="test top-1, %")
    return _finish(figure, axes)


def reliability_diagrams(bins: Bins) -> Figure | None:
    """A diagram an arm (Guo et al. 2017, Figure 1): the bins of all its seeds pooled."""
    found = {name: [entry for entry in entries if entry is not None] for name, entries in bins.items()}
    pooled = {name: pool_bins(entries) for name, entries in found.items() if entries}
    if not pooled:
        return None
    figure, panels = _panels(len(pooled), height=3.1)
    for color, axes, (name, entry) in zip(colors(), panels, pooled.items(), strict=False):
        images = entry.num_images.numpy()
        edges, width = np.arange(len(images)) / len(images), 1 / len(images)
        axes.bar(edges, images / images.sum(), width, align="edge", color="0.85")
        axes.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle="--")
        filled = images > 0
        means = [sums.numpy()[filled] / images[filled] for sums in (entry.confidence, entry.correct)]
        axes.plot(*means, color=color, marker=".")
        axes.set(
            title=literal(name), xlabel="confidence", xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), xticklabels=("0", "0.5", "1")
        )
        axes.title.set_fontsize(10)
    for axes in panels[::PANELS_A_ROW]:
        axes.set_ylabel("accuracy; share of images")
    return figure


def top_k_shares(curves: Curves) -> dict[str, NDArray[np.float64]]:
    """How often each top-k value was chosen, (epoch, value), of the arms in which somebody chooses; over all seeds, 1 an epoch."""
    shares = {}
    for name, runs in curves.items():
        counts = [
            [record["top_k_counts"] for record in records if "top_k_counts" in record]
            for records in runs.values()
            if records and "top_k_counts" in records[0]
        ]
        if counts:
            total = np.array(counts, float).sum(0)
            shares[name] = total / total.sum(1, keepdims=True)
    return shares


def top_k_histograms(curves: Curves) -> Figure | None:
    """How often each top-k value was chosen, epoch by epoch: a picture an arm, summed over the seeds."""
    shares = top_k_shares(curves)
    if not shares:
        return None
    top = max(share.max() for share in shares.values())
    figure, panels = _panels(len(shares), height=3.4, share_axes=len({share.shape for share in shares.values()}) == 1)
    image = None
    for axes, (name, share) in zip(panels, shares.items(), strict=True):
        epochs, num_top_k = share.shape
        extent = (0.5, epochs + 0.5, -0.5, num_top_k - 0.5)
        image = axes.imshow(share.T, origin="lower", aspect="auto", vmin=0, vmax=top, cmap="viridis", extent=extent)
        axes.set(title=literal(name), xlabel="epoch")
        axes.title.set_fontsize(10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        ticks = range(0, num_top_k, -(-num_top_k // MOST_TICKS))
        axes.set_yticks(ticks, [f"{np.linspace(0, 0.99, num_top_k)[tick]:.2f}" for tick in ticks])
    for axes in panels[::PANELS_A_ROW]:
        axes.set_ylabel("top-k value")
    if image is not None:
        figure.colorbar(image, ax=panels, label="share of the images")
    return figure


def series(curves: Curves, key: str) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    """Colour, name and values (seed, epoch) of each arm that has the figure; an arm has one colour in all plots."""
    for color, (name, runs) in zip(colors(), curves.items(), strict=False):
        known = [records for records in runs.values() if records and key in records[0]]
        lines = [
            [record[key] for record in records if key in record] for records in known
        ]  # epochs after mix_until have no reward
        if lines:
            yield color, name, np.array(lines)


def colors() -> Iterator[str]:
    """One colour an arm, in their order."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    for index in range(1000):
        yield to_hex(colormaps["tab20"](index % 10 * 2 + index // 10 % 2))


def _panels(count: int, height: float, share_axes: bool = True) -> tuple[Figure, list[Axes]]:
    columns = min(count, PANELS_A_ROW)
    lines = -(-count // columns)
    figure = Figure(figsize=(1.2 + 2.9 * columns, height * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=share_axes, sharey=share_axes, squeeze=False).flatten().tolist()
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _marker(values: NDArray[Any]) -> str | None:
    return "." if len(values) < MARKED_EPOCHS else None


def _finish(figure: Figure, axes: Axes) -> Figure | None:
    if not axes.lines:
        return None
    axes.grid(alpha=0.3)
    if len(axes.get_legend_handles_labels()[1]) <= LEGEND_INSIDE:
        axes.legend(fontsize="small")
    else:
        figure.legend(fontsize="small", loc="outside right center")
    return figure
