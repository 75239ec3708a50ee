"""A table of the paper, cell by cell, with our figures beside those published; at the paper's scale or at a stated fraction."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from rlmix.benchmarking.measure import Benchmark
from rlmix.common.names import check_name
from rlmix.config import TrainingConfig
from rlmix.data.memory import load_data
from rlmix.experiments import layout
from rlmix.experiments.executors import EngineOptions
from rlmix.experiments.options import parse, typed_options
from rlmix.experiments.own_tables import OWN_TABLES
from rlmix.experiments.paper_tables import PAPER_TABLES
from rlmix.experiments.settings import NO_ALPHA, Train
from rlmix.experiments.study import Arm, Study, check_out, drawn_from, run_study
from rlmix.experiments.table_form import PaperRun, PaperTable, multistep_options
from rlmix.recipes import data_recipe
from rlmix.reporting import tables
from rlmix.reporting.output import make_console
from rlmix.reporting.report import write_report

TABLES = PAPER_TABLES | OWN_TABLES
TIMED_ONLY = frozenset({"table", "model", "models", "batch_size", "device", "precision", "threads", "out"})
"""Options of a table for which nothing is trained."""


@dataclass(frozen=True)
class Reproduce(EngineOptions, TrainingConfig):
    """Run a table of the paper. An option that is given is taken instead of the table's own, unless the table is about it."""

    table: tyro.conf.Positional[str] = "table4"
    """table1 to table12 as published, policies (the learned one beside fixed ones) or steps (what they cost)."""
    scale: float = 1.0
    """Fraction of the images, trained on and tested on, and of the epochs, in (0, 1], at least an image a class and one epoch; the output
    says so."""
    data: str = ""
    """As for rlmix train; the table's own where not given."""
    models: tuple[str, ...] = ()
    """Networks; the table's own, or --model, where not given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every cell is trained with each; --seed is not read."""
    boxes: Path | None = None
    """CSV file of the images' boxes, for the localization of table5."""
    out: Path | None = None
    """The folder; runs/TABLE, or runs/TABLE-scale-F, where not given."""
    typed: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Options that were given, whatever their values."""

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.out or Path("runs") / (self.table if self.scale == 1 else f"{self.table}-scale-{self.scale:g}")

    @property
    def given(self) -> dict[str, Any]:
        """The options of a training that were given, but data, model and seed."""
        names = [entry.name for entry in fields(TrainingConfig) if entry.name not in ("data", "model", "seed")]
        return {name: getattr(self, name) for name in names if name in self.typed}

    @property
    def networks(self) -> tuple[str, ...]:
        """What the table is run on."""
        return self.models or ((self.model,) if self.model else TABLES[self.table].networks)


def read_options(args: Sequence[str]) -> Reproduce:
    """The options, and which of them were given."""
    return replace(parse(Reproduce, "reproduce", args), typed=typed_options(Reproduce, args))


def reproduce(options: Reproduce, *, quiet: bool = False) -> dict[str, Any]:
    """Run a table's experiment, write the files of a comparison, and give what compare.json holds.

    Raises:
        ValueError: If an option is out of range, or given where the table varies it itself.
        OSError: If the data or the folder cannot be used.
    """
    table = check(options)
    if table.trained:
        study = plan(options, table)
        report = run_study(study, options, quiet=quiet)
        layout.measure_more(study, report, table, options.boxes)
        statement = state(study, table, options)
    else:
        batch_size = options.batch_size or data_recipe(table.data).batch_size
        steps = Benchmark(batch_size=batch_size, device=options.device, precision=options.precision)
        report = layout.time_methods(table, options.networks, steps, options.threads or torch.get_num_threads())
        statement = "Steps are timed on random images of 32 pixels in 100 classes."
    report |= {"table": options.table, "scale": options.scale, "statement": statement}
    report["cells"] = layout.collect(report, table, options.networks)
    cells = layout.lay_out(report["cells"], table, options.networks)
    if table.trained:
        write_report(
            study.out,
            report,
            drawn_from(study),
            table.title,
            [statement, table.note],
            [(layout.CAPTION, cells)],
            1 + len(table.headings),
        )
    else:
        layout.write(options.folder, report, table, cells)
    if not quiet:
        console = make_console() if sys.stdout.isatty() else make_console(width=180)
        console.print(tables.rich_table(cells, f"{table.title}; {layout.CAPTION}", 1 + len(table.headings)))
        console.print(f"{statement} {table.note}")
        console.print(f"written to {options.folder}", soft_wrap=True)
    return report


def check(options: Reproduce) -> PaperTable:
    """The table; ValueError where an option is out of range, before anything is written."""
    check_name("table", options.table, TABLES)
    table = TABLES[options.table]
    if not 0 < options.scale <= 1:
        raise ValueError(f"scale must be in (0, 1], got {options.scale}")
    check_out(options.folder)
    unread = sorted(options.typed - TIMED_ONLY)
    if not table.trained and unread:
        raise ValueError(f"{', '.join(unread)} must be left out with {options.table}, for which nothing is trained")
    clash = sorted(options.typed & table.about)
    if clash:
        raise ValueError(f"{', '.join(clash)} must be left out with {options.table}, which varies it itself")
    if table.trained and not (options.data or table.data):
        raise ValueError(f"data must be given with {options.table}, such as --data imagefolder:PATH with train/ and val/")
    localized = any(cell.figure == "localization" for cell in table.cells)
    if localized != (options.boxes is not None):
        raise ValueError(f"boxes must {'be given' if localized else 'be left out'} with {options.table}, got {options.boxes}")
    if len(set(options.networks)) < len(options.networks):
        raise ValueError(f"models must differ, got {options.models}")
    return table


def plan(options: Reproduce, table: PaperTable) -> Study:
    """The table's trainings, scaled."""
    data = options.data or table.data
    scaled = {"data": data} | (scale_images(replace(options, data=data)) if options.scale < 1 else {})
    arms = [_arm(network, run, table, options, scaled) for network in options.networks for run in table.runs(network)]
    timed = any(cell.figure == "step_ratio" for cell in table.cells)
    return Study(tuple(arms), options.seeds, options.folder, timed=timed)


