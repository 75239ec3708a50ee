"""What is trained, on what, how, and who decides: frozen groups in one frozen configuration. Imports no torch.

A field's text is its help, its first sentence what ``--help`` shows; its annotation says what it may hold.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_type_hints

from rlmix.common.groups import changed, check_values, options_of, read_flat, to_flat
from rlmix.common.mapping import checked
from rlmix.common.ranges import above, also, at_least, between, from_to, one_of, up_to, within
from rlmix.common.saved_config import is_run_config, place_of, read_config, read_yaml, updated
from rlmix.recipes import AUTO, Recipe, data_recipe, is_brought, settled_data

MASK_PATCHES = (2, 4)
"""Patches a side of R-Mix's masks, one drawn a batch; the paper's, of its Table 7."""


class Unseeded(int):
    """The seed of a configuration in which nobody chose one: 0, but an environment draws another at its first reset."""


@dataclass(frozen=True)
class DataConfig:
    """The images, and how they are augmented."""

    name: str = AUTO
    """digits, cifar100, npz:PATH, imagefolder:PATH. Or cifar10, or another of rlmix list data. auto is digits, or under --freeze-from that
    run's; an npz holds x_train, y_train, x_test, y_test (or --keys), an imagefolder a folder a class in train/ and in val/, which is
    tested on."""
    data_root: str = "data"
    """Folder of torchvision's data sets."""
    download: bool = False
    """Let torchvision download a missing data set."""
    train_images: Annotated[int | None, at_least(1)] = None
    """Train on so many images, of every class in turn."""
    test_images: Annotated[int | None, at_least(1)] = None
    """Measure on only so many test images, likewise."""
    val_fraction: Annotated[float, from_to(0, 1)] = 0.0
    """Part of the training images kept for validation. It is the same of every class and for every seed."""
    image_size: Annotated[int | None, at_least(8)] = None
    """Pixels a side of an imagefolder's crops. Those of an npz and of one's own data are made so large by --image-fit."""
    image_fit: Literal["resize", "pad"] = "resize"
    """How images get the pixels of --image-size. resize is bilinear, antialiased and heeds no proportion; pad adds black on all sides."""
    keys: tuple[str, ...] | None = None
    """Names of an npz's arrays. Images and labels of training, test and validation, such as --keys X Y X_TEST Y_TEST; the last two pairs
    may be left out. Known by themselves: x_train ... of Keras, train_images ... of MedMNIST, images and labels. Without a test split a
    fifth of every class is kept for it. Of hf:PATH, the columns of images and of labels; of an imagefolder's labels.csv, those of paths
    and of labels."""
    splits: tuple[str, ...] | None = None
    """Names of the splits of an imagefolder or hf:PATH. Of training, test and validation; the last two may be left out. Known by
    themselves: train, training; test, testing; val, valid, validation, dev, which is tested on where there is no test split, and of an
    imagefolder with train/ and val/ in any case."""
    value_range: tuple[float, ...] | None = None
    """What black and white are, where they are not 0 and 255. Such as --value-range 0 1 for fractions, or -1 1."""
    resize_size: int | None = None
    """Shorter side of an imagefolder's test images. They are cropped then; 256 for 224, and in proportion."""
    workers: Annotated[int, at_least(0)] = 4
    """Processes that decode an imagefolder. 0 decodes in the training's own; no result depends on it."""
    skip_corrupt: bool = False
    """Leave out an imagefolder's broken images. It is decoded once before the training to find them."""
    relabel: bool = False
    """Number the labels that occur from 0. Without it a label is the network's output, and one that does not occur is for nothing."""
    flip: bool | None = None
    """Mirror half of the training images, or none."""
    crop_padding: Annotated[int | None, at_least(0)] = None
    """Pad by so many pixels a side and crop; 0 for none."""


