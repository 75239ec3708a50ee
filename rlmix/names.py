"""Names that users type: methods, models, data sets, rewards."""

from collections.abc import Iterable
from difflib import get_close_matches


def check_name(kind: str, name: str, allowed: Iterable[str]) -> None:
    """Raise a ValueError that lists what is allowed, and the nearest name, where ``name`` is not among it."""
    allowed = list(allowed)
    if name in allowed:
        return
    near = get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{kind} must be one of {', '.join(allowed)}, got {name!r}{hint}")
