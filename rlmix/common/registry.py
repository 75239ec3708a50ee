"""One registry a family: methods, rewards, algorithms, ... Checks, help and the tables of the documentation read it."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, TypeVar

from rlmix.common.names import check_name

Thing = TypeVar("Thing")
Registered = TypeVar("Registered")


@dataclass(frozen=True)
class Entry(Generic[Thing]):
    """What a family knows of one of its members."""

    name: str
    thing: Thing
    doc: str
    """One line of documentation: the first of the thing's own, where it is not given."""
    reads: tuple[str, ...] = ()
    """Options of the command line that it reads and not all of its family do."""
    traits: Mapping[str, Any] = field(default_factory=dict)
    """What else sets it apart; which there are, a family's module says."""


class Registry(Mapping[str, Thing]):
    """The members of a family by name, and any other as ``module:attribute``.

    Args:
        family: What errors call a member, and the option that names one.
        homes: Modules whose import registers the shipped members; they are imported when somebody asks.

    Example:
        >>> colours: Registry[Callable[[], str]] = Registry("colour")
        >>> @colours.register("red")
        ... def red() -> str:
        ...     "The colour of cherries."
        ...     return "#f00"
        >>> colours["red"]()
        '#f00'
        >>> colours.entry("red").doc
        'The colour of cherries.'
    """

    def __init__(self, family: str, homes: tuple[str, ...] = ()) -> None:
        self.family, self._homes = family, homes
        self._entries: dict[str, Entry[Thing]] = {}
        self._filled = False

    def register(
        self, name: str, *, doc: str | None = None, reads: tuple[str, ...] = (), **traits: Any
    ) -> Callable[[Registered], Registered]:
        """Decorate a function or a class: it is the family's ``name`` from now on.

        Raises:
            ValueError: If the family has another member of this name, or there is no line of documentation.
        """

        def decorate(thing: Registered) -> Registered:
            self.add(name, thing, doc=doc, reads=reads, **traits)  # type: ignore[arg-type]
            return thing

        return decorate

    def add(self, name: str, thing: Thing, *, doc: str | None = None, reads: tuple[str, ...] = (), **traits: Any) -> None:
        """Register ``thing`` without a decorator; arguments and errors as of :meth:`register`."""
        line = (inspect.getdoc(thing) or "").partition("\n")[0] if doc is None else doc
        if not line:
            raise ValueError(f"{self.family} {name} must have one line of documentation, and has none")
        known = self._entries.get(name)
        if known is not None and _home(known.thing) != _home(thing):
            raise ValueError(f"{self.family} {name} must have a name of its own, which {_home(known.thing)} has")
        self._entries[name] = Entry(name, thing, line, reads, traits)

    def entry(self, name: str) -> Entry[Thing]:
        """All that is known of a member; of ``module:attribute`` the attribute and its first line.

        Raises:
            ValueError: If there is none of this name; the message lists those there are, or says what of ``module:attribute`` fails.
        """
        self._fill()
        if name not in self._entries and ":" in name:
            thing = load_attribute(self.family, name)
            doc = (inspect.getdoc(thing) or name).partition("\n")[0]
            own: Any = named(f"{self.family} {name}", thing) if inspect.isfunction(thing) else thing
            return Entry(name, own, doc, getattr(thing, "reads", ()), getattr(thing, "traits", {}))
        check_name(self.family, name, self._entries)
        return self._entries[name]

    def __getitem__(self, name: str) -> Thing:
        return self.entry(name).thing

    def __contains__(self, name: object) -> bool:
        """Whether a member is registered under this name; ``module:attribute`` is not."""
        self._fill()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(self._entries)

    def __len__(self) -> int:
        self._fill()
        return len(self._entries)

    def entries(self) -> list[Entry[Thing]]:
        """Every registered member, in the order of registration."""
        self._fill()
        return list(self._entries.values())

    def readers(self, option: str) -> list[str]:
        """Names of the members that read an option."""
        return [entry.name for entry in self.entries() if option in entry.reads]

    def _fill(self) -> None:
        if not self._filled:
            self._filled = True  # a home may ask while it is imported
            try:
                for home in self._homes:
                    import_module(home)
            except BaseException:
                self._filled = False
                raise
            # in the order of the homes, whichever was imported first
            places = {home: index for index, home in enumerate(self._homes)}
            entries = sorted(self._entries.values(), key=lambda entry: places.get(getattr(entry.thing, "__module__", ""), -1))
            self._entries = {entry.name: entry for entry in entries}


def named(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function with errors that say whose they are: what it raises by mistake becomes a ValueError that begins with ``what``."""

    @functools.wraps(function)
    def called(*args: Any, **keywords: Any) -> Any:
        try:
            return function(*args, **keywords)
        except (ValueError, OSError, FloatingPointError):  # meant for whoever typed
            raise
        except Exception as error:
            raise ValueError(f"{what} must not raise, and raised {type(error).__name__}: {error}") from error

    return called


def load_attribute(family: str, path: str) -> Any:
    """What ``module:attribute`` names, after an import.

    Args:
        family: What an error calls it.
        path: A module, a colon, and an attribute of it, or of an attribute of it.

    Raises:
        ValueError: If the module cannot be imported, or has no such attribute.
    """
    module, _, attribute = path.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise ValueError(f"{family} {path} must name a module that can be imported, got {error}") from error
    except Exception as error:  # whatever a user's module does on import
        raise ValueError(
            f"{family} {path} must name a module that can be imported, got {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
            check_name(f"{family} {path}: the attribute", part, near, f"dir({module})")
        found = getattr(found, part)
    return found


def find_registry(path: str) -> Registry[Any]:
    """The registry that ``module:attribute`` names; how a configuration names what is above it without an import."""
    found: Registry[Any] = load_attribute("family", path)
    return found


def _home(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', repr(thing))}"
