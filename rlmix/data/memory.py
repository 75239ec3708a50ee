"""Image data sets, whole and on the device, as bytes."""

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rlmix.common.archives import ArchiveError, check_npz
from rlmix.common.ranks import Ranks
from rlmix.config import Config
from rlmix.data.augmentation import CropFlip, crop_flip, sample_crop_flip
from rlmix.data.dataset import Augmented, Pixels, check_trained, in_turn, stratified_split
from rlmix.data.registry import DATA
from rlmix.recipes import Recipe

CHANNELS = (1, 3, 4)
SMALLEST = 8
"""Pixels a side of an image, as of an imagefolder's; so that channels, which are fewer, cannot be taken for pixels."""


@dataclass(frozen=True)
class ImageData:
    """Training and test images in memory. Grey images are repeated to three channels, so that every model takes every set."""

    train_images: UInt8[Tensor, "train height width channel"]
    train_labels: Int[Tensor, " train"]
    test_images: UInt8[Tensor, "test height width channel"]
    test_labels: Int[Tensor, " test"]
    num_classes: int
    mean: Float[Tensor, " channel"]
    """Of the training images in [0, 1], a channel."""
    std: Float[Tensor, " channel"]
    val_images: UInt8[Tensor, "val height width channel"] | None = None
    """Kept apart from the training images, see :func:`rlmix.data.dataset.stratified_split`."""
    val_labels: Int[Tensor, " val"] | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train_images.shape[1], self.train_images.shape[2]

    @property
    def num_channels(self) -> int:
        return self.train_images.shape[3]

    @property
    def measured(self) -> tuple[str, ...]:
        """The splits that are measured."""
        return ("test",) if self.val_labels is None else ("val", "test")

    def labels(self, split: str) -> Int[Tensor, " split"]:
        """Of a split."""
        return getattr(self, f"{split}_labels")

    def to(self, device: torch.device) -> Self:
        """The same data on another device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return type(self)(**(vars(self) | tensors))

    def train_batches(
        self, order: Int[Tensor, "step batch"], recipe: Recipe, generator: torch.Generator, epoch: int, ranks: Ranks
    ) -> Iterator[Augmented]:
        """Cropped and mirrored training images; each batch draws from ``generator`` when it is asked for."""
        for index in order:
            draw = sample_crop_flip(len(index), recipe.crop_padding, recipe.flip, generator)
            draw = CropFlip(*map(ranks.share, draw))
            index = ranks.share(index).to(self.train_labels.device, non_blocking=True)
            images = crop_flip(self.train_images[index], draw, recipe.crop_padding)
            yield Augmented(images, self.train_labels[index], index, draw)

    def batches(self, split: str, batch_size: int) -> Iterator[Pixels]:
        """A split in order."""
        images, labels = getattr(self, f"{split}_images"), self.labels(split)
        return map(Pixels, images.split(batch_size), labels.split(batch_size))

    def checksum(self) -> int:
        """Over every tensor, name and all."""
        checksum = 0
        for name, value in sorted(vars(self).items()):
            if isinstance(value, Tensor):
                checksum = zlib.crc32(value.cpu().contiguous().numpy().tobytes(), zlib.crc32(name.encode(), checksum))
        return checksum


def in_memory(name: str, arrays: list[np.ndarray], config: Config) -> ImageData:
    """The data set called ``name`` of four arrays, as :func:`image_data` takes them, and as the configuration takes images and labels."""
    data = config.data
    return image_data(
        *arrays,
        num_train=data.train_images,
        num_test=data.test_images,
        val_fraction=data.val_fraction,
        relabel=data.relabel,
        source=name,
    )


@DATA.register("digits")
def load_digits(path: str, config: Config) -> ImageData:
    """1,797 scanned digits that come with scikit-learn, 32x32."""
    return in_memory("digits", _load_digits(), config)


@DATA.register("cifar10", reads=("data_root", "download"))
def load_cifar10(path: str, config: Config) -> ImageData:
    """CIFAR-10, from torchvision."""
    return in_memory("cifar10", _load_torchvision("cifar10", config), config)


@DATA.register("cifar100", reads=("data_root", "download"))
def load_cifar100(path: str, config: Config) -> ImageData:
    """CIFAR-100, from torchvision."""
    return in_memory("cifar100", _load_torchvision("cifar100", config), config)


@DATA.register("fashion_mnist", reads=("data_root", "download"))
def load_fashion_mnist(path: str, config: Config) -> ImageData:
    """Fashion-MNIST, from torchvision, padded to 32x32."""
    return in_memory("fashion_mnist", _load_torchvision("fashion_mnist", config), config)


@DATA.register("npz")
def load_npz(path: str, config: Config) -> ImageData:
    """An archive of x_train, y_train, x_test, y_test."""
    return in_memory(f"npz:{path}", _load_npz(Path(path)), config)


def image_data(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    val_fraction: float = 0.0,
    relabel: bool = False,
    source: str = "the data",
) -> ImageData:
    """Build the data set from arrays; a ValueError says what is wrong.

    Args:
        train_images: uint8 (n, H, W), (n, H, W, C) or (n, C, H, W), with 1, 3 or 4 channels and at least 8 pixels a side. Which of
            the two it is cannot be mistaken.
        train_labels: Integers from 0.
        test_images: As the training images.
        test_labels: Of classes that have training images.
        num_train: Use only so many training images, of every class in turn.
        num_test: Likewise of the test images.
        val_fraction: See :func:`rlmix.data.dataset.stratified_split`.
        relabel: Number the classes that occur from 0, in the order of their labels, which may be any integers.
        source: What the arrays are from.
    """
    for split, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        if images.size == 0:
            raise ValueError(f"x_{split} of {source} must hold at least one image, got shape {images.shape}")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise ValueError(
                f"y_{split} of {source} must be integers of shape ({len(images)},), got {labels.dtype} of shape {labels.shape}"
            )
        if labels.min() < 0 and not relabel:
            raise ValueError(f"y_{split} of {source} must be class indices from 0 (or give --relabel), got {labels.min()}")
    train_images = _channels_last(train_images, f"x_train of {source}")
    test_images = _channels_last(test_images, f"x_test of {source}")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(f"x_test of {source} must have images of {train_images.shape[1:]}, got {test_images.shape[1:]}")
    kept, tested, num_classes = _class_indices(train_labels, test_labels, relabel, source)
    train_images, kept = _take(train_images, kept, num_train, f"train_images must be at most the {len(kept)} of {source}")
    test_images, tested = _take(test_images, tested, num_test, f"test_images must be at most the {len(tested)} of {source}")
    check_trained(kept, tested, f"train_images {num_train} of {source}")
    pixels = _three_channels(train_images)
    val_pixels, val_labels = None, None
    if val_fraction:
        rest, part = stratified_split(kept, val_fraction)
        val_pixels, val_labels, pixels, kept = pixels[part], kept[part], pixels[rest], kept[rest]
    mean, std = _channel_statistics(pixels)
    return ImageData(
        train_images=pixels,
        train_labels=kept,
        test_images=_three_channels(test_images),
        test_labels=tested,
        num_classes=num_classes,
        mean=mean,
        std=std,
        val_images=val_pixels,
        val_labels=val_labels,
    )


def _take(
    images: np.ndarray, labels: Int[Tensor, " image"], number: int | None, allowed: str
) -> tuple[np.ndarray, Int[Tensor, " part"]]:
    """So many of a split, of every class in turn; as they are where all are taken."""
    if number is None or number == len(labels):
        return images, labels
    if number > len(labels):
        raise ValueError(f"{allowed}, got {number}")
    index = in_turn(labels, number)
    return images[index.numpy()], labels[index]


def _class_indices(
    train_labels: np.ndarray, test_labels: np.ndarray, relabel: bool, source: str
) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"], int]:
    """Training and test labels as indices of a network's outputs, and the number of these; a warning where some are for no class."""
    train, test = (torch.from_numpy(labels.astype(np.int64)) for labels in (train_labels, test_labels))
    classes = train.unique()
    if len(classes) < 2:
        raise ValueError(f"y_train of {source} must have at least 2 classes, got {len(classes)}")
    check_trained(train, test, f"y_train of {source}")
    if relabel:
        return torch.searchsorted(classes, train), torch.searchsorted(classes, test), len(classes)
    num_outputs = int(classes[-1]) + 1
    if num_outputs > len(classes):
        warnings.warn(
            f"y_train of {source} has {len(classes)} classes with labels {classes[0]} to {classes[-1]}: of the network's {num_outputs} "
            f"outputs {num_outputs - len(classes)} are for no class; --relabel numbers the classes from 0",
            stacklevel=4,
        )
    return train, test, num_outputs


