"""Train the same classifier, on the same data and schedule, under several methods and seeds, and compare them.

    rlmix compare --methods rlmix rmix vanilla --seeds 0 1 2 --out DIR

A run that is finished already is not repeated, and a half-finished one goes on.
"""

from collections.abc import Sequence

from rlmix.experiments.command import run_command
from rlmix.experiments.commands.compare import Compare
from rlmix.experiments.options import parse, read_args, typed_options
from rlmix.experiments.reading import check_read


def main(args: Sequence[str] | None = None) -> None:
    """Parse, train what is missing, report."""
    args = read_args(args)
    options = parse(Compare, "compare", args, about=__doc__)
    options.check()
    check_read([arm.options for arm in options.study.arms], typed_options(Compare, args))
    options.study.check()
    from rlmix.experiments.compare import compare

    compare(options)


if __name__ == "__main__":
    run_command(main)
