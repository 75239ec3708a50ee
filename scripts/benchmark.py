"""Time a training step of each method relative to vanilla, all methods interleaved step by step in one process.

rlmix benchmark --model preactresnet18_w16 --batch-size 100 --json FILE
rlmix benchmark --methods vanilla handwritten saliency rmix rlmix --memory --profile FILE
"""

from collections.abc import Sequence

from rlmix.benchmarking.options import Benchmark
from rlmix.experiments.command import run_command
from rlmix.experiments.options import parse, read_args


def main(args: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    options = parse(Benchmark, "benchmark", read_args(args), about=__doc__)
    from rlmix.benchmarking.measure import benchmark

    benchmark(options)


if __name__ == "__main__":
    run_command(main)
