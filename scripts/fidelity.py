"""How near cheaper saliency comes to the exact one: the same masks cut from both, batch by batch, while R-Mix trains on the exact one.

rlmix fidelity --data digits
"""

from collections.abc import Sequence

from rlmix.benchmarking.options import Fidelity
from rlmix.experiments.command import run_command
from rlmix.experiments.options import parse, read_args, typed_options
from rlmix.experiments.reading import check_read


def main(args: Sequence[str] | None = None) -> None:
    """Parse, train, print."""
    args = read_args(args)
    options = parse(Fidelity, "fidelity", args, about=__doc__)
    check_read([options.config], typed_options(Fidelity, args) - {"saliency_mode"})
    from rlmix.benchmarking.fidelity import fidelity

    fidelity(options)


if __name__ == "__main__":
    run_command(main)
