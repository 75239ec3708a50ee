"""Mix-up methods by name. Each follows :class:`rlmix.mixing.objective.Method` and is usable alone in any training loop."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from rlmix.common.names import check_name
from rlmix.common.seeding import derive
from rlmix.config import TrainingConfig
from rlmix.data.dataset import Source
from rlmix.mixing.alignmix import AlignMix
from rlmix.mixing.augmix import AugMix
from rlmix.mixing.automix import AutoMix
from rlmix.mixing.comixup import CoMixup
from rlmix.mixing.cutmix import CutMix
from rlmix.mixing.cutout import Cutout
from rlmix.mixing.input_mixup import InputMixup
from rlmix.mixing.manifold_mixup import ManifoldMixup
from rlmix.mixing.objective import Method
from rlmix.mixing.puzzlemix import PuzzleMix
from rlmix.mixing.saliencymix import SaliencyMix
from rlmix.mixing.vanilla import Vanilla


class Setting(NamedTuple):
    """What a method may need to know to be built for a training."""

    model: nn.Module
    image_size: tuple[int, int]
    mean: Float[Tensor, " channel"]
    """By which the images are normalised; in [0, 1]."""
    std: Float[Tensor, " channel"]
    data: str
    """Kind of data set: digits, cifar10, cifar100, fashion_mnist, npz, imagefolder."""
    num_steps: int
    """Of the whole training."""
    alpha: float | None
    """Of the method's Beta or Dirichlet distribution; its own default where None."""
    seed: int
    """Of the method's own parameters."""

    def alpha_or(self, default: float) -> float:
        """The alpha given, or the method's own."""
        return default if self.alpha is None else self.alpha


METHODS: dict[str, Callable[[Setting], Method]] = {
    "vanilla": lambda setting: Vanilla(),
    "input_mixup": lambda setting: InputMixup(setting.alpha_or(1.0)),
    "manifold_mixup": lambda setting: ManifoldMixup(setting.alpha_or(2.0)),
    "cutout": lambda setting: Cutout(16 if setting.data == "cifar10" else max(1, setting.image_size[1] // 4)),
    "cutmix": lambda setting: CutMix(setting.alpha_or(1.0), probability=1.0 if setting.data == "imagefolder" else 0.5),
    "saliencymix": lambda setting: SaliencyMix(setting.alpha_or(1.0)),
    "puzzlemix": lambda setting: PuzzleMix(
        _dividing("puzzlemix", (2, 4, 8, 16), setting.image_size), alpha=setting.alpha_or(1.0)
    ),
    "comixup": lambda setting: CoMixup(
        num_patches=max(_dividing("comixup", (2, 4), setting.image_size)), alpha=setting.alpha_or(2.0)
    ),
    "automix": lambda setting: AutoMix(
        setting.model, setting.num_steps, setting.image_size, alpha=setting.alpha_or(2.0), seed=setting.seed
    ),
    "alignmix": lambda setting: AlignMix(setting.alpha_or(2.0)),
    "augmix": lambda setting: AugMix(setting.mean, setting.std, alpha=setting.alpha_or(1.0)),
}
"""Builders of the methods that need no environment; R-Mix and RL-Mix are policies in :mod:`rlmix.envs`."""


def _dividing(method: str, candidates: tuple[int, ...], image_size: tuple[int, int]) -> tuple[int, ...]:
    """Patch counts that divide the image's height and width."""
    dividing = tuple(patches for patches in candidates if not any(side % patches for side in image_size))
    if not dividing:
        height, width = image_size
        raise ValueError(f"images must have sides that one of {candidates} divides under {method}, got {height}x{width}")
    return dividing


def build_method(name: str, config: TrainingConfig, model: nn.Module, data: Source, num_steps: int) -> Method:
    """The method called ``name`` for a training; ValueError for an unknown one."""
    check_name("method", name, METHODS)
    kind, seed = config.data.partition(":")[0], derive(config.seed, "method")
    return METHODS[name](Setting(model, data.image_size, data.mean, data.std, kind, num_steps, config.alpha, seed))
