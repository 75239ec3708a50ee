"""What ``rlmix benchmark`` and ``rlmix fidelity`` are asked for. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from rlmix.common.ranges import at_least, up_to
from rlmix.config import Config
from rlmix.option_groups import DataConfig, DeviceConfig, MixingConfig, ModelConfig, OptimConfig


@dataclass(frozen=True)
class SuiteConfig:
    """Of --suite: the first ten minutes of a GPU, and what is worth a longer stay."""

    name: Literal["gpu"] | None = None
    """Measure everything that is asked of a new GPU, stage by stage. Steps of R-Mix and RL-Mix relative to vanilla, in float32, bfloat16
    and compiled; how often they wait for the GPU; what memory they take; and, with --data, trainings of 30 and of 300 epochs. Each stage
    is written to --out as soon as it is over and left out where it lies there, so that the same command goes on with a suite that was
    stopped."""
    out: Path = Path("runs/suite-gpu")
    """The suite's folder. A JSON file a stage, and table.md, which is written anew after each."""
    models: tuple[str, ...] = ("preactresnet18", "resnet50")
    """Two networks, for images of 32 pixels and of 224. The first one is trained, too."""
    data: str | None = None
    """Train on these data, too. cifar100, npz:PATH, ..., as of rlmix train; an npz by CIFAR-100's recipe."""
    data_root: str = DataConfig.data_root
    """Folder of torchvision's data sets."""
    download: bool = False
    """Let torchvision download a missing data set."""
    scale: Annotated[float, up_to(0, 1)] = 1.0
    """Fraction of batches, pixels, rounds, images and epochs. For a rehearsal, whose figures mean nothing."""


@dataclass(frozen=True)
class Benchmark:
    """Time a training step of each method relative to vanilla, and its parts, on random images."""

    methods: tuple[str, ...] = ("vanilla", "saliency", "rmix", "rmix-reward", "rlmix")
    """What to time; ratios are relative to vanilla, which is always timed. Beside the methods of rlmix train: saliency (the bare pass),
    rmix-reward (rmix is R-Mix by itself, under --reward none; this one measures its reward too, as rlmix train does by default),
    rmix-dropin (R-Mix in the plain trainer), rlmix-device (the agent where the classifier lives), rmix-recycled, rlmix-recycled,
    rmix-bfloat16, rmix-half and rmix-alternate (under that --saliency-mode), handwritten (a plain PyTorch loop over a DataLoader, at
    its fastest setting), and those of --peers by their names."""
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
    """Measure too what each method's tensors take at most: its network, five steps and the policy's update, without the data."""
    profile: Path | None = None
    """Write each method's top operators here, as text."""
    json: Path | None = None
    """Write the figures here too."""
    suite: SuiteConfig = field(default_factory=SuiteConfig)

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
