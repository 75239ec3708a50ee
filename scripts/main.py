"""The console command ``rlmix``. A command's module, and with it torch, is imported when that command is called."""

import sys
from collections.abc import Sequence
from importlib import import_module

from rlmix.experiments.command import run_command

COMMANDS = {
    "train": "train a classifier under a mix-up method; under rlmix, teach a PPO agent to mix",
    "compare": "the same training under several methods and seeds, in one table",
    "evaluate": "accuracy, calibration, robustness and localization of a run, or of a bare state_dict",
    "policies": "policies beside each other on a frozen classifier, paired on common random numbers",
    "export": "a run's policy and classifier in the formats of other libraries",
    "visualize": "the same images under every mix-up method, as a picture",
    "fidelity": "how near cheaper saliency comes to the exact one",
    "reproduce": "the experiment behind a table of the paper, at its scale or at a fraction",
    "list": "what there is of methods, policies, rewards, models, ...",
    "benchmark": "seconds a step of each method relative to vanilla, all interleaved",
    "completion": "the script by which a shell completes commands, options and names",
}


def main(args: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(usage())  # noqa: T201
        sys.exit(0 if args else 2)
    if args[0] == "--version":
        from rlmix import __version__

        print(__version__)  # noqa: T201
        return
    run_command(lambda: dispatch(args), args)


def usage() -> str:
    """The help text."""
    commands = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
    return f"usage: rlmix COMMAND [OPTIONS]\n\n{commands}\n\nrlmix COMMAND --help lists a command's options."


def dispatch(args: Sequence[str]) -> None:
    """Run the command that ``args`` names."""
    from rlmix.common.names import check_name

    check_name("command", args[0], COMMANDS)
    import_module(f"rlmix.scripts.{args[0]}").main(args[1:])


if __name__ == "__main__":
    main()
