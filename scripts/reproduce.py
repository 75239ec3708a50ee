"""Lay out a table of the paper, cell by cell, with our figures beside those published; at the paper's scale or at a stated fraction.

rlmix reproduce table12 --data-root DIR --download
rlmix reproduce table4 --scale 0.02 --data npz:FILE --models preactresnet18_w16
"""

from collections.abc import Sequence

from rlmix.experiments.command import run_command
from rlmix.experiments.commands.reproduce import check, read_options
from rlmix.experiments.options import read_args


def main(args: Sequence[str] | None = None) -> None:
    """Parse, train what is missing, print."""
    options = read_options(read_args(args), __doc__)
    check(options)
    from rlmix.experiments.reproduce import reproduce

    reproduce(options)


if __name__ == "__main__":
    run_command(main)
