"""Whether something is what a protocol says, by what it has."""

from typing import Any


def has_members(thing: Any, protocol: type) -> bool:
    """Whether ``thing`` has all public members of a protocol, of its own or handed on by ``__getattr__``.

    ``isinstance`` says no of what is handed on, from Python 3.12 on.
    """
    return all(hasattr(thing, name) for name in vars(protocol) if not name.startswith("_"))
