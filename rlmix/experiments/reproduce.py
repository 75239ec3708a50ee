"""A table of the paper, cell by cell, with our figures beside those published; at the paper's scale or at a stated fraction."""

from typing import Any

import torch

from rlmix.benchmarking.options import Benchmark
from rlmix.common.groups import changed
from rlmix.config import Config
from rlmix.experiments import layout
from rlmix.experiments.arms import Arm, Study
from rlmix.experiments.commands.reproduce import Reproduce, check
from rlmix.experiments.provenance import provenance
from rlmix.experiments.published import beside_published, untrained_beside_published
from rlmix.experiments.scaling import recipe_options, scale_images
from rlmix.experiments.settings import has_alpha, settled
from rlmix.experiments.study import drawn_from, run_study
from rlmix.experiments.table_form import PaperRun, PaperTable, multistep_options
from rlmix.recipes import data_recipe
from rlmix.reporting import tables
from rlmix.reporting.output import conclude
from rlmix.reporting.report import Section, write_report
from rlmix.reporting.verdict import verdicts


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
        layout.measure_more(study, report, table, options.boxes, quiet)
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
        runs = len(study.arms) * len(study.seeds)
        beside = beside_published(report["cells"], runs, len(study.seeds), options.scale, is_the_papers(table, options))
        said = [beside, *verdicts(report)]
        written = write_report(
            study.out,
            report,
            drawn_from(study)._replace(facts=provenance(report["threads"])),
            table.title,
            [statement, table.note],
            [Section(layout.CAPTION, *cells, names=1 + len(table.headings))],
            said,
        )
    else:
        said = [untrained_beside_published(report["cells"])]
        written = layout.write(options.folder, report, table, cells, said[0])
    if not quiet:
        shown = tables.rich_table(cells, f"{table.title}; {layout.CAPTION}", 1 + len(table.headings))
        conclude(shown, [f"{statement} {table.note}", *(line.text for line in said)], written)
    return report


def plan(options: Reproduce, table: PaperTable) -> Study:
    """The table's trainings, scaled."""
    data = options.data.name or table.data
    scaled = {"data": data} | (
        scale_images(Config.of(changed(options, {"data": data})), options.scale) if options.scale < 1 else {}
    )
    arms = [_arm(network, run, table, options, scaled) for network in options.networks for run in table.runs(network)]
    timed = any(cell.figure == "step_ratio" for cell in table.cells)
    return Study(tuple(arms), options.seeds, options.folder, timed=timed)


def published_recipe(table: PaperTable, options: Reproduce) -> dict[str, Any]:
    """The table's own recipe, whatever form its data are given in, and without bounds of ours; in small, that of the data."""
    if options.scale < 1:
        return {}
    if table.data and options.data.name.startswith("imagefolder:"):
        return {"clip_norm": 0.0}  # crops are a folder's own
    return recipe_options(table.data or "imagefolder:PATH") | {"clip_norm": 0.0}


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
    scale = "the paper's scale" if is_the_papers(table, options) else f"scale {options.scale:g}"
    return f"At {scale}: {ours}."


def is_the_papers(table: PaperTable, options: Reproduce) -> bool:
    """Whether it is the paper's experiment, so that the figures can be compared."""
    as_published = options.scale == 1 and not options.given and options.data.name in ("", table.data)
    return as_published and set(options.networks) <= set(table.networks)


def _arm(network: str, run: PaperRun, table: PaperTable, options: Reproduce, scaled: dict[str, Any]) -> Arm:
    epochs = table.num_epochs(run, network)
    values = (
        {"saliency_mode": "exact"}
        | published_recipe(table, options)
        | (multistep_options(network, epochs) if run.multistep else {})
    )
    if options.scale < 1 and options.data.name:
        values.pop("learning_rate", None)  # that of the data, which a short training survives
    values["epochs"] = max(1, round(options.scale * epochs))
    values |= {**run.options, **options.given, **scaled, "model": network, "method": run.method}
    if not has_alpha(run.method):
        values["alpha"] = None
    return Arm(layout.arm_name(network, run.label), Config.flat(**values), layout.arm_name(network, table.baseline), run.label)
