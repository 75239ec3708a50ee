"""A table of the paper, cell by cell, with our figures beside those published; at the paper's scale or at a stated fraction."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro

from rlmix.benchmarking.measure import Benchmark
from rlmix.common.groups import changed, check_values, options_of
from rlmix.common.names import check_name
from rlmix.common.ranges import Range
from rlmix.config import (
    AgentConfig,
    Config,
    DataConfig,
    DeviceConfig,
    EnvConfig,
    MixingConfig,
    ModelConfig,
    OptimConfig,
)
from rlmix.data.registry import load_data
from rlmix.experiments import layout
from rlmix.experiments.executors import EngineConfig
from rlmix.experiments.options import parse, typed_options
from rlmix.experiments.own_tables import OWN_TABLES
from rlmix.experiments.paper_tables import PAPER_TABLES
from rlmix.experiments.provenance import provenance
from rlmix.experiments.settings import has_alpha, settled
from rlmix.experiments.study import Arm, Study, check_out, drawn_from, run_study
from rlmix.experiments.table_form import PaperRun, PaperTable, multistep_options
from rlmix.recipes import data_recipe
from rlmix.reporting import tables
from rlmix.reporting.output import make_console
from rlmix.reporting.report import Section, write_report

TABLES = PAPER_TABLES | OWN_TABLES
TIMED_ONLY = frozenset({"table", "model", "models", "batch_size", "device", "precision", "threads", "out"})
"""Options of a table for which nothing is trained."""


@dataclass(frozen=True)
class Reproduce:
    """A table of the paper. An option that is given is taken instead of the table's own, unless the table is about it."""

    FIRST: ClassVar = ("table", "scale", "data", "models", "seeds", "jobs", "out")

    table: tyro.conf.Positional[str] = "table4"
    """table1 to table12 as published, policies or steps. policies are the learned one beside fixed ones, steps what they cost."""
    scale: Annotated[float, Range("in (0, 1]", lambda value: 0 < value <= 1)] = 1.0
    """Fraction of the images and of the epochs, in (0, 1]. Of those trained on and tested on, at least an image a class and one epoch; the
    output says so."""
    models: tuple[str, ...] = ()
    """Networks. The table's own, or --model, where not given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every cell is trained with each."""
    boxes: Path | None = None
    """CSV file of the images' boxes, for the localization of table5."""
    out: Path | None = None
    """The folder; runs/TABLE, or runs/TABLE-scale-F."""
    data: DataConfig = field(default_factory=lambda: DataConfig(name=""))
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    typed: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Options that were given, whatever their values."""

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.out or Path("runs") / (self.table if self.scale == 1 else f"{self.table}-scale-{self.scale:g}")

    @property
    def given(self) -> dict[str, Any]:
        """The options of a training that were given, but data and model."""
        of_training = set(options_of(Config)) - {"data", "model", "out"}
        flat = {name: option.of(self) for name, option in options_of(type(self)).items() if name in self.typed & of_training}
        return flat | {"mixing": dict(self.mixing.hyperparameters)} if self.mixing.hyperparameters else flat

    @property
    def networks(self) -> tuple[str, ...]:
        """What the table is run on."""
        return self.models or ((self.model.name,) if self.model.name else TABLES[self.table].networks)


def read_options(args: Sequence[str], about: str | None = None) -> Reproduce:
    """The options, and which of them were given; ``about`` is what the help says."""
    return replace(parse(Reproduce, "reproduce", args, about=about), typed=typed_options(Reproduce, args))


def reproduce(options: Reproduce, *, quiet: bool = False) -> dict[str, Any]:
    """Run a table's experiment, write the files of a comparison, and give what compare.json holds.

    Raises:
        ValueError: If an option is out of range, or given where the table varies it itself.
        OSError: If the data or the folder cannot be used.
    """
    table = check(options)
    if table.trained:
        study = plan(options, table)
        report = run_study(study, options.engine, quiet=quiet)
        layout.measure_more(study, report, table, options.boxes)
        statement = state(study, table, options)
    else:
        batch_size = options.optim.batch_size or data_recipe(table.data).batch_size
        steps = Benchmark(batch_size=batch_size, device=options.device.name, precision=options.device.precision)
        report = layout.time_methods(table, options.networks, steps, options.engine.threads or torch.get_num_threads())
        statement = "Steps are timed on random images of 32 pixels in 100 classes."
    report |= {"table": options.table, "scale": options.scale, "statement": statement}
    report["cells"] = layout.collect(report, table, options.networks)
    cells = layout.lay_out(report["cells"], table, options.networks)
    if table.trained:
        write_report(
            study.out,
            report,
            drawn_from(study)._replace(facts=provenance(report["threads"])),
            table.title,
            [statement, table.note],
            [Section(layout.CAPTION, *cells, names=1 + len(table.headings))],
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
    check_values(options)
    check_out(options.folder)
    unread = sorted(options.typed - TIMED_ONLY)
    if not table.trained and unread:
        raise ValueError(f"{', '.join(unread)} must be left out with {options.table}, for which nothing is trained")
    clash = sorted(options.typed & table.about)
    if clash:
        raise ValueError(f"{', '.join(clash)} must be left out with {options.table}, which varies it itself")
    if table.trained and not (options.data.name or table.data):
        raise ValueError(f"data must be given with {options.table}, such as --data imagefolder:PATH with train/ and val/")
    localized = any(cell.figure == "localization" for cell in table.cells)
    if localized != (options.boxes is not None):
        raise ValueError(f"boxes must {'be given' if localized else 'be left out'} with {options.table}, got {options.boxes}")
    if len(set(options.networks)) < len(options.networks):
        raise ValueError(f"models must differ, got {options.models}")
    return table


def plan(options: Reproduce, table: PaperTable) -> Study:
    """The table's trainings, scaled."""
    data = options.data.name or table.data
    scaled = {"data": data} | (scale_images(changed(options, {"data": data})) if options.scale < 1 else {})
    arms = [_arm(network, run, table, options, scaled) for network in options.networks for run in table.runs(network)]
    timed = any(cell.figure == "step_ratio" for cell in table.cells)
    return Study(tuple(arms), options.seeds, options.folder, timed=timed)


