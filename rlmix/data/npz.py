"""Archives of arrays, ``--data npz:PATH``: which of them are images and labels, of which split."""

from pathlib import Path

import numpy as np

from rlmix.common.archives import ArchiveError, check_npz
from rlmix.config import Config
from rlmix.data.memory import ImageData, in_memory
from rlmix.data.pixels import to_bytes
from rlmix.data.registry import DATA

CONVENTIONS = (
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("X_train", "y_train", "X_test", "y_test"),  # scikit-learn
    ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels"),  # MedMNIST
    ("images", "labels"),
)
"""What people call images and labels of training, test and validation; a split may be missing, but for the first."""


@DATA.register("npz", reads=("keys", "image_size", "image_fit", "value_range"))
def load_npz(path: str, config: Config) -> ImageData:
    """An archive of x_train, y_train, x_test, y_test, or arrays of other names."""
    arrays = read_npz(Path(path), config.data.keys)
    if config.data.value_range is not None:
        for index, split in zip(range(0, len(arrays), 2), ("train", "test", "val"), strict=False):
            arrays[index] = to_bytes(arrays[index], config.data.value_range, f"x_{split} of npz:{path}")
    return in_memory(f"npz:{path}", arrays, config)


def read_npz(path: Path, keys: tuple[str, ...] | None = None) -> list[np.ndarray]:
    """Images and labels of training, test and validation, as far as there are; nothing is unpickled.

    Args:
        path: An archive.
        keys: Names of its arrays, in this order; told by :data:`CONVENTIONS` where not given.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no archive of plain arrays, or lacks one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"data npz:{path} must name a file, and there is none")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            found = list(archive.files)
            wanted = recognise(found) if keys is None else keys
            check_npz(path, wanted)
            missing = [key for key in wanted if key not in found]
            arrays = [archive[key] for key in wanted if key not in missing]
    except OSError:
        raise
    except Exception as error:  # whatever a damaged archive, or a file of another kind, makes the readers stumble over
        reason = str(error) if isinstance(error, ArchiveError) else f"it is damaged, or of another kind ({type(error).__name__})"
        raise ValueError(f"{path} must be an .npz archive of plain arrays: {reason}") from error
    if missing:
        other = "" if keys else ", or have others named with --keys"
        raise ValueError(
            f"{path} must hold {', '.join(wanted)}{other}; it lacks {', '.join(missing)} (it has {', '.join(found)})"
        )
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise ValueError(f"{path} must be an .npz archive of plain arrays, got other members")
    return arrays


def recognise(found: list[str]) -> tuple[str, ...]:
    """The names of the arrays to read: those of the first convention whose training split is there, without splits that are not."""
    for names in CONVENTIONS:
        splits = [names[start : start + 2] for start in range(0, len(names), 2)]
        if set(splits[0]) <= set(found):
            there = [split for split in splits if set(split) & set(found)]
            if len(splits) == 3 and splits[1] not in there:  # the places of a test split and a validation split are theirs alone
                there = splits[:1]
            return tuple(name for split in there for name in split)
    return CONVENTIONS[0]
