"""The plots of :mod:`rlmix.reporting.plots` to hover over and to switch methods off in, by Plotly, which is not needed otherwise."""

import html
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlmix.evaluation.calibration import pool_bins
from rlmix.reporting.plots import MARKED_EPOCHS, Bins, Curves, colors, series, top_k_shares
from rlmix.reporting.reward_accuracy import FEWEST_RUNS
from rlmix.reporting.statistics import summarize

CONFIG = {"displayModeBar": False, "responsive": True}
GRID = "rgba(128, 128, 128, 0.25)"
HEIGHT = 340
MOST_TICKS = 8
MISSING = 'These plots are pictures: with Plotly installed (pip install "rlmix[report]") they can be hovered over and methods switched off.'


class Plot(NamedTuple):
    """A plot as HTML."""

    html: str
    arm: str | None = None
    """The one it is of, where it is not of all."""


CAPTIONS = {
    "accuracy_by_time": "Test top-1 against the time spent training, thin lines a seed and thick ones their mean.",
    "reliability": "Reliability: how often a classifier is right by how sure it is, all seeds together. On the diagonal it is calibrated.",
}
"""Where another one than the picture's is needed."""

Traces = list[dict[str, Any]]


class Drawing(NamedTuple):
    """What Plotly draws; each trace's ``meta`` is its arm."""

    traces: Traces
    layout: Mapping[str, Any]
    arm: str | None = None


def available() -> bool:
    """Whether Plotly is installed."""
    return importlib.util.find_spec("plotly") is not None


def library() -> str:
    """Plotly's own script."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


def draw(name: str, curves: Curves, bins: Bins) -> list[Plot]:
    """The plot of that name; nothing where there is none to interact with."""
    return (
        [_write(drawing, f"{name}-{index}") for index, drawing in enumerate(DRAWINGS[name](curves, bins))]
        if name in DRAWINGS
        else []
    )


def seed_dots(curves: Curves, bins: Bins) -> list[Drawing]:
    """Each run's last test top-1, a line an arm, with the mean and its interval."""
    traces: Traces = []
    for color, name, values in series(curves, "test_top1"):
        last, label = values[:, -1], _text(name)
        found = summarize(dict(enumerate(last)))
        mean = _trace(name, color, [found.mean], [label], "markers", marker={"symbol": "diamond", "size": 13, "color": color})
        if len(last) > 1:
            mean["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": [found.high - found.mean],
                "arrayminus": [found.mean - found.low],
                "thickness": 1.5,
            }
        mean["hovertemplate"] = "mean %{x:.2f} %<extra>%{y}</extra>"
        line = {"width": 1, "color": "white"}
        dots = _trace(name, color, last, [label] * len(last), "markers", marker={"size": 9, "color": color, "line": line})
        traces += [mean, dots | _seeds(curves[name], "%{x:.2f} %")]
    height = 90 + 36 * len(curves)
    return _drawing(traces, "test top-1, %", "", height=height, yaxis={"autorange": "reversed", "type": "category"})


def by_epoch(key: str, label: str) -> Callable[[Curves, Bins], list[Drawing]]:
    """A figure by epoch: the mean over the seeds, one standard deviation around it, and every seed."""

    def made(curves: Curves, bins: Bins) -> list[Drawing]:
        traces: Traces = []
        longest = 1
        for color, name, values in series(curves, key):
            longest = max(longest, values.shape[1])
            epochs, mean, few = np.arange(1, values.shape[1] + 1), values.mean(0), values.shape[1] < MARKED_EPOCHS
            if len(values) > 1:
                spread = values.std(0, ddof=1)
                around = np.concatenate([mean + spread, (mean - spread)[::-1]])
                band = _trace(name, color, np.concatenate([epochs, epochs[::-1]]), around, "lines", line={"width": 0})
                traces.append(band | {"fill": "toself", "opacity": 0.2, "hoverinfo": "skip"})
                for seed, run in zip(curves[name], values, strict=False):
                    hover = {"hovertemplate": f"seed {seed}, epoch %{{x}}: %{{y:.4~g}}<extra>{_text(name)}</extra>"}
                    style = {"marker": {"size": 5}, "line": {"width": 1}, "opacity": 0.55}
                    traces.append(_trace(name, color, epochs, run, "markers" if few else "lines", **style) | hover)
            hover = {"hovertemplate": f"mean, epoch %{{x}}: %{{y:.4~g}}<extra>{_text(name)}</extra>"}
            traces.append(_trace(name, color, epochs, mean, "lines", line={"width": 2.5, "color": color}) | hover)
        return _drawing(traces, "epoch", label, xaxis=_whole(longest))

    return made


def accuracy_by_time(curves: Curves, bins: Bins) -> list[Drawing]:
    """Test top-1 against the seconds of training so far, every seed its own."""
    seconds = {name: values.cumsum(1) for _, name, values in series(curves, "epoch_seconds")}
    traces: Traces = []
    for color, name, values in series(curves, "test_top1"):
        for seed, run, spent in zip(curves[name], values, seconds[name], strict=False):
            hover = {"hovertemplate": f"seed {seed}, %{{x:.0f}} s: %{{y:.2f}} %<extra>{_text(name)}</extra>"}
            traces.append(_trace(name, color, spent, run, "lines", line={"width": 1, "color": color}, opacity=0.45) | hover)
        hover = {"hovertemplate": f"mean, %{{x:.0f}} s: %{{y:.2f}} %<extra>{_text(name)}</extra>"}
        traces.append(
            _trace(name, color, seconds[name].mean(0), values.mean(0), "lines", line={"width": 2.5, "color": color}) | hover
        )
    return _drawing(traces, "training time, s", "test top-1, %", xaxis={"rangemode": "tozero"})


