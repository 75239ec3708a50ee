"""Help, lists and refusals come before torch is imported; what they say is what the imported registries say."""

import inspect
import subprocess
import sys

import pytest
import torchvision

from rlmix.common import catalogue
from rlmix.experiments.families import FAMILIES, PLACES, hyperparameter_defaults
from rlmix.mixing.registry import METHODS, hyperparameters
from rlmix.scripts.main import COMMANDS

LATE = ("torch", "numpy", "scipy", "matplotlib", "gymnasium")
"""What takes long to import."""
PROBE = f"""
import sys
from rlmix.scripts.main import main
for line in sys.stdin.read().splitlines():
    try:
        main(line.split())
    except SystemExit as stop:
        print(line, stop.code, sorted(set({LATE}) & set(sys.modules)), file=sys.stderr)
"""
REFUSED = {
    "train --epohcs 3": "--epochs",
    "train --method vanila": "vanilla",
    "train --model preactresnet18_w6": "preactresnet18_w16",
    "train --model resnet5": "resnet50",
    "train --data digit": "digits",
    "train --reward cosin": "cosine",
    "train --optimizer sdg": "sgd",
    "train --epochs three": "three",
    "train --epochs 0": "at least 1",
    "train --method vanilla --credit own": "no agent learns",
    "train --method cutmix --mixing.severity 3": "which has probability",
    "compare --methods rlmix rmx": "rmix",
    "compare --methods rlmix --seeds 0 0": "differ",
    "evaluate": "SOURCE must be given",
    "reproduce table99": "table9",
    "policies --rewrd cosine": "--reward",
    "visualize --num-image 3": "--num-images",
    "benchmark --round 3": "--rounds",
    "benchmark --suite gpu --rounds 3": "must be left out with --suite",
    "fidelity --evry 3": "--every",
    "export": "run",
    "list method": "methods",
}


def probe(lines):
    done = subprocess.run([sys.executable, "-c", PROBE], input="\n".join(lines), capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_help_imports_nothing_that_takes_long():
    lines = [f"{command} --help" for command in COMMANDS]
    assert probe(lines) == [f"{line} 0 []" for line in lines]


def test_what_is_refused_is_refused_without_torch():
    said = probe(REFUSED)
    for (line, words), error, outcome in zip(REFUSED.items(), said[::2], said[1::2], strict=True):
        assert error.startswith("rlmix: error: "), error
        assert words in error, error
        assert outcome == f"{line} 2 []"


@pytest.mark.parametrize("family", PLACES)
def test_what_is_read_of_the_source_is_what_is_registered(family):
    module, _, registry = PLACES[family].partition(":")
    read = catalogue._read(module, registry)
    own = ("toy_package", "test_", "conftest")
    shipped = [entry for entry in FAMILIES[family].entries() if not getattr(entry.thing, "__module__", "").startswith(own)]
    assert len(shipped) == len(read) > 0
    for card, entry in zip(read.values(), shipped, strict=True):
        assert (card.name, card.doc, card.reads, card.traits) == (entry.name, entry.doc, entry.reads, entry.traits)


def test_hyperparameters_are_those_of_the_classes():
    cards = catalogue._read("rlmix.mixing.registry", "METHODS")
    settled = catalogue.constant("rlmix.mixing.registry:_SETTLED")
    for name, card in cards.items():
        expected = {
            key: None if parameter.default is inspect.Parameter.empty else parameter.default
            for key, parameter in hyperparameters(name).items()
        }
        assert {key: value for key, value in card.arguments.items() if key not in settled} == expected
        assert list(hyperparameter_defaults(name)) == list(expected)
    assert len(cards) == len(METHODS)


def test_torchvisions_names_are_torchvisions():
    assert [*catalogue.torchvision_names()] == torchvision.models.list_models(module=torchvision.models)