@dataclass(frozen=True)
class ModelConfig:
    """The classifier."""

    name: str | None = None
    """preactresnet18 or another of rlmix list models. Or any classifier of torchvision, such as resnet50, with its own stem and random
    weights; timm:NAME; hf:PATH, a configuration of Hugging Face's transformers; module:function, one's own."""
    freeze_from: str | None = None
    """Take the classifier of this run, and do not update it. A stationary environment, in which agents are measured. Without --data, the
    run's data come along, and how they were taken (--data-root, --train-images, --val-fraction, --image-size, ...). Data
    that are named must be the run's, wherever they lie."""
    stages: tuple[str, ...] | None = None
    """Modules after which features are mixed. One to four dotted names, under manifold_mixup, automix (the third) and alignmix (the
    last); most networks of torchvision and timm have stages by themselves (docs/training.md)."""
    weights: str | None = None
    """A state_dict's file, or a run, to begin with. A .safetensors too. The head stays as drawn where the classes are
    others. Images are normalised by this data set's mean and deviation."""
    freeze_backbone: bool = False
    """Train the head alone. The rest stays as it is, with the statistics of its batch norms."""
    channels_last: bool = True
    """Memory format of images and weights. Channels last is the faster one for convolutions; a network on the CPU with a 1x1
    convolution of a stride and fewer than 16 channels has them first, for oneDNN's sake."""
    compile: bool = False
    """Compile both passes with torch.compile. It takes a minute at the start: for long runs on a GPU."""


@dataclass(frozen=True)
class OptimConfig:
    """How the classifier is optimised."""

    epochs: Annotated[int | None, at_least(1)] = None
    """Passes over the training images."""
    batch_size: Annotated[int | None, at_least(1)] = None
    """Images a step; an incomplete last batch is left out."""
    schedule: Annotated[str | None, one_of("rlmix.training.schedules:SCHEDULES")] = None
    """onecycle, multistep, cosine, constant or own. One's own is module:function."""
    optimizer: Annotated[str, one_of("rlmix.training.optimizers:OPTIMIZERS")] = "sgd"
    """sgd, adamw or adam, or any as torch.optim:RAdam. Or module:attribute of one's own."""
    learning_rate: Annotated[float | None, above(0)] = None
    """Highest learning rate."""
    warmup: Annotated[float, from_to(0, 1)] = 0.05
    """Part that cosine and constant warm up for."""
    div_factor: Annotated[float, at_least(1)] = 100.0
    """onecycle starts at learning_rate / div_factor."""
    pct_start: Annotated[float, between(0, 1)] = 0.3
    """Part of the training that onecycle warms up for."""
    final_learning_rate: Annotated[float, above(0)] = 3e-5
    """onecycle ends here."""
    milestones: Annotated[tuple[float, ...] | None, between(0, 1)] = None
    """Parts of the training where multistep divides by 10."""
    momentum: Annotated[float, between(0, 1)] = 0.9
    """Nesterov momentum, constant."""
    weight_decay: Annotated[float | None, at_least(0)] = None
    """L2 penalty; of adamw, decay apart from the gradient."""
    decay_norms: bool = True
    """Decay norms and biases too."""
    clip_norm: Annotated[float | None, at_least(0)] = None
    """Longest that a gradient may be; 0 for any length."""
    layer_decay: Annotated[float, up_to(0, 1)] = 1.0
    """Learning rate of a layer by the next one's. The head's is the full one; a layer is a block, or what stands beside blocks, in the
    order of definition."""
    accumulation: Annotated[int, at_least(1)] = 1
    """Batches that a step takes the mean gradient of. At an epoch's end, those that are left; schedules count such steps."""
    label_smoothing: Annotated[float, from_to(0, 1)] = 0.0
    """Part of a target spread evenly over the classes. Whatever the method's loss is made of; a saliency map is that of the
    smoothed loss. What is measured is not smoothed."""
    ema: Annotated[float | None, between(0, 1)] = None
    """Decay of an average of the weights, evaluated too. Such as 0.999, which a step keeps of it; top1_ema in metrics.jsonl and in
    result.json. It begins at the weights after the first step, and the statistics of batch norms are averaged alike."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """At a loss that is not finite. Steps left out are counted (nonfinite_steps in metrics.jsonl)."""


@dataclass(frozen=True)
class MixingConfig:
    """How images are mixed."""

    alpha: Annotated[float | None, above(0)] = None
    """lam ~ Beta(alpha, alpha); the method's own by default. Of rmix and rlmix that is 1, with an imagefolder 0.2; of comixup it is the
    Dirichlet prior."""
    num_patches: Annotated[tuple[int, ...] | None, at_least(1)] = None
    """Patches per side of the masks, one drawn a batch; 2 4. Whoever decides. The paper's agent had 8, as its map has."""
    num_top_k: Annotated[int, at_least(1)] = 10
    """How many top-k values, evenly from 0 to 0.99."""
    rule: Annotated[str, one_of("rlmix.mixing.core:RULES")] = "mix_top"
    """How patches are mixed (rlmix list rules). mix_top is R-Mix."""
    saliency_mode: Annotated[str | None, one_of("rlmix.maps.approximate:SALIENCY_MODES")] = None
    """exact or cheaper maps; by itself rmix has recycled. Read by the policies, by puzzlemix, and by comixup without its clean loss (rlmix
    list saliency_modes). R-Mix has exact maps too with an imagefolder, on a frozen classifier, and in a comparison with a policy that
    has them; docs/performance.md has what each mode costs in fidelity."""
    mix_until: Annotated[float, up_to(0, 1)] = 1.0
    """Part of the epochs that mix. The rest, at the end, trains on the images as they are, whoever decided before."""
    mixing_seed: Annotated[int | None, at_least(0)] = None
    """Seed of partners, lam and num_patches alone."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """A hyperparameter of the method's own. Such as --mixing.severity of augmix; docs/methods.md and rlmix list methods name them."""


