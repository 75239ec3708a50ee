"""The family of data sets: what ``--data`` names, and how it is loaded. A recipe of its own lies in :mod:`rlmix.recipes`."""

from collections.abc import Callable

from rlmix.common.registry import Registry
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.recipes import data_recipe, is_own, settled_data

DATA: Registry[Callable[[str, Config], Dataset]] = Registry(
    "data", homes=("rlmix.data.memory", "rlmix.data.npz", "rlmix.data.folder", "rlmix.data.hugging_face", "rlmix.data.own")
)
"""Loaders of what stands behind the colon of ``kind:PATH``, which is empty where there is none; ``own`` of ``module:function``."""


def load_data(config: Config) -> Dataset:
    """The data set a configuration names: in the host's memory, or a folder that is decoded as it is read.

    Raises:
        ValueError: If there is no such kind, or it is malformed, or smaller than one batch.
        OSError: If it is not there.
    """
    name = settled_data(config.data.name)
    data_recipe(name)
    kind, _, path = name.partition(":")
    return DATA["own"](name, config) if is_own(name) else DATA[kind](path, config)
