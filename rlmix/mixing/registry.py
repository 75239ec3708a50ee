"""The family of mix-up methods. Each follows :class:`rlmix.mixing.objective.Method` and is usable alone in any training loop."""

import inspect
from typing import Any, NamedTuple, get_type_hints

from jaxtyping import Float
from torch import Tensor, nn

from rlmix.common.mapping import checked
from rlmix.common.names import check_name
from rlmix.common.registry import Registry
from rlmix.common.seeding import derive
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.mixing.objective import Method

METHODS: Registry[type[Method]] = Registry(
    "method",
    homes=tuple(
        f"rlmix.mixing.{name}"
        for name in (
            *("vanilla", "input_mixup", "manifold_mixup", "cutout", "cutmix", "saliencymix"),
            *("puzzlemix", "comixup", "automix", "alignmix", "augmix"),
        )
    ),
)
"""Classes, whose arguments are the methods' hyperparameters. R-Mix and RL-Mix are policies in :mod:`rlmix.envs`, and in a loop of one's own
:class:`rlmix.RMix`."""


class Setting(NamedTuple):
    """What a method's ``for_training`` may need to know: it builds the method with what the data and the training settle."""

    model: nn.Module
    image_size: tuple[int, int]
    mean: Float[Tensor, " channel"]
    """By which the images are normalised; in [0, 1]."""
    std: Float[Tensor, " channel"]
    data: str
    """Kind of data set: digits, cifar10, cifar100, fashion_mnist, npz, imagefolder."""
    num_steps: int
    """Of the whole training."""
    seed: int
    """Of the method's own parameters."""


_SETTLED = ("self", "model", "num_steps", "image_size", "mean", "std", "seed")
"""Arguments that a training knows, and no hyperparameters."""


def dividing(method: str, candidates: tuple[int, ...], image_size: tuple[int, int]) -> tuple[int, ...]:
    """Patch counts that divide the image's height and width; ValueError where none does."""
    found = tuple(patches for patches in candidates if not any(side % patches for side in image_size))
    if not found:
        height, width = image_size
        raise ValueError(f"images must have sides that one of {candidates} divides under {method}, got {height}x{width}")
    return found


def hyperparameters(name: str) -> dict[str, inspect.Parameter]:
    """The hyperparameters of the method called ``name``: their types and defaults; ValueError where there is no such method."""
    known: Any = METHODS[name]
    if not callable(known):
        raise ValueError(f"method {name} must be a class or a function, got {type(known).__name__}")
    hints = get_type_hints(vars(known).get("__init__", known) if inspect.isclass(known) else known)
    found = inspect.signature(known).parameters.items()
    return {name: parameter.replace(annotation=hints.get(name, Any)) for name, parameter in found if name not in _SETTLED}


def read_hyperparameters(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Those given, as their types have them.

    Args:
        name: The method's.
        given: Plain values by name.

    Raises:
        ValueError: If the method has no such hyperparameter, or a value is none of its type.
    """
    known = hyperparameters(name)
    own = [key for key in known if key != "alpha"]
    for key in given:
        if not own:
            raise ValueError(
                f"mixing.{key} must be left out with method {name}, which has no hyperparameters: it would do nothing"
            )
        check_name(f"the hyperparameter mixing.NAME of method {name}", key, own)
    return {key: checked(value, known[key].annotation, f"mixing.{key}") for key, value in given.items()}


def build_method(name: str, config: Config, model: nn.Module, data: Dataset, num_steps: int) -> Method:
    """The method called ``name`` for a training, with the configuration's hyperparameters.

    Raises:
        ValueError: If there is no such method, it has not these hyperparameters, or does not fit the data.
    """
    given = read_hyperparameters(name, dict(config.mixing.hyperparameters)) if config.run.method == name else {}
    if config.mixing.alpha is not None and "alpha" in hyperparameters(name):
        given["alpha"] = config.mixing.alpha
    kind, seed = config.data.name.partition(":")[0], derive(config.run.seed, "method")
    setting = Setting(model, data.image_size, data.mean, data.std, kind, num_steps, seed)
    known: Any = METHODS[name]
    built: Method = known.for_training(setting, **given) if hasattr(known, "for_training") else known(**given)
    return built