def _channels_last(images: np.ndarray, name: str) -> np.ndarray:
    """Images (n, H, W, C), told by what C, H and W may be: no shape can be read both ways."""
    shape = images.shape if images.ndim == 4 else (*images.shape, 1)
    if images.dtype == np.uint8 and len(shape) == 4:
        if shape[3] in CHANNELS and min(shape[1:3]) >= SMALLEST:
            return images.reshape(shape)
        if shape[1] in CHANNELS and min(shape[2:]) >= SMALLEST:
            warnings.warn(
                f"{name} is of shape {shape}: taken as {shape[1]} channels of {shape[2]}x{shape[3]} pixels", stacklevel=3
            )
            return np.moveaxis(images, 1, 3)
    raise ValueError(
        f"{name} must be uint8 of shape (n, H, W), (n, H, W, C) or (n, C, H, W) with C of 1, 3 or 4 and H and W of at least {SMALLEST}, "
        f"got {images.dtype} of shape {images.shape}"
    )


def _three_channels(images: np.ndarray) -> Tensor:
    """Gray images repeated to three channels."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return tensor.repeat(1, 1, 1, 3) if tensor.shape[3] == 1 else tensor


def _channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(images[..., channel].flatten(), minlength=256) for channel in range(images.shape[3])])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = (shares * levels).sum(1)
    variance = (shares * levels**2).sum(1) - mean**2
    return mean.float(), variance.clamp(min=1e-6).sqrt().float()  # a constant channel stays at zero


def _load_npz(path: Path) -> list[np.ndarray]:
    keys = ("x_train", "y_train", "x_test", "y_test")
    if not path.is_file():
        raise FileNotFoundError(f"data npz:{path} must name a file, and there is none")
    try:
        check_npz(path, keys)
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            found = archive.files
            arrays = [archive[key] for key in keys if key not in missing]
    except OSError:
        raise
    except Exception as error:  # whatever a damaged archive, or a file of another kind, makes the readers stumble over
        reason = str(error) if isinstance(error, ArchiveError) else f"it is damaged, or of another kind ({type(error).__name__})"
        raise ValueError(f"{path} must be an .npz archive of plain arrays: {reason}") from error
    if missing:
        raise ValueError(f"{path} must hold {', '.join(keys)}; it lacks {', '.join(missing)} (it has {', '.join(found)})")
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise ValueError(f"{path} must be an .npz archive of plain arrays, got other members")
    return arrays


def _load_digits() -> list[np.ndarray]:
    """The 1,797 scanned digits that scikit-learn ships, 8x8 pixels enlarged to 32x32; every fifth of a class is for the test."""
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(scans.reshape(-1, 1, 8, 8)) / 16
    images = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    pixels = (images[:, 0] * 255).round().to(torch.uint8).numpy()
    is_test = np.zeros(len(labels), bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[4::5]] = True
    return [pixels[~is_test], labels[~is_test], pixels[is_test], labels[is_test]]


def _load_torchvision(name: str, config: Config) -> list[np.ndarray]:
    from torchvision import datasets

    kind: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "fashion_mnist": datasets.FashionMNIST}[name]
    try:
        splits = [kind(config.data.data_root, train=train, download=config.data.download) for train in (True, False)]
    except (RuntimeError, OSError) as error:  # not there, or no network
        raise FileNotFoundError(
            f"data {name} must lie in --data-root {config.data.data_root} as torchvision keeps it, or be fetched with --download: {error}"
        ) from error
    arrays: list[np.ndarray] = []
    for split in splits:
        images = np.asarray(split.data)
        if images.shape[1] == 28:  # 8x8 patches do not divide 28
            images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
        arrays += [images, np.asarray(split.targets)]
    return arrays
