"""Measure policies on a frozen classifier: the same batches, partners and lam for all, and paired differences.

rlmix policies --freeze-from DIR --data ... --policies RUN-s0 RUN-s1 OTHER-s0 --batches 100 --searched 10
"""

from collections.abc import Sequence

from rlmix.experiments.options import parse, read_args
from rlmix.experiments.policies import Policies, measure, say
from rlmix.scripts.main import run_command
from rlmix.training.allocator import keep_freed_memory


def main(args: Sequence[str] | None = None) -> None:
    """Parse, measure, print the table."""
    options = parse(Policies, "policies", read_args(args))
    keep_freed_memory()
    say(measure(options))


if __name__ == "__main__":
    run_command(main)
