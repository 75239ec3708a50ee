"""Which split of a data set is trained on and which are measured, by their names."""

from collections.abc import Collection

ROLES = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation", "dev")}
"""What people call the splits."""
TEST_FRACTION = 0.2
"""Part of every class that is kept for the test, where there is no split for it."""


def assign_splits(found: Collection[str], named: tuple[str, ...] | None, where: str) -> dict[str, str]:
    """Names of the splits by role: ``train``, ``test`` and ``val``, as far as there are.

    Args:
        found: What there is.
        named: Which of these they are, in this order; told by :data:`ROLES` where not given. A validation split without a test split
            is tested on then.
        where: What holds them.

    Raises:
        ValueError: If there is none to train on, two for a role, or not what is named.
    """
    there = ", ".join(sorted(found)) or "none"
    if named is not None:
        missing = [name for name in named if name not in found]
        if missing:
            raise ValueError(f"splits must be of {where}, which has {there}, got {', '.join(missing)}")
        return dict(zip(ROLES, named, strict=False))
    roles: dict[str, str] = {}
    for role, names in ROLES.items():
        known = sorted(name for name in found if name.lower() in names)
        if len(known) > 1:
            raise ValueError(f"{where} must have one {role} split (or give --splits TRAIN TEST), got {', '.join(known)}")
        if known:
            roles[role] = known[0]
    if "train" not in roles:
        raise ValueError(f"{where} must have a split called train (or give --splits TRAIN TEST), and has {there}")
    if "test" not in roles and "val" in roles:
        roles["test"] = roles.pop("val")
    return roles
