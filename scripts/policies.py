"""Measure policies on a frozen classifier: the same batches, partners and lam for all, and paired differences.

rlmix policies --freeze-from DIR --policies RUN-s0 RUN-s1 OTHER-s0 --batches 100 --searched 10
"""

from collections.abc import Sequence

from rlmix.experiments.command import run_command
from rlmix.experiments.commands.policies import Policies
from rlmix.experiments.options import parse, read_args, typed_options
from rlmix.experiments.reading import check_read
from rlmix.reporting.output import make_console


def main(args: Sequence[str] | None = None) -> None:
    """Parse, measure, print the table."""
    args = read_args(args)
    options = parse(Policies, "policies", args, about=__doc__)
    check_read([options.config], typed_options(Policies, args))
    from rlmix.experiments.policies import measure, say
    from rlmix.training.allocator import keep_freed_memory

    keep_freed_memory()
    say(measure(options))
    make_console().print(f"written to {options.out / 'report.md'}, policies.json and pictures", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
