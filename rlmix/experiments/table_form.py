"""The form of a table of experiments: its cells, what is trained for each, and the figure that is published there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NETWORKS = ("preactresnet18", "wideresnet16_8", "wideresnet28_10", "resnext29_4x24")
"""The paper's PARN-18, WRN16-8, WRN28-10 and RNX29-4-24."""
LONGER = {"wideresnet28_10": 400}
"""Networks that are trained for another number of epochs than a table's."""


@dataclass(frozen=True)
class PaperRun:
    """What is trained for a cell, on one of a table's networks."""

    label: str
    """For people and for the run's folder; unique in its table."""
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Beyond the data set's recipe, which is the paper's."""
    epochs: int | None = None
    """None for the table's own, or the network's of :data:`LONGER`."""
    multistep: bool = False
    """Trained under MultiStepLR, as the code that the figure comes from: :func:`multistep_options`."""


@dataclass(frozen=True)
class PaperCell:
    """A cell: one figure of one run, and what is published of it."""

    run: PaperRun
    figure: str
    """One of reproduce's FIGURES."""
    published: Mapping[str, float | str]
    """By network; empty in a table of our own. A network of the table that is left out has an empty cell, which is not trained."""


Rows = dict[tuple[str, ...], dict[str, PaperCell]]
"""By the row's names, each a mapping from column to cell."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, or one of our own of the same form."""

    title: str
    columns: tuple[str, ...]
    rows: Rows
    """Every row is repeated for every network."""
    headings: tuple[str, ...] = ()
    """Over the row's names, behind the network's."""
    networks: tuple[str, ...] = NETWORKS[:1]
    data: str = "cifar100"
    """Empty where the data must be given."""
    epochs: int = 300
    about: frozenset[str] = frozenset()
    """Options that cells differ in: they cannot be given."""
    baseline: str = "rmix"
    """Label of the run that paired differences are from."""
    note: str = ""
    """What differs from the paper, or is ours."""
    trained: bool = True
    """Whether anything is; otherwise steps are timed at most."""

    @property
    def cells(self) -> list[PaperCell]:
        """All of them, row by row."""
        return [cell for row in self.rows.values() for cell in row.values()]

    @property
    def published(self) -> bool:
        """Whether it is the paper's."""
        return any(cell.published for cell in self.cells)

    def trains(self, cell: PaperCell, network: str) -> bool:
        """Whether the cell is filled for a network: not where the paper's table has it empty."""
        return network in cell.published or network not in self.networks or not cell.published

    def runs(self, network: str) -> list[PaperRun]:
        """What is trained on a network, each once."""
        runs = {cell.run.label: cell.run for cell in self.cells if self.trains(cell, network)}
        return list(runs.values())

    def num_epochs(self, run: PaperRun, network: str) -> int:
        """The paper's."""
        return run.epochs or (LONGER.get(network, self.epochs) if self.data == "cifar100" else self.epochs)


def multistep_options(network: str, epochs: int) -> dict[str, Any]:
    """MultiStepLR as in the code that the paper takes these figures from.

    Co-Mixup's (300 epochs: 0.2, a tenth after 100 and 200) and PuzzleMix's (1200 epochs: 0.1, after 400
    and 800; WRN28-10, 400 epochs: 0.1, after 200 and 300).
    """
    if network in LONGER:
        return {"schedule": "multistep", "learning_rate": 0.1, "milestones": (0.5, 0.75)}
    rate = 0.2 if epochs <= 300 else 0.1
    return {"schedule": "multistep", "learning_rate": rate, "milestones": (1 / 3, 2 / 3)}
