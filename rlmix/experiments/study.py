"""Trainings that belong together: every arm under every seed, what is missing trained, and what they come to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rlmix.benchmarking import measure as benchmark
from rlmix.common.files import write_json
from rlmix.common.saved_config import read_config
from rlmix.config import Config
from rlmix.data.registry import load_data
from rlmix.experiments.arms import Study
from rlmix.experiments.commands.engine import EngineConfig
from rlmix.experiments.executors import run_all, using_threads
from rlmix.experiments.reliability import load_reliability
from rlmix.experiments.result import finite
from rlmix.experiments.resuming import completed
from rlmix.experiments.settings import settled
from rlmix.reporting.output import make_console
from rlmix.reporting.report import Drawn
from rlmix.reporting.reward_accuracy import reward_correlations
from rlmix.reporting.statistics import paired_difference, summarize
from rlmix.reporting.tables import run_figures
from rlmix.training.checkpoints import list_checkpoints, newest_state
from rlmix.training.run_folder import RESULT, check_free, read_metrics

COMPARED = ("top1", "top1_median10", "reward_mean")
"""Figures compared pair by pair beside the metrics; reward_mean where a method has one."""
TIMING_ROUNDS = 9


def run_study(study: Study, engine: EngineConfig, *, quiet: bool = False) -> dict[str, Any]:
    """Train what is missing and give what compare.json holds.

    Raises:
        ValueError: If an option is out of range, a run in the folder was made with other options, or runs failed.
        OSError: If the data or the folder cannot be used.
    """
    study.check()
    engine.check_engine()
    runs = {study.run(arm, seed).folder.name: study.run(arm, seed) for seed in study.seeds for arm in study.arms}
    planned = {name: plan_run(run) for name, run in runs.items()}
    missing = {name: run for name, run in planned.items() if run is not None}
    check_data([run for name, run in runs.items() if name not in missing], list(missing.values()))
    if not quiet:
        finished = f", {len(runs) - len(missing)} of them finished" if len(missing) < len(runs) else ""
        make_console().print(f"{len(runs)} trainings in {study.out / 'runs'}{finished}", soft_wrap=True)
    threads = settle_threads(study.out, engine)
    timing = load_timing(study)
    if timing is None:
        timing = measure(study, threads)
    write_json(study.out / "study.json", {"threads": threads, "timing": timing})
    run_all(missing, engine, threads, quiet)
    results = {
        arm.name: {seed: finite(json.loads((study.run(arm, seed).folder / RESULT).read_text())) for seed in study.seeds}
        for arm in study.arms
    }
    return build_report(study, results, timing) | {"threads": threads}


def drawn_from(study: Study) -> Drawn:
    """What the plots of a finished study are drawn from."""
    folders = {study.title(arm): {seed: study.run(arm, seed).folder for seed in study.seeds} for arm in study.arms}
    curves = {name: {seed: read_metrics(folder) for seed, folder in runs.items()} for name, runs in folders.items()}
    bins = {name: [load_reliability(folder) for folder in runs.values()] for name, runs in folders.items()}
    return Drawn(curves, bins, folders)


def plan_run(options: Config) -> Config | None:
    """The options that start a run or go on with it; None where it is finished; ValueError where it was made with other options."""
    folder = options.folder
    if not (folder / "config.yaml").exists():
        check_free(folder)
        return options
    saved, wanted = read_config(folder), settled(options).as_dict()
    saved = Config().as_dict() | completed(saved)  # of an earlier version
    different = [f"{name} {saved.get(name)!r} is not {wanted[name]!r}" for name in wanted if saved.get(name) != wanted[name]]
    if different:
        raise ValueError(f"{folder} holds a run with other options: {', '.join(different)}")
    return None if (folder / RESULT).exists() else options.changed(resume=folder)


def check_data(finished: Sequence[Config], missing: Sequence[Config]) -> None:
    """Raise ValueError where the data of missing runs are not those any more that finished ones were trained on."""
    trained = {settled(run).data: run.folder for run in finished}
    for wanted in {settled(run).data: settled(run) for run in missing}.values():
        folder = trained.get(wanted.data)
        if folder is None or not list_checkpoints(folder / "checkpoints"):
            continue
        known = newest_state(folder).get("data")
        if known is not None and known != load_data(wanted).checksum():
            raise ValueError(
                f"the data must be those that the run in {folder} was trained on; the images or labels of {wanted.data.name} differ"
            )


def settle_threads(folder: Path, engine: EngineConfig) -> int:
    """CPU threads of each training: those a study in ``folder`` began with, which it keeps."""
    saved = _read_study(folder).get("threads")
    if saved is not None and engine.threads not in (None, saved):
        raise ValueError(f"{folder} holds a comparison with other settings: threads {saved} is not {engine.threads}")
    return saved or engine.threads or max(1, torch.get_num_threads() // engine.jobs)


def measure(study: Study, threads: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step of each arm, and its ratio to vanilla's: here, those of one model and one source of maps together."""
    timing: dict[str, dict[str, float]] = {}
    if not study.timed:
        return timing
    runs = {arm.name: settled(study.run(arm, study.seeds[0])) for arm in study.arms}
    for kind in dict.fromkeys((run.model.name, run.map_source) for run in runs.values()):
        arms = [arm for arm in study.arms if (runs[arm.name].model.name, runs[arm.name].map_source) == kind]
        config = runs[arms[0].name].changed(epochs=1000, num_patches=None, alpha=None)
        own = {arm.options.run.method: arm.options.mixing.hyperparameters for arm in arms}
        with using_threads(threads):
            methods = benchmark.measure(
                config, [arm.options.run.method for arm in arms], rounds=TIMING_ROUNDS, parts=False, hyperparameters=own
            )["methods"]
        for arm in arms:
            timing[arm.name] = {name: methods[arm.options.run.method][name] for name in ("ratio", "step_ms")}
    return timing


