"""Measure a trained classifier: accuracy, calibration, robustness, and where it sees the object.

rlmix evaluate DIR
rlmix evaluate STATE_DICT.pt --model resnet50 --data imagefolder:PATH --boxes boxes.csv
"""

from collections.abc import Sequence

from rlmix.experiments.command import run_command
from rlmix.experiments.commands.evaluate import Evaluate, check_source
from rlmix.experiments.options import parse, read_args, typed_options
from rlmix.reporting.output import make_console


def main(args: Sequence[str] | None = None) -> None:
    """Parse, measure, write, print."""
    args = read_args(args)
    options = parse(Evaluate, "evaluate", args, about=__doc__)
    check_source(options, typed_options(Evaluate, args))
    from rlmix.experiments.evaluate import as_table, evaluate

    result = evaluate(options)
    console = make_console()
    console.print(as_table(result))
    console.print(f"written to {options.folder / 'evaluate.json'} and reliability.png", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
