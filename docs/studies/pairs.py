"""Compare two methods over the seeds that both have finished: ``python docs/studies/pairs.py docs/studies/results/masks rlmix rmix``.

Reads METHOD-sSEED.json, as they are committed there; prints a line a seed, means, and paired differences with Student's 95 % interval.
"""

import argparse
import json
from pathlib import Path

from rich.table import Table

from rlmix.reporting.output import make_console
from rlmix.reporting.statistics import paired_difference

FIGURES = ("top1", "ece", "fgsm_error", "reward_mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("method")
    parser.add_argument("baseline")
    options = parser.parse_args()
    found = {name: read(options.folder, name) for name in (options.method, options.baseline)}
    seeds = sorted(set.intersection(*(set(runs) for runs in found.values())))
    if not seeds:
        parser.error(f"{options.folder} must hold a seed of both {options.method} and {options.baseline}")
    # a method may measure no reward
    figures = [name for name in FIGURES if all(found[each][seed][name] is not None for each in found for seed in seeds)]
    table = Table(title=f"{options.method} beside {options.baseline}, {len(seeds)} seeds")
    for column in ("seed", *(f"{name} {figure}" for figure in figures for name in found)):
        table.add_column(column, justify="right")
    for seed in seeds:
        table.add_row(str(seed), *(f"{found[name][seed][figure]:.2f}" for figure in figures for name in found))
    means = [sum(found[name][seed][figure] for seed in seeds) / len(seeds) for figure in figures for name in found]
    table.add_row("mean", *(f"{mean:.2f}" for mean in means))
    console = make_console()
    console.print(table)
    for figure in figures:
        values = [{seed: found[name][seed][figure] for seed in seeds} for name in found]
        mean, low, high = paired_difference(values[0], values[1])
        console.print(f"{figure}: {mean:+.2f} [{low:+.2f}, {high:+.2f}]", highlight=False)


def read(folder: Path, method: str) -> dict[int, dict[str, float]]:
    """The result of each seed of a method."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{method}-s*.json"))]
    return {run["seed"]: run for run in runs}


if __name__ == "__main__":
    main()
