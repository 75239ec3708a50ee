"""The console command ``rlmix``. A command's module, and with it torch, is imported when that command is called."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module

from rlmix.experiments.stopping import interrupting
from rlmix.reporting.output import enduring_output

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


def run_command(command: Callable[[], None], args: Sequence[str] | None = None) -> None:
    """Run; where users' input or the machine is at fault, one line and exit code 2. RLMIX_TRACEBACK=1 shows the traceback.

    Args:
        command: What to run.
        args: The command line, by whose words the line names an option; the process's own where not given.
    """
    warnings.formatwarning = lambda message, *rest: f"rlmix: warning: {message}\n"
    with enduring_output():
        _run(command, sys.argv[1:] if args is None else args)


def _run(command: Callable[[], None], args: Sequence[str]) -> None:
    try:
        with interrupting():
            command()
    except KeyboardInterrupt as interrupt:
        _say("interrupted", interrupt, args)
        sys.exit(getattr(interrupt, "code", 130))  # Interrupted tells a signal or a time limit apart
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("RLMIX_TRACEBACK"):
            raise
        _say("error", error, args)
        sys.exit(2)
    except RuntimeError as error:  # torch says so, at any moment, that the system has killed a process which decodes images
        if os.environ.get("RLMIX_TRACEBACK") or not str(error).startswith("DataLoader worker"):
            raise
        _say("error", error, args)
        sys.exit(2)


def _say(kind: str, error: BaseException, args: Sequence[str]) -> None:
    text = " ".join(str(error).split())
    flag = "--" + text.partition(" must ")[0].replace("_", "-")
    if any(arg.partition("=")[0] == flag for arg in args):  # name it as it was typed
        text = flag + text[len(flag) - 2 :]
    notes = "; ".join(getattr(error, "__notes__", []))
    print(f"rlmix: {kind}: " + "; ".join(filter(None, (text, notes))), file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
