"""A study's files: compare.json, compare.csv, report.md, plots/*.png, and report.html, which needs nothing beside it."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from rlmix.common.files import write_atomically, write_json
from rlmix.evaluation import ReliabilityBins
from rlmix.reporting import plots, tables

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --band: #f3f5f7; --line: #d0d7de; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b1; --paper: #0f1419; --band: #1a2129; --line: #3a434d; }
}
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.25rem 0 .75rem; }
p { max-width: 62rem; margin: .5rem 0; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .5rem; }
th, td { padding: .4rem .7rem; text-align: right; vertical-align: top; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; white-space: normal; } tbody th, .name { text-align: left; }
tbody tr:nth-child(odd) { background: var(--band); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1.25rem; }
figure { margin: 0; min-width: 0; } figure.wide { grid-column: 1 / -1; }
img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: .4rem; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .35rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


class Drawn(NamedTuple):
    """What a study's plots are drawn from, row by row of its table."""

    curves: Mapping[str, Mapping[int, list[dict[str, Any]]]]
    """A run's lines of metrics.jsonl, by seed."""
    bins: Mapping[str, Sequence[ReliabilityBins | None]]
    """A run's reliability diagram, where it is known."""


def write_report(
    out: Path,
    report: dict[str, Any],
    drawn: Drawn,
    title: str,
    introduction: Sequence[str] = (),
    first: Sequence[tuple[str, tables.Cells]] = (),
    first_names: int = 2,
) -> None:
    """Write every file into the folder ``out``.

    Args:
        out: The study's folder.
        report: What compare.json holds.
        drawn: What the plots are drawn from.
        title: Of report.md and report.html.
        introduction: Paragraphs above the table.
        first: Captions and cells of tables above the comparison's own.
        first_names: How many columns of these are names.
    """
    pictures = plots.draw(drawn.curves, drawn.bins, out / "plots")
    write_json(out / "compare.json", report)
    paths = [path.relative_to(out) for path in pictures]
    files = {
        "compare.csv": tables.as_csv(report),
        "report.md": tables.as_markdown(report, title, introduction, first, paths, first_names),
        "report.html": as_html(report, title, introduction, first, pictures, first_names),
    }
    for name, text in files.items():
        write_atomically(out / name, lambda handle, text=text: handle.write(text.encode()))  # type: ignore[misc]


def as_html(
    report: dict[str, Any],
    title: str,
    introduction: Sequence[str],
    first: Sequence[tuple[str, tables.Cells]],
    pictures: dict[Path, str],
    first_names: int = 2,
) -> str:
    """report.html: style and pictures are inside, and nothing is fetched.

    Args:
        report: What compare.json holds.
        title: The heading.
        introduction: Paragraphs above the table.
        first: Captions and cells of tables above the comparison's own.
        pictures: Files, and what each shows.
        first_names: How many columns of ``first`` are names.
    """
    settings = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in report["config"].items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{_paragraphs(introduction)}
{"".join(html_table(cells, text, first_names) for text, cells in first)}
{html_table(tables.cells(report), tables.caption(report), tables.num_names(report))}
{_paragraphs(tables.notes(report), soft=True)}
{_correlations(report)}
<h2>Plots</h2>
<div class="plots">
{"".join(_figure(path, text) for path, text in pictures.items())}</div>
<h2>Settings of all runs</h2>
<dl>{settings}</dl>
</main>
</body>
</html>
"""


def html_table(table: tables.Cells, caption: str, names: int = 1) -> str:
    """A table with headers for rows and columns; it scrolls by itself where the page is narrower."""
    header, lines = table
    head = "".join(f'<th scope="col"{_name(index, names)}>{escape(cell)}</th>' for index, cell in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(cell)}</th>' if index < names else f"<td>{escape(cell).replace(' [', '<br>[')}</td>"
            for index, cell in enumerate(line)
        )
        + "</tr>\n"
        for line in lines
    )
    return (
        f'<div class="scroll" role="region" aria-label="Table" tabindex="0"><table><caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def _correlations(report: dict[str, Any]) -> str:
    cells = tables.correlation_cells(report)
    if cells is None:
        return ""
    return html_table(cells, tables.CORRELATIONS) + _paragraphs(tables.correlation_notes(report), soft=True)


def _name(index: int, names: int) -> str:
    return ' class="name"' if index < names else ""


def _paragraphs(lines: Sequence[str], soft: bool = False) -> str:
    mark = ' class="soft"' if soft else ""
    return "\n".join(f"<p{mark}>{escape(line)}</p>" for line in lines if line)


def _figure(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    wide = ' class="wide"' if plots.PLOTS.entry(path.stem).traits.get("wide") else ""
    return f'<figure{wide}><img alt="{escape(text)}" src="data:image/png;base64,{data}"><figcaption>{escape(text)}</figcaption></figure>\n'