def scale_images(options: Reproduce) -> dict[str, Any]:
    """How many images are trained on and tested on: the fraction, and one of every class; the batch is no larger than they are."""
    data = load_data(Config.of(options))
    count, tested = (
        given or min(len(labels), max(data.num_classes, round(options.scale * len(labels))))
        for given, labels in ((options.data.train_images, data.train_labels), (options.data.test_images, data.labels("test")))
    )
    batch_size = min(options.optim.batch_size or data_recipe(options.data.name).batch_size, count)
    return {"train_images": count, "test_images": tested, "batch_size": batch_size}


def published_recipe(table: PaperTable, options: Reproduce) -> dict[str, Any]:
    """The table's own recipe, whatever form its data are given in, and without bounds of ours; in small, that of the data."""
    if options.scale < 1:
        return {}
    if table.data and options.data.name.startswith("imagefolder:"):
        return {"clip_norm": 0.0}  # crops are a folder's own
    recipe = data_recipe(table.data or "imagefolder:PATH")
    return {name: value for name, value in vars(recipe).items() if name not in ("model", "epochs", "image_size")} | {
        "clip_norm": 0.0
    }


def state(study: Study, table: PaperTable, options: Reproduce) -> str:
    """In a sentence or two: how far this is from the paper's experiment."""
    runs = [settled(study.run(arm, study.seeds[0])) for arm in study.arms]
    planned = [(network, run) for network in options.networks for run in table.runs(network)]
    epochs = {(run.optim.epochs, table.num_epochs(paper, network)) for run, (network, paper) in zip(runs, planned, strict=True)}
    counted = "; ".join(f"{ours} of the paper's {paper} epochs" for ours, paper in sorted(epochs))
    images = (
        "all images" if options.scale == 1 else f"{runs[0].data.train_images} training and {runs[0].data.test_images} test images"
    )
    ours = f"{counted}, on {images} of {runs[0].data.name.partition(':')[0]}"
    as_published = options.scale == 1 and not options.given and options.data.name in ("", table.data)
    if as_published and set(options.networks) <= set(table.networks):
        return f"At the paper's scale: {ours}."
    return f"At scale {options.scale:g}: {ours}. These are not the paper's figures, and cannot be compared with them."


def _arm(network: str, run: PaperRun, table: PaperTable, options: Reproduce, scaled: dict[str, Any]) -> Arm:
    epochs = table.num_epochs(run, network)
    values = published_recipe(table, options) | (multistep_options(network, epochs) if run.multistep else {})
    if options.scale < 1 and options.data.name:
        values.pop("learning_rate", None)  # that of the data, which a short training survives
    values["epochs"] = max(1, round(options.scale * epochs))
    values |= {**run.options, **options.given, **scaled, "model": network, "method": run.method}
    if not has_alpha(run.method):
        values["alpha"] = None
    return Arm(layout.arm_name(network, run.label), Config.flat(**values), layout.arm_name(network, table.baseline), run.label)