def reward_scatter(curves: Curves, bins: Bins) -> list[Drawing]:
    """The last mixed epoch's mean reward against test top-1, a point a run; nothing where fewer than four runs have a reward."""
    accuracies = {name: values[:, -1] for _, name, values in series(curves, "test_top1")}
    traces = [
        _trace(name, color, values[:, -1], accuracies[name], "markers", marker={"size": 9, "color": color})
        | _seeds(curves[name], "reward %{x:.4f}, top-1 %{y:.2f} %")
        for color, name, values in series(curves, "reward_mean")
    ]
    runs = sum(len(trace["x"]) for trace in traces)
    return _drawing(traces, "mean reward", "test top-1, %") if runs >= FEWEST_RUNS else []


def reliability(curves: Curves, bins: Bins) -> list[Drawing]:
    """How often each arm is right by how sure it is, its seeds' bins pooled."""
    traces: Traces = []
    for color, (name, entries) in zip(colors(), bins.items(), strict=False):
        found = [entry for entry in entries if entry is not None]
        if found:
            pooled = pool_bins(found)
            images = pooled.num_images.numpy()
            filled = images > 0
            sure, right = (sums.numpy()[filled] / images[filled] for sums in (pooled.confidence, pooled.correct))
            more = {"customdata": images[filled].tolist()}
            more["hovertemplate"] = f"sure %{{x:.2f}}, right %{{y:.2f}}, %{{customdata}} images<extra>{_text(name)}</extra>"
            traces.append(_trace(name, color, sure, right, "lines+markers", line={"color": color}) | more)
    if not traces:
        return []
    diagonal = {"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": {"dash": "dash", "width": 1, "color": "gray"}}
    ends = {"range": [0, 1]}
    return _drawing(traces, "confidence", "accuracy", shapes=[diagonal], xaxis=ends, yaxis=ends)


def top_k(curves: Curves, bins: Bins) -> list[Drawing]:
    """How often each top-k value was chosen, epoch by epoch: a picture an arm, summed over the seeds."""
    shares = top_k_shares(curves)
    top = max((share.max() for share in shares.values()), default=0.0)
    drawings = []
    for name, share in shares.items():
        heat = {
            "type": "heatmap",
            "meta": name,
            "x": list(range(1, len(share) + 1)),
            "y": np.linspace(0, 0.99, share.shape[1]).round(2).tolist(),
            "z": share.T.tolist(),
            "zmin": 0,
            "zmax": float(top),
            "colorscale": "Viridis",
            "colorbar": {"thickness": 12, "tickformat": ".0%"},
            "hovertemplate": "epoch %{x}, top-k %{y}: %{z:.1%}<extra></extra>",
        }
        title = {"text": _text(name), "font": {"size": 14}}
        (drawing,) = _drawing([heat], "epoch", "top-k value", height=280, xaxis=_whole(len(share)), title=title)
        drawings.append(drawing._replace(arm=name))
    return drawings


DRAWINGS: Mapping[str, Callable[[Curves, Bins], list[Drawing]]] = {
    "seeds": seed_dots,
    "learning_curves": by_epoch("test_top1", "test top-1, %"),
    "accuracy_by_time": accuracy_by_time,
    "train_loss": by_epoch("train_loss", "training loss"),
    "reward": by_epoch("reward_mean", "mean reward"),
    "reward_top1": reward_scatter,
    "reliability": reliability,
    "top_k": top_k,
}
"""By the name of the plot that each stands for."""


def _trace(arm: str, color: str, x: Any, y: Any, mode: str, **more: Any) -> dict[str, Any]:
    marker = {"color": color} | more.pop("marker", {})
    line = {"color": color} | more.pop("line", {})
    x, y = (np.asarray(values).tolist() for values in (x, y))
    kind = {"type": "scatter", "fillcolor": color} if mode == "lines" else {"type": "scatter"}
    return kind | {"name": _text(arm), "meta": arm, "x": x, "y": y, "mode": mode, "marker": marker, "line": line} | more


def _seeds(runs: Mapping[int, Any], what: str) -> dict[str, Any]:
    return {"customdata": list(runs), "hovertemplate": f"seed %{{customdata}}: {what}"}


def _drawing(traces: Traces, across: str, up: str, height: int = HEIGHT, **more: Any) -> list[Drawing]:
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": True, "fixedrange": True}
    axes = {name: axis | {"title": {"text": text}} | more.pop(name, {}) for name, text in (("xaxis", across), ("yaxis", up))}
    layout = {
        "height": height,
        "autosize": True,
        "margin": {"l": 48, "r": 12, "t": 36 if "title" in more else 12, "b": 44},
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "font": {"size": 12, "family": "system-ui, sans-serif"},
        "hoverlabel": {"font": {"size": 13}},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    return [Drawing(traces, layout | axes | more)] if traces else []


def _whole(epochs: int) -> dict[str, Any]:
    """An axis of so many epochs, its ticks at whole ones."""
    return {"tick0": 0 if epochs > MOST_TICKS else 1, "dtick": -(-epochs // MOST_TICKS)}


def _write(drawing: Drawing, name: str) -> Plot:
    from plotly.io import to_html

    figure = {"data": drawing.traces, "layout": drawing.layout}
    text = to_html(figure, CONFIG, full_html=False, include_plotlyjs=False, div_id=f"plot-{name}", validate=False)
    return Plot(text, drawing.arm)


def _text(name: str) -> str:
    """A name as Plotly, which reads some HTML, shows it letter by letter."""
    return html.escape(name)


def arms(curves: Curves) -> Sequence[tuple[str, str]]:
    """Each arm's colour and name."""
    return list(zip(colors(), curves, strict=False))
