"""Folders of image files, decoded by worker processes as a training goes on."""

import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int, UInt8
from PIL.Image import Image
from torch import Tensor
from torch.utils import data
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from rlmix.common.ranks import Ranks
from rlmix.common.seeding import derive, drawing_from, stream
from rlmix.common.transfer import to_device
from rlmix.config import Config
from rlmix.data.augmentation import ResizedCrop
from rlmix.data.dataset import Augmented, Pixels, check_trained, in_turn, stratified_split
from rlmix.data.image_files import describe_left_out, open_image, upright_rgb
from rlmix.data.label_table import NAME
from rlmix.data.listing import Files, list_splits, list_table
from rlmix.data.registry import DATA
from rlmix.data.splits import TEST_FRACTION
from rlmix.recipes import Recipe

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FolderData:
    """Image files by split; ``val/`` beside ``train/`` is the split ``test``. See :func:`load_folder`.

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
        seed = derive(generator.initial_seed(), f"epoch {epoch}")
        views, shares = Views(self.splits["train"].paths, self.side, recipe.flip, seed), [ranks.share(index) for index in order]
        for index, labels, (images, edges) in self._stream("train", views, shares, stack_views):
            top, left, height, width, mirror = to_device(edges, labels.device).unbind(1)
            images = to_device(images, labels.device)
            yield Augmented(images, labels, index, ResizedCrop(top, left, height, width, mirror.bool()))

    def batches(self, split: str, batch_size: int) -> Iterator[Pixels]:
        paths = self.splits[split].paths
        order = list(torch.arange(len(paths)).split(batch_size))
        for _, labels, images in self._stream(split, Pictures(paths, self.test_transform), order, stack):
            yield Pixels(to_device(images, labels.device), labels)

    def take(self, split: str, index: Int[Tensor, " batch"]) -> Pixels:
        pictures, labels = Pictures(self.splits[split].paths, self.test_transform), self.splits[split].labels
        images = stack([pictures[place] for place in index.tolist()])
        if isinstance(images, str):
            raise ValueError(f"{images}; --skip-corrupt leaves such images out")
        return Pixels(to_device(images, labels.device), labels[to_device(index, labels.device)])

    def checksum(self) -> int:
        """Over the pictures' names and labels; they themselves are not read."""
        checksum = 0
        for name, files in sorted(self.splits.items()):
            names = [Path(path).parts[-2:] for path in files.paths]
            checksum = zlib.crc32(repr((name, names, files.labels.tolist())).encode(), checksum)
        return checksum

    def _stream(
        self, split: str, pictures: "Pictures", order: Sequence[Tensor], collate: Callable[[list[Any]], Any]
    ) -> Iterator[tuple[Tensor, Tensor, Any]]:
        """Places and labels, on their device, and what was decoded, on the host."""
        labels = self.splits[split].labels
        for index, decoded in zip(order, decode(pictures, order, self.workers, collate, labels.is_cuda), strict=True):
            if isinstance(decoded, str):
                raise ValueError(f"{decoded}; --skip-corrupt leaves such images out")
            index = to_device(index, labels.device)
            yield index, labels[index], decoded


class Pictures(data.Dataset[Any]):
    """Decoded images as bytes (H, W, C); in place of one that cannot be decoded, a line that names it.

    Args:
        paths: Files.
        transform: Of a PIL image. It may draw from torch.
        seed: With the image's index it seeds what is drawn; None where nothing is.
    """

    def __init__(self, paths: list[str], transform: Callable[[Any], Any], seed: int | None = None) -> None:
        self.paths, self.transform, self.seed = paths, transform, seed

    def __getitem__(self, index: int) -> Any:
        try:
            with open_image(self.paths[index]) as image, self._draws(index):
                return self.shown(upright_rgb(image))
        except ValueError as error:
            return str(error)

    def shown(self, picture: Image) -> Any:
        """Of a decoded picture, bytes (H, W, C)."""
        return v2.functional.pil_to_tensor(self.transform(picture)).permute(1, 2, 0)

    def _draws(self, index: int) -> AbstractContextManager[None]:
        return nullcontext() if self.seed is None else drawing_from(stream(self.seed, str(index)))


