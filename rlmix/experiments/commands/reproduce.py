"""What ``rlmix reproduce`` is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from rlmix.common.groups import check_values, options_of
from rlmix.common.names import check_name
from rlmix.common.ranges import Range
from rlmix.config import Config
from rlmix.experiments.arms import check_out
from rlmix.experiments.commands.engine import EngineConfig
from rlmix.experiments.options import parse, typed_options
from rlmix.experiments.own_tables import OWN_TABLES
from rlmix.experiments.paper_tables import PAPER_TABLES
from rlmix.experiments.table_form import PaperTable
from rlmix.option_groups import AgentConfig, DataConfig, DeviceConfig, EnvConfig, MixingConfig, ModelConfig, OptimConfig

TABLES = PAPER_TABLES | OWN_TABLES
TIMED_ONLY = frozenset({"table", "model", "models", "batch_size", "device", "precision", "threads", "out"})
"""Options of a table for which nothing is trained."""


@dataclass(frozen=True)
class Reproduce:
    """A table of the paper. An option that is given is taken instead of the table's own, unless the table is about it."""

    FIRST: ClassVar = ("table", "scale", "data", "models", "seeds", "jobs", "out")

    table: tyro.conf.Positional[str] = "table4"
    """table1 to table12 as published, policies or steps. policies are the learned one beside fixed ones, steps what they cost."""
    scale: Annotated[float, Range("in (0, 1]", lambda value: 0 < value <= 1)] = 1.0
    """Fraction of the images and of the epochs, in (0, 1]. Of those trained on and tested on, at least an image a class and one epoch; the
    output says so."""
    models: tuple[str, ...] = ()
    """Networks. The table's own, or --model, where not given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every cell is trained with each."""
    boxes: Path | None = None
    """CSV file of the images' boxes, for the localization of table5."""
    out: Path | None = None
    """The folder; runs/TABLE, or runs/TABLE-scale-F."""
    data: DataConfig = field(default_factory=lambda: DataConfig(name=""))
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    typed: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Options that were given, whatever their values."""

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.out or Path("runs") / (self.table if self.scale == 1 else f"{self.table}-scale-{self.scale:g}")

    @property
    def given(self) -> dict[str, Any]:
        """The options of a training that were given, but data and model."""
        of_training = set(options_of(Config)) - {"data", "model", "out"}
        flat = {name: option.of(self) for name, option in options_of(type(self)).items() if name in self.typed & of_training}
        return flat | {"mixing": dict(self.mixing.hyperparameters)} if self.mixing.hyperparameters else flat

    @property
    def networks(self) -> tuple[str, ...]:
        """What the table is run on."""
        return self.models or ((self.model.name,) if self.model.name else TABLES[self.table].networks)


def read_options(args: Sequence[str], about: str | None = None) -> Reproduce:
    """The options, and which of them were given; ``about`` is what the help says."""
    return replace(parse(Reproduce, "reproduce", args, about=about), typed=typed_options(Reproduce, args))


def check(options: Reproduce) -> PaperTable:
    """The table; ValueError where an option is out of range, before anything is written."""
    check_name("table", options.table, TABLES)
    table = TABLES[options.table]
    check_values(options)
    check_out(options.folder)
    unread = sorted(options.typed - TIMED_ONLY)
    if not table.trained and unread:
        raise ValueError(f"{', '.join(unread)} must be left out with {options.table}, for which nothing is trained")
    clash = sorted(options.typed & table.about)
    if clash:
        raise ValueError(f"{', '.join(clash)} must be left out with {options.table}, which varies it itself")
    if table.trained and not (options.data.name or table.data):
        raise ValueError(f"data must be given with {options.table}, such as --data imagefolder:PATH with train/ and val/")
    localized = any(cell.figure == "localization" for cell in table.cells)
    if localized != (options.boxes is not None):
        raise ValueError(f"boxes must {'be given' if localized else 'be left out'} with {options.table}, got {options.boxes}")
    if len(set(options.networks)) < len(options.networks):
        raise ValueError(f"models must differ, got {options.models}")
    return table
