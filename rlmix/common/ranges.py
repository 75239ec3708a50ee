"""What a field of a configuration allows: declared at the field, as ``Annotated[int, at_least(1)]``, and checked from there."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

from rlmix.common.catalogue import cards
from rlmix.common.names import check_name
from rlmix.common.registry import load_attribute


class Rule(Protocol):
    """Something that a field's value must be."""

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError where ``value``, which is not None, is something else; ``name`` is the field's."""


@dataclass(frozen=True)
class Range:
    """A number within bounds, or one or more such numbers."""

    words: str
    """What the number must be, as errors and the help say it: ``at least 1``."""
    holds: Callable[[float], bool]

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError where a number is out of bounds, or there is none."""
        if isinstance(value, tuple):
            if not value or not all(self.holds(number) for number in value):
                raise ValueError(f"{name} must be one or more numbers {self._of}{self.words}, got {value}")
        elif not self.holds(value):
            finite = "" if isfinite(value) else "finite and "
            raise ValueError(f"{name} must be {finite}{self.words}, got {value}")

    @property
    def _of(self) -> str:
        return "of " if self.words.startswith("at least") else ""


def at_least(low: float) -> Range:
    """``low`` or more, and finite."""
    return Range(f"at least {low:g}", lambda value: low <= value < float("inf"))


def above(low: float) -> Range:
    """More than ``low``, and finite."""
    return Range(f"above {low:g}", lambda value: low < value < float("inf"))


def between(low: float, high: float) -> Range:
    """Between the two, neither of which it is."""
    return Range(f"between {low:g} and {high:g}", lambda value: low < value < high)


def within(low: float, high: float) -> Range:
    """From ``low`` to ``high``, either included."""
    return Range(f"in [{low:g}, {high:g}]", lambda value: low <= value <= high)


def from_to(low: float, high: float) -> Range:
    """From ``low``, included, to ``high``, which is not."""
    return Range(f"in [{low:g}, {high:g})", lambda value: low <= value < high)


def up_to(low: float, high: float) -> Range:
    """More than ``low``, up to ``high``, which is included."""
    return Range(f"in ({low:g}, {high:g}]", lambda value: low < value <= high)


@dataclass(frozen=True)
class Also:
    """Other names that an option has; its own is what files and errors say."""

    names: tuple[str, ...]


def also(*names: str) -> Also:
    """What else the option is called: ``n_epochs``, as in another library."""
    return Also(names)


@dataclass(frozen=True)
class OneOf:
    """A name out of one or more registries, or ``module:attribute``."""

    families: tuple[str, ...]
    """Paths ``module:attribute`` of the registries."""

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError where no registry has the name; the message lists those there are."""
        for one in value if isinstance(value, tuple) else (value,):
            if ":" in one:
                load_attribute(name, one)
            else:
                check_name(name, one, self.names())

    def names(self) -> list[str]:
        """Every name that is registered."""
        return [name for family in self.families for name in cards(family)]


def one_of(*families: str) -> OneOf:
    """A name out of the registries that lie at these paths, ``module:attribute``."""
    return OneOf(families)
