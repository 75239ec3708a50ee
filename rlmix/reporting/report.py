"""A study's files: compare.json, compare.csv, report.md, plots/*.png, and report.html, which needs nothing beside it."""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from rlmix.common.files import write_atomically, write_json
from rlmix.common.mapping import spread
from rlmix.evaluation import ReliabilityBins
from rlmix.reporting import interactive, plots, tables
from rlmix.reporting.strips import Strips, draw_strips
from rlmix.reporting.verdict import Verdict


class Drawn(NamedTuple):
    """What a study's report is made from beside its figures, row by row of its table."""

    curves: Mapping[str, Mapping[int, list[dict[str, Any]]]]
    """A run's lines of metrics.jsonl, by seed."""
    bins: Mapping[str, Sequence[ReliabilityBins | None]]
    """A run's reliability diagram, where it is known."""
    runs: Mapping[str, Mapping[int, Path]] = {}
    """A run's folder, by seed."""
    strips: Strips | None = None
    """How each mixes the same images."""
    facts: Mapping[str, str] = {}
    """When, by what and where it was made."""


class Section(NamedTuple):
    """A table and what stands above it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    """How many columns, the first ones, are names."""


class Picture(NamedTuple):
    """A plot's file, what it shows, and the same to hover over, where there is such."""

    path: Path
    text: str
    plots: Sequence[interactive.Plot] = ()

    @property
    def name(self) -> str:
        return self.path.stem.replace("_", " ")

    @property
    def wide(self) -> bool:
        return bool(plots.PLOTS.entry(self.path.stem).traits.get("wide")) and len(self.plots) != 1

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
    verdict: Sequence[Verdict] = (),
) -> str:
    """Write every file into the folder ``out``, and say which.

    Args:
        out: The study's folder.
        report: What compare.json holds.
        drawn: What the plots are drawn from.
        title: Of report.md and report.html.
        introduction: Paragraphs above the table.
        first: Tables above the comparison's own.
        verdict: What it comes to, above everything.
    """
    written = plots.draw(drawn.curves, drawn.bins, out / "plots")
    write_json(out / "compare.json", report)
    if drawn.strips is not None:
        draw_strips(drawn.strips).savefig(out / "plots" / "mixed.png", dpi=110, metadata={"Software": ""})
    pictures = [Picture(path, text) for path, text in written.items()]
    if interactive.available():
        pictures = [
            picture._replace(
                text=interactive.CAPTIONS.get(picture.path.stem, picture.text),
                plots=interactive.draw(picture.path.stem, drawn.curves, drawn.bins),
            )
            for picture in pictures
        ]
    files = {"compare.csv": tables.as_csv(report)}
    for name in ("report.md", "report.html"):
        files[name] = render(name, report, title, introduction, first, verdict, pictures, drawn, out)
    for name, text in files.items():
        write_atomically(out / name, lambda handle, text=text: handle.write(text.encode()))  # type: ignore[misc]
    return f"{out / 'report.html'}, report.md, compare.json, compare.csv and plots"


def render(
    name: str,
    report: dict[str, Any],
    title: str,
    introduction: Sequence[str] = (),
    first: Sequence[Section] = (),
    verdict: Sequence[Verdict] = (),
    pictures: Sequence[Picture] = (),
    drawn: Drawn | None = None,
    folder: Path = Path(),
) -> str:
    """A study's report as text.

    Args:
        name: ``report.md``, or ``report.html``, in which style, scripts and pictures are inside, and nothing is fetched.
        report: What compare.json holds.
        title: The heading.
        introduction: Paragraphs above the table.
        first: Tables above the comparison's own.
        verdict: What it comes to, above everything.
        pictures: The plots.
        drawn: Runs, mixed images and facts; none where not given.
        folder: Where the text will lie; links and report.md's pictures are relative to it.
    """
    drawn = drawn or Drawn({}, {})
    correlations = tables.correlation_cells(report)
    moving = any(picture.plots for picture in pictures)
    return (
        _templates()
        .get_template(name)
        .render(
            title=title,
            verdict=verdict,
            introduction=[line for line in introduction if line],
            tables=[*first, Section(tables.caption(report), *tables.cells(report), names=tables.num_names(report))],
            notes=tables.notes(report),
            correlations=None if correlations is None else Section(tables.CORRELATIONS, *correlations),
            correlation_notes=None if correlations is None else tables.correlation_notes(report),
            pictures=pictures,
            script=interactive.library() if moving and name.endswith(".html") else "",
            arms=interactive.arms(drawn.curves) if moving else [],
            still=interactive.MISSING if pictures and not moving else "",
            strips=drawn.strips,
            runs={name: {seed: _link(path, folder) for seed, path in runs.items()} for name, runs in drawn.runs.items()},
            relative=lambda picture: picture.path.relative_to(folder).as_posix(),
            facts=drawn.facts,
            settings=settings(report["config"]),
        )
    )


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, those of the agent and of the method each by itself."""
    flat = spread(config).items()
    return {name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value for name, value in flat}


def _link(path: Path, folder: Path) -> str:
    """A folder's address, relative to where the text will lie."""
    return quote(Path(os.path.relpath(path, folder)).as_posix()) + "/"


def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("rlmix.reporting"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["markdown"] = tables.markdown
    found.filters["inline"] = lambda data: base64.b64encode(data).decode()
    found.filters["lines"] = lambda table: "\n".join(tables.markdown_table((table.header, table.rows), table.names))
    return found
