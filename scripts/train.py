"""Train a classifier under a mix-up method; under rlmix, teach an agent to mix.

rlmix train --method rlmix --data digits --epochs 5 --seed 0 --out DIR
rlmix train --resume DIR
"""

import os
from collections.abc import Sequence

from rlmix.experiments.command import run_command
from rlmix.experiments.options import read_args
from rlmix.experiments.reading import read_options
from rlmix.experiments.settings import settled


def main(args: Sequence[str] | None = None) -> None:
    """Parse and train."""
    args = read_args(args)
    options = read_options(args, __doc__)
    if (options.device.devices or 1) * options.device.nodes > 1 and "WORLD_SIZE" not in os.environ:
        from rlmix.experiments.launching import launch

        launch(args, options.device.devices or 1, options.device.nodes)
    else:
        settled(options)  # refused before torch is imported
        from rlmix.experiments.train import train

        train(options)


if __name__ == "__main__":
    run_command(main)
