"""What has the members of a protocol, of its own or handed on, on every version of Python."""

from types import SimpleNamespace

import numpy as np
import pytest

from rlmix.common.members import has_members
from rlmix.data.dataset import Dataset
from rlmix.data.memory import image_data
from rlmix.mixing.input_mixup import InputMixup
from rlmix.mixing.objective import Guided, is_guided
from rlmix.mixing.puzzlemix import PuzzleMix
from rlmix.reporting.bar import Bar, Watched


class Handing:
    """Hands on everything that ``inner`` has."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __call__(self, *args, **options):
        return self._inner(*args, **options)


@pytest.fixture
def data():
    images, labels = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 2
    return image_data(images, labels, images, labels, source="zeros")


def test_members_are_a_things_own_or_handed_on(data):
    assert has_members(data, Dataset)
    assert has_members(Handing(data), Dataset)
    assert not has_members((data, data), Dataset)


def test_one_that_is_missing_is_enough():
    names = [name for name in vars(Dataset) if not name.startswith("_")]
    assert {"num_classes", "train_batches", "checksum"} <= set(names)
    whole = dict.fromkeys(names, 0)
    assert has_members(SimpleNamespace(**whole), Dataset)
    for name in names:
        assert not has_members(SimpleNamespace(**{other: 0 for other in names if other != name}), Dataset)


def test_a_method_takes_maps_through_a_wrapper_too():
    assert is_guided(PuzzleMix())
    assert is_guided(Handing(PuzzleMix()))
    assert not is_guided(InputMixup())
    assert not is_guided(Handing(SimpleNamespace(takes_maps=False, mix_by=None)))
    assert not has_members(InputMixup(), Guided)


def test_a_watched_data_set_is_one_to_whoever_asks(data):
    assert isinstance(Watched(data, Bar("", 6, quiet=True)), Dataset)