def load_timing(study: Study) -> dict[str, dict[str, float]] | None:
    """What an earlier call measured; None where an arm is new."""
    timing: dict[str, dict[str, float]] | None = _read_study(study.out).get("timing")
    if timing is None or (study.timed and not {arm.name for arm in study.arms} <= set(timing)):
        return None
    return timing


def build_report(
    study: Study, results: Mapping[str, Mapping[int, Mapping[str, Any]]], timing: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Means, spreads, intervals and paired differences of every arm, and whether reward goes with top-1."""
    rows: dict[str, Any] = {}
    for arm in study.arms:
        runs, base_runs = results[arm.name], results[arm.baseline]
        row: dict[str, Any] = {"label": arm.label, "model": arm.options.model.name, "baseline": arm.baseline}
        metrics = arm.options.run.metrics
        wanted = run_figures(metrics)
        row["runs"] = {str(seed): {name: result.get(name) for name in wanted} for seed, result in runs.items()}
        for figure in (*COMPARED, *metrics, "seconds_per_epoch"):
            values = {seed: result[figure] for seed, result in runs.items() if result.get(figure) is not None}
            base = {seed: result[figure] for seed, result in base_runs.items() if result.get(figure) is not None}
            if not values:
                continue
            row[figure] = summarize(values)._asdict()
            if figure != "seconds_per_epoch" and arm.name != arm.baseline and base:
                row[figure]["difference"] = paired_difference(values, base)._asdict()
        if arm.name in timing:
            row["step_ratio"], row["step_ms"] = timing[arm.name]["ratio"], timing[arm.name]["step_ms"]
        rows[arm.name] = row
    configs = [settled(study.run(arm, study.seeds[0])).as_dict() for arm in study.arms]
    shared = {name: value for name, value in configs[0].items() if all(config[name] == value for config in configs)}
    shared.pop("seed")
    correlations = reward_correlations(rows, pooled="reward" in shared)
    reported = list(dict.fromkeys(name for arm in study.arms for name in arm.options.run.metrics))
    found = {"seeds": list(study.seeds), "config": shared, "metrics": reported, "methods": rows, "reward_top1": correlations}
    report: dict[str, Any] = finite(found)
    return report


def _read_study(folder: Path) -> dict[str, Any]:
    path = folder / "study.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
