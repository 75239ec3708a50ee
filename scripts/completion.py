"""Print the script by which a shell completes rlmix's commands, options and names.

rlmix completion bash > ~/.local/share/bash-completion/completions/rlmix
rlmix completion zsh > ~/.zsh_rlmix
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from rlmix.benchmarking.options import Benchmark, Fidelity
from rlmix.config import Config
from rlmix.experiments.command import run_command
from rlmix.experiments.commands.compare import Compare
from rlmix.experiments.commands.evaluate import Evaluate
from rlmix.experiments.commands.export import Export
from rlmix.experiments.commands.policies import Policies
from rlmix.experiments.commands.reproduce import Reproduce
from rlmix.experiments.commands.visualize import Visualize
from rlmix.experiments.completion import script
from rlmix.experiments.options import parse, read_args
from rlmix.scripts.list import List


@dataclass(frozen=True)
class Completion:
    """The script by which a shell completes rlmix."""

    shell: tyro.conf.Positional[Literal["bash", "zsh"]]
    """bash or zsh."""


KINDS = {
    "train": Config,
    "compare": Compare,
    "evaluate": Evaluate,
    "policies": Policies,
    "export": Export,
    "visualize": Visualize,
    "fidelity": Fidelity,
    "reproduce": Reproduce,
    "list": List,
    "benchmark": Benchmark,
    "completion": Completion,
}
"""Each command's options."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse and print."""
    options = parse(Completion, "completion", read_args(args), about=__doc__)
    print(script(options.shell, KINDS), end="")  # noqa: T201


if __name__ == "__main__":
    run_command(main)
