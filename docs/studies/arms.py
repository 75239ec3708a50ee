"""Lay out every arm of a study beside one of them: ``python docs/studies/arms.py docs/studies/results/thousand rmix``.

Reads ARM-sSEED.json, a run's result.json each; prints Markdown: means over the seeds, and differences paired by seed with Student's 95 %
interval. Of several folders, which are beds of their own, differences alone: each seed of each of them is a pair.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlmix.reporting.statistics import paired_difference

FIGURES = {"top1": "top-1 %", "ece": "calibration error %"}
LEAST = 3
"""Pairs of an arm that is drawn."""
Runs = dict[str, dict[tuple[str, int], dict[str, Any]]]
"""Results by arm, and by folder and seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("baseline")
    parser.add_argument("--picture", type=Path, help=f"draw the differences of arms with {LEAST} pairs or more")
    options = parser.parse_args()
    runs = read(options.folders)
    if options.baseline not in runs:
        parser.error(f"baseline must be one of {', '.join(runs)}, got {options.baseline}")
    if options.picture is not None:
        draw(runs, options.baseline).savefig(options.picture, dpi=110, bbox_inches="tight")
    sys.stdout.write("\n".join(layout(runs, options.baseline)) + "\n")


def read(folders: Sequence[Path]) -> Runs:
    """Read all results."""
    runs: Runs = {}
    for folder in folders:
        for path in sorted(folder.glob("*-s*.json")):
            found = re.fullmatch(r"(.+)-s(\d+)", path.stem)
            if found:
                runs.setdefault(found[1], {})[str(folder), int(found[2])] = json.loads(path.read_text())
    return runs


def layout(runs: Runs, baseline: str) -> list[str]:
    """A line an arm, the best first."""
    base = runs[baseline]
    alone = len({folder for found in runs.values() for folder, _ in found}) == 1
    gains = {arm: paired(found, base, "top1")[0] for arm, found in runs.items()}
    if alone:
        order = sorted(runs, key=lambda arm: -mean(runs[arm], "top1"))
        heads = [name for label in FIGURES.values() for name in (label, f"- {baseline}")]
    else:
        order = sorted((arm for arm in runs if arm != baseline and not math.isnan(gains[arm])), key=lambda arm: -gains[arm])
        heads = [f"{label}, - {baseline}" for label in FIGURES.values()]
    lines = [f"| arm | {'seeds' if alone else 'pairs'} | {' | '.join(heads)} |", f"| --- | ---: |{' ---: |' * len(heads)}"]
    for arm in order:
        cells = [arm, str(len(runs[arm]) if alone else len(runs[arm].keys() & base.keys()))]
        for figure in FIGURES:
            cells += [f"{mean(runs[arm], figure):.2f}"] if alone else []
            cells += ["" if arm == baseline else difference(runs[arm], base, figure)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def mean(runs: dict[tuple[str, int], dict[str, Any]], figure: str) -> float:
    """Over the seeds."""
    return sum(float(run[figure]) for run in runs.values()) / len(runs)


def difference(runs: dict[tuple[str, int], dict[str, Any]], others: dict[tuple[str, int], dict[str, Any]], figure: str) -> str:
    """Paired by the seeds that both have, with its interval where there are two."""
    middle, low, high = paired(runs, others, figure)
    if math.isnan(middle):
        return ""
    return f"{middle:+.2f}" + ("" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]")


def paired(
    runs: dict[tuple[str, int], dict[str, Any]], others: dict[tuple[str, int], dict[str, Any]], figure: str
) -> tuple[float, float, float]:
    """The difference and the ends of its interval; nan where there is none."""
    seeds = sorted(runs.keys() & others.keys())
    if not seeds:
        return math.nan, math.nan, math.nan
    values = [{number: float(each[seed][figure]) for number, seed in enumerate(seeds)} for each in (runs, others)]
    middle, low, high = paired_difference(values[0], values[1])
    return middle, low, high


def draw(runs: Runs, baseline: str) -> Figure:
    """A row an arm with its intervals, the best in top-1 above."""
    base = runs[baseline]
    found = {
        arm: [paired(each, base, figure) for figure in FIGURES]
        for arm, each in runs.items()
        if len(each.keys() & base.keys()) >= LEAST
    }
    found.pop(baseline, None)
    order = sorted(found, key=lambda arm: found[arm][0][0])
    figure = Figure(figsize=(9, 0.8 + 0.26 * len(order)))
    for place, (axes, label) in enumerate(zip(figure.subplots(1, len(FIGURES), sharey=True), FIGURES.values(), strict=True)):
        for row, arm in enumerate(order):
            middle, low, high = found[arm][place]
            axes.plot([low, high], [row, row], color="0.6")
            axes.plot(middle, row, "o", color="C0", markersize=4)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_xlabel(f"{label}, difference from {baseline}")
        axes.set_yticks(range(len(order)), order)
    return figure


if __name__ == "__main__":
    main()
