"""Data sets of Hugging Face's ``datasets`` that lie in a folder, ``--data hf:PATH``; nothing is fetched, and none of their code runs."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlmix.config import Config
from rlmix.data.image_files import open_image, upright_rgb
from rlmix.data.memory import ImageData, in_memory
from rlmix.data.own import read_items
from rlmix.data.registry import DATA
from rlmix.data.splits import assign_splits

LABELS = ("label", "labels", "target", "class")
"""What a column of labels may be called that does not say that it holds classes."""


@DATA.register("hf", reads=("keys", "splits", "image_size", "image_fit"))
def load_hf(path: str, config: Config) -> ImageData:
    """A folder of Hugging Face's datasets: parquet files, or what save_to_disk wrote (the extra datasets)."""
    name = f"hf:{path}"
    found = open_folder(path)
    arrays: list[np.ndarray] = []
    classes: dict[str, int] | None = None
    for role, split in assign_splits(list(found), config.data.splits, name).items():
        columns = find_columns(found[split].features or {}, config.data.keys, name)
        items: Iterable[tuple[Any, Any]] = rows(found[split], *columns, f"{name} {split}")
        if is_text((found[split].features or {}).get(columns[1])):
            items = list(items)
            classes = classes or {label: index for index, label in enumerate(sorted({label for _, label in items}))}
            items = numbered(items, classes, f"{name} {split}")
        arrays += read_items(items, f"{name} {role}", config)
    return in_memory(name, arrays, config)


def open_folder(path: str) -> Mapping[str, Any]:
    """The splits by name; one without a name is the training split.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no data set, or ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f'data hf:{path} must have datasets installed: pip install "rlmix[datasets]"') from error
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"data hf:{path} must name a folder, and there is none")
    try:
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(str(folder))
        else:
            check_local(folder)
            found = datasets.load_dataset(str(folder.resolve()), streaming=True)  # which writes no copy to a cache
    except Exception as error:  # whatever a damaged folder, or one of another kind, makes the readers stumble over
        reason = " ".join(str(error).split())
        raise ValueError(f"data hf:{path} must be a folder of datasets: {type(error).__name__} {reason}") from error
    return found if isinstance(found, Mapping) else {"train": found}


def check_local(folder: Path) -> None:
    """Raise ValueError where the folder's own configuration says that its files lie elsewhere, from where ``datasets`` would fetch them."""
    card, standalone = folder / "README.md", folder / ".huggingface.yaml"
    settings: dict[Path, Any] = {}
    if card.is_file():
        from huggingface_hub import DatasetCard  # as datasets reads it

        settings[card] = DatasetCard.load(card).data.to_dict()
    if standalone.is_file():
        settings[standalone] = yaml.safe_load(standalone.read_text("utf-8"))
    for path, found in settings.items():
        if isinstance(found, dict) and "://" in str(found.get("configs")):
            raise ValueError(f"{path.name} must name files of the folder, and names others by their address")


def find_columns(features: Mapping[str, Any], keys: tuple[str, ...] | None, name: str) -> tuple[str, str]:
    """Names of the columns of images and of labels: ``keys``, or the only ones of their kind.

    Raises:
        ValueError: If there are none, or several.
    """
    there = ", ".join(features)
    if keys is not None:
        if len(keys) != 2 or not set(keys) <= set(features):
            raise ValueError(
                f"keys must be the columns of images and of labels of {name}, which has {there}, got {' '.join(keys)}"
            )
        return keys[0], keys[1]
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"] or [key for key in LABELS if key in features]
    for what, columns in (("images", images), ("labels", labels)):
        if len(columns) != 1:
            got = ", ".join(columns) or "none"
            raise ValueError(f"{name} must have one column of {what} (or give --keys IMAGE LABEL), got {got} of {there}")
    return images[0], labels[0]


def is_text(feature: Any) -> bool:
    """Whether a column holds words."""
    return str(getattr(feature, "dtype", "")) in ("string", "large_string")


def numbered(items: Iterable[tuple[Any, str]], classes: Mapping[str, int], where: str) -> Iterator[tuple[Any, int]]:
    """Give labels that are words the numbers of the training split's, which go by the alphabet; ValueError where one is not among them."""
    for index, (image, label) in enumerate(items):
        if label not in classes:
            raise ValueError(f"{where} must have labels of the training split's {len(classes)}, got {label!r} at {index}")
        yield image, classes[label]


def rows(split: Any, image: str, label: str, where: str) -> Iterator[tuple[Any, Any]]:
    """Images, decoded by rlmix's own formats, and their labels."""
    import datasets

    split = split.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    for index, row in enumerate(split):
        stored = row[image] or {}
        source = stored["bytes"] if stored.get("bytes") is not None else stored.get("path")
        with open_image(source or "", f"{where} at {index}") as picture:
            yield upright_rgb(picture), row[label]
