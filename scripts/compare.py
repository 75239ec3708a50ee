"""Train the same classifier, on the same data and schedule, under several methods and seeds, and compare them.

    rlmix compare --methods rlmix rmix vanilla --seeds 0 1 2 --out DIR

A run that is finished already is not repeated, and a half-finished one goes on.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from rlmix.agents.ppo import PPOConfig
from rlmix.checkpoints import write_atomically
from rlmix.comparison import paired_difference, summarize
from rlmix.config import TrainingConfig
from rlmix.names import check_name
from rlmix.runs import check_free, read_config, read_metrics
from rlmix.scripts import benchmark, plots
from rlmix.scripts.options import parse, read_args
from rlmix.scripts.train import ALL_METHODS, NO_ALPHA, Train, train

RUN_FIGURES = ("top1", "top1_median10", "top1_best", "ece", "fgsm_error", "seconds_per_epoch", "reward_mean")
COMPARED = ("top1", "top1_median10", "ece", "fgsm_error", "reward_mean")
"""Figures compared pair by pair; reward_mean where a method has one."""
TIMING_ROUNDS = 9


@dataclass(frozen=True)
class Compare(TrainingConfig):
    """Compare methods: the same classifier, data and schedule under each, over the same seeds."""

    methods: tuple[str, ...] = ("rlmix", "rmix", "vanilla")
    """Any of rlmix train's methods but constant."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each method is trained once with each; --seed is not read."""
    observation: Literal["paper", "pair"] = "pair"
    """What an agent sees of an image, as for rlmix train."""
    credit: Literal["own", "pair", "batch"] = "pair"
    """Who earns an image's reward, as for rlmix train."""
    baseline: str = "rmix"
    """Paired differences are from this method."""
    control: bool = True
    """Beside rlmix and rmix show rmix-p8, R-Mix at the agent's 8 patches: there, who decides is the only difference."""
    timing: bool = True
    """Time a step of each method, interleaved, before the training."""
    agent: PPOConfig = field(default_factory=PPOConfig)
    """PPO's hyperparameters."""
    out: Path = Path("runs/compare")
    """The comparison's folder; the runs lie in DIR/runs."""

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The methods, and the control where it belongs."""
        wanted = [*self.methods]
        if self.control and {"rlmix", "rmix"} <= set(wanted):
            wanted.append("rmix-p8")
        return tuple(dict.fromkeys(wanted))

    def run_options(self, method: str, seed: int) -> Train:
        """Options of one run."""
        shared = {entry.name: getattr(self, entry.name) for entry in fields(TrainingConfig)} | {"seed": seed}
        if method in NO_ALPHA:
            shared["alpha"] = None
        return Train(**shared, method=method, agent=self.agent, out=self.out / "runs" / f"{method}-s{seed}")

    def check(self) -> None:
        """Raise ValueError where an option is out of range, before anything is written."""
        for method in self.methods:
            check_name("method", method, ALL_METHODS)
        for name in ("methods", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one, got none")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        if "constant" in self.methods:
            raise ValueError(f"methods must be of {', '.join(ALL_METHODS)} but constant, got {self.methods}")
        if self.baseline not in self.all_methods:
            raise ValueError(f"baseline must be one of the methods {', '.join(self.all_methods)}, got {self.baseline!r}")
        for method in self.all_methods:
            for seed in self.seeds:
                self.run_options(method, seed).resolved()


def main(args: Sequence[str] | None = None) -> None:
    """Parse, train what is missing, report."""
    options = parse(Compare, "compare", read_args(args))
    compare(options)


def compare(options: Compare, *, quiet: bool = False) -> dict[str, Any]:
    """Run a comparison to its end, write its files, and give what compare.json holds.

    Raises:
        ValueError: If an option is out of range, or a run in the folder was made with other options.
        OSError: If the data or the folder cannot be used.
    """
    options.check()
    pending = [(method, seed) for seed in options.seeds for method in options.all_methods]
    plan = {key: plan_run(options.run_options(*key)) for key in pending}
    ratios = _load_timing(options)
    if ratios is None:
        timing = benchmark.measure(_timing_config(options), options.all_methods, rounds=TIMING_ROUNDS) if options.timing else None
        ratios = {} if timing is None else timing["methods"]
    results: dict[str, dict[int, dict[str, Any]]] = {method: {} for method in options.all_methods}
    for (method, seed), run in plan.items():
        results[method][seed] = run if isinstance(run, dict) else train(run, quiet=quiet)
    options.out.mkdir(parents=True, exist_ok=True)
    report = build_report(options, results, ratios)
    write_report(options, report)
    if not quiet:
        console = Console() if sys.stdout.isatty() else Console(width=160)
        console.print(as_table(report))
        console.print(f"written to {options.out}", highlight=False, soft_wrap=True)
    return report


def plan_run(options: Train) -> Train | dict[str, Any]:
    """The result of a finished run, or the options that start or go on with it; ValueError where it was made with other options."""
    folder = options.folder
    if not (folder / "config.yaml").exists():
        check_free(folder)
        return options
    saved, wanted = read_config(folder), options.resolved().as_dict()
    different = sorted(name for name in wanted if saved.get(name) != wanted[name])
    if different:
        name = different[0]
        raise ValueError(
            f"{folder} holds a run with other options ({', '.join(different)}): {name} {saved.get(name)!r} is not {wanted[name]!r}"
        )
    if (folder / "result.json").exists():
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return result
    return replace(options, resume=folder)


def build_report(
    options: Compare, results: Mapping[str, Mapping[int, Mapping[str, Any]]], ratios: Mapping[str, Any]
) -> dict[str, Any]:
    """Means, standard deviations and paired differences of every method."""
    methods: dict[str, Any] = {}
    for method, runs in results.items():
        row: dict[str, Any] = {"runs": {str(seed): dict(result) for seed, result in runs.items()}}
        for figure in (*COMPARED, "seconds_per_epoch"):
            values = {seed: result[figure] for seed, result in runs.items() if result[figure] is not None}
            base = {seed: result[figure] for seed, result in results[options.baseline].items() if result[figure] is not None}
            if not values:
                continue
            row[figure] = summarize(values)._asdict()
            if figure in COMPARED and method != options.baseline and base:
                row[figure]["difference"] = paired_difference(values, base)._asdict()
        if method in ratios:
            row["step_ratio"], row["step_ms"] = ratios[method]["ratio"], ratios[method]["step_ms"]
        methods[method] = row
    first = options.run_options(options.all_methods[0], options.seeds[0]).resolved().training
    shared = {name: value for name, value in first.as_dict().items() if name not in ("seed", "num_patches")}
    return _finite({"baseline": options.baseline, "seeds": list(options.seeds), "config": shared, "methods": methods})


def write_report(options: Compare, report: dict[str, Any]) -> None:
    """compare.json, compare.csv, report.md and plots/*.png."""
    curves = {
        method: {seed: read_metrics(options.run_options(method, seed).folder) for seed in options.seeds}
        for method in options.all_methods
    }
    pictures = plots.draw(curves, options.out / "plots", options.num_top_k)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["method", "seed", *RUN_FIGURES])
    for method, row in report["methods"].items():
        for seed, result in row["runs"].items():
            writer.writerow([method, seed, *("" if result[name] is None else result[name] for name in RUN_FIGURES)])
    files = {
        "compare.json": json.dumps(report, indent=2) + "\n",
        "compare.csv": table.getvalue(),
        "report.md": as_markdown(report, [picture.relative_to(options.out) for picture in pictures]),
    }
    for name, text in files.items():
        write_atomically(options.out / name, lambda handle, text=text: handle.write(text.encode()))  # type: ignore[misc]


def rows(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table, the same for terminal and Markdown."""
    baseline = report["baseline"]
    header = [
        "method",
        "top-1 %",
        f"top-1 - {baseline}",
        "median of last 10",
        "ECE %",
        "FGSM error %",
        "reward",
        f"reward - {baseline}",
        "step / vanilla",
    ]
    cells = []
    for method, row in report["methods"].items():
        ratio = row.get("step_ratio")
        cells.append(
            [
                method,
                _mean_std(row["top1"]),
                _difference(row["top1"]),
                _mean_std(row["top1_median10"]),
                _mean_std(row["ece"]),
                _mean_std(row["fgsm_error"]),
                _mean_std(row.get("reward_mean"), digits=4),
                _difference(row.get("reward_mean", {}), digits=4),
                "" if ratio is None else f"{ratio:.2f}",
            ]
        )
    return header, cells


def as_table(report: dict[str, Any]) -> Table:
    """For the terminal."""
    header, cells = rows(report)
    table = Table(title=_caption(report))
    for name in header:
        table.add_column(name, justify="left" if name == "method" else "right")
    for line in cells:
        table.add_row(*line)
    return table


def as_markdown(report: dict[str, Any], pictures: Sequence[Path]) -> str:
    """report.md."""
    header, cells = rows(report)
    lines = ["# Comparison", "", _caption(report), "", _line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    lines += [_line(line) for line in cells]
    lines += [
        "",
        "Mean ± sample standard deviation over the seeds; differences are paired by seed, with Student's 95 % interval.",
    ]
    lines += [
        "The reward is the last epoch's mean, before credit is shared; steps are medians, timed interleaved in one process."
    ]
    if "rmix" in report["methods"] and "rmix-p8" in report["methods"]:
        lines += [
            "rmix cuts masks at 2 or 4 patches a side as in the paper; rmix-p8 at the agent's 8: beside rlmix only who decides differs."
        ]
    for picture in pictures:
        lines += ["", f"![{picture.stem.replace('_', ' ')}]({picture.as_posix()})"]
    settings = [f"- {name}: {value}" for name, value in report["config"].items()]
    return "\n".join([*lines, "", "## Settings", "", *settings, ""])


def _caption(report: dict[str, Any]) -> str:
    config = report["config"]
    images = "" if config["train_images"] is None else f", {config['train_images']} training images"
    data = config["data"].partition(":")
    name = Path(data[2]).name if data[2] else data[0]
    return f"{config['model']} on {name}{images}, {config['epochs']} epochs, seeds {', '.join(map(str, report['seeds']))}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean_std(figure: Mapping[str, Any] | None, digits: int = 2) -> str:
    if figure is None:
        return ""
    spread = "" if figure["std"] is None else f" ± {figure['std']:.{digits}f}"
    return f"{figure['mean']:.{digits}f}{spread}"


def _difference(figure: Mapping[str, Any], digits: int = 2) -> str:
    difference = figure.get("difference")
    if difference is None:
        return ""
    interval = "" if difference["low"] is None else f" [{difference['low']:+.{digits}f}, {difference['high']:+.{digits}f}]"
    return f"{difference['mean']:+.{digits}f}{interval}"


def _finite(value: Any) -> Any:
    """NaN, which JSON does not have, as null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _timing_config(options: Compare) -> TrainingConfig:
    config = options.run_options(options.all_methods[0], options.seeds[0]).resolved().training
    return replace(config, epochs=1000, num_patches=None)


def _load_timing(options: Compare) -> dict[str, Any] | None:
    """What an earlier call for the same methods measured."""
    path = options.out / "compare.json"
    if not path.exists() or not options.timing:
        return None
    rows = json.loads(path.read_text())["methods"]
    found = {name: {"ratio": row["step_ratio"], "step_ms": row["step_ms"]} for name, row in rows.items() if "step_ratio" in row}
    return found if set(options.all_methods) <= set(found) else None


if __name__ == "__main__":
    from rlmix.scripts.main import run_command

    run_command(main)
