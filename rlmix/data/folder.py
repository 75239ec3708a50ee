"""Folders of image files, decoded by worker processes as a training goes on."""

import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils import data
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from rlmix.common.ranks import Ranks
from rlmix.common.seeding import derive, drawing_from, stream
from rlmix.config import Config
from rlmix.data.class_folders import list_class_folders
from rlmix.data.dataset import Augmented, Pixels, check_trained, in_turn, stratified_split
from rlmix.data.image_files import describe_left_out, open_image, upright_rgb
from rlmix.data.registry import DATA
from rlmix.recipes import Recipe

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Files(NamedTuple):
    """Images of a split."""

    paths: list[str]
    labels: Int[Tensor, " image"]

    def take(self, index: Int[Tensor, " part"]) -> "Files":
        """Those at ``index``, in its order."""
        return Files([self.paths[position] for position in index.tolist()], self.labels[index])


@dataclass(frozen=True)
class FolderData:
    """``train/`` and ``val/``, each with a folder a class; the latter is the split ``test``. See :func:`load_folder`.

    Training images are cropped at random (Szegedy et al. 2015: 8 to 100 % of the area, aspect 3/4 to 4/3), resized and mirrored;
    test images are resized and cropped at the centre. What is drawn for an image depends on seed, epoch and image alone.
    """

    root: Path
    splits: dict[str, Files]
    class_names: list[str]
    side: int
    """Pixels a side of the images given."""
    resize: int
    """Pixels of a test image's shorter side before its crop."""
    workers: int
    num_corrupt: int
    """Images left out."""
    mean: Tensor
    std: Tensor

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_channels(self) -> int:
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        return self.side, self.side

    @property
    def train_labels(self) -> Tensor:
        return self.splits["train"].labels

    @property
    def measured(self) -> tuple[str, ...]:
        return tuple(name for name in ("val", "test") if name in self.splits)

    @property
    def test_transform(self) -> Callable[[Any], Any]:
        """Of a PIL image, or of boxes in it."""
        return v2.Compose([v2.Resize(self.resize), v2.CenterCrop(self.side)])

    def labels(self, split: str) -> Tensor:
        return self.splits[split].labels

    def to(self, device: torch.device) -> Self:
        splits = {name: files._replace(labels=files.labels.to(device)) for name, files in self.splits.items()}
        return replace(self, splits=splits, mean=self.mean.to(device), std=self.std.to(device))

    def train_batches(
        self, order: Int[Tensor, "step batch"], recipe: Recipe, generator: torch.Generator, epoch: int, ranks: Ranks
    ) -> Iterator[Augmented]:
        transform = v2.Compose([v2.RandomResizedCrop(self.side), v2.RandomHorizontalFlip(0.5 if recipe.flip else 0.0)])
        seed = derive(generator.initial_seed(), f"epoch {epoch}")
        pictures = Pictures(self.splits["train"].paths, transform, seed)
        return (Augmented(*pixels) for pixels in self._stream("train", pictures, [ranks.share(index) for index in order]))

    def batches(self, split: str, batch_size: int) -> Iterator[Pixels]:
        paths = self.splits[split].paths
        return self._stream(split, Pictures(paths, self.test_transform), list(torch.arange(len(paths)).split(batch_size)))

    def checksum(self) -> int:
        """Over the pictures' names and labels; they themselves are not read."""
        checksum = 0
        for name, files in sorted(self.splits.items()):
            names = [Path(path).parts[-2:] for path in files.paths]
            checksum = zlib.crc32(repr((name, names, files.labels.tolist())).encode(), checksum)
        return checksum

    def _stream(self, split: str, pictures: "Pictures", order: Sequence[Tensor]) -> Iterator[Pixels]:
        labels = self.splits[split].labels
        for index, images in zip(order, decode(pictures, order, self.workers, stack, labels.is_cuda), strict=True):
            if isinstance(images, str):
                raise ValueError(f"{images}; --skip-corrupt leaves such images out")
            yield Pixels(images.to(labels.device, non_blocking=True), labels[index.to(labels.device, non_blocking=True)])


class Pictures(data.Dataset[Tensor | str]):
    """Decoded images as bytes (H, W, C); in place of one that cannot be decoded, a line that names it.

    Args:
        paths: Files.
        transform: Of a PIL image. It may draw from torch.
        seed: With the image's index it seeds what is drawn; None where nothing is.
    """

    def __init__(self, paths: list[str], transform: Callable[[Any], Any], seed: int | None = None) -> None:
        self.paths, self.transform, self.seed = paths, transform, seed

    def __getitem__(self, index: int) -> UInt8[Tensor, "height width channel"] | str:
        try:
            with open_image(self.paths[index]) as image, self._draws(index):
                picture = self.transform(upright_rgb(image))
        except ValueError as error:
            return str(error)
        return v2.functional.pil_to_tensor(picture).permute(1, 2, 0)

    def _draws(self, index: int) -> AbstractContextManager[None]:
        return nullcontext() if self.seed is None else drawing_from(stream(self.seed, str(index)))


