"""What a data set settles unless told otherwise. Imports no torch."""

from dataclasses import dataclass
from importlib.util import find_spec

from rlmix.common.names import check_name

AUTO = "auto"
GIVEN = "given"
"""Name of data, and of a network, that Python gives."""


@dataclass(frozen=True)
class Recipe:
    """What a data set settles unless told otherwise; the fields are flat options of :class:`rlmix.config.Config`."""

    model: str = "preactresnet18"
    epochs: int = 300
    batch_size: int = 100
    schedule: str = "onecycle"
    learning_rate: float = 0.3
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    flip: bool = True
    crop_padding: int = 2
    image_size: int | None = None


# The defaults are the paper's CIFAR recipe. It gives the final rate both as 3e-5 and as final_div_factor 10000, which torch would
# apply to the initial rate (3e-7); --final-learning-rate takes the 3e-5.
RECIPES = {
    "digits": Recipe(model="preactresnet18_w16", epochs=15, batch_size=32, learning_rate=0.05, flip=False),
    "cifar10": Recipe(),
    "cifar100": Recipe(),
    "fashion_mnist": Recipe(model="preactresnet18_w16", epochs=30),
    # Whatever someone brings: few images, few epochs. At 0.3, reached within a few steps, the residual networks diverge in a training of
    # tens of steps, and ResNeXt at 0.05 too unless a step's length has a bound (docs/reliability.md).
    "npz": (BROUGHT := Recipe(learning_rate=0.05, clip_norm=1.0)),
    "hf": BROUGHT,
    GIVEN: BROUGHT,
    # ImageNet: ResNet-50 for 100 epochs is the paper's. The rest is assumed to be as in the code of CutMix, where its baselines come
    # from: batch 256, rate 0.1, a tenth every 30 epochs, weight decay 1e-4, crops of 224. The bound on a step's length is ours: a folder
    # may be anything, and without it torchvision's networks diverge on few images.
    "imagefolder": Recipe(
        model="resnet50",
        epochs=100,
        batch_size=256,
        schedule="multistep",
        learning_rate=0.1,
        clip_norm=1.0,
        milestones=(0.3, 0.6, 0.9),
        crop_padding=0,
        image_size=224,
    ),
}


ON_PATH = ("npz", "hf", "imagefolder")
"""Kinds of data that lie at a path: ``npz:PATH``."""
DATA = (*(f"{kind}:PATH" if kind in ON_PATH else kind for kind in RECIPES), "module:function")
"""What ``--data`` takes, as errors say it."""


def settled_data(data: str) -> str:
    """``data``, and digits in place of auto."""
    return "digits" if data == AUTO else data


def data_recipe(data: str) -> Recipe:
    """The recipe of a data set; that of an npz for ``module:function``; ValueError for an unknown one."""
    kind, _, path = data.partition(":")
    if is_own(data):
        return BROUGHT
    if kind not in RECIPES or (kind in ON_PATH) != bool(path):
        check_name("data", data, DATA)
        raise ValueError(f"data must be one of {', '.join(DATA)} with a path for PATH, got {data!r}")
    return RECIPES[kind]


def is_own(data: str) -> bool:
    """Whether ``data`` is ``module:function``, of a module that is there."""
    module, _, function = data.partition(":")
    if not function or module in RECIPES or not all(part.isidentifier() for part in module.split(".")):
        return False
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def is_brought(data: str) -> bool:
    """Whether ``data`` are somebody's own arrays or data sets, whose images may have any size."""
    return data.partition(":")[0] in ("npz", "hf", GIVEN) or is_own(data)
