"""Run the experiment behind a table of the paper, at its scale or at a stated fraction.

rlmix reproduce table12 --data-root DIR --download
rlmix reproduce table12 --scale 0.02 --data npz:FILE --model preactresnet18_w16
"""

import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from rlmix.config import TrainingConfig
from rlmix.datasets import load_data
from rlmix.names import check_name
from rlmix.runs import read_metrics
from rlmix.scripts import tables
from rlmix.scripts.engines import EngineOptions
from rlmix.scripts.evaluate import Evaluate, evaluate
from rlmix.scripts.options import parse, read_args
from rlmix.scripts.output import make_console
from rlmix.scripts.paper_tables import TABLES, PaperArm, PaperTable
from rlmix.scripts.report import write_report
from rlmix.scripts.study import Arm, Study, run_study, save_json
from rlmix.scripts.train import NO_ALPHA, Train

FIGURES = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "ece": "ECE %",
    "fgsm_error": "FGSM error %",
    "reward_mean": "reward",
    "localization": "top-1 localization %",
    "localization_gt_known": "GT-known localization %",
    "step_ratio": "step / vanilla",
    "seconds_per_epoch": "seconds an epoch",
}
"""What tables report, and how it is headed."""
UNKNOWN = "—"


@dataclass(frozen=True)
class Reproduce(EngineOptions, TrainingConfig):
    """Run a table of the paper. An option that is given is taken instead of the table's own, unless the table is about it."""

    table: tyro.conf.Positional[str] = "table2"
    """table1, table2, table4, table5, table6, table7 (p and K), table8 (alpha), table9, table10, table12 (strategies)."""
    scale: float = 1.0
    """Fraction of the training images and of the epochs, in (0, 1]; the output says so."""
    data: str = ""
    """As for rlmix train; the table's own where not given."""
    models: tuple[str, ...] = ()
    """Networks; the table's own, or --model, where not given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every row is trained with each; --seed is not read."""
    credit: Literal["own", "pair", "batch"] = "pair"
    """Who earns an image's reward under rlmix."""
    boxes: Path | None = None
    """CSV file of the images' boxes, for the localization of table5."""
    out: Path | None = None
    """The folder; runs/TABLE, or runs/TABLE-scale-F, where not given."""

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.out or Path("runs") / (self.table if self.scale == 1 else f"{self.table}-scale-{self.scale:g}")

    @property
    def given(self) -> dict[str, Any]:
        """The options of a training that were given: those that are not at their defaults."""
        default = TrainingConfig()
        names = [entry.name for entry in fields(TrainingConfig) if entry.name not in ("data", "model", "seed", "credit")]
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}


def main(args: Sequence[str] | None = None) -> None:
    """Parse, train what is missing, print."""
    options = parse(Reproduce, "reproduce", read_args(args))
    reproduce(options)


def reproduce(options: Reproduce, *, quiet: bool = False) -> dict[str, Any]:
    """Run a table's experiment, write the files of a comparison, and give what compare.json holds.

    Raises:
        ValueError: If an option is out of range, or given where the table varies it itself.
        OSError: If the data or the folder cannot be used.
    """
    table = check(options)
    study = plan(options, table)
    report = run_study(study, options, quiet=quiet)
    collect(study, report, table, options)
    cells = beside_the_paper(report, table)
    statement = state(study, table, options)
    write_report(study, report, table.title, [statement, table.uncertain], [("Beside the paper's figures", cells)])
    if not quiet:
        console = make_console() if sys.stdout.isatty() else make_console(width=180)
        console.print(tables.rich_table(cells, f"{table.title}: {tables.caption(report)}", 2))
        console.print(f"{statement} {table.uncertain}")
        console.print(f"written to {options.folder}", soft_wrap=True)
    return report


def check(options: Reproduce) -> PaperTable:
    """The table; ValueError where an option is out of range, before anything is written."""
    check_name("table", options.table, TABLES)
    table = TABLES[options.table]
    if not 0 < options.scale <= 1:
        raise ValueError(f"scale must be in (0, 1], got {options.scale}")
    clash = sorted(set(options.given) & table.varied)
    if clash:
        raise ValueError(f"{', '.join(clash)} must be left out with {options.table}, which varies it itself")
    if not (options.data or table.data):
        raise ValueError(f"data must be given with {options.table}, such as --data imagefolder:PATH with train/ and val/")
    localized = any(figure.startswith("localization") for figure in table.figures)
    if localized != (options.boxes is not None):
        raise ValueError(f"boxes must {'be given' if localized else 'be left out'} with {options.table}, got {options.boxes}")
    return table