@dataclass(frozen=True)
class EnvConfig:
    """What the agent sees, and what it is paid for."""

    reward: Annotated[str, one_of("rlmix.envs.rewards:REWARDS")] = "cosine"
    """What a mixture earns (rlmix list rewards). docs/rewards.md has reasons and sources."""
    action: Annotated[str, one_of("rlmix.mixing.actions:ACTIONS")] = "top_k"
    """What is chosen (rlmix list actions). top_k is the paper's: how much of an image is salient. top_k_mix may leave it unmixed,
    top_k_cut take a box of its partner instead; top_k_lam also chooses lam, top_k_patches the patches a side of the masks, top_k_partner
    who the partner is."""
    observation: Annotated[str | None, one_of("rlmix.envs.observations:OBSERVATIONS")] = None
    """paper or pair; rlmix train has pair. paper is its map and logits; pair also those of its two partners, lam,
    and the training's progress, for on what the paper's agent sees there is next to nothing to learn. An environment of one's own has the
    paper's by default."""
    credit: Annotated[str | None, one_of("rlmix.envs.credit:CREDITS")] = None
    """Who earns a reward, own, pair or batch. rlmix train pair. An image's choice also mixes the image it is the partner of: paid for
    their own alone, agents drift to Input Mix-up and lower everyone's reward; paid half for the other they raise it. An environment of
    one's own pays own by default."""
    diversity: Annotated[float, at_least(0)] = 0.0
    """Weight of a bonus for rare choices. Its mean is the entropy of the batch's choices, 1 where all are equally frequent."""