def scale_images(options: Reproduce) -> dict[str, Any]:
    """How many images are trained on and tested on: the fraction, and one of every class; the batch is no larger than they are."""
    data = load_data(TrainingConfig(**{entry.name: getattr(options, entry.name) for entry in fields(TrainingConfig)}))
    count, tested = (
        given or min(len(labels), max(data.num_classes, round(options.scale * len(labels))))
        for given, labels in ((options.train_images, data.train_labels), (options.test_images, data.labels("test")))
    )
    batch_size = min(options.batch_size or data_recipe(options.data).batch_size, count)
    return {"train_images": count, "test_images": tested, "batch_size": batch_size}


def published_recipe(table: PaperTable, options: Reproduce) -> dict[str, Any]:
    """The table's own recipe, whatever form its data are given in, and without bounds of ours; in small, that of the data."""
    if options.scale < 1:
        return {}
    if table.data and options.data.startswith("imagefolder:"):
        return {"clip_norm": 0.0}  # crops are a folder's own
    recipe = data_recipe(table.data or "imagefolder:PATH")
    return {name: value for name, value in vars(recipe).items() if name not in ("model", "epochs", "image_size")} | {
        "clip_norm": 0.0
    }


def state(study: Study, table: PaperTable, options: Reproduce) -> str:
    """In a sentence or two: how far this is from the paper's experiment."""
    runs = [study.run(arm, study.seeds[0]).resolved() for arm in study.arms]
    planned = [(network, run) for network in options.networks for run in table.runs(network)]
    epochs = {(run.epochs, table.num_epochs(paper, network)) for run, (network, paper) in zip(runs, planned, strict=True)}
    counted = "; ".join(f"{ours} of the paper's {paper} epochs" for ours, paper in sorted(epochs))
    images = "all images" if options.scale == 1 else f"{runs[0].train_images} training and {runs[0].test_images} test images"
    ours = f"{counted}, on {images} of {runs[0].data.partition(':')[0]}"
    as_published = options.scale == 1 and not options.given and options.data in ("", table.data)
    if as_published and set(options.networks) <= set(table.networks):
        return f"At the paper's scale: {ours}."
    return f"At scale {options.scale:g}: {ours}. These are not the paper's figures, and cannot be compared with them."


def _arm(network: str, run: PaperRun, table: PaperTable, options: Reproduce, scaled: dict[str, Any]) -> Arm:
    epochs = table.num_epochs(run, network)
    values = published_recipe(table, options) | (multistep_options(network, epochs) if run.multistep else {})
    if options.scale < 1 and options.data:
        values.pop("learning_rate", None)  # that of the data, which a short training survives
    values["epochs"] = max(1, round(options.scale * epochs))
    values |= {**run.options, **options.given, **scaled, "model": network, "method": run.method}
    if run.method in NO_ALPHA:
        values["alpha"] = None
    return Arm(layout.arm_name(network, run.label), Train(**values), layout.arm_name(network, table.baseline), run.label)