def plan(options: Reproduce, table: PaperTable) -> Study:
    """The table's trainings, scaled."""
    data = options.data or table.data
    scaled: dict[str, Any] = {"data": data, "epochs": max(1, round(options.scale * table.epochs))}
    if options.scale < 1 and options.train_images is None:
        scaled["train_images"] = max(1, round(options.scale * count_images(replace(options, data=data))))
    shared = scaled | options.given | {"credit": options.credit}
    models = options.models or ((options.model,) if options.model else table.models)
    arms = [_arm(model, arm, table, shared) for model in models for arm in table.arms]
    return Study(tuple(arms), options.seeds, options.folder, timed="step_ratio" in table.figures)


def count_images(config: TrainingConfig) -> int:
    """Training images that there are."""
    return len(load_data(config).train_labels)


def collect(study: Study, report: dict[str, Any], table: PaperTable, options: Reproduce) -> None:
    """Add what a table reports beyond a comparison's own figures, and the paper's, to the report."""
    extra = [figure for figure in table.figures if figure == "top5" or figure.startswith("localization")]
    for arm in study.arms:
        row, folders = report["methods"][arm.name], [study.run(arm, seed).folder for seed in study.seeds]
        for figure in extra:
            if figure == "top5":
                values = [read_metrics(folder)[-1]["test_top5"] for folder in folders]
            else:
                values = [localize(folder, options.boxes)[figure] for folder in folders]
            row[figure] = {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
        model = arm.options.model if arm.options.model in table.models else table.models[0]
        row["paper"] = {figure: table.known.get((model or "", arm.label, figure)) for figure in table.figures}
        row["paper_model"] = model
    report["scale"] = options.scale


def localize(folder: Path, boxes: Path | None) -> dict[str, float]:
    """The two localization scores of a run, by rlmix evaluate; measured once."""
    path = folder / "localization.json"
    if not path.exists():
        found = evaluate(Evaluate(source=folder, boxes=boxes, attacks=()))["localization"]
        save_json(path, {"localization": found["top1"], "localization_gt_known": found["gt_known"]})
    scores: dict[str, float] = json.loads(path.read_text())
    return scores


def beside_the_paper(report: Mapping[str, Any], table: PaperTable) -> tables.Cells:
    """Our figures, each with the paper's beside it (of a network it names where ours is none of the paper's), or an em dash."""
    header = ["model", "row"]
    for figure in table.figures:
        header += [FIGURES[figure], f"paper's {FIGURES[figure]}"]
    lines = []
    for row in report["methods"].values():
        line = [row["model"], row["label"]]
        for figure in table.figures:
            ours, paper = row.get(figure), row["paper"][figure]
            if isinstance(ours, float):
                line.append(f"{ours:.2f}")
            else:
                line.append(tables.mean_std(ours or {}, 4 if figure == "reward_mean" else 2) or UNKNOWN)
            other = "" if row["paper_model"] == row["model"] else f" ({row['paper_model']})"
            line.append(UNKNOWN if paper is None else f"{paper:.2f}{other}")
        lines.append(line)
    return header, lines


def state(study: Study, table: PaperTable, options: Reproduce) -> str:
    """In a sentence: how far this is from the paper's experiment."""
    train = study.run(study.arms[0], study.seeds[0]).resolved()
    images = "all training images" if train.train_images is None else f"{train.train_images} training images"
    ours = f"{train.epochs} of the paper's {table.epochs} epochs on {images} of {train.data.partition(':')[0]}"
    own_data = options.data not in ("", table.data)
    models = {arm.options.model for arm in study.arms}
    if options.scale == 1 and not options.given and not own_data and models <= set(table.models):
        return f"At the paper's scale: {ours}."
    return f"At scale {options.scale:g}: {ours}. These are not the paper's figures, and cannot be compared with them."


def _arm(model: str, arm: PaperArm, table: PaperTable, shared: Mapping[str, Any]) -> Arm:
    values = {**shared, **arm.options, "model": model, "method": arm.method}
    if arm.method in NO_ALPHA:
        values["alpha"] = None
    return Arm(f"{model}-{_file(arm.label)}", Train(**values), f"{model}-{_file(table.baseline)}", arm.label)


def _file(label: str) -> str:
    return re.sub(r"[^\w.+=-]+", "-", label)


if __name__ == "__main__":
    from rlmix.scripts.main import run_command

    run_command(main)