@dataclass(frozen=True)
class PPOConfig:
    """The agent's hyperparameters, after Andrychowicz et al. 2021, "What Matters for On-Policy Deep Actor-Critic Methods?"."""

    learning_rate: Annotated[float, above(0)] = 1e-3
    """Adam's, constant. Decay was of secondary importance in the study. With its "safe default", 0.0003, PPO here gained three fifths as
    much in as many steps (docs/study.md)."""
    passes: Annotated[int, above(0), also("n_epochs")] = 8
    """Passes over a rollout. Going over the data several times is what makes PPO sample-efficient."""
    minibatch_size: Annotated[int, above(0), also("batch_size")] = 500
    """Decisions a gradient step. 250 and 10 passes learned a little faster (docs/study.md), but made the update a tenth of an epoch."""
    gamma: Annotated[float, within(0, 1)] = 0.0
    """Discount. "Tune it per environment": a slot's next image is another one, so what comes later says nothing about this choice."""
    gae_lambda: Annotated[float, within(0, 1)] = 0.9
    """Of the advantage estimate. GAE with 0.9 did best."""
    clip_range: Annotated[float, above(0)] = 0.25
    """Of PPO's policy loss. The study's default; its value loss clipping hurts and is off."""
    entropy_coefficient: Annotated[float, at_least(0), also("ent_coef")] = 0.0
    """Weight of the policy's entropy. No regulariser helped in the study."""
    target_entropy: Annotated[float | None, from_to(0, 1)] = None
    """Keep the policy so random, as a part of chance. Then its entropy's weight is adapted after every update (Haarnoja et al. 2018), from
    entropy_coefficient on; a policy that must stay random cannot end at one value for everyone."""
    policy_layers: Annotated[tuple[int, ...], at_least(1)] = (64, 64)
    """Hidden tanh layers of the actor. They are apart from the critic's: separate networks did better. The last layer starts 100 times
    smaller."""
    value_layers: Annotated[tuple[int, ...], at_least(1)] = (64, 64)
    """Hidden tanh layers of the critic. "Use a wide value MLP" gained nothing here: 256 learned as 64 does, at twice the cost."""
    rollout_steps: Annotated[int | None, above(0), also("n_steps")] = None
    """Steps between two updates, at most. An epoch is cut into equal rollouts. Where not given, 10 for a decision an image (a batch of 100
    is 1,000 decisions then), and 1000 for the joint decision, which is one a step."""

    def check(self) -> None:
        """Raise ValueError where a value is out of range."""
        check_values(self, "agent.")


@dataclass(frozen=True)
class AgentConfig:
    """Who learns under rlmix."""

    algorithm: Annotated[str, one_of("rlmix.agents.algorithms:ALGORITHMS")] = "ppo"
    """ppo, a2c, dqn, bandit or epochs. The first three are Stable-Baselines3's; the bandit is a one-step policy gradient, epochs one over
    whole epochs, which the validation loss pays (--val-fraction)."""
    granularity: Literal["image", "batch"] = "image"
    """A decision an image, or one for the batch. The first is the vector environment, the second the paper's."""
    agent_device: Literal["cpu", "classifier"] = "cpu"
    """Where PPO sees, chooses and learns. With classifier a step does not wait for a GPU (docs/performance.md); ppo alone, with a
    decision an image, in one process."""
    ppo: PPOConfig = field(default_factory=PPOConfig)


@dataclass(frozen=True)
class DeviceConfig:
    """Where it runs."""

    name: str = "auto"
    """auto (cuda if there is one), cpu, cuda:1, mps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto (bfloat16 on CUDA), float32 or bfloat16."""
    devices: Annotated[int | None, at_least(1)] = None
    """Processes of this training on this machine. One a GPU, or several on the CPU; each takes its share of every batch."""
    nodes: Annotated[int, at_least(1)] = 1
    """Machines that run so many each. MASTER_ADDR and NODE_RANK must be set."""


