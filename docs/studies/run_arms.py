"""Train what is missing of a study: ``python docs/studies/run_arms.py docs/studies/results/sixteen ten/choose.npz ten --arms rmix rlmix``.

STUDY/arms.json holds ``options``, the words of ``rlmix train`` that all runs share, and ``arms``, the words of each; {seed} in them is the
seed, {runs} the folder of the runs, of which one may need another. A finished run's result.json is copied to STUDY/BED/ARM-sSEED.json.
What a stopped call left is gone on with, and a run whose figures are there is not trained again.
"""

import argparse
import json
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlmix.config import Config
from rlmix.experiments.commands.engine import EngineConfig
from rlmix.experiments.executors import run_all
from rlmix.experiments.reading import read_options
from rlmix.experiments.study import plan_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("data", type=Path, help="an npz, as of few_images.py")
    parser.add_argument("bed", help="folder in STUDY for the figures")
    parser.add_argument("--arms", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, of one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"), help="folder of the runs, BED below it")
    options = parser.parse_args()
    table = json.loads((options.study / "arms.json").read_text())
    unknown = [name for name in options.arms if name not in table["arms"]]
    if unknown:
        parser.error(f"arms must be of {', '.join(table['arms'])}, got {unknown[0]}")
    kept = options.study / options.bed
    runs = missing(table, kept, options.data, options.runs / options.bed, options.arms, options.seeds)
    try:
        for wave in waves(runs):
            planned = {name: plan_run(run) for name, run in wave.items()}
            run_all({name: run for name, run in planned.items() if run is not None}, EngineConfig(jobs=options.jobs), threads=1)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{error}; the same command goes on") from error
    finally:
        keep(runs, kept)


def missing(
    table: Mapping[str, Any], kept: Path, data: Path, runs: Path, arms: Iterable[str], seeds: Iterable[int]
) -> dict[str, Config]:
    """Runs whose figures are not kept, by name, seed by seed: after any time all arms have about as many."""
    found = {}
    for seed in seeds:
        for arm in arms:
            name = f"{arm}-s{seed}"
            words = shlex.split(f"{table['options']} {table['arms'][arm]}".format(seed=seed, runs=runs))
            words += ["--data", f"npz:{data}", "--seed", str(seed), "--out", str(runs / name)]
            if not (kept / f"{name}.json").exists():
                found[name] = read_options(words)
    return found


def waves(runs: Mapping[str, Config]) -> tuple[dict[str, Config], dict[str, Config]]:
    """Those that take no other run's policy, and those that do."""
    first = {name: run for name, run in runs.items() if run.run.policy is None}
    return first, {name: run for name, run in runs.items() if name not in first}


def keep(runs: Mapping[str, Config], kept: Path) -> None:
    """Copy the figures of those that are finished."""
    kept.mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        if (run.folder / "result.json").exists():
            shutil.copyfile(run.folder / "result.json", kept / f"{name}.json")


if __name__ == "__main__":
    main()
