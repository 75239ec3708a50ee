"""Policies beside each other on a frozen classifier: the same batches, partners and lam for all, and paired differences."""

import json
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlmix.agents.choices import Recorder
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.measurement import CEILINGS, Rewards, closed_share, difference, try_policies
from rlmix.agents.policies import CoinPolicy, ConstantPolicy, FixedRandomPolicy, Policy
from rlmix.common.files import check_place
from rlmix.common.groups import check_values
from rlmix.common.names import distinct_names
from rlmix.data.dataset import Dataset
from rlmix.envs.process import MixingProcess
from rlmix.experiments.commands.policies import Policies
from rlmix.reporting.bar import Bar
from rlmix.reporting.output import make_console
from rlmix.reporting.statistics import Difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Findings(NamedTuple):
    """What was measured, for people."""

    lines: list[str]
    """Of Markdown: the table, and how often each learned policy chooses what is best."""
    pictures: dict[str, "Figure"]
    """What each learned policy chooses for whom, and the credit dilemma where there was a search; by the names of their files."""


def say(found: Findings) -> None:
    """Print the lines."""
    make_console(soft_wrap=True).print("\n".join(found.lines))


def measure(options: Policies, data: Dataset | None = None) -> Findings:
    """Try the policies and write every file.

    Args:
        options: What is measured, on which classifier.
        data: Where it is loaded already; what the options name otherwise.

    Raises:
        ValueError: If an option is out of range, or nobody learned in one of the runs.
        OSError: If a run or the data cannot be read, or the files not written.
    """
    if options.model.freeze_from is None:
        raise ValueError("freeze_from must name the run whose classifier is taken, got none")
    check_values(options)
    if options.searched > options.batches:
        raise ValueError(f"searched must be at most batches, which are {options.batches}, got {options.searched}")
    for top_k in options.constants:
        if not 0 <= top_k < 1:
            raise ValueError(f"constants must be in [0, 1), got {top_k:g}")
    check_place(options.out, "out")
    policies = open_policies(options)
    process = MixingProcess(options.config, data)
    for policy in policies.values():
        process.offer(getattr(policy, "actions", None))
    process.reset()
    recorder = Recorder(policies)
    values = len(process.actions)
    each, search = len(policies), values + values**2  # passes of the classifier
    with Bar("policies", options.batches * each + options.searched * search) as bar:
        rewards = try_policies(
            process,
            policies,
            options.batches,
            options.searched,
            both(recorder.batch, lambda: bar.advance(each)),
            both(recorder.search, lambda: bar.advance(search)),
        )
    said = recorder.lines()
    found = Findings([table(rewards, recorder.learned), *([""] if said else []), *said], recorder.draw(process.actions.labels()))
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: values.tolist() for name, values in rewards.items()}).replace("NaN", "null")
    (options.out / "policies.json").write_text(text + "\n")
    (options.out / "report.md").write_text("\n".join(found.lines) + "\n")
    for name, figure in found.pictures.items():
        figure.savefig(options.out / f"{name}.png", dpi=110, metadata={"Software": ""})
    return found


def both(first: Callable[..., None], then: Callable[[], None]) -> Callable[..., None]:
    """Call one and then the other."""

    def call(*args: Any) -> None:
        first(*args)
        then()

    return call


def open_policies(options: Policies) -> dict[str, Policy]:
    """The yardsticks, and the learned ones by their folders."""
    policies: dict[str, Policy] = {
        "uniform": FixedRandomPolicy(options.mixing.num_top_k, options.seed),
        "coin": CoinPolicy(options.mixing.num_top_k, options.seed),
    }
    policies |= {f"constant {top_k:g}": ConstantPolicy(top_k) for top_k in options.constants}
    places = [Path(folder).resolve() for folder in options.policies]
    if len(set(places)) < len(places):
        raise ValueError(f"policies must be different runs, got {' '.join(options.policies)}")
    taken = (*policies, *CEILINGS)
    folders = {os.path.join(".", folder) if folder in taken else folder: Path(folder) for folder in options.policies}
    return policies | {name: LearnedPolicy(folder, options.seed) for name, folder in folders.items()}


def group(rewards: Iterable[str], learned: Collection[str]) -> dict[str, list[str]]:
    """Rows by their names.

    Folders of ``learned`` that differ in their ending ``-s<seed>`` alone are one; what is the same of two paths'
    endings is left out.
    """
    stems = {folder: re.sub(r"-s\d+$", "", os.path.abspath(folder)) for folder in learned}
    names = distinct_names(stems.values(), [name for name in rewards if name not in learned])
    groups: dict[str, list[str]] = {}
    for name in rewards:
        groups.setdefault(names[stems[name]] if name in stems else name, []).append(name)
    return groups


def table(rewards: dict[str, Rewards], learned: Collection[str]) -> str:
    """A line a policy, in Markdown: its reward, and paired differences with their 95 % intervals over the batches.

    Of several seeds, which :func:`group` finds among ``learned``: the mean over the seeds, batch by batch, and the interval over the seeds'
    own means beside it.
    """
    ceiling = rewards.get(CEILINGS[1])
    lines = ["| policy | seeds | reward | - uniform | - uniform, over seeds | - coin | - coin, over seeds | gap closed |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, members in group(rewards, learned).items():
        mean = np.mean([rewards[member] for member in members], axis=0)
        cells: list[Any] = [name, len(members), f"{np.nanmean(mean):.4f}"]
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
