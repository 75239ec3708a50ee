"""Train what is missing of a study: ``python docs/studies/run_arms.py docs/studies/results/sixteen ten/choose.npz ten --arms rmix rlmix``.

STUDY/arms.json holds ``options``, the words of ``rlmix train`` that all runs share, and ``arms``, the words of each; {seed} in them is the
seed, {runs} the folder of the runs, of which one may need another. A finished run's result.json is copied to STUDY/BED/ARM-sSEED.json.
What a stopped call left is gone on with, and a run whose figures are there is not trained again.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

TRAIN = "import sys; from rlmix.scripts.main import main; sys.exit(main())"


class Job(NamedTuple):
    """A run of a study."""

    name: str
    words: list[str]
    """After ``rlmix train``."""
    runs: Path
    """Where its folder lies, by its name."""
    kept: Path
    """Where its figures belong."""

    @property
    def folder(self) -> Path:
        """The run's."""
        return self.runs / self.name

    @property
    def needs(self) -> list[str]:
        """Names of the runs that it takes something of."""
        return [Path(word).name for word in self.words if Path(word).parent == self.runs and Path(word) != self.folder]


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
    jobs = plan(table, options.study / options.bed, options.data, options.runs / options.bed, options.arms, options.seeds)
    failed = run_all(jobs, options.jobs, train)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(jobs)} runs failed: {', '.join(failed)}; the same command goes on")


def plan(table: dict[str, object], kept: Path, data: Path, runs: Path, arms: list[str], seeds: list[int]) -> list[Job]:
    """What is missing, seed by seed: after any time all arms have about as many."""
    jobs = []
    for seed in seeds:
        for arm in arms:
            name = f"{arm}-s{seed}"
            words = shlex.split(f"{table['options']} {table['arms'][arm]}".format(seed=seed, runs=runs))  # type: ignore[index]
            words += ["--data", f"npz:{data}", "--seed", str(seed), "--out", str(runs / name)]
            if not (kept / f"{name}.json").exists():
                jobs.append(Job(name, words, runs, kept / f"{name}.json"))
    return jobs


def run_all(jobs: list[Job], count: int, one: Callable[[Job], int]) -> list[str]:
    """Run the jobs, ``count`` at once and each after those it needs; names of those that failed."""
    begun: dict[str, Future[int]] = {}

    def run(job: Job) -> int:
        if any(begun[name].result() for name in job.needs if name in begun):
            return 2
        code = one(job)
        if code == 0:
            job.kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(job.folder / "result.json", job.kept)
        return code

    with ThreadPoolExecutor(count) as pool:  # it begins them in order: what a job waits for has begun before it
        for job in jobs:
            begun[job.name] = pool.submit(run, job)
    return [name for name, future in begun.items() if future.result()]


def train(job: Job) -> int:
    """Begin a run or go on with it; its exit code, and a line."""
    job.runs.mkdir(parents=True, exist_ok=True)
    begun = (job.folder / "config.yaml").exists()
    words = ["--resume", str(job.folder)] if begun else job.words
    if not (job.folder / "result.json").exists():
        with open(job.runs / f"{job.name}.log", "a") as log:
            command = [sys.executable, "-c", TRAIN, "train", *words]
            code = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
            ).returncode
        if code:
            sys.stdout.write(f"{job.name} failed: {log.name}\n")
            return code
    top1 = json.loads((job.folder / "result.json").read_text())["top1"]
    sys.stdout.write(f"{job.name}: top-1 {top1:.2f} %\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    main()
