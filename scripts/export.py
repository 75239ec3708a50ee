"""Write what a run has learned in the formats of other libraries.

rlmix export DIR
"""

from collections.abc import Sequence

from rlmix.experiments.command import run_command
from rlmix.experiments.commands.export import Export
from rlmix.experiments.options import parse, read_args


def main(args: Sequence[str] | None = None) -> None:
    """Parse, export, and say what was written and what loads it."""
    options = parse(Export, "export", read_args(args), about=__doc__)
    from rlmix.experiments.export import export

    for path, reader in export(options).items():
        print(f"{path}: {reader}")  # noqa: T201


if __name__ == "__main__":
    run_command(main)
