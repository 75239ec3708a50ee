"""What is trained, on what, and how: one frozen dataclass. Imports no torch."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_type_hints

from rlmix.common.mapping import checked
from rlmix.common.names import check_name
from rlmix.common.saved_config import read_config
from rlmix.recipes import AUTO, Recipe, data_recipe, settled_data

SCHEDULES = ("onecycle", "multistep")
RULES = ("cut_top", "cut_top_least", "mix_top", "mix_least")
REWARDS = (
    "cosine",
    "cosine_full",
    "cosine_batch",
    "cosine_published",
    "cosine_standard",
    "cosine_label",
    "cosine_shares",
    "last_layer",
    "parameters",
    "held_out_loss",
    "none",
)
OBSERVATIONS = ("paper", "pair")
CREDITS = ("own", "pair", "batch")
SALIENCY_MODES = ("exact", "bfloat16", "half", "previous", "alternate")
ON_NONFINITE = ("stop", "skip")
PRECISIONS = ("auto", "float32", "bfloat16")
MASK_PATCHES = (2, 4)
"""Patches a side of R-Mix's masks, one drawn a batch; the paper's, of its Table 7."""


class Unseeded(int):
    """The seed of a configuration in which nobody chose one: 0, but an environment draws another at its first reset."""


@dataclass(frozen=True)
class TrainingConfig:
    """A classifier's training, and how its images are mixed. Fields left at None take the data set's recipe."""

    data: str = "auto"
    """auto (digits, or under --freeze-from that run's), digits (embedded), cifar10, cifar100, fashion_mnist (see
    --data-root), npz:PATH with x_train, y_train, x_test, y_test, or imagefolder:PATH with a folder a class in train/ and in val/, which is
    tested on."""
    data_root: str = "data"
    """Folder of torchvision's data sets."""
    download: bool = False
    """Let torchvision download a missing data set."""
    train_images: int | None = None
    """Use only so many training images: the first of every class, then the second, and so on."""
    test_images: int | None = None
    """Measure on only so many test images, likewise."""
    val_fraction: float = 0.0
    """Part of the training images, the same of every class and for every seed, that is kept for validation; 0 for none."""
    image_size: int | None = None
    """Pixels a side that an imagefolder's images are cropped to."""
    resize_size: int | None = None
    """Pixels that the shorter side of an imagefolder's test images is resized to before the crop; 256 for 224, and in proportion."""
    workers: int = 4
    """Processes that decode an imagefolder; 0 decodes in the training's own. No result depends on it."""
    skip_corrupt: bool = False
    """Decode an imagefolder once before the training, and leave out the images that cannot be."""
    relabel: bool = False
    """Number the classes that occur in the training labels from 0, in order; without it a label is the network's output, and one that
    does not occur is an output for nothing."""

    model: str | None = None
    """preactresnet18, or preactresnet18_w16 (a quarter of its width); wideresnet16_8, wideresnet28_10, resnext29_4x24; or any
    classifier of torchvision, such as resnet50, with its own stem and random weights."""
    epochs: int | None = None
    """Passes over the training images."""
    batch_size: int | None = None
    """Images a step; a last incomplete batch of an epoch is left out."""
    seed: int = Unseeded(0)
    """Seed of everything: initial weights, data order, augmentation, mixing, policy; each has a generator of its own."""
    mixing_seed: int | None = None
    """Seed of partners, lam and num_patches alone; --seed where not given."""

    schedule: Literal["onecycle", "multistep"] | None = None
    """onecycle (a warm-up, then cosine annealing), or multistep (a tenth at each milestone)."""
    learning_rate: float | None = None
    """Highest learning rate."""
    div_factor: float = 100.0
    """onecycle starts at learning_rate / div_factor."""
    pct_start: float = 0.3
    """Part of the training that onecycle warms up for."""
    final_learning_rate: float = 3e-5
    """onecycle ends here."""
    milestones: tuple[float, ...] | None = None
    """Parts of the training after which multistep divides the learning rate by ten."""
    momentum: float = 0.9
    """Nesterov momentum, constant."""
    weight_decay: float | None = None
    """L2 penalty."""
    clip_norm: float | None = None
    """A longer gradient is shortened to this Euclidean length; 0 for none."""
    flip: bool | None = None
    """Mirror half of the training images."""
    crop_padding: int | None = None
    """Pad by so many black pixels a side and crop at random; 0 for none."""

    num_top_k: int = 10
    """How many top-k values there are to choose from: linspace(0, 0.99, num_top_k)."""
    num_patches: tuple[int, ...] | None = None
    """Patches per side of the masks, one drawn a batch; 2 4 where not given, whoever decides. The paper's agent had 8, as its map."""
    alpha: float | None = None
    """lam ~ Beta(alpha, alpha), and the Dirichlet prior of comixup; the method's own default where not given (of rmix and rlmix 1, with an
    imagefolder 0.2)."""
    rule: Literal["cut_top", "cut_top_least", "mix_top", "mix_least"] = "mix_top"
    """How patches are mixed: mix_top is R-Mix."""
    reward: str = "cosine"
    """cosine (pooled 8x8 maps, image by image), cosine_full (every pixel), cosine_batch (one cosine for the flattened batch),
    cosine_published (the same of maps that are not normalised: the paper's code), cosine_standard (within the batch), cosine_label and
    cosine_shares (towards both images' maps); last_layer, parameters (their gradients against a clean batch's); held_out_loss (its
    decrease); none, where no agent learns: a percent of a step. docs/rewards.md."""
    diversity: float = 0.0
    """Weight of a bonus for rare choices: its mean is the entropy of the batch's choices, 1 where all are equally frequent."""
    observation: Literal["paper", "pair"] = "paper"
    """What is seen of an image: paper (its map and logits), pair (also those of its two partners, lam, and the training's progress)."""
    credit: Literal["own", "pair", "batch"] = "own"
    """Who earns an image's reward: own (the image), pair (half its own, half that of the image it is the partner of), batch (the mean)."""

    saliency_mode: Literal["exact", "bfloat16", "half", "previous", "alternate"] = "exact"
    """Cheaper stand-ins for the exact saliency map: in bfloat16, at half resolution, the previous epoch's in every second epoch, uniform in
    every other step (docs/performance.md)."""
    freeze_from: str | None = None
    """The folder of a run, whose classifier is taken as it is and not updated: a stationary environment, in which agents are measured.
    Without --data, the run's data come along, and how they were taken (--data-root, --train-images, --val-fraction, --image-size, ...)."""

    device: str = "auto"
    """auto (cuda where there is one), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast precision; auto is bfloat16 on CUDA and float32 elsewhere."""
    compile: bool = False
    """Compile the training step's and the saliency's pass with torch.compile: a minute at the start, for long runs on a GPU."""
    devices: int | None = None
    """Processes of one training on this machine, one a GPU, or several on the CPU; each takes its share of every batch."""
    nodes: int = 1
    """Machines that run so many each; MASTER_ADDR and NODE_RANK must be set."""
    channels_last: bool = True
    """Memory format of images and weights; channels last is the faster one for convolutions."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that is not finite: stop, or leave that step out and count it (nonfinite_steps in metrics.jsonl)."""

    @property
    def recipe(self) -> Recipe:
        """The data set's recipe, with what is set here in its place."""
        recipe = data_recipe(settled_data(self.data))
        own = {entry.name: getattr(self, entry.name) for entry in fields(Recipe)}
        return replace(recipe, **{name: value for name, value in own.items() if value is not None})

    @property
    def policy_alpha(self) -> float:
        """Of lam where a policy mixes: as given, or the paper's for R-Mix, 0.2 on ImageNet and 1 on CIFAR."""
        if self.alpha is not None:
            return self.alpha
        return 0.2 if settled_data(self.data).startswith("imagefolder:") else 1.0

    @property
    def mask_patches(self) -> tuple[int, ...]:
        """Patches per side of the masks."""
        return MASK_PATCHES if self.num_patches is None else self.num_patches

    @property
    def test_resize(self) -> int:
        """Pixels of the shorter side of an imagefolder's test images."""
        return self.resize_size if self.resize_size is not None else round((self.recipe.image_size or 0) * 256 / 224)

    def resolved(self) -> Self:
        """With the data set's recipe in place of every None, and the data of the run that ``freeze_from`` names where none are given.

        Raises:
            ValueError: If a value is out of range, naming the value and what is allowed, or ``model`` is not the frozen one.
            FileNotFoundError: If ``freeze_from`` is no run's folder.
        """
        config = self.followed()
        config = replace(config, data=settled_data(config.data), seed=int(config.seed), **vars(config.recipe))
        config._check()
        return config

    def followed(self) -> Self:
        """With the model, and where no data are named the data, of the run that ``freeze_from`` names; errors as of :meth:`resolved`."""
        return self if self.freeze_from is None else _follow(self, self.freeze_from)

    def _check(self) -> None:
        check_name("schedule", str(self.schedule), SCHEDULES)
        check_name("rule", self.rule, RULES)
        check_name("reward", self.reward, REWARDS)
        check_name("credit", self.credit, CREDITS)
        check_name("saliency_mode", self.saliency_mode, SALIENCY_MODES)
        check_name("observation", self.observation, OBSERVATIONS)
        check_name("precision", self.precision, PRECISIONS)
        check_name("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        at_least: dict[str, float] = {
            "epochs": 1,
            "batch_size": 1,
            "num_top_k": 1,
            "seed": 0,
            "crop_padding": 0,
            "weight_decay": 0,
            "clip_norm": 0,
            "image_size": 8,
            "workers": 0,
        }
        at_least |= {
            "mixing_seed": 0,
            "train_images": 1,
            "test_images": 1,
            "div_factor": 1,
            "diversity": 0,
            "devices": 1,
            "nodes": 1,
        }
        for name, low in at_least.items():
            value = getattr(self, name)
            if value is not None and not low <= value < float("inf"):
                raise ValueError(f"{name} must be at least {low}, got {value}")
        for name in ("learning_rate", "final_learning_rate", "alpha"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("momentum", "pct_start"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0, 1), got {self.val_fraction}")
        if self.data.startswith("imagefolder:"):
            if self.relabel:
                raise ValueError("relabel must be left out with an imagefolder, whose classes are its folders")
            if self.crop_padding:
                raise ValueError(
                    f"crop_padding must be 0 with an imagefolder, which is cropped and resized, got {self.crop_padding}"
                )
            if self.test_resize < (self.image_size or 0):
                raise ValueError(f"resize_size must be at least image_size {self.image_size}, got {self.resize_size}")
        elif self.image_size is not None or self.resize_size is not None:
            raise ValueError(f"image_size and resize_size must be left out with {self.data}, whose images have their own")
        if not all(0 < part < 1 for part in self.milestones or ()):
            raise ValueError(f"milestones must be between 0 and 1, got {self.milestones}")
        if self.num_patches is not None and (not self.num_patches or min(self.num_patches) < 1):
            raise ValueError(f"num_patches must be one or more numbers of at least 1, got {self.num_patches}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for YAML and checkpoints."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["seed"] = int(self.seed)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


Config = TypeVar("Config", bound=TrainingConfig)
_DATA_OPTIONS = (
    "data",
    "data_root",
    "train_images",
    "test_images",
    "val_fraction",
    "image_size",
    "resize_size",
    "skip_corrupt",
    "relabel",
)
"""What settles which images and labels there are."""


def _follow(config: Config, folder: str) -> Config:
    """``config`` with the model of the run in ``folder``; where it names no data, with the run's, and how these were taken.

    Where data are named, the other options are taken to be meant for these.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If ``config`` names another model, or the run's config.yaml holds other than an option's values.
    """
    saved, hints = read_config(Path(folder)), get_type_hints(TrainingConfig)

    def read(name: str) -> Any:
        return checked(saved.get(name), hints[name], f"{name} in {folder}/config.yaml")

    model = read("model")
    if None not in (model, config.model) and config.model != model:
        raise ValueError(f"model must be that of freeze_from {folder}, which is {model}, or be left out, got {config.model}")
    taken: dict[str, Any] = {"model": config.model or model}
    if config.data == AUTO:
        defaults = {entry.name: entry.default for entry in fields(TrainingConfig)}
        wanted = [name for name in _DATA_OPTIONS if name in saved and getattr(config, name) == defaults[name]]
        taken |= {name: read(name) for name in wanted}
    return replace(config, **taken)
