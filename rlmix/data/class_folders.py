"""A folder with a folder a class: which files are its images, and what lies there besides."""

from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import make_dataset

from rlmix.data.image_files import describe_left_out, is_hidden, kind_left_out


@dataclass(frozen=True)
class ClassFolders:
    """What :func:`list_class_folders` finds."""

    paths: list[str]
    """Of the images, class by class."""
    labels: list[int]
    class_names: list[str]
    left_out: list[str]
    """The kind of each file, and of each hidden folder, that is no image."""


def list_class_folders(folder: Path) -> ClassFolders:
    """List the images in the class folders and the folders within, as torchvision's ``ImageFolder`` does; nothing is opened.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has fewer than two class folders, or one without images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"data imagefolder:PATH must hold train/ and val/, and there is no {folder}")
    entries = sorted(folder.iterdir())
    class_names = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    if not class_names:
        raise ValueError(f"{folder} must hold a folder of images for each class, and holds none")
    index = {name: label for label, name in enumerate(class_names)}
    found = make_dataset(str(folder), index, is_valid_file=lambda path: True, allow_empty=True)
    kinds = [kind_left_out(path[len(str(folder)) + 1 :]) for path, _ in found]
    images = [file for file, kind in zip(found, kinds, strict=True) if not kind]
    beside = [kind_beside(entry) for entry in entries if entry.name not in index]
    listing = ClassFolders(
        [path for path, _ in images], [label for _, label in images], class_names, [*filter(None, kinds), *beside]
    )
    others = describe_left_out(listing.left_out)
    but = f" (left out: {others})" if others else ""
    if not images:
        raise ValueError(f"{folder} must hold images in its {len(class_names)} class folders, and holds none{but}")
    if len(class_names) < 2:
        raise ValueError(f"{folder} must hold at least 2 classes, got 1 ({class_names[0]})")
    empty = sorted(set(index.values()) - set(listing.labels))
    if empty:
        names = ", ".join(class_names[label] for label in empty[:3])
        raise ValueError(f"{folder} must hold images of every class, and holds none of {len(empty)}: {names}{but}")
    return listing


def kind_beside(entry: Path) -> str:
    """The kind of something that lies beside the class folders."""
    if is_hidden(entry.name):
        return "hidden folder" if entry.is_dir() else "hidden"
    return "outside the class folders"
