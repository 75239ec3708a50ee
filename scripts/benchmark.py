"""Time a training step of each method relative to vanilla, all methods interleaved step by step in one process.

rlmix benchmark --model preactresnet18_w16 --batch-size 100 --json FILE
rlmix benchmark --methods vanilla handwritten saliency rmix rlmix --memory --profile FILE
rlmix benchmark --suite gpu --data cifar100 --out DIR
"""

from collections.abc import Sequence

from rlmix.benchmarking.options import Benchmark
from rlmix.experiments.command import run_command
from rlmix.experiments.commands.suite import check_suite
from rlmix.experiments.options import parse, read_args, typed_options


def main(args: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    args = read_args(args)
    options = parse(Benchmark, "benchmark", args, about=__doc__)
    check_suite(options, typed_options(Benchmark, args))
    if options.suite.name is not None:
        from rlmix.experiments.suite import run_suite

        run_suite(options)
        return
    from rlmix.benchmarking.measure import benchmark

    benchmark(options)


if __name__ == "__main__":
    run_command(main)