@dataclass(frozen=True)
class RunConfig:
    """One run: its method, seed and folder."""

    method: Annotated[str, one_of("rlmix.agents.policies:POLICIES", "rlmix.mixing.registry:METHODS")] = "rlmix"
    """rlmix, rmix, vanilla, ... (rlmix list methods). Under rlmix an agent learns to choose; policy, constant and coin
    are others who decide."""
    top_k: Annotated[float | None, from_to(0, 1)] = None
    """The quantile of --method constant. 0 is plain Input Mix-up."""
    top_k_weights: Annotated[tuple[float, ...] | None, at_least(0)] = None
    """How likely --method mixture draws each top-k value. From the least to the greatest, such as 2 0 0 0 0 0 0 0 0 1."""
    policy: str | None = None
    """The run whose policy --method policy or shuffled takes. As it is, whatever classifier, data or batch size it was learned
    with. Or a zip of Stable-Baselines3 or sb3-contrib; or module:attribute, one's own: docs/extending.md."""
    seed: Annotated[int, at_least(0)] = Unseeded(0)
    """Seed of everything. Initial weights, data order, augmentation, mixing and policy have a generator each."""
    out: Path | None = None
    """The run's folder; runs/<data>-<model>-<method>-s<seed>."""
    overwrite: bool = False
    """Replace the run that --out holds."""
    dry_run: bool = False
    """Say what would be trained, and stop. Data and classifier are loaded, and nothing is written."""
    resume: Path | None = None
    """Go on with the run in this folder, with its options. Typed ones may change what the training does not depend on."""
    config: Path | None = None
    """Read options from this YAML file. Such as a run's config.yaml; typed ones win."""
    metrics: Annotated[tuple[str, ...], one_of("rlmix.evaluation.metrics:METRICS")] = ("ece", "fgsm_error")
    """Figures beside its top-1. Of the trained classifier (rlmix list metrics)."""
    log_every: Annotated[int, at_least(0)] = 10
    """Steps between points within an epoch, or 0. In TensorBoard: means over them of loss and reward, and the learning rate."""
    loggers: Annotated[tuple[str, ...], one_of("rlmix.experiments.loggers:LOGGERS")] = ()
    """Where else to log (rlmix list loggers). csv, wandb, mlflow, or module:attribute, one's own."""
    eval_every: Annotated[int, at_least(1)] = 1
    """Epochs between two measurements. Of test and validation images. The last epoch is always measured; --test-images makes one
    shorter. What is trained does not depend on it."""
    patience: Annotated[int | None, at_least(1)] = None
    """Measurements without a better validation top-1. The run stops after so many. With --val-fraction, or data that have a validation
    split; the schedule is that of the whole training."""
    picture_every: Annotated[int, at_least(0)] = 5
    """Epochs between two pictures in TensorBoard, or 0."""
    checkpoint_every: Annotated[int, at_least(0)] = 0
    """Steps between two checkpoints within an epoch, or 0. There is one where a run is stopped, and see --checkpoint-epochs."""
    checkpoint_epochs: Annotated[int, at_least(1)] = 1
    """Epochs between two checkpoints. There is always one of the last epoch, of a new best one, and where a run is stopped."""
    time_limit: Annotated[float | None, above(0)] = None
    """Minutes after which the run stops, with exit code 124. As by SIGTERM: a little less than what a job may take."""


NOT_SAVED = ("out", "overwrite", "dry_run", "resume", "config")
"""Where a run lies, and how it was begun, is no part of what it is."""


