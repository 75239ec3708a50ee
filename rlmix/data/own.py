"""Somebody's own data, torch data sets of (image, label): of ``--data module:function``, or given with a call."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlmix.common.groups import check_values
from rlmix.common.members import has_members
from rlmix.common.registry import load_attribute
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.data.memory import ImageData, in_memory
from rlmix.data.pixels import fit_square, to_bytes
from rlmix.data.registry import DATA
from rlmix.recipes import AUTO, GIVEN


@DATA.register(
    "own",
    reads=("image_size", "image_fit", "value_range"),
    doc="module:function of one's own, which gives two torch data sets, (train, test).",
)
def load_own(name: str, config: Config) -> ImageData:
    """Call what ``module:function`` names and read both data sets into memory.

    Args:
        name: ``module:function``; it is called with nothing, or with ``config`` where it takes that.
        config: How many images are taken, and what is kept for validation.

    Raises:
        ValueError: If it fails, or gives other than two data sets of (image, label). Images are PIL's, uint8 (H, W, C), or float (C, H, W)
            in [0, 1]; labels are integers.
    """
    load = load_attribute("data", name)
    if not callable(load):
        raise ValueError(f"data {name} must be a function, got {type(load).__name__}")
    try:
        found = load(**({"config": config} if "config" in inspect.signature(load).parameters else {}))
    except Exception as error:  # whatever somebody's function does
        raise ValueError(f"data {name} must give (train, test), got {type(error).__name__}: {error}") from error
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ValueError(f"data {name} must give two data sets, (train, test), got {type(found).__name__}")
    return read_pair(found, name, config)


@DATA.register("given", reads=("image_size", "image_fit", "value_range"))
def load_given(path: str, config: Config) -> ImageData:
    """Two torch data sets, or arrays, of Python: rlmix.train(config, data=(train, test))."""
    raise ValueError("data given must come with the call, rlmix.train(config, data=(train, test)), as in the run's first")


def settle_given(data: Any, config: Config) -> tuple[Dataset | None, Config]:
    """What somebody passed as ``data``, and the configuration that goes with it.

    Args:
        data: None; a data set of rlmix; or a pair of training and test data, each a torch data set of (image, label), or images and
            labels. Without test data (None) a fifth of every class is kept for it.
        config: Where a pair is given it names no data: the name becomes ``given``.

    Returns:
        The data set, None where the configuration names one; and the configuration.

    Raises:
        ValueError: If it is something else, or the configuration names other data.
    """
    if data is None or has_members(data, Dataset):
        kept = data is None or isinstance(data, ImageData)
        return data, config if kept else config.changed(saliency_mode=config.map_source)  # rmix keeps maps of images in memory
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            f"data must be two data sets, (train, test), or an rlmix.data.dataset.Dataset, got {type(data).__name__}"
        )
    if config.data.name not in (AUTO, GIVEN):
        raise ValueError(f"data of the configuration must be left out where (train, test) is given, got {config.data.name}")
    config = config.changed(data=GIVEN)
    check_values(config)
    config.check()
    return read_pair(data, GIVEN, config), config


def read_pair(pair: Sequence[Any], name: str, config: Config) -> ImageData:
    """Training and test data, the latter None where there are none, in memory."""
    splits = [(split, part) for split, part in zip(("train", "test"), pair, strict=True) if split == "train" or part is not None]
    return in_memory(name, [array for split, part in splits for array in read_split(part, f"{name} {split}", config)], config)


def read_split(split: Any, where: str, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, H, W, C) and labels (n,) of a torch data set.

    Args:
        split: Indexed, or an iterable one, of pairs of image and label; or images and labels, (images, labels).
        where: What errors call it.
        config: The images' size, which may differ where one is named, and their range of values.

    Raises:
        ValueError: If it holds other items.
    """
    return read_items(_items(split, where), where, config)


def read_items(items: Iterable[Any], where: str, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`read_split`, of (image, label) one by one."""
    images, labels = [], []
    for index, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ValueError(f"data {where} must hold pairs of image and label, got {type(item).__name__} at {index}")
        images.append(sized(as_pixels(item[0], f"{where} at {index}", config.data.value_range), f"{where} at {index}", config))
        label = _plain(item[1])
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise ValueError(f"data {where} must have integers as labels, got {type(label).__name__} at {index}")
        labels.append(int(label))
    return stacked(images, where), np.array(labels)


def stacked(images: list[np.ndarray], where: str) -> np.ndarray:
    """Images of one size, of which there is one at least."""
    if not images:
        raise ValueError(f"data {where} must hold images, and is empty")
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        first, second = sorted(sizes)[:2]
        raise ValueError(f"data {where} must hold images of one size (or give --image-size), got {first} and {second}")
    return np.stack(images)


def sized(image: np.ndarray, where: str, config: Config) -> np.ndarray:
    """An image (H, W) or (H, W, C) with the pixels that the configuration names, or its own."""
    if config.data.image_size is None:
        return image
    pixels = image if image.ndim == 3 else image[..., None]
    return fit_square(pixels[None], config.data.image_size, config.data.image_fit, where)[0]


def as_pixels(image: Any, where: str, value_range: tuple[float, ...] | None = None) -> np.ndarray:
    """An image as bytes (H, W, C) or (H, W).

    Args:
        image: PIL's, uint8 (H, W, C), or float (C, H, W); of two axes also either.
        where: What an error calls it.
        value_range: Of its numbers; 0 to 255 for bytes and 0 to 1 for others, where not given.
    """
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"))
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        raise ValueError(f"data {where} must be an image, got {type(image).__name__}")
    if array.dtype == np.uint8:
        return array if value_range is None else to_bytes(array, value_range, f"data {where}")
    if array.dtype.kind != "f" and value_range is None:
        raise ValueError(f"data {where} must be uint8 (H, W, C) or float (C, H, W) in [0, 1], got {array.dtype}")
    if value_range is None and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"data {where} must be float in [0, 1] (or give --value-range), got {array.min():g} to {array.max():g}")
    pixels = to_bytes(array, value_range or (0, 1), f"data {where}")
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _items(split: Any, where: str) -> Iterable[Any]:
    if isinstance(split, tuple | list) and len(split) == 2 and _are_labels(split[1]):
        images, labels = split
        if len(images) != len(labels):
            raise ValueError(f"data {where} must have a label an image, got {len(labels)} for {len(images)}")
        return zip(images, labels, strict=True)
    if isinstance(split, torch.utils.data.IterableDataset):
        return split
    if not (hasattr(split, "__len__") and hasattr(split, "__getitem__")):
        raise ValueError(f"data {where} must be a torch data set, or images and labels, got {type(split).__name__}")
    return (split[index] for index in range(len(split)))


def _are_labels(found: Any) -> bool:
    """Whether it is a row of labels, and no (image, label)."""
    return bool(found.ndim) if isinstance(found, Tensor | np.ndarray) else isinstance(found, list)


def _plain(label: Any) -> Any:
    """The one number that a tensor or an array holds; anything else as it is."""
    array = np.asarray(label.detach().cpu()) if isinstance(label, Tensor) else label
    return array.item() if isinstance(array, np.ndarray) and array.size == 1 else array
