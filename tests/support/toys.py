"""Small data for quick runs."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import rlmix
from rlmix.models.preactresnet import PreActResNet

NETWORK = "toys:network"
"""As ``--model`` takes it."""

DIGITS = {
    "data": "digits",
    "model": NETWORK,
    "train_images": 64,
    "test_images": 40,
    "batch_size": 16,
    "epochs": 2,
    "device": "cpu",
}
"""Two epochs of four steps, by flat option."""


def network(num_classes: int, in_channels: int = 3) -> PreActResNet:
    """A block a stage, half as wide as preactresnet18_w16: every stage that methods ask for, at a fifth of its time."""
    return PreActResNet((1, 1, 1, 1), num_classes, width=8, in_channels=in_channels)


def arguments(options: dict[str, object]) -> list[str]:
    """Flat options as the command line has them."""
    return [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), str(value))]


def write_npz(folder: Path, size: int, num_train: int = 64, num_test: int = 40, num_classes: int = 10) -> str:
    """Colour noise around a grey level that tells the class, as ``--data`` takes it."""
    draw, path = np.random.default_rng(0), folder / f"toy{size}.npz"
    labels = np.arange(num_train + num_test) % num_classes
    levels = 200 * labels[:, None, None, None] // num_classes
    images = (levels + draw.integers(56, size=(len(labels), size, size, 3))).astype(np.uint8)
    parts = {
        "x_train": images[:num_train],
        "y_train": labels[:num_train],
        "x_test": images[num_train:],
        "y_test": labels[num_train:],
    }
    np.savez(path, **parts)
    return f"npz:{path}"


def photographs(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops of scikit-learn's two photographs; the class tells which half of which."""
    draw, photos, labels = np.random.default_rng(seed), load_sample_images().images, np.arange(count) % 4
    images = []
    for label in labels:
        half = photos[label % 2][:, :320] if label < 2 else photos[label % 2][:, 320:]
        y, x = draw.integers(half.shape[0] - size), draw.integers(half.shape[1] - size)
        images.append(half[y : y + size, x : x + size])
    return np.array(images), labels


def toy_config(folder: Path, size: int, *, num_train: int = 64, num_classes: int = 10, **options: object) -> rlmix.Config:
    """Two epochs of four steps of 16 images, on the CPU, unless told otherwise."""
    data = write_npz(folder, size, num_train=num_train, num_classes=num_classes)
    options = {"model": NETWORK, "batch_size": 16, "epochs": 2, "learning_rate": 0.05, "device": "cpu"} | options
    return rlmix.Config.flat(data=data, **options)


def write_folder(
    folder: Path, num_train: int = 8, num_val: int = 4, num_classes: int = 3, size: tuple[int, int] = (40, 32)
) -> str:
    """``train/`` and ``val/`` with so many images a class, of (width, height); colour noise as in :func:`write_npz`."""
    draw = np.random.default_rng(0)
    for split, number in (("train", num_train), ("val", num_val)):
        for label in range(num_classes):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(number):
                pixels = 200 * label // num_classes + draw.integers(56, size=(size[1], size[0], 3))
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index:02d}.png")
    return f"imagefolder:{folder}"


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture's file."""
    with Image.open(path) as picture:
        return picture.size
