"""Small data for quick runs."""

from pathlib import Path

import numpy as np

import rlmix


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


def toy_config(folder: Path, size: int, *, num_train: int = 64, num_classes: int = 10, **options: object) -> rlmix.TrainingConfig:
    """Two epochs of four steps of 16 images, on the CPU, unless told otherwise."""
    data = write_npz(folder, size, num_train=num_train, num_classes=num_classes)
    options = {"model": "preactresnet18_w16", "batch_size": 16, "epochs": 2, "learning_rate": 0.05, "device": "cpu"} | options
    return rlmix.TrainingConfig(data=data, **options)