@dataclass(frozen=True)
class Config:
    """A training: what, on what, how, and who decides. Options at None take the data set's recipe.

    Example:
        >>> config = Config(optim=OptimConfig(epochs=6), run=RunConfig(seed=1))
        >>> config == Config.flat(epochs=6, seed=1)
        True
        >>> config.resolved().model.name
        'preactresnet18_w16'
    """

    FIRST: ClassVar = ("method", "data", "model", "epochs", "seed", "out")
    """Options that most people need first."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @classmethod
    def flat(cls, **options: Any) -> Self:
        """Compose one from the command's flat option names.

        Args:
            options: By option, underscores for dashes; ``agent={"gamma": 0.5}`` or ``**{"agent.gamma": 0.5}`` for those with a dot.

        Raises:
            ValueError: If there is no such option.
        """
        return changed(cls(), options)

    @classmethod
    def of(cls, command: Any, **options: Any) -> Self:
        """Compose one from the groups that a command's options hold.

        Args:
            command: A composed configuration with some of the groups.
            options: What it has not, by flat option.
        """
        groups = {entry.name: getattr(command, entry.name) for entry in fields(cls) if hasattr(command, entry.name)}
        kinds = get_type_hints(cls)
        return changed(cls(**{name: group for name, group in groups.items() if isinstance(group, kinds[name])}), options)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one from a YAML file of flat options, such as a run's config.yaml.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is no mapping, or holds an option that there is not, or not a value of its type.
        """
        options = read_yaml(Path(path))
        try:
            config = cls.from_mapping(updated(options) if is_run_config(options) else options)
            check_values(config)
            return config
        except ValueError as error:
            quoted = re.search(r"got '([\w.]+)'", str(error))
            named = str(error).partition(" must ")[0].removeprefix("option ")
            error.add_note(f"in {place_of(Path(path), quoted[1] if named == 'option' and quoted else named)}")
            raise

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Self:
        """Read one from plain values by flat option; errors as of :meth:`from_yaml`."""
        return read_flat(cls(), options)

    def changed(self, **options: Any) -> Self:
        """Give it with other values under flat option names, as of :meth:`flat`."""
        return changed(self, options)

    @property
    def recipe(self) -> Recipe:
        """The data set's recipe, with what is set here in its place."""
        known, recipe = options_of(Config), data_recipe(settled_data(self.data.name))
        own = {entry.name: known[entry.name].of(self) for entry in fields(Recipe)}
        return Recipe(**{name: getattr(recipe, name) if value is None else value for name, value in own.items()})

    @property
    def policy_alpha(self) -> float:
        """Of lam where a policy mixes: as given, or the paper's for R-Mix, 0.2 on ImageNet and 1 on CIFAR."""
        if self.mixing.alpha is not None:
            return self.mixing.alpha
        return 0.2 if self.on_folder else 1.0

    @property
    def mask_patches(self) -> tuple[int, ...]:
        """Patches per side of the masks."""
        return MASK_PATCHES if self.mixing.num_patches is None else self.mixing.num_patches

    @property
    def map_source(self) -> str:
        """Where saliency maps come from: exact ones unless something else is named."""
        return self.mixing.saliency_mode or "exact"

    @property
    def on_folder(self) -> bool:
        """Whether the images lie in an imagefolder."""
        return settled_data(self.data.name).startswith("imagefolder:")

    @property
    def test_resize(self) -> int:
        """Pixels of the shorter side of an imagefolder's test images."""
        given = self.data.resize_size
        return given if given is not None else round((self.recipe.image_size or 0) * 256 / 224)

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        kind, _, path = self.data.name.partition(":")
        data = Path(path).stem if path else kind
        run = self.run
        return run.out or Path("runs") / f"{data}-{self.model.name}-{run.method}-s{run.seed}"

    def resolved(self) -> Self:
        """Give it with the data set's recipe in place of every None, and the data of the run ``freeze_from`` where none are named.

        Raises:
            ValueError: If a value is out of range, naming the value and what is allowed, or ``model`` is not the frozen one.
            FileNotFoundError: If ``freeze_from`` is no run's folder.
        """
        config = followed(self)
        check_values(config)
        settled = {"data": settled_data(config.data.name), "seed": int(config.run.seed)}
        config = config.changed(**settled, **vars(config.recipe))
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError where two values do not go together."""
        data, optim = self.data, self.optim
        if optim.accumulation > 1 and optim.on_nonfinite == "skip":
            raise ValueError(
                f"accumulation must be 1 with on_nonfinite skip, for no batch can be taken out of a sum again, got {optim.accumulation}"
            )
        if self.model.freeze_from is not None and (self.model.weights is not None or self.model.freeze_backbone):
            name = "freeze_backbone" if self.model.weights is None else "weights"
            raise ValueError(f"{name} must be left out with freeze_from, whose classifier is taken as it is")
        if self.model.freeze_backbone and optim.layer_decay < 1:
            raise ValueError(
                f"layer_decay must be left out with freeze_backbone, which trains one layer, got {optim.layer_decay}"
            )
        self._check_agent_device()
        if self.on_folder:
            if data.relabel:
                raise ValueError("relabel must be left out with an imagefolder, whose classes are its folders")
            if data.crop_padding:
                raise ValueError(
                    f"crop_padding must be 0 with an imagefolder, which is cropped and resized, got {data.crop_padding}"
                )
            if self.test_resize < (data.image_size or 0):
                raise ValueError(f"resize_size must be at least image_size {data.image_size}, got {data.resize_size}")
        elif data.resize_size is not None or (data.image_size is not None and not is_brought(data.name)):
            raise ValueError(f"image_size and resize_size must be left out with {data.name}, whose images have their own")
        if data.keys is not None and len(data.keys) not in (2, 4, 6):
            raise ValueError(f"keys must be 2, 4 or 6 names, images and labels of a split each, got {' '.join(data.keys)}")
        if data.splits is not None and not 1 <= len(set(data.splits)) == len(data.splits) <= 3:
            raise ValueError(f"splits must be 1 to 3 different names, of training, test and validation, got {data.splits}")
        if data.value_range is not None and not (len(data.value_range) == 2 and data.value_range[0] < data.value_range[1]):
            raise ValueError(f"value_range must be two numbers, the lower one first, got {data.value_range}")

    def _check_agent_device(self) -> None:
        agent, devices = self.agent, self.device.devices
        several = devices not in (None, 1) or self.device.nodes > 1
        needs = "algorithm ppo" if agent.algorithm != "ppo" else "granularity image" if agent.granularity != "image" else ""
        needs = needs or ("one process" if several else "")
        if agent.agent_device != "cpu" and needs:
            raise ValueError(f"agent_device must be cpu without {needs}, got {agent.agent_device}")

    def as_dict(self) -> dict[str, Any]:
        """Give plain values by flat option, for YAML and checkpoints."""
        values = to_flat(self)
        values["seed"] = int(self.run.seed)
        return {name: value for name, value in values.items() if name not in NOT_SAVED}


Composed = TypeVar("Composed")
_FOLLOWED = (
    *("data_root", "train_images", "test_images", "val_fraction", "image_size", "resize_size", "skip_corrupt", "relabel"),
    *("image_fit", "keys", "splits", "value_range"),
)
"""What settles, beside the data's name, which images and labels there are."""


def followed(config: Composed) -> Composed:
    """``config`` with the model, and where no data are named the data, of the run that its ``freeze_from`` names.

    Where data are named, the other options are taken to be meant for these.

    Args:
        config: A configuration with the groups ``data`` and ``model``.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If ``config`` names another model, or the run's config.yaml holds other than an option's values.
    """
    known = options_of(type(config))
    folder, given = (known[name].of(config) if name in known else None for name in ("freeze_from", "model"))
    if folder is None:
        return config
    saved = read_config(Path(folder))

    def read(name: str) -> Any:
        return checked(saved.get(name), known[name].type, f"{name} in {folder}/config.yaml")

    model = read("model")
    if None not in (model, given) and given != model:
        raise ValueError(f"model must be that of freeze_from {folder}, which is {model}, or be left out, got {given}")
    taken: dict[str, Any] = {"model": given or model}
    if known["data"].of(config) == AUTO:
        wanted = [name for name in _FOLLOWED if name in saved and known[name].of(config) == known[name].default]
        taken |= {name: read(name) for name in ("data", *wanted) if name in saved}
    return changed(config, taken)
