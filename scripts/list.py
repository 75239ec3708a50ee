"""What there is of a family: methods, policies, algorithms, rewards, models, data and others, each with its line of documentation.

rlmix list
rlmix list rewards
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro
from rich.table import Table

from rlmix.experiments.command import run_command
from rlmix.experiments.families import FAMILIES, rows
from rlmix.experiments.options import parse, read_args
from rlmix.reporting.output import make_console


@dataclass(frozen=True)
class List:
    """What there is of a family."""

    family: tyro.conf.Positional[str] = ""
    """One of them, such as rewards; all by default."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse and print."""
    options = parse(List, "list", read_args(args), about=__doc__)
    for family in [options.family] if options.family else FAMILIES:
        table = Table(family, "what it is", "reads", box=None, pad_edge=False)
        for name, doc, reads in rows(family):
            table.add_row(name, doc, reads)
        make_console().print(table)


if __name__ == "__main__":
    run_command(main)
