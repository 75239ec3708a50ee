"""What is packaged, who imports whom, and what importing does."""

import ast
import os
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAPPED = ("envs", "agents", "scripts")
FOLDERS = ("rlmix", *MAPPED)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run(code: str) -> subprocess.CompletedProcess:
    """In a fresh interpreter, away from the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    arguments = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(arguments, capture_output=True, text=True, cwd="/", env=environment, timeout=120, check=False)


def test_packages_are_the_folders_that_hold_an_init_file():
    with open(ROOT / "pyproject.toml", "rb") as handle:
        setuptools = tomllib.load(handle)["tool"]["setuptools"]
    found = set()
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            found.add(name if folder == "rlmix" else f"rlmix.{name}")
    assert sorted(setuptools["packages"]) == sorted(found)
    mapping = setuptools["package-dir"]
    for package in setuptools["packages"]:
        top = package.split(".")[1] if "." in package else ""
        if top in MAPPED:  # setuptools takes subpackages from their parent's folder
            assert mapping[f"rlmix.{top}"] == top
        else:
            assert package not in mapping


def test_every_folder_with_code_is_a_package():
    for path in sources(*FOLDERS):
        assert (path.parent / "__init__.py").is_file(), path


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_nobody_imports_a_second_copy():
    for path in sources(*FOLDERS, "tests"):
        for name in imports(path):
            assert name.split(".")[0] not in MAPPED, f"{path} imports {name}"


def test_scripts_are_not_named_like_what_is_imported():
    """python scripts/train.py puts scripts/ first on the path."""
    imported = {name.split(".")[0] for path in sources(*FOLDERS) for name in imports(path)} - {"rlmix"}
    names = {path.stem for path in sources("scripts")}
    assert not names & imported
    assert not names & set(sys.stdlib_module_names)


def test_importing_rlmix_prints_nothing_and_waits_for_torch():
    result = run("""
        import sys
        import rlmix, rlmix.config, rlmix.common.names
        rlmix.Config.flat(data="digits").resolved()
        assert "torch" not in sys.modules, "torch imported"
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_core_is_callable_whichever_name_comes_first():
    """rlmix.saliency is a function; a submodule of that name would take its place."""
    result = run("""
        import importlib, sys
        for first in ("saliency", "mix", "RMix", "train"):
            for name in [name for name in sys.modules if name.partition(".")[0] == "rlmix"]:
                del sys.modules[name]
            rlmix = importlib.import_module("rlmix")
            getattr(rlmix, first)
            wrong = [name for name in rlmix.__all__ if type(getattr(rlmix, name)).__name__ == "module"]
            assert not wrong, f"after rlmix.{first}: {wrong}"
        import rlmix.mixing.core, rlmix.models
        assert callable(rlmix.saliency), "after import rlmix.mixing.core"
    """)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


def test_unknown_attributes_are_attribute_errors():
    import rlmix

    with pytest.raises(AttributeError, match="'rlmix' has no attribute 'nonsense'"):
        rlmix.nonsense  # noqa: B018


def test_importing_leaves_every_random_state_devices_and_output_alone():
    result = run("""
        import random
        import numpy, torch
        import rich.style  # draws a number when imported
        def states():
            legacy = numpy.random.get_state()
            return random.getstate(), (*legacy[:1], legacy[1].tolist(), *legacy[2:]), torch.get_rng_state().tolist()
        before = states()
        threads = torch.get_num_threads(), torch.get_default_dtype(), torch.backends.cudnn.benchmark
        import rlmix.envs
        assert states() == before, "rlmix.envs"
        import importlib, pkgutil, rlmix
        for module in pkgutil.walk_packages(rlmix.__path__, "rlmix."):
            importlib.import_module(module.name)
        for package in ("envs", "agents", "scripts"):
            package = importlib.import_module(f"rlmix.{package}")
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)
        assert states() == before
        assert (torch.get_num_threads(), torch.get_default_dtype(), torch.backends.cudnn.benchmark) == threads
        assert not torch.cuda.is_initialized()
    """)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert result.stderr == ""
