"""A table of experiments as it is published: the same rows, columns and cells, with our figures beside the paper's."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rlmix.benchmarking.measure import measure, random_data
from rlmix.benchmarking.options import Benchmark
from rlmix.common.files import write_atomically, write_json
from rlmix.experiments.arms import Study
from rlmix.experiments.commands.evaluate import Evaluate
from rlmix.experiments.evaluate import evaluate
from rlmix.experiments.executors import using_threads
from rlmix.experiments.study import TIMING_ROUNDS
from rlmix.experiments.table_form import PaperTable
from rlmix.mixing.traits import TRAITS, Traits, spell
from rlmix.reporting import tables
from rlmix.reporting.output import make_console
from rlmix.reporting.verdict import Verdict

CAPTION = "ours (the paper's)"
TRAIT_NAMES = tuple(entry.name for entry in fields(Traits))
DIGITS = {"reward_mean": 4}
"""Decimals of a figure; 2 of the others."""


def arm_name(network: str, label: str) -> str:
    """Of a run's folder and of its row in compare.json."""
    return "-".join([network, *re.findall(r"[\w.+=]+", label)])


def measure_more(study: Study, report: dict[str, Any], table: PaperTable, boxes: Path | None, quiet: bool = False) -> None:
    """Add what a table shows beyond a comparison's own figures to the report."""
    console, measured = make_console(quiet=quiet), 0
    if not any(cell.figure == "localization" for cell in table.cells):
        return
    for arm in study.arms:
        values = []
        for seed in study.seeds:
            folder, measured = study.run(arm, seed).folder, measured + 1
            console.print(f"{measured}/{len(study.arms) * len(study.seeds)} localization of {folder.name}", soft_wrap=True)
            values.append(localize(folder, boxes))
        spread = statistics.stdev(values) if len(values) > 1 else None
        report["methods"][arm.name]["localization"] = {"mean": statistics.mean(values), "std": spread}


def localize(folder: Path, boxes: Path | None) -> float:
    """The top-1 localization of a run, by rlmix evaluate; measured once."""
    path = folder / "localization.json"
    if not path.exists():
        found = evaluate(Evaluate(source=folder, boxes=boxes, attacks=()))["localization"]
        write_json(path, {"localization": found["top1"]})
    return float(json.loads(path.read_text())["localization"])


def time_methods(table: PaperTable, networks: Sequence[str], steps: Benchmark, threads: int) -> dict[str, Any]:
    """What compare.json holds of a table for which nothing is trained: a step of each method relative to vanilla's, on random images."""
    runs = {cell.run.label: cell.run for cell in table.cells}
    methods = [run.method for run in runs.values()]
    rows: dict[str, Any] = {}
    with using_threads(threads):
        for network in networks:
            timed = replace(steps, model=network)
            found = measure(timed.training, methods, random_data(timed), TIMING_ROUNDS, parts=False)["methods"]
            for label, run in runs.items():
                row = {"label": label, "model": network, "step_ratio": found[run.method]["ratio"]}
                rows[arm_name(network, label)] = row | {"step_ms": found[run.method]["step_ms"]}
    return {"methods": rows, "threads": threads}


def collect(report: Mapping[str, Any], table: PaperTable, networks: Sequence[str]) -> list[dict[str, Any]]:
    """Every cell, row by row: where it stands, our figure (its mean, and its spread over the seeds), and the paper's."""
    collected = []
    for network in networks:
        for names, row in table.rows.items():
            for column, cell in row.items():
                if not table.trains(cell, network):
                    continue
                figures = report["methods"][arm_name(network, cell.run.label)]
                ours = (
                    spell(getattr(TRAITS[cell.run.method], cell.figure)) if cell.figure in TRAIT_NAMES else figures[cell.figure]
                )
                theirs = cell.published.get(network, next(iter(cell.published.values()), None))
                where = {"network": network, "row": list(names), "column": column, "figure": cell.figure}
                collected.append(where | {"ours": ours, "paper": theirs})
    return collected


def lay_out(collected: Sequence[Mapping[str, Any]], table: PaperTable, networks: Sequence[str]) -> tables.Cells:
    """Header and rows as published; behind each figure of ours, the paper's for the same cell in parentheses.

    Beside a network that the paper has no figures of stand those of the table's first one, which is named.
    """
    cells = {(cell["network"], tuple(cell["row"]), cell["column"]): cell for cell in collected}
    lines = []
    for network in networks:
        other = "" if network in table.networks or not table.published else f" (the paper's: {table.networks[0]})"
        for names in table.rows:
            filled = [cells.get((network, names, column)) for column in table.columns]
            lines.append([network + other, *names, *("" if cell is None else _text(cell) for cell in filled)])
    return ["network", *table.headings, *table.columns], lines


def write(folder: Path, report: dict[str, Any], table: PaperTable, cells: tables.Cells, verdict: Verdict) -> str:
    """Write compare.json and report.md of a table for which nothing is trained, and say so."""
    write_json(folder / "compare.json", report)
    lines = [f"# {table.title}", "", f"**{verdict.text}**", "", report["statement"], "", table.note, "", CAPTION, ""]
    text = "\n".join([*lines, *tables.markdown_table(cells, 1 + len(table.headings)), ""])
    write_atomically(folder / "report.md", lambda handle: handle.write(text.encode()))
    return f"{folder / 'report.md'} and compare.json"


def _text(cell: Mapping[str, Any]) -> str:
    ours, paper, digits = cell["ours"], cell["paper"], DIGITS.get(cell["figure"], 2)
    if isinstance(ours, Mapping):
        ours = tables.mean_std(ours, digits)
    elif isinstance(ours, float):
        ours = f"{ours:.{digits}f}"
    if isinstance(paper, float | int):
        paper = f"{paper:g}" if cell["figure"] == "step_ratio" else f"{paper:.{digits}f}"
    return ours if paper is None else f"{ours} ({paper})"
