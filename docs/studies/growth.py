"""Measure how a step's cost grows with batch, pixels, classes and images: ``python docs/studies/growth.py RESULTS.json PICTURE.png``.

Each setting is a run of ``rlmix benchmark``, its methods interleaved step by step; the figures that are there already are kept, so that it
goes on where it was stopped.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlmix.benchmarking.measure import measure, random_data
from rlmix.benchmarking.options import Benchmark
from rlmix.common.files import write_json

BATCHES = 20
METHODS = ("rmix", "rmix-recycled", "rlmix", "rlmix-recycled", "puzzlemix")
GROWS: dict[str, tuple[int, ...]] = {
    "batch_size": (25, 50, 100, 200),
    "image_size": (16, 32, 64),
    "num_classes": (10, 100, 1000),
    "images": (2_000, 20_000, 200_000),
}
"""What is varied, one at a time; the rest is as ``rlmix benchmark`` has it, with 2,000 images of its batch of 100."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    for what, values in GROWS.items():
        for value in values:
            key = f"{what} {value}"
            if key not in found:
                settings = Benchmark(methods=METHODS, rounds=options.rounds)
                batches = BATCHES
                if what == "images":
                    batches = value // settings.batch_size
                else:
                    settings = replace(settings, **{what: value})
                found[key] = step_costs(settings, batches)
                write_json(options.results, found)
    draw(found).savefig(options.picture, dpi=110, metadata={"Software": ""})


def step_costs(options: Benchmark, batches: int) -> dict[str, dict[str, float]]:
    """Milliseconds a step of each method, and its ratio to vanilla's."""
    data = random_data(options, batches)
    rows = measure(options.training, options.methods, data, options.rounds, options.warmup, parts=False)["methods"]
    return {name: {figure: row[figure] for figure in ("step_ms", "ratio")} for name, row in rows.items()}


def draw(found: dict[str, Any]) -> Figure:
    """Above milliseconds a step, both axes logarithmic; below the ratios to vanilla."""
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    panels = figure.subplots(2, len(GROWS), sharex="col", sharey="row")
    for column, (what, values) in enumerate(GROWS.items()):
        for method in ("vanilla", *METHODS):
            rows = [found[f"{what} {value}"][method] for value in values]
            panels[0][column].loglog(values, [row["step_ms"] for row in rows], marker=".", label=method)
            panels[1][column].semilogx(values, [row["ratio"] for row in rows], marker=".")
        for axes in panels[:, column]:
            axes.set_xticks(values, [str(value) for value in values])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        panels[1][column].set_xlabel(what.replace("_", " ").replace("num", "number of"))
    panels[0][0].set_ylabel("ms a step")
    panels[1][0].set_ylabel("relative to vanilla")
    panels[0][0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()
