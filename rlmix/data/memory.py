"""Image data sets, whole and on the device, as bytes."""

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rlmix.common.ranks import Ranks
from rlmix.common.transfer import to_device
from rlmix.config import Config
from rlmix.data.augmentation import CropFlip, crop_flip, sample_crop_flip
from rlmix.data.dataset import Augmented, Pixels, check_trained, in_turn, stratified_split
from rlmix.data.pixels import channels_last, enlarged, fit_square, three_channels
from rlmix.data.registry import DATA
from rlmix.data.splits import TEST_FRACTION
from rlmix.recipes import Recipe


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
            index = to_device(ranks.share(index), self.train_labels.device)
            images = crop_flip(self.train_images[index], draw, recipe.crop_padding)
            yield Augmented(images, self.train_labels[index], index, draw)

    def batches(self, split: str, batch_size: int) -> Iterator[Pixels]:
        """A split in order."""
        images, labels = getattr(self, f"{split}_images"), self.labels(split)
        return map(Pixels, images.split(batch_size), labels.split(batch_size))

    def take(self, split: str, index: Int[Tensor, " batch"]) -> Pixels:
        """Some of a split."""
        index = to_device(index, self.train_labels.device)
        return Pixels(getattr(self, f"{split}_images")[index], self.labels(split)[index])

    def checksum(self) -> int:
        """Over every tensor, name and all."""
        checksum = 0
        for name, value in sorted(vars(self).items()):
            if isinstance(value, Tensor):
                checksum = zlib.crc32(value.cpu().contiguous().numpy().tobytes(), zlib.crc32(name.encode(), checksum))
        return checksum


def in_memory(name: str, arrays: list[np.ndarray], config: Config) -> ImageData:
    """The data set called ``name`` of images and labels, as the configuration takes them.

    Args:
        name: What errors call it.
        arrays: Images and labels of training, of the test, and of validation, as :func:`image_data` takes them. Where there are
            those of training alone, a fifth of every class is kept for the test.
        config: What is taken of them.

    Raises:
        ValueError: If they are malformed.
    """
    data = config.data
    splits = [(arrays[index], arrays[index + 1]) for index in range(0, len(arrays), 2)]
    if len(splits) == 1:
        splits = _keep_test(*splits[0], name)
    return image_data(
        *splits[0],
        *splits[1],
        val=splits[2] if len(splits) > 2 else None,
        num_train=data.train_images,
        num_test=data.test_images,
        val_fraction=data.val_fraction,
        relabel=data.relabel,
        image_size=data.image_size,
        image_fit=data.image_fit,
        source=name,
    )


