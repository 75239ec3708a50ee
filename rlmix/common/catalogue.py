"""What registries hold, without an import of it: names, lines of documentation and options, read from the source.

A command's help and its refusals need no more, and so need not wait for torch. Of a registry that is imported it is asked itself, for
somebody may have registered another member.
"""

import ast
import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from rlmix.common.registry import Registry, find_registry

PACKAGE = Path(__file__).parents[1]
LIGHT = ("dataclasses", "rlmix.option_groups")
"""Modules whose names a registration may be written with: they import no torch."""
_MODEL = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)", re.MULTILINE)


class Card(NamedTuple):
    """What a registry knows of a member, but for the member."""

    name: str
    doc: str
    reads: tuple[str, ...] = ()
    traits: Mapping[str, Any] = {}
    arguments: Mapping[str, Any] | None = None
    """What it is called with, by name, with the defaults; None where that was not read, for it can be asked itself."""


def cards(path: str) -> dict[str, Card]:
    """The cards of the registry at ``module:attribute``, in its order."""
    module, _, attribute = path.partition(":")
    if hasattr(sys.modules.get(module), attribute) or _source(module) is None:
        registry: Registry[Any] = find_registry(path)
        return {entry.name: Card(entry.name, entry.doc, entry.reads, entry.traits) for entry in registry.entries()}
    return _read(module, attribute)


@cache
def _read(module: str, registry: str) -> dict[str, Card]:
    homes = next(
        (
            _value(keyword.value, _names(module))
            for line in _tree(module).body
            if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == registry and isinstance(line.value, ast.Call)
            for keyword in line.value.keywords
            if keyword.arg == "homes"
        ),
        (module,),
    )
    places = homes if module in homes else (module, *homes)
    return {card.name: card for home in places for card in _registrations(home, registry)}


def _registrations(home: str, registry: str) -> Iterator[Card]:
    """Where ``@REGISTRY.register(name, ...)`` or ``REGISTRY.add(name, thing, ...)`` stands in a module."""
    for line in _tree(home).body:
        decorators = line.decorator_list if isinstance(line, ast.FunctionDef | ast.ClassDef) else []
        for call in [*decorators, *([line.value] if isinstance(line, ast.Expr) else [])]:
            if isinstance(call, ast.Call) and ast.unparse(call.func) in (f"{registry}.register", f"{registry}.add"):
                name = _value(call.args[0], _names(home))
                traits = {str(keyword.arg): _value(keyword.value, _names(home)) for keyword in call.keywords}
                text = ast.get_docstring(line) if isinstance(line, ast.FunctionDef | ast.ClassDef) else None
                doc = traits.pop("doc", None) or (text or "").partition("\n")[0]
                yield Card(name, doc, traits.pop("reads", ()), traits, _arguments(home, line) if decorators else None)


def _arguments(module: str, node: ast.stmt) -> dict[str, Any]:
    """Of a function, of a class's ``__init__``, or a dataclass's fields, with those of its bases in this package; None for no default."""
    if isinstance(node, ast.FunctionDef):
        names, defaults = [entry.arg for entry in node.args.args if entry.arg != "self"], node.args.defaults
        values = [*[None] * (len(names) - len(defaults)), *(_value(default, _names(module)) for default in defaults)]
        names += [entry.arg for entry in node.args.kwonlyargs]
        values += [default and _value(default, _names(module)) for default in node.args.kw_defaults]
        return dict(zip(names, values, strict=True))
    assert isinstance(node, ast.ClassDef)
    for line in node.body:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            return _arguments(module, line)
    found: dict[str, Any] = {}
    for base in map(ast.unparse, node.bases):
        home = next((line.module for line in _imports(module) if base in [name.name for name in line.names]), None)
        if home is not None and _source(home) is not None:
            found |= _arguments(home, next(line for line in _tree(home).body if getattr(line, "name", None) == base))
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation):
            found[ast.unparse(line.target)] = line.value and _value(line.value, _names(module))
    return found


def _imports(module: str) -> list[ast.ImportFrom]:
    return [line for line in _tree(module).body if isinstance(line, ast.ImportFrom)]


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """What an expression of constants comes to."""
    return eval(compile(ast.Expression(node), str(PACKAGE), "eval"), names)


@cache
def _names(module: str) -> dict[str, Any]:
    """A module's constants, and what it imports of :data:`LIGHT`."""
    names: dict[str, Any] = {}
    for line in _imports(module):
        if line.module in LIGHT:
            names |= {name.asname or name.name: getattr(import_module(line.module), name.name) for name in line.names}
    for assignment in _tree(module).body:
        if isinstance(assignment, ast.Assign) and isinstance(assignment.targets[0], ast.Name):
            with contextlib.suppress(ValueError):  # no constant
                names[assignment.targets[0].id] = ast.literal_eval(assignment.value)
    return names


def constant(path: str) -> Any:
    """A module's constant, ``module:NAME``."""
    module, _, name = path.partition(":")
    return _names(module)[name]


@cache
def _tree(module: str) -> ast.Module:
    path = _source(module)
    assert path is not None, module
    return ast.parse(path.read_text(encoding="utf-8"))


def _source(module: str) -> Path | None:
    """The file of one of this package's modules; to look for it as imports do would import the packages above it."""
    package, *parts = module.split(".")
    place = PACKAGE.joinpath(*parts)
    found = (path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file())
    return next(found, None) if package == PACKAGE.name else None


@cache
def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's classifiers, as it registers them."""
    package = find_spec("torchvision")
    files = [
        path for place in (package and package.submodule_search_locations) or () for path in Path(place, "models").glob("*.py")
    ]
    return tuple(sorted(name for path in files for name in _MODEL.findall(path.read_text(encoding="utf-8"))))
