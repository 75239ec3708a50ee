"""What ``rlmix policies`` is asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from rlmix.common.ranges import at_least, one_of
from rlmix.config import Config
from rlmix.option_groups import DataConfig, DeviceConfig, EnvConfig, MixingConfig, ModelConfig, OptimConfig


@dataclass(frozen=True)
class Policies:
    """Policies on a frozen classifier (--freeze-from): the same images, partners and lam for all of them."""

    FIRST: ClassVar = ("freeze_from", "policies", "batches", "searched", "out")

    policies: tuple[str, ...] = ()
    """Runs in which an agent learned. Folders that differ in their ending -s<seed> alone are one policy of several seeds."""
    constants: tuple[float, ...] = (0.0, 0.11, 0.44, 0.99)
    """Constant policies to measure beside them. Uniform, and a coin between 0 and 0.99, are always there."""
    batches: Annotated[int, at_least(2)] = 100
    """Batches that every policy chooses for."""
    searched: Annotated[int, at_least(0)] = 0
    """Batches whose best choices are searched too. The first ones; K + K^2 passes each."""
    seed: Annotated[int, at_least(0)] = 1000
    """Seed of the images, partners and lam. And of the policies' draws: another one than the policies learned with."""
    reward: Annotated[str, one_of("rlmix.envs.rewards:REWARDS")] = EnvConfig.reward
    """What a mixture earns (rlmix list rewards)."""
    out: Path = Path("policies")
    """A folder for report.md, policies.json and pictures. policies.json has every policy's mean reward of every batch; the pictures show
    what the learned ones choose."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    @property
    def config(self) -> Config:
        """The environment's."""
        return Config.of(self, seed=self.seed, reward=self.reward, method="rmix")