def _keep_test(images: np.ndarray, labels: np.ndarray, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test split of images that have none; a warning says so."""
    labels = _checked_labels(images, labels, "train", name)
    rest, part = stratified_split(torch.from_numpy(labels.astype(np.int64)), TEST_FRACTION, f"the test part kept of {name}")
    warnings.warn(
        f"{name} has no test split: {len(part)} of its {len(labels)} images, a fifth of every class, are kept for it",
        stacklevel=3,
    )
    return [(images[index.numpy()], labels[index.numpy()]) for index in (rest, part)]


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


def image_data(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    val: tuple[np.ndarray, np.ndarray] | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    val_fraction: float = 0.0,
    relabel: bool = False,
    image_size: int | None = None,
    image_fit: str = "resize",
    source: str = "the data",
) -> ImageData:
    """Build the data set from arrays; a ValueError says what is wrong.

    Args:
        train_images: uint8 (n, H, W), (n, H, W, C) or (n, C, H, W), with 1, 3 or 4 channels and at least 8 pixels a side. Which of
            the two it is cannot be mistaken.
        train_labels: Integers from 0, (n,) or (n, 1).
        test_images: As the training images.
        test_labels: Of classes that have training images.
        val: Images and labels of a validation split of its own.
        num_train: Use only so many training images, of every class in turn.
        num_test: Likewise of the test images.
        val_fraction: See :func:`rlmix.data.dataset.stratified_split`.
        relabel: Number the classes that occur from 0, in the order of their labels, which may be any integers.
        image_size: Pixels a side, where the images are to have others than their own.
        image_fit: How they get them, see :func:`rlmix.data.pixels.fit_square`.
        source: What the arrays are from.
    """
    given = {"train": (train_images, train_labels), "test": (test_images, test_labels)} | ({} if val is None else {"val": val})
    if val is not None and val_fraction:
        raise ValueError(f"val_fraction must be left out with {source}, which has a validation split, got {val_fraction}")
    images, labels = {}, {}
    for split, (found, named) in given.items():
        labels[split] = _checked_labels(found, named, split, source)
        if labels[split].min() < 0 and not relabel:
            raise ValueError(f"y_{split} of {source} must be class indices from 0 (or give --relabel), got {labels[split].min()}")
    for split, (found, _) in given.items():
        images[split] = channels_last(found, f"x_{split} of {source}")
        if image_size is not None:
            images[split] = fit_square(images[split], image_size, image_fit, f"x_{split} of {source}")
        if images[split].shape[1:] != images["train"].shape[1:]:
            raise ValueError(
                f"x_{split} of {source} must have images of {images['train'].shape[1:]}, got {images[split].shape[1:]}"
            )
    indices, num_classes = _class_indices(labels, relabel, source)
    for split, number in (("train", num_train), ("test", num_test)):
        allowed = f"{split}_images must be at most the {len(indices[split])} of {source}"
        images[split], indices[split] = _take(images[split], indices[split], number, allowed)
    for split in [split for split in indices if split != "train"]:
        check_trained(indices["train"], indices[split], f"train_images {num_train} of {source}")
    pixels = {split: three_channels(found) for split, found in images.items()}
    if val_fraction:
        rest, part = stratified_split(indices["train"], val_fraction)
        for parts in (pixels, indices):
            parts["val"], parts["train"] = parts["train"][part], parts["train"][rest]
    mean, std = _channel_statistics(pixels["train"])
    return ImageData(
        train_images=pixels["train"],
        train_labels=indices["train"],
        test_images=pixels["test"],
        test_labels=indices["test"],
        num_classes=num_classes,
        mean=mean,
        std=std,
        val_images=pixels.get("val"),
        val_labels=indices.get("val"),
    )


def _checked_labels(images: np.ndarray, labels: np.ndarray, split: str, source: str) -> np.ndarray:
    """Labels (n,) of so many images, which are some; ValueError where they are none."""
    if images.size == 0 or images.ndim == 0:
        raise ValueError(f"x_{split} of {source} must hold at least one image, got shape {images.shape}")
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.dtype.kind not in "iu" or flat.shape != images.shape[:1]:
        raise ValueError(
            f"y_{split} of {source} must be integers of shape ({len(images)},), got {labels.dtype} of shape {labels.shape}"
        )
    return flat


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


def _class_indices(labels: dict[str, np.ndarray], relabel: bool, source: str) -> tuple[dict[str, Int[Tensor, " image"]], int]:
    """Labels as indices of a network's outputs, and the number of these; a warning where some are for no class."""
    found = {split: torch.from_numpy(values.astype(np.int64)) for split, values in labels.items()}
    classes = found["train"].unique()
    if len(classes) < 2:
        raise ValueError(f"y_train of {source} must have at least 2 classes, got {len(classes)}")
    for split in [split for split in found if split != "train"]:
        check_trained(found["train"], found[split], f"y_train of {source}")
    if relabel:
        return {split: torch.searchsorted(classes, values) for split, values in found.items()}, len(classes)
    num_outputs = int(classes[-1]) + 1
    if num_outputs > len(classes):
        warnings.warn(
            f"y_train of {source} has {len(classes)} classes with labels {classes[0]} to {classes[-1]}: of the network's {num_outputs} "
            f"outputs {num_outputs - len(classes)} are for no class; --relabel numbers the classes from 0",
            stacklevel=4,
        )
    return found, num_outputs


def _channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(images[..., channel].flatten(), minlength=256) for channel in range(images.shape[3])])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = (shares * levels).sum(1)
    variance = (shares * levels**2).sum(1) - mean**2
    return mean.float(), variance.clamp(min=1e-6).sqrt().float()  # a constant channel stays at zero


def _load_digits() -> list[np.ndarray]:
    """The 1,797 scanned digits that scikit-learn ships, 8x8 pixels enlarged to 32x32; every fifth of a class is for the test."""
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(scans.reshape(-1, 1, 8, 8)) / 16
    pixels = enlarged(images, 32)
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
