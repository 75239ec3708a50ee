"""A study's table: the same cells for the terminal, Markdown, HTML and CSV."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from rlmix.reporting.reward_accuracy import POOLED

TITLES = {"ece": "ECE %", "fgsm_error": "FGSM error %"}
"""Of metrics; another's is its name."""
CORRELATIONS = "Reward against top-1 over the runs"

Cells = tuple[Sequence[str], Sequence[Sequence[str]]]
"""A header, and rows of as many cells."""


def run_figures(metrics: Sequence[str]) -> list[str]:
    """Names of a run's figures. Its peak memory is left out: where runs share a process it is that of all of them."""
    return ["top1", "top1_median10", "top1_best", *metrics, "seconds_per_epoch", "reward_mean"]


def metrics_of(report: Mapping[str, Any]) -> list[str]:
    """Names of the metrics that a report has; of an earlier version's, those that it had."""
    return list(report.get("metrics", TITLES))


def cells(report: dict[str, Any]) -> Cells:
    """Header and rows of a report. Columns that no row fills are left out."""
    rows = report["methods"]
    bases = {rows[row["baseline"]]["label"] for row in rows.values()}
    base = bases.pop() if len(bases) == 1 else "baseline"
    several = len({row["model"] for row in rows.values()}) > 1
    header = [*(["model"] if several else []), "method", "top-1 %", "95 % interval", f"top-1 - {base}", "median of last 10"]
    metrics = metrics_of(report)
    header += [*(TITLES.get(name, name) for name in metrics), "reward", f"reward - {base}", "step / vanilla"]
    lines = []
    for row in rows.values():
        reward, ratio = row.get("reward_mean", {}), row.get("step_ratio")
        line = [row["model"]] if several else []
        line += [
            row["label"],
            mean_std(row["top1"]),
            interval(row["top1"]),
            difference(row["top1"]),
            mean_std(row["top1_median10"]),
        ]
        line += [*(mean_std(row.get(name, {})) for name in metrics), mean_std(reward, 4), difference(reward, 4)]
        lines.append([*line, "" if ratio is None else f"{ratio:.2f}"])
    kept = [index for index in range(len(header)) if any(line[index] for line in lines)]
    return [header[index] for index in kept], [[line[index] for index in kept] for line in lines]


def num_names(report: dict[str, Any]) -> int:
    """How many leading columns of :func:`cells` hold names and not figures."""
    return 2 if len({row["model"] for row in report["methods"].values()}) > 1 else 1


def caption(report: dict[str, Any]) -> str:
    """Model, data, epochs and seeds."""
    config = report["config"]
    models = ", ".join(dict.fromkeys(row["model"] for row in report["methods"].values()))
    kind, _, path = config["data"].partition(":")
    images = "" if config.get("train_images") is None else f", {config['train_images']} training images"
    seeds = ", ".join(map(str, report["seeds"]))
    epochs = f", {config['epochs']} epochs" if "epochs" in config else ""
    return f"{models} on {Path(path).name if path else kind}{images}{epochs}, seeds {seeds}"


def notes(report: dict[str, Any]) -> list[str]:
    """What the table's figures are, in sentences."""
    seeds = len(report["seeds"])
    lines = []
    if seeds > 1:
        lines += [
            "Mean ± sample standard deviation over the seeds, and the mean's interval; differences are paired by seed. Intervals are "
            "Student's, 95 %."
        ]
    if seeds == 1:
        lines += ["One seed: no spread and no interval can be given, and differences separate nothing."]
    if any("reward_mean" in row for row in report["methods"].values()):
        lines += ["The reward is the last mixed epoch's mean, before credit is shared."]
    if any("step_ratio" in row for row in report["methods"].values()):
        lines += [
            f"Steps are medians, relative to vanilla's, timed interleaved in one process (CPU threads: {report['threads']})."
        ]
    labels = {row["label"] for row in report["methods"].values()}
    if {"rmix", "rmix-p8"} <= labels:
        lines += [
            "rlmix and rmix cut the same masks: only who decides differs. rmix-p8 is R-Mix at the 8 patches of the paper's agent."
        ]
    return lines


