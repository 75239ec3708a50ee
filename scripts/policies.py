"""Measure policies on a frozen classifier: the same batches, partners and lam for all, and paired differences.

rlmix policies --freeze-from DIR --data ... --policies RUN-s0 RUN-s1 OTHER-s0 --batches 100 --searched 10
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor

from rlmix.agents.analysis import Choices, agreement, credit_dilemma, describe_images, draw_choices, draw_dilemma
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.policies import CoinPolicy, ConstantPolicy, FixedRandomPolicy, Policy
from rlmix.agents.search import Choice
from rlmix.agents.trials import CEILINGS, Rewards, closed_share, difference, try_policies
from rlmix.allocator import keep_freed_memory
from rlmix.comparison import Difference
from rlmix.config import TrainingConfig
from rlmix.envs.process import Decision, MixingProcess
from rlmix.scripts.options import parse, read_args


@dataclass(frozen=True)
class Policies(TrainingConfig):
    """Measure policies on a frozen classifier (--freeze-from): the same images, partners and lam for all of them."""

    seed: int = 1000
    """Of the images, partners and lam, and of the policies' draws: another one than the policies learned with."""
    policies: tuple[str, ...] = ()
    """Runs in which an agent learned. Folders that differ in their ending -s<seed> alone are one policy of several seeds."""
    constants: tuple[float, ...] = (0.0, 0.11, 0.44, 0.99)
    """Constant policies to measure beside them; uniform, and a coin between 0 and 0.99, are always there."""
    batches: int = 100
    """Batches that every policy chooses for."""
    searched: int = 0
    """Batches, the first ones, for which the best choices are searched too: K + K^2 passes each."""
    out: Path = Path("policies")
    """A folder: report.md, policies.json (every policy's mean reward of every batch), pictures of what the learned ones choose."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse, measure, print the table."""
    options = parse(Policies, "policies", read_args(args))
    if options.freeze_from is None:
        raise ValueError("freeze_from must name the run whose classifier is taken, got none")
    if not 0 <= options.searched <= options.batches or options.batches < 2:
        raise ValueError(f"batches must be at least 2, and searched at most as many, got {options.batches}, {options.searched}")
    keep_freed_memory()
    process = MixingProcess(TrainingConfig(**{entry.name: getattr(options, entry.name) for entry in fields(TrainingConfig)}))
    policies = open_policies(options)
    process.reset()
    watch = Watch(policies)
    rewards = try_policies(process, policies, options.batches, options.searched, watch.batch, watch.search)
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: values.tolist() for name, values in rewards.items()}).replace("NaN", "null")
    (options.out / "policies.json").write_text(text + "\n")
    lines = [table(rewards), *watch.draw(options.out, process.values.tolist())]
    (options.out / "report.md").write_text("\n".join(lines) + "\n")
    Console(soft_wrap=True).print("\n".join(lines), highlight=False, markup=False)


class Watch:
    """Notes, while policies are tried, what the learned ones choose for whom, and what the search finds."""

    def __init__(self, policies: dict[str, Policy]) -> None:
        self.learned = {name: policy for name, policy in policies.items() if isinstance(policy, LearnedPolicy)}
        self.probabilities: dict[str, list[Tensor]] = {name: [] for name in self.learned}
        self.quantities: list[dict[str, Tensor]] = []
        self.tables: list[Tensor] = []
        self.agreements: dict[str, list[tuple[float, float]]] = {name: [] for name in self.learned}

    def batch(self, decision: Decision) -> None:
        self.quantities.append(describe_images(decision))
        for name, policy in self.learned.items():
            self.probabilities[name].append(policy.probabilities(decision))

    def search(self, decision: Decision, table: Tensor, best: Choice) -> None:
        self.tables.append(table.cpu())
        for name, policy in self.learned.items():
            if len(policy.values) == table.shape[1]:
                self.agreements[name].append(agreement(policy.probabilities(decision), best.indices))

    def draw(self, folder: Path, values: list[float]) -> list[str]:
        """Write the pictures; gives the lines about agreement."""
        pictures = {}
        for name, policy in self.learned.items():
            choices = Choices.join(self.probabilities[name], self.quantities)
            pictures[f"choices-{Path(name).name}"] = draw_choices(choices, policy.values.tolist())
        if self.tables:
            pictures["dilemma"] = draw_dilemma(credit_dilemma(self.tables), values)
        for name, figure in pictures.items():
            figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": ""})
        lines = []
        for name, pairs in self.agreements.items():
            if pairs:
                same, chance = np.mean(pairs, axis=0)
                lines.append(f"{Path(name).name} chooses as the best joint choice does in {same:.0%} (by chance {chance:.0%})")
        return lines


def open_policies(options: Policies) -> dict[str, Policy]:
    """The yardsticks, and the learned ones by their folders."""
    policies: dict[str, Policy] = {
        "uniform": FixedRandomPolicy(options.num_top_k, options.seed),
        "coin": CoinPolicy(options.num_top_k, options.seed),
    }
    policies |= {f"constant {top_k:g}": ConstantPolicy(top_k) for top_k in options.constants}
    return policies | {folder: LearnedPolicy(Path(folder), options.seed) for folder in options.policies}


def group(names: Sequence[str]) -> dict[str, list[str]]:
    """Names that differ in their ending ``-s<seed>`` alone, together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"-s\d+$", "", name.rstrip("/")), []).append(name)
    return groups


def table(rewards: dict[str, Rewards]) -> str:
    """A line a policy, in Markdown: its reward, and paired differences with their 95 % intervals over the batches.

    Of several seeds: the mean over the seeds, batch by batch, and the interval over the seeds' own means beside it.
    """
    ceiling = rewards.get(CEILINGS[1])
    lines = ["| policy | seeds | reward | - uniform | - uniform, over seeds | - coin | - coin, over seeds | gap closed |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, members in group(list(rewards)).items():
        mean = np.mean([rewards[member] for member in members], axis=0)
        cells: list[Any] = [Path(name).name, len(members), f"{np.nanmean(mean):.4f}"]
        for yardstick in ("uniform", "coin"):
            baseline = rewards[yardstick]
            cells.append("" if name == yardstick else interval(difference(mean, baseline)))
            means = np.array([difference(rewards[member], baseline).mean for member in members])
            cells.append(interval(difference(means, np.zeros(len(means)))) if len(means) > 1 else "")
        cells.append("" if ceiling is None else f"{closed_share(mean, rewards['uniform'], ceiling):.0%}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def interval(difference: Difference) -> str:
    """``+0.0125 [+0.0095, +0.0155]``."""
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


if __name__ == "__main__":
    from rlmix.scripts.main import run_command

    run_command(main)
