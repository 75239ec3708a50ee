"""What ``rlmix benchmark`` and ``rlmix fidelity`` are asked for. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from rlmix.common.ranges import at_least
from rlmix.config import Config, DataConfig, DeviceConfig, MixingConfig, ModelConfig, OptimConfig


@dataclass(frozen=True)
class Benchmark:
    """Time a training step of each method relative to vanilla, and its parts, on random images."""

    methods: tuple[str, ...] = ("vanilla", "saliency", "rmix", "rmix-reward", "rlmix")
    """What to time; ratios are relative to vanilla, which is always timed. Beside the methods of rlmix train: saliency (the bare pass),
    rmix-reward (rmix is R-Mix by itself, under --reward none; this one measures its reward too, as rlmix train does by default),
    rmix-dropin (R-Mix in the plain trainer), rlmix-device (the agent where the classifier lives), rmix-bfloat16, rmix-half
    and rmix-alternate (R-Mix under that --saliency-mode), handwritten (a plain PyTorch loop over a DataLoader, at its fastest setting),
    and those of --peers by their names."""
    peers: bool = False
    """Time other people's mix-up too, beside our own of the same kind. torchvision-mixup, torchvision-cutmix; timm-mixup, timm-cutmix;
    mixup-mixup, mixup-cutmix (of the package mixup); rmix-published (R-Mix as its authors compute it: a whole backward pass for the map,
    in the plain loop). Those whose package is not installed are left out, in a line each: pip install "rlmix[peers]". All of them mix
    every batch, and so does our cutmix beside them."""
    model: str = "preactresnet18_w16"
    """The classifier."""
    batch_size: int = 100
    """Images a step."""
    image_size: int = 32
    """Pixels a side."""
    num_classes: int = 100
    """Classes."""
    rounds: int = 30
    """Steps timed of each method; a third as many more are timed by part."""
    warmup: int = 3
    """Steps of each method before that."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: str = "auto"
    """auto, float32, bfloat16."""
    compile: bool = False
    """Time everything again with torch.compile, in tables of their own."""
    memory: bool = False
    """Measure each method's peak memory too, in a fresh process of its own (seconds each): what five steps and the policy's update take
    beyond the imported libraries. On a GPU that is what PyTorch allocated there, else the process's resident memory. Not on Windows."""
    profile: Path | None = None
    """Write each method's top operators here, as text."""
    json: Path | None = None
    """Write the figures here too."""

    @property
    def training(self) -> Config:
        """CIFAR-100's recipe, on this model, batch and device."""
        return Config.flat(
            data="cifar100",
            model=self.model,
            batch_size=self.batch_size,
            epochs=1000,
            device=self.device,
            precision=self.precision,
        )


@dataclass(frozen=True)
class Fidelity:
    """The masks of every cheaper saliency beside the exact ones, while R-Mix trains on the exact ones."""

    FIRST: ClassVar = ("data", "model", "epochs", "every", "json")

    every: Annotated[int, at_least(1)] = 1
    """Compare in every so many steps. previous remembers in all."""
    seed: Annotated[int, at_least(0)] = 0
    """Seed of everything."""
    json: Path | None = None
    """Write the figures here too."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    @property
    def config(self) -> Config:
        """Of the training."""
        return Config.of(self, seed=self.seed, method="rmix")
