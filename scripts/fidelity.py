"""How near cheaper saliency comes to the exact one: the same masks cut from both, batch by batch, while R-Mix trains on the exact one.

rlmix fidelity --data digits
"""

from collections.abc import Sequence

from rlmix.benchmarking.fidelity import Fidelity, fidelity
from rlmix.experiments.options import parse, read_args
from rlmix.scripts.main import run_command


def main(args: Sequence[str] | None = None) -> None:
    """Parse, train, print."""
    fidelity(parse(Fidelity, "fidelity", read_args(args)))


if __name__ == "__main__":
    run_command(main)
