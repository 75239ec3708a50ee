"""What the stages of a suite come to, as Markdown for people: made of their records alone, so that it is the same whenever it is made."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rlmix.experiments.commands.suite import ARMS
from rlmix.reporting import tables

Records = Mapping[str, Mapping[str, Any]]
"""By stage: ``result``, or why it ``failed``."""
UNMEASURED = "not measured"


class Column(NamedTuple):
    """A column of a table of steps."""

    title: str
    stage: str
    """Whose record it is of."""
    text: Callable[[Any], str]
    """Of the stage's figure of a method, which is not None."""


def as_markdown(settings: Mapping[str, Any], records: Records) -> str:
    """The page.

    Args:
        settings: What suite.json holds.
        records: Those that there are.
    """
    lines = [f"# rlmix benchmark --suite {settings['suite']}: {tables.markdown(settings['device'])}", ""]
    if settings["scale"] < 1:
        lines += [f"**A rehearsal at scale {settings['scale']:g}: no figure here means anything.**", ""]
    sections = [*_steps(records), *_compared(records), *_schedule(records), *_failures(records)]
    return "\n".join([*lines, *sections]).rstrip() + "\n"


def _steps(records: Records) -> Iterator[str]:
    for size in ("cifar", "imagenet"):
        columns = [column for column in _columns(size) if "result" in records.get(column.stage, {})]
        timed = [records[column.stage]["result"] for column in columns if column.stage.startswith(("steps-", "compiled-"))]
        if not columns:
            continue
        results = [records[column.stage]["result"] for column in columns]
        methods = list(dict.fromkeys(name for result in results for name in (*result["methods"], *result.get("failed", {}))))
        lines = [
            [name, *(_cell(result, name, column) for result, column in zip(results, columns, strict=True))] for name in methods
        ]
        title = _title(**timed[0]) if timed else size
        yield from (f"## A step of {tables.markdown(title)}", "")
        yield from tables.markdown_table((["method", *(column.title for column in columns)], lines))
        yield ""


def _columns(size: str) -> Iterator[Column]:
    for kind, how in (("steps", ""), ("compiled", "compiled, ")):
        for precision in ("float32", "bfloat16"):
            stage = f"{kind}-{size}-{precision}"
            yield Column(f"{how}{precision}, ms", stage, lambda row: f"{row['step_ms']:.2f}")
            yield Column("/ vanilla", stage, lambda row: f"{row['ratio']:.2f}")
    yield Column("synchronisations", f"waits-{size}", lambda row: f"{row['synchronisations']:.1f}")
    yield Column("copies to the host", f"waits-{size}", lambda row: f"{row['copies_to_host']:.1f}")
    for precision in ("float32", "bfloat16"):
        yield Column(f"peak MB, {precision}", f"memory-{size}-{precision}", lambda peak: f"{peak:.0f}")


def _title(machine: Mapping[str, Any], image_size: int, **others: Any) -> str:
    return f"{machine['model']}, {image_size} pixels, batch {machine['batch_size']}, torch {machine['torch']}"


def _cell(result: Mapping[str, Any], name: str, column: Column) -> str:
    if name in result.get("failed", {}):
        return "failed"
    if name not in result["methods"]:
        return ""
    figure = result["methods"][name]
    return UNMEASURED if figure is None else column.text(figure)


def _compared(records: Records) -> Iterator[str]:
    """Of most seeds."""
    counts = sorted(
        (name for name, record in records.items() if name.startswith("compared-") and "result" in record), reverse=True
    )
    if counts:
        yield from _trained("Trained", records[counts[0]]["result"])


def _schedule(records: Records) -> Iterator[str]:
    kept = [records[name] for name in (f"schedule-{arm}" for arm in ARMS) if name in records]
    reports = [record["result"] for record in kept if "result" in record]
    if reports:
        rows = {name: row for report in reports for name, row in report["methods"].items()}
        yield from _trained("A whole schedule", {**reports[0], "methods": rows})


def _trained(title: str, report: dict[str, Any]) -> Iterator[str]:
    yield from (f"## {title}: {tables.markdown(tables.caption(report))}", "")
    yield from tables.markdown_table(tables.cells(report), tables.num_names(report))
    for note in tables.notes(report):
        yield from ("", note)
    yield ""


def _failures(records: Records) -> Iterator[str]:
    found = [(name, record["failed"]) for name, record in records.items() if "failed" in record]
    for name, record in records.items():
        result = record.get("result", {})
        found += [(f"{name}, {method}", why) for method, why in result.get("failed", {}).items()]
    if found:
        yield from ("## What failed", "")
        yield from (f"- {tables.markdown(name)}: {tables.markdown(why)}" for name, why in found)