def decode(
    pictures: Pictures,
    order: Sequence[Tensor],
    workers: int,
    collate: Callable[[list[Tensor | str]], Tensor | str],
    pin_memory: bool = False,
) -> Iterator[Tensor | str]:
    """Batches in order, decoded ahead by worker processes."""
    loader = DataLoader(
        pictures,
        batch_sampler=[index.tolist() for index in order],
        num_workers=min(workers, len(order)),
        collate_fn=collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else the workers' seeds, which nothing uses, are drawn from the global one
    )
    return iter(loader)


def stack(images: list[Tensor | str]) -> Tensor | str:
    """A batch (B, H, W, C); what is wrong with the first that cannot be decoded, where there is one."""
    broken = [image for image in images if isinstance(image, str)]
    return broken[0] if broken else torch.stack(images)  # type: ignore[arg-type]


def soundness(images: list[Tensor | str]) -> Tensor:
    """Which of them could be decoded (B,)."""
    return torch.tensor([not isinstance(image, str) for image in images])


@DATA.register("imagefolder", reads=("workers", "skip_corrupt", "image_size", "resize_size"))
def load_imagefolder(path: str, config: Config) -> "FolderData":
    """A folder a class in train/ and in val/, decoded as it is read."""
    return load_folder(Path(path), config)


def load_folder(root: Path, config: Config) -> FolderData:
    """List the images under ``root``; nothing is decoded yet, except to find corrupt ones under ``config.data.skip_corrupt``.

    Raises:
        FileNotFoundError: If ``train/`` or ``val/`` is not there.
        ValueError: If they hold no images, fewer than two classes, different ones, or a class without images.
    """
    side = config.recipe.image_size
    assert side is not None  # the recipe's
    listed = {split: list_class_folders(root / split) for split in ("train", "val")}
    class_names = listed["train"].class_names
    odd = sorted(set(class_names) ^ set(listed["val"].class_names))
    if odd:
        raise ValueError(f"{root} must have the same classes in train/ and val/; {len(odd)} are in one alone, such as {odd[0]!r}")
    train, test = (Files(split.paths, torch.tensor(split.labels)) for split in listed.values())
    left_out = describe_left_out(kind for split in listed.values() for kind in split.left_out)
    if left_out:
        warnings.warn(f"files in {root} that no image is read from are left out: {left_out}", stacklevel=2)
    train = _take(train, config.data.train_images, f"train_images must be at most the {len(train.paths)} of {root}")
    test = _take(test, config.data.test_images, f"test_images must be at most the {len(test.paths)} of {root}")
    splits, num_corrupt = {"train": train, "test": test}, 0
    if config.data.skip_corrupt:
        for name, files in splits.items():
            sound = find_sound(files.paths, config.data.workers)
            num_corrupt += len(files.paths) - len(sound)
            splits[name] = files.take(sound)
        if num_corrupt:
            total = len(train.paths) + len(test.paths)
            warnings.warn(f"{num_corrupt} of {total} images in {root} cannot be decoded and are left out", stacklevel=2)
    if config.data.val_fraction:
        rest, part = stratified_split(splits["train"].labels, config.data.val_fraction)
        splits |= {"train": splits["train"].take(rest), "val": splits["train"].take(part)}
    for name, files in splits.items():
        if not files.paths:
            raise ValueError(f"{root} must have {name} images, and has none")
    where = str(root / "train") if config.data.train_images is None else f"train_images {config.data.train_images} of {root}"
    check_trained(splits["train"].labels, torch.arange(len(class_names)), where, class_names)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return FolderData(root, splits, class_names, side, config.test_resize, config.data.workers, num_corrupt, mean, std)


def _take(files: Files, number: int | None, allowed: str) -> Files:
    """So many of a split, of every class in turn."""
    if number is not None and number > len(files.paths):
        raise ValueError(f"{allowed}, got {number}")
    return files if number is None else files.take(in_turn(files.labels, number))


def find_sound(paths: list[str], workers: int) -> Int[Tensor, " sound"]:
    """Indices of the images that can be decoded."""
    pictures, order = Pictures(paths, v2.Resize((1, 1))), torch.arange(len(paths)).split(64)
    return torch.cat(list(decode(pictures, order, workers, soundness))).nonzero().flatten()  # type: ignore[arg-type]
