"""A folder of images with their labels in a table, ``labels.csv``, in place of a folder a class."""

import csv
from pathlib import Path
from typing import NamedTuple

from rlmix.data.image_files import kind_left_out

NAME = "labels.csv"
PATHS = ("path", "file", "filename", "file_name", "image")
LABELS = ("label", "class", "category", "target")
SPLITS = ("split", "subset", "set")
"""What its columns may be called, in any case."""


class Row(NamedTuple):
    """An image of the table."""

    path: str
    label: str
    split: str
    """"" where the table has no such column."""


def read_table(root: Path, keys: tuple[str, ...] | None = None) -> list[Row]:
    """The rows of ``labels.csv`` in ``root``; nothing is decoded.

    Paths are relative to ``root``, or to the folder in it that the first one lies in.

    Args:
        root: A folder.
        keys: The columns of paths and of labels, and of splits; told by :data:`PATHS`, :data:`LABELS` and :data:`SPLITS` where not given.

    Raises:
        ValueError: If a column is missing, or a row has no label, or names no image in the folder, or one that another names.
    """
    table = root / NAME
    with open(table, newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        try:
            columns, content = list(reader.fieldnames or ()), list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{table} must be a table of comma-separated values, got {error}") from error
    path, label, split = find_columns(columns, keys, table)
    if not content:
        raise ValueError(f"{table} must have a row an image, and has none")
    base, seen, rows = find_base(root, content[0][path] or ""), set(), []
    for number, row in enumerate(content, start=2):
        name, kind = row[path] or "", row[label] or ""
        place = base / name
        if not name or ".." in Path(name).parts or Path(name).is_absolute() or kind_left_out(name) or not place.is_file():
            raise ValueError(f"{table} line {number} must name an image in {base}, got {name!r}")
        if not kind or (split and not row[split]):
            raise ValueError(f"{table} line {number} must have a {split if kind else label}, got none for {name}")
        if place in seen:
            raise ValueError(f"{table} line {number} must name another image than the lines before, got {name}")
        seen.add(place)
        rows.append(Row(str(place), kind, row[split] if split else ""))
    return rows


def find_columns(columns: list[str], keys: tuple[str, ...] | None, table: Path) -> tuple[str, str, str]:
    """Names of the columns of paths, labels and splits; the last is "" where there is none."""
    if keys is not None:
        if len(keys) != 2 or not set(keys) <= set(columns):
            raise ValueError(
                f"keys must be the columns of paths and of labels of {table}, which has {','.join(columns)}, got {' '.join(keys)}"
            )
        path, label = keys
    else:
        path, label = (next((name for name in columns if name.lower() in known), "") for known in (PATHS, LABELS))
    if not path or not label:
        raise ValueError(f"{table} must have the columns path and label (or give --keys PATH LABEL), got {','.join(columns)}")
    return path, label, next((name for name in columns if name.lower() in SPLITS and name not in (path, label)), "")


def find_base(root: Path, name: str) -> Path:
    """The folder that an image's path is relative to: ``root``, or the first in it where there is such a file."""
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
    return next((folder for folder in (root, *folders) if name and (folder / name).is_file()), root)


def order_classes(labels: set[str]) -> list[str]:
    """The classes in order: numbers by their value, words by the alphabet."""
    numbers = all(label.removeprefix("-").isdecimal() for label in labels)
    return sorted(labels, key=lambda label: (int(label), label)) if numbers else sorted(labels)
