"""Which image files of a folder belong to which split, and of which classes they are; nothing is decoded."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from rlmix.config import Config
from rlmix.data.class_folders import list_class_folders
from rlmix.data.label_table import NAME, order_classes, read_table
from rlmix.data.splits import ROLES, assign_splits


class Files(NamedTuple):
    """Images of a split."""

    paths: list[str]
    labels: Int[Tensor, " image"]

    def take(self, index: Int[Tensor, " part"]) -> "Files":
        """Those at ``index``, in its order."""
        return Files([self.paths[position] for position in index.tolist()], self.labels[index])


class Listing(NamedTuple):
    """The images of a folder."""

    splits: dict[str, Files]
    """By role: ``train``, ``test``, ``val``."""
    class_names: list[str]
    left_out: list[str]
    """The kind of each file that is no image."""
    trained: str
    """What holds the training images."""


def list_splits(root: Path, config: Config) -> Listing:
    """A folder a class in ``train/`` and ``val/``, or in folders of other names; beside ``train/``, ``val/`` is tested on.

    Raises:
        FileNotFoundError: If they are not there.
        ValueError: If there is none to train on, or they have different classes.
    """
    found, named = [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else [], config.data.splits
    roles = {"train": "train", "test": "val"}
    known = {name.lower() for name in found}
    if named is not None or (known & set(ROLES["train"]) and not set(roles.values()) <= set(found)):
        roles = assign_splits(found, named, str(root))
        if named is None and "test" not in roles:
            roles["test"] = "val"  # which is not there, as list_class_folders says
    listed = {role: list_class_folders(root / name) for role, name in roles.items()}
    class_names = listed["train"].class_names
    for role, split in listed.items():
        odd = sorted(set(class_names) ^ set(split.class_names))
        if odd:
            both = f"{roles['train']}/ and {roles[role]}/"
            raise ValueError(f"{root} must have the same classes in {both}; {len(odd)} are in one alone, such as {odd[0]!r}")
    splits = {role: Files(split.paths, torch.tensor(split.labels)) for role, split in listed.items()}
    left_out = [kind for split in listed.values() for kind in split.left_out]
    return Listing(splits, class_names, left_out, str(root / roles["train"]))


def list_table(root: Path, config: Config) -> Listing:
    """The images that ``labels.csv`` names.

    Raises:
        ValueError: If it is malformed, or has fewer than two classes, or no split to train on.
    """
    rows, named = read_table(root, config.data.keys), config.data.splits
    found = {row.split for row in rows}
    roles = {"train": ""} if found == {""} and not named else assign_splits(found - {""}, named, str(root / NAME))
    class_names = order_classes({row.label for row in rows if row.split in roles.values()})
    if len(class_names) < 2:
        raise ValueError(f"{root / NAME} must have at least 2 classes, got 1 ({class_names[0]})")
    index, splits = {name: label for label, name in enumerate(class_names)}, {}
    for role, split in roles.items():
        own = [row for row in rows if row.split == split]
        splits[role] = Files([row.path for row in own], torch.tensor([index[row.label] for row in own]))
    return Listing(splits, class_names, [], str(root / NAME))
