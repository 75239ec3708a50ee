"""What learned policies choose while they are tried: notes for the pictures and figures of :mod:`rlmix.agents.analysis`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from rlmix.agents.analysis import Choices, agreement, credit_dilemma, describe_images, draw_choices, draw_dilemma
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.policies import Policy
from rlmix.agents.search import Choice
from rlmix.common.names import distinct_names, file_names
from rlmix.envs.process import Decision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRESS = tuple(tenth / 10 for tenth in range(10))
"""A frozen classifier's progress is nothing but the number of batches seen: policies are asked at each of these, for every image."""


class Recorder:
    """Notes, while policies are tried, what the learned ones choose for whom, and what the search finds.

    :func:`~rlmix.agents.measurement.try_policies` calls it.
    """

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self.learned = {name: policy for name, policy in policies.items() if isinstance(policy, LearnedPolicy)}
        self.names = distinct_names(self.learned)
        self.probabilities: dict[str, list[Tensor]] = {name: [] for name in self.learned}
        self.quantities: list[dict[str, Tensor]] = []
        self.tables: list[Tensor] = []
        self.agreements: dict[str, list[tuple[float, float]]] = {name: [] for name in self.learned}

    def batch(self, decision: Decision) -> None:
        """What would be chosen for the batch, early and late in a training."""
        for progress in PROGRESS:
            then = replace(decision, progress=progress)
            self.quantities.append(describe_images(then))
            for name, policy in self.learned.items():
                self.probabilities[name].append(policy.probabilities(then))

    def search(self, decision: Decision, table: Tensor, best: Choice) -> None:
        """The best joint choice, where a policy has the same values to choose from."""
        self.tables.append(table.cpu())
        for name, policy in self.learned.items():
            if len(policy.actions) == table.shape[1]:
                self.agreements[name].append(agreement(policy.probabilities(decision), best.indices))

    def draw(self, labels: Sequence[str]) -> dict[str, "Figure"]:
        """A picture of each learned policy's choices, and the credit dilemma of what was searched, by the name of their files."""
        pictures, files = {}, file_names(self.names.values())
        for name, policy in self.learned.items():
            choices = Choices.join(self.probabilities[name], self.quantities)
            pictures[f"choices-{files[self.names[name]]}"] = draw_choices(choices, policy.actions.labels())
        if self.tables:
            pictures["dilemma"] = draw_dilemma(credit_dilemma(self.tables), labels)
        return pictures

    def lines(self) -> list[str]:
        """How often each learned policy chooses what is best, in a sentence each."""
        lines = []
        for name, pairs in self.agreements.items():
            if pairs:
                same, chance = np.mean(pairs, axis=0)
                lines.append(f"{self.names[name]} chooses as the best joint choice does in {same:.0%} (by chance {chance:.0%})")
        return lines