class Views(Pictures):
    """Pictures cropped, resized and mirrored at random; with each, its :class:`~rlmix.data.augmentation.ResizedCrop` as five numbers.

    Args:
        paths: Files.
        side: Pixels a side.
        flip: Whether half of them are mirrored.
        seed: With the image's index it seeds what is drawn.
    """

    def __init__(self, paths: list[str], side: int, flip: bool, seed: int) -> None:
        self.crop, self.flip_probability = v2.RandomResizedCrop(side), 0.5 if flip else 0.0
        super().__init__(paths, self.crop, seed)

    def shown(self, picture: Image) -> tuple[UInt8[Tensor, "height width channel"], Float[Tensor, "5"]]:
        """Of a decoded picture, bytes (H, W, C), and where they lie in it."""
        edges = self.crop.make_params([picture])
        view = self.crop.transform(picture, edges)
        mirror = bool(torch.rand(1) < self.flip_probability)
        if mirror:
            view = v2.functional.horizontal_flip(view)
        width, height = picture.size
        parts = [edges["top"] / height, edges["left"] / width, edges["height"] / height, edges["width"] / width, float(mirror)]
        return v2.functional.pil_to_tensor(view).permute(1, 2, 0), torch.tensor(parts, dtype=torch.float32)


def decode(
    pictures: Pictures,
    order: Sequence[Tensor],
    workers: int,
    collate: Callable[[list[Any]], Any],
    pin_memory: bool = False,
) -> Iterator[Any]:
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


def stack_views(views: list[tuple[Tensor, Tensor] | str]) -> tuple[Tensor, Tensor] | str:
    """A batch (B, H, W, C) and its edges (B, 5); likewise."""
    broken = [view for view in views if isinstance(view, str)]
    if broken:
        return broken[0]
    images, edges = zip(*views, strict=True)
    return torch.stack(images), torch.stack(edges)


def soundness(images: list[Tensor | str]) -> Tensor:
    """Which of them could be decoded (B,)."""
    return torch.tensor([not isinstance(image, str) for image in images])


@DATA.register("imagefolder", reads=("workers", "skip_corrupt", "image_size", "resize_size", "splits", "keys"))
def load_imagefolder(path: str, config: Config) -> "FolderData":
    """A folder a class in train/ and in val/, or a folder with a labels.csv, decoded as it is read."""
    return load_folder(Path(path), config)


def load_folder(root: Path, config: Config) -> FolderData:
    """List the images under ``root``; nothing is decoded yet, except to find corrupt ones under ``config.data.skip_corrupt``.

    Raises:
        FileNotFoundError: If the splits' folders are not there.
        ValueError: If they hold no images, fewer than two classes, different ones, or a class without images.
    """
    side = config.recipe.image_size
    assert side is not None  # the recipe's
    has_table = (root / NAME).is_file() and not ((root / "train").is_dir() and (root / "val").is_dir())
    if config.data.keys is not None and not has_table:
        raise ValueError(f"keys must be left out with {root}, which has no {NAME} that is read")
    splits, class_names, kinds, trained = (list_table if has_table else list_splits)(root, config)
    left_out = describe_left_out(kinds)
    if left_out:
        warnings.warn(f"files in {root} that no image is read from are left out: {left_out}", stacklevel=2)
    if "test" not in splits:
        rest, part = stratified_split(splits["train"].labels, TEST_FRACTION, f"the test part kept of {root}")
        total = len(rest) + len(part)
        warnings.warn(
            f"{root} has no test split: {len(part)} of its {total} images, a fifth of every class, are kept for it", stacklevel=2
        )
        splits |= {"train": splits["train"].take(rest), "test": splits["train"].take(part)}
    if "val" in splits and config.data.val_fraction:
        raise ValueError(
            f"val_fraction must be left out with {root}, which has a validation split, got {config.data.val_fraction}"
        )
    for name, number in (("train", config.data.train_images), ("test", config.data.test_images)):
        allowed = f"{name}_images must be at most the {len(splits[name].paths)} of {root}"
        splits[name] = _take(splits[name], number, allowed)
    num_corrupt, total = 0, sum(len(files.paths) for files in splits.values())
    if config.data.skip_corrupt:
        for name, files in splits.items():
            sound = find_sound(files.paths, config.data.workers)
            num_corrupt += len(files.paths) - len(sound)
            splits[name] = files.take(sound)
        if num_corrupt:
            warnings.warn(f"{num_corrupt} of {total} images in {root} cannot be decoded and are left out", stacklevel=2)
    if config.data.val_fraction:
        rest, part = stratified_split(splits["train"].labels, config.data.val_fraction)
        splits |= {"train": splits["train"].take(rest), "val": splits["train"].take(part)}
    for name, files in splits.items():
        if not files.paths:
            raise ValueError(f"{root} must have {name} images, and has none")
    where = trained if config.data.train_images is None else f"train_images {config.data.train_images} of {root}"
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
    return torch.cat(list(decode(pictures, order, workers, soundness))).nonzero().flatten()
