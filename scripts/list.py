"""What there is of a family: methods, policies, algorithms, rewards, models, data and others, each with its line of documentation.

rlmix list
rlmix list rewards
rlmix list methods --markdown
rlmix list options
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro
from rich.table import Table

from rlmix.config import Config
from rlmix.experiments.command import run_command
from rlmix.experiments.families import FAMILIES, markdown_rows, rows
from rlmix.experiments.help import options_page
from rlmix.experiments.options import parse, read_args
from rlmix.reporting.output import make_console


@dataclass(frozen=True)
class List:
    """What there is of a family."""

    family: tyro.conf.Positional[str] = ""
    """One of them, such as rewards, or options; all by default."""
    markdown: bool = False
    """Print the table as the documentation has it."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse and print."""
    options = parse(List, "list", read_args(args), about=__doc__)
    if options.family == "options":
        print(options_page(Config), end="")  # noqa: T201
        return
    if options.markdown:
        print("\n".join(line for family in ([options.family] if options.family else FAMILIES) for line in markdown_rows(family)))  # noqa: T201
        return
    for family in [options.family] if options.family else FAMILIES:
        table = Table(family, "what it is", "reads", box=None, pad_edge=False)
        for name, doc, reads in rows(family):
            table.add_row(name, doc, reads)
        make_console().print(table)


if __name__ == "__main__":
    run_command(main)
