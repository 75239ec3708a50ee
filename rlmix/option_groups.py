"""What can be set: frozen groups of options, each with its range, default and help. Imports no torch.

A field's text is its help, its first sentence what ``--help`` shows; its annotation says what it may hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from rlmix.common.groups import check_values
from rlmix.common.ranges import above, also, at_least, between, from_to, one_of, up_to, within
from rlmix.recipes import AUTO

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
    """Go on with the run in this folder, with its options. Typed ones may change what the training does not depend on, and --epochs
    where it would have been the same so far: docs/reliability.md."""
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
