"""What has the members of a protocol, of its own or handed on, on every version of Python."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import rlmix
from rlmix.common.members import has_members
from rlmix.data.dataset import Dataset
from rlmix.data.memory import image_data
from rlmix.mixing.input_mixup import InputMixup
from rlmix.mixing.objective import Guided, is_guided
from rlmix.mixing.puzzlemix import PuzzleMix
from rlmix.reporting.bar import Bar, Watched

ROOT = Path(rlmix.__file__).parents[1]
SOURCES = [path for folder in ("rlmix", "envs", "agents", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


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


def test_nobody_asks_isinstance_of_a_protocol():
    """It would say no of what is handed on, on Python 3.12 and newer alone."""
    trees = [ast.parse(path.read_text()) for path in SOURCES]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    protocols = {node.name for node in nodes if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)}
    assert {"Dataset", "Method", "Guided", "Agent"} <= protocols
    asked = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass")]
    assert len(asked) > 100
    assert not [
        ast.unparse(call)
        for call in asked
        if protocols & {name.id for name in ast.walk(call.args[1]) if isinstance(name, ast.Name)}
    ]
