"""rlmix: a reinforcement-learning environment and agent toolkit for learned mix-up."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlmix.config import TrainingConfig
    from rlmix.maps.gradient import Saliency, patch_saliency, saliency, salient_mask
    from rlmix.mixing.core import Mixed, RMix, mix

__version__ = "0.1.0"
__all__ = ["Mixed", "RMix", "Saliency", "TrainingConfig", "mix", "patch_saliency", "saliency", "salient_mask"]

_HOME = {"TrainingConfig": "rlmix.config"}
_HOME |= dict.fromkeys(("Mixed", "RMix", "mix"), "rlmix.mixing.core")
_HOME |= dict.fromkeys(("Saliency", "patch_saliency", "salient_mask", "saliency"), "rlmix.maps.gradient")


def __getattr__(name: str) -> Any:
    """Import torch with the first use of the core, so that ``rlmix --help`` need not wait for it."""
    if name not in _HOME:
        raise AttributeError(f"module 'rlmix' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
