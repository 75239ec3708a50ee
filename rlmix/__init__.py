"""rlmix: a reinforcement-learning environment and agent toolkit for learned mix-up."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlmix.agents.transform import RLMix as RLMix
    from rlmix.config import Config as Config
    from rlmix.envs.making import make_env as make_env
    from rlmix.envs.making import make_vec_env as make_vec_env
    from rlmix.experiments.callbacks import Callback as Callback
    from rlmix.experiments.commands.compare import Compare as Compare
    from rlmix.experiments.commands.evaluate import Evaluate as Evaluate
    from rlmix.experiments.compare import compare as compare
    from rlmix.experiments.evaluate import evaluate as evaluate
    from rlmix.experiments.families import FAMILIES as FAMILIES
    from rlmix.experiments.result import Result as Result
    from rlmix.experiments.saved_run import load_model as load_model
    from rlmix.experiments.saved_run import load_policy as load_policy
    from rlmix.experiments.saved_run import load_run as load_run
    from rlmix.experiments.train import train as train
    from rlmix.maps.gradient import Saliency as Saliency
    from rlmix.maps.gradient import patch_saliency as patch_saliency
    from rlmix.maps.gradient import saliency as saliency
    from rlmix.maps.gradient import salient_mask as salient_mask
    from rlmix.maps.recycled import RecycledMaps as RecycledMaps
    from rlmix.mixing.core import Mixed as Mixed
    from rlmix.mixing.core import mix as mix
    from rlmix.mixing.mixer import mixer as mixer
    from rlmix.mixing.rmix import RMix as RMix
    from rlmix.option_groups import AgentConfig as AgentConfig
    from rlmix.option_groups import DataConfig as DataConfig
    from rlmix.option_groups import DeviceConfig as DeviceConfig
    from rlmix.option_groups import EnvConfig as EnvConfig
    from rlmix.option_groups import MixingConfig as MixingConfig
    from rlmix.option_groups import ModelConfig as ModelConfig
    from rlmix.option_groups import OptimConfig as OptimConfig
    from rlmix.option_groups import PPOConfig as PPOConfig
    from rlmix.option_groups import RunConfig as RunConfig

__version__ = "0.1.0"

_HOME = {
    # what is trained, and how: groups of options
    "AgentConfig": "rlmix.option_groups",
    "Config": "rlmix.config",
    "DataConfig": "rlmix.option_groups",
    "DeviceConfig": "rlmix.option_groups",
    "EnvConfig": "rlmix.option_groups",
    "MixingConfig": "rlmix.option_groups",
    "ModelConfig": "rlmix.option_groups",
    "OptimConfig": "rlmix.option_groups",
    "PPOConfig": "rlmix.option_groups",
    "RunConfig": "rlmix.option_groups",
    # what the commands do
    "Callback": "rlmix.experiments.callbacks",
    "Compare": "rlmix.experiments.commands.compare",
    "compare": "rlmix.experiments.compare",
    "Evaluate": "rlmix.experiments.commands.evaluate",
    "evaluate": "rlmix.experiments.evaluate",
    "Result": "rlmix.experiments.result",
    "train": "rlmix.experiments.train",
    # what a run has left
    "load_model": "rlmix.experiments.saved_run",
    "load_policy": "rlmix.experiments.saved_run",
    "load_run": "rlmix.experiments.saved_run",
    # the environment
    "make_env": "rlmix.envs.making",
    "make_vec_env": "rlmix.envs.making",
    # mixing in a loop of one's own
    "RLMix": "rlmix.agents.transform",
    "Mixed": "rlmix.mixing.core",
    "RecycledMaps": "rlmix.maps.recycled",
    "RMix": "rlmix.mixing.rmix",
    "mix": "rlmix.mixing.core",
    "mixer": "rlmix.mixing.mixer",
    "Saliency": "rlmix.maps.gradient",
    "patch_saliency": "rlmix.maps.gradient",
    "salient_mask": "rlmix.maps.gradient",
    "saliency": "rlmix.maps.gradient",
    # what there is of every kind, and where another is registered
    "FAMILIES": "rlmix.experiments.families",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import torch with the first use of the core, so that ``rlmix --help`` need not wait for it."""
    if name not in _HOME:
        raise AttributeError(f"module 'rlmix' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
