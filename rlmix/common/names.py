"""Names that users type: methods, models, data sets, rewards, folders."""

import os
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

MANY = 20
"""More names than so many are not listed in a line."""


def check_name(kind: str, name: str, allowed: Collection[str], listing: str | None = None) -> None:
    """Raise a ValueError that lists what is allowed, and the nearest name, where ``name`` is not among it.

    Args:
        kind: What the names are of.
        name: The one to check.
        allowed: All there are.
        listing: The command that lists them: where they are many, it and the three nearest stand for them.
    """
    if name in allowed:
        return
    allowed = list(allowed)
    many = listing is not None and len(allowed) > MANY
    near = [repr(other) for other in get_close_matches(name, allowed, n=3 if many else 1, cutoff=0.5)]
    hint = f" (did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?)" if near else ""
    names = f"the {len(allowed)} of {listing}" if many else ", ".join(allowed)
    raise ValueError(f"{kind} must be one of {names}, got {name!r}{hint}")


def distinct_names(paths: Iterable[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """Of each path the shortest ending, in whole folders, that is no other's and not ``reserved``; no two may be the same place."""
    parts = {path: Path(os.path.abspath(path)).parts for path in paths}

    def ending(path: str) -> str:
        for count in range(1, len(parts[path]) + 1):
            others = [other[-count:] for name, other in parts.items() if name != path]
            name = "/".join(parts[path][-count:])
            if parts[path][-count:] not in others and name not in reserved:
                return name
        return path

    return {path: ending(path) for path in parts}


def file_names(names: Iterable[str]) -> dict[str, str]:
    """For each name one that a file can have, and no two the same."""
    found: dict[str, str] = {}
    for name in names:
        plain = name.strip("/").replace("/", "-")
        number = sum(other == plain or other.startswith(f"{plain}~") for other in found.values())
        found[name] = f"{plain}~{number + 1}" if number else plain
    return found
