"""Fixtures; and while the tests run, shapes and types of the core are checked at every call."""

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: a second thread costs more than it gives
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: two spinning threads on two busy cores wait for each other
os.environ["PYTHONPATH"] = "{0}{1}{0}/tests/support".format(
    Path(__file__).parents[1], os.pathsep
)  # what tests start is of this checkout

import lightning_fabric  # noqa: F401  (these before the hook: what is first imported within a module that it checks is compiled anew)
import matplotlib.pyplot  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import stable_baselines3  # noqa: F401
import sympy  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
import torchvision  # noqa: F401
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

CHECKED = (
    "agents.search",
    "data.augmentation",
    "data.boxes",
    "envs.classifier_rewards",
    "envs.difficulty_rewards",
    "envs.map_rewards",
    "envs.credit",
    "envs.render",
)
CHECKED += ("evaluation", "maps", "mixing", "models")
install_import_hook([f"rlmix.{name}" for name in CHECKED], "beartype.beartype")

from toys import DIGITS  # noqa: E402

import rlmix  # noqa: E402
from rlmix.common.registry import Entry  # noqa: E402

for name, handler in (("SIGHUP", signal.SIG_DFL), ("SIGQUIT", signal.SIG_DFL), ("SIGINT", signal.default_int_handler)):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)  # under nohup and behind a shell's & they are ignored, by what the tests start too


WHOLE_RUNS = ("agents", "benchmarking", "clients", "experiments", "promises", "reporting", "training")


@pytest.fixture(scope="module", autouse=True)
def checks_of_shapes(request):
    """Whole runs call the core thousands of times over: its shapes are checked in the tests of its own."""
    jaxtyping_config.update("jaxtyping_disable", request.path.parent.name in WHOLE_RUNS)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_config() -> rlmix.Config:
    """Two epochs of four steps on 64 digits: a second or two."""
    return rlmix.Config.flat(**DIGITS | {"device": "auto"})


@pytest.fixture
def register(monkeypatch):
    """Registers a member of a family for one test: ``register(MODELS, "tiny", make_tiny)``."""

    def add(registry, name, thing, **traits):
        entries = {entry.name: entry for entry in registry.entries()}
        known = entries.get(name)
        reads = known.reads if known is not None else ()
        entries[name] = Entry(name, thing, "Of a test.", reads, traits or (known.traits if known is not None else {}))
        monkeypatch.setattr(registry, "_entries", entries)

    return add


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory, tiny):
    """A folder of a finished run for each of the module's METHODS, made when first asked for; ``tiny`` are its other options."""
    from rlmix.scripts import train as command

    root, made = tmp_path_factory.mktemp("runs"), set()

    def folder(name):
        if name not in made:
            made.add(name)
            command.main([*tiny, *request.module.METHODS[name], "--out", str(root / name)])
        return root / name

    return folder
