"""Show how images are mixed: by a run's classifier and policy, on its data or on a folder of pictures; or by every method.

rlmix visualize DIR
rlmix visualize DIR --images FOLDER
rlmix visualize DIR --policy RUN
rlmix visualize --weights STATE_DICT.pt --model preactresnet18 --images FOLDER
rlmix visualize --methods all --out methods.png
"""

from collections.abc import Sequence

from rlmix.experiments.command import run_command
from rlmix.experiments.commands.visualize import Visualize, check_typed
from rlmix.experiments.options import parse, read_args, typed_options


def main(args: Sequence[str] | None = None) -> None:
    """Parse and draw."""
    args = read_args(args)
    options = parse(Visualize, "visualize", args, about=__doc__)
    check_typed(options, typed_options(Visualize, args))
    from rlmix.experiments.visualize import visualize

    visualize(options)


if __name__ == "__main__":
    run_command(main)
