"""A study's files: compare.json, compare.csv, report.md, plots/*.png, and report.html, which needs nothing beside it."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from rlmix.common.files import write_atomically, write_json
from rlmix.evaluation import ReliabilityBins
from rlmix.reporting import plots, tables


class Drawn(NamedTuple):
    """What a study's plots are drawn from, row by row of its table."""

    curves: Mapping[str, Mapping[int, list[dict[str, Any]]]]
    """A run's lines of metrics.jsonl, by seed."""
    bins: Mapping[str, Sequence[ReliabilityBins | None]]
    """A run's reliability diagram, where it is known."""


class Section(NamedTuple):
    """A table and what stands above it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    """How many columns, the first ones, are names."""


class Picture(NamedTuple):
    """A plot's file, and what it shows."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.stem.replace("_", " ")

    @property
    def wide(self) -> bool:
        return bool(plots.PLOTS.entry(self.path.stem).traits.get("wide"))

    @property
    def base64(self) -> str:
        return base64.b64encode(self.path.read_bytes()).decode()


def write_report(
    out: Path,
    report: dict[str, Any],
    drawn: Drawn,
    title: str,
    introduction: Sequence[str] = (),
    first: Sequence[Section] = (),
) -> None:
    """Write every file into the folder ``out``.

    Args:
        out: The study's folder.
        report: What compare.json holds.
        drawn: What the plots are drawn from.
        title: Of report.md and report.html.
        introduction: Paragraphs above the table.
        first: Tables above the comparison's own.
    """
    pictures = plots.draw(drawn.curves, drawn.bins, out / "plots")
    write_json(out / "compare.json", report)
    files = {"compare.csv": tables.as_csv(report)}
    files |= {name: render(name, report, title, introduction, first, pictures, out) for name in ("report.md", "report.html")}
    for name, text in files.items():
        write_atomically(out / name, lambda handle, text=text: handle.write(text.encode()))  # type: ignore[misc]


def render(
    name: str,
    report: dict[str, Any],
    title: str,
    introduction: Sequence[str] = (),
    first: Sequence[Section] = (),
    pictures: Mapping[Path, str] | None = None,
    folder: Path = Path(),
) -> str:
    """A study's report as text.

    Args:
        name: ``report.md``, or ``report.html``, in which style and pictures are inside, and nothing is fetched.
        report: What compare.json holds.
        title: The heading.
        introduction: Paragraphs above the table.
        first: Tables above the comparison's own.
        pictures: Files, and what each shows.
        folder: Where the text will lie; report.md's pictures are relative to it.
    """
    drawn = [Picture(path, text) for path, text in (pictures or {}).items()]
    correlations = tables.correlation_cells(report)
    return (
        _templates()
        .get_template(name)
        .render(
            title=title,
            introduction=[line for line in introduction if line],
            tables=[*first, Section(tables.caption(report), *tables.cells(report), names=tables.num_names(report))],
            notes=tables.notes(report),
            correlations=None if correlations is None else Section(tables.CORRELATIONS, *correlations),
            correlation_notes=None if correlations is None else tables.correlation_notes(report),
            pictures=drawn,
            relative=lambda picture: picture.path.relative_to(folder).as_posix(),
            settings=report["config"],
        )
    )


def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("rlmix.reporting"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["markdown"] = tables.markdown
    found.filters["lines"] = lambda table: "\n".join(tables.markdown_table((table.header, table.rows), table.names))
    return found
