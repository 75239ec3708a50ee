"""What a training reads images from: all of them on the device, or a folder decoded as it goes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rlmix.common.ranks import Ranks
from rlmix.data.augmentation import CropFlip, ResizedCrop
from rlmix.recipes import Recipe


class Pixels(NamedTuple):
    """A batch as bytes, on the device."""

    images: UInt8[Tensor, "batch height width channel"]
    labels: Int[Tensor, " batch"]


class Augmented(NamedTuple):
    """A training batch as bytes, on the device; and where the source can say, what it was made of."""

    images: UInt8[Tensor, "batch height width channel"]
    labels: Int[Tensor, " batch"]
    places: Int[Tensor, " batch"] | None = None
    """In the training split."""
    draw: CropFlip | ResizedCrop | None = None
    """How the images were cropped and mirrored."""


@runtime_checkable
class Dataset(Protocol):
    """A data set: :class:`rlmix.data.memory.ImageData` or :class:`rlmix.data.folder.FolderData`."""

    @property
    def num_classes(self) -> int: ...

    @property
    def num_channels(self) -> int: ...

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, as a batch has them."""
        ...

    @property
    def mean(self) -> Float[Tensor, " channel"]:
        """By which images in [0, 1] are normalised."""
        ...

    @property
    def std(self) -> Float[Tensor, " channel"]: ...

    @property
    def train_labels(self) -> Int[Tensor, " train"]: ...

    @property
    def measured(self) -> tuple[str, ...]:
        """The splits that are measured: ``val``, where there is one, and ``test``."""
        ...

    def labels(self, split: str) -> Int[Tensor, " split"]:
        """Of a measured split."""
        ...

    def to(self, device: torch.device) -> "Dataset":
        """The same data, its batches on another device."""
        ...

    def train_batches(
        self, order: Int[Tensor, "step batch"], recipe: Recipe, generator: torch.Generator, epoch: int, ranks: Ranks
    ) -> Iterator[Augmented]:
        """Augmented training images, batch by batch.

        Args:
            order: Indices into the training split.
            recipe: How to augment.
            generator: Of the augmentation. It advances by what has been given, or it is read for its seed only.
            epoch: For sources whose draws depend on seed, epoch and image alone.
            ranks: Each gets its share of every batch; what is drawn does not depend on how many there are.
        """
        ...

    def batches(self, split: str, batch_size: int) -> Iterator[Pixels]:
        """A measured split, in order and not augmented."""
        ...

    def take(self, split: str, index: Int[Tensor, " batch"]) -> Pixels:
        """Images of a measured split, not augmented, by their indices."""
        ...

    def checksum(self) -> int:
        """CRC-32 by which a run that goes on knows its data again."""
        ...


def in_turn(labels: Int[Tensor, " train"], number: int) -> Int[Tensor, " number"]:
    """Indices of so many images, the classes in turn: the first of every class, then the second, each class in its own order."""
    by_class = torch.argsort(labels, stable=True)
    rank = torch.cat([torch.arange(count) for count in torch.bincount(labels).tolist()])
    return by_class[torch.argsort(rank, stable=True)][:number]


def check_trained(
    trained: Int[Tensor, " train"], tested: Int[Tensor, " test"], where: str, class_names: Sequence[str] | None = None
) -> None:
    """Raise ValueError where a class is tested that has no training image.

    Args:
        trained: Labels of the training images.
        tested: Labels of the tested ones.
        where: What holds the former.
        class_names: The classes are named by; their labels where not given.
    """
    missing = sorted(set(tested.tolist()) - set(trained.tolist()))
    if missing:
        names = ", ".join(str(label) if class_names is None else class_names[label] for label in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        raise ValueError(
            f"{where} must hold images of every class that is tested, and holds none of {len(missing)}: {names}{more}"
        )


def stratified_split(
    labels: Int[Tensor, " train"], fraction: float, name: str = "val_fraction"
) -> tuple[Int[Tensor, " rest"], Int[Tensor, " part"]]:
    """Indices of the rest and of a part that has ``fraction`` of every class, each in rising order.

    The split depends on the labels and the fraction alone, so that runs with different seeds share it.

    Args:
        labels: Of all.
        fraction: What the part is of them.
        name: What an error calls it.

    Raises:
        ValueError: If a class has one image, or would have none in the rest, or there are too few images for every class.
    """
    from sklearn.model_selection import train_test_split

    try:
        rest, part = train_test_split(np.arange(len(labels)), test_size=fraction, random_state=0, stratify=labels.numpy())
    except ValueError as error:
        raise ValueError(f"{name} must leave every class an image on both sides, got {fraction}: {error}") from error
    check_trained(labels[rest], labels, f"what {name} {fraction} leaves to train on")
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(part))