def correlation_cells(report: dict[str, Any]) -> Cells | None:
    """Header and rows of how reward goes with top-1; None where too few runs have a reward."""
    found = report.get("reward_top1")
    if not found:
        return None
    several = num_names(report) > 1
    rows = [
        (
            f"{report['methods'][name]['model']} {report['methods'][name]['label']}"
            if several
            else report["methods"][name]["label"],
            entry,
        )
        for name, entry in found["methods"].items()
    ]
    rows += [(text, found[key]) for key, text in POOLED.items() if key in found]
    lines = []
    for name, entry in rows:
        cells = [
            ""
            if entry[kind] is None
            else f"{entry[kind]:+.2f} {interval({end: entry[f'{kind}_{end}'] for end in ('low', 'high')})}".rstrip()
            for kind in ("rank", "linear")
        ]
        lines.append([name, str(entry["runs"]), *cells])
    return ["runs of", "runs", "rank correlation", "linear correlation"], lines


def correlation_notes(report: dict[str, Any]) -> list[str]:
    """What the correlations are, in sentences."""
    lines = [
        "Spearman's and Pearson's correlation of the last mixed epoch's mean reward with test top-1, with Fisher's 95 % interval. Rows of "
        "one method, of four runs or more, ask whether its runs that earn more classify better.",
    ]
    if "within_seeds" in report["reward_top1"]:
        lines += [
            "With each seed's mean removed (of each model) the methods are compared with each other: these differ in more than what they "
            "earn, and a method's runs are alike, so take that interval for too narrow. With each method's mean removed no method is "
            "compared with another."
        ]
    return lines


def as_table(report: dict[str, Any]) -> Table:
    """For the terminal."""
    return rich_table(cells(report), caption(report), num_names(report))


def rich_table(table: Cells, title: str, names: int = 1) -> Table:
    """Cells for the terminal."""
    header, lines = table
    made = Table(title=title)
    for index, name in enumerate(header):
        made.add_column(name, justify="left" if index < names else "right")
    for line in lines:
        made.add_row(*line)
    return made


def markdown_table(table: Cells, names: int = 1) -> list[str]:
    """Lines of a Markdown table."""
    header, *lines = [list(map(markdown, line)) for line in (table[0], *table[1])]
    rule = ["---"] * names + ["---:"] * (len(header) - names)
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *lines)]


def markdown(text: str) -> str:
    """Text as Markdown shows it letter by letter: on one line, nothing in it emphasised, linked, cut into cells or taken for HTML."""
    text = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())
    return re.sub(r"([\\`*|~$]|\](?=\()|(?<!\w)_|_(?!\w)|^#)", r"\\\1", text)


def as_csv(report: dict[str, Any]) -> str:
    """A line a run."""
    text = io.StringIO()
    writer = csv.writer(text)
    wanted = run_figures(metrics_of(report))
    writer.writerow(["model", "method", "seed", *wanted])
    for row in report["methods"].values():
        for seed, result in row["runs"].items():
            figures = ("" if result.get(name) is None else result[name] for name in wanted)
            writer.writerow([row["model"], row["label"], seed, *figures])
    return text.getvalue()


def mean_std(figure: Mapping[str, Any], digits: int = 2) -> str:
    """``mean ± deviation``; the deviation where there is one, and nothing where there is no figure."""
    if figure.get("mean") is None:
        return ""
    spread = "" if figure["std"] is None else f" ± {figure['std']:.{digits}f}"
    return f"{figure['mean']:.{digits}f}{spread}"


def interval(figure: Mapping[str, Any], digits: int = 2) -> str:
    """``[low, high]``, or nothing."""
    return "" if figure["low"] is None else f"[{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def difference(figure: Mapping[str, Any], digits: int = 2) -> str:
    """``+mean [low, high]`` of the paired difference, or nothing."""
    found = figure.get("difference")
    if found is None or found["mean"] is None:
        return ""
    bounds = "" if found["low"] is None else f" [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"
    return f"{found['mean']:+.{digits}f}{bounds}"
