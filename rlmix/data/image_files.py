"""Image files from anywhere: opened as one of a few formats, and whatever is wrong with one said in a line that names it."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its name says. Left to itself, Pillow tries all that it knows, and runs Ghostscript on PostScript."""
ENDINGS = (
    *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Of the names of files in these formats, in lower case."""
CLUTTER = ("__MACOSX", "@eaDir", "__pycache__")
"""Folders that archives, file servers and Python leave; they are hidden like those whose name begins with a dot."""
LARGEST_ASPECT = 1000
"""Of the longer side to the shorter: a file of some hundred bytes can hold 65,535 x 1 pixels, which resized are gigabytes."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a stored image upright, by its EXIF orientation."""
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


@contextmanager
def open_image(source: str | Path | bytes, name: str | None = None) -> Iterator[Image.Image]:
    """An image, not decoded yet.

    Args:
        source: A file, or what one holds.
        name: What errors call it; the file's own where not given.

    Raises:
        ValueError: If it is no such image, or anything goes wrong with it while it is open.
    """
    try:
        if not isinstance(source, bytes) and not Path(source).is_file():
            raise ValueError("it is no file")  # a named pipe would be waited for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's name no file
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                if max(image.size) > LARGEST_ASPECT * min(image.size):
                    raise ValueError("a side must be at most {} times the other, got {} x {}".format(LARGEST_ASPECT, *image.size))
                yield image
    except Exception as error:  # whatever a damaged file makes the decoders stumble over
        reason = " ".join(str(error).split())
        raise ValueError(f"{name or source!s} must be an image: {type(error).__name__} {reason}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image decoded to RGB bytes, turned as its EXIF orientation asks.

    Gray of 16 bits is scaled, so that its highest value, 65535, becomes 255. Transparency is left out: a pixel has the colour that
    is stored for it, however transparent. Of several frames or pages the first is taken.

    Raises:
        ValueError: If its values are of a kind that has no highest value: fractions, 32 bits, or with a sign.
    """
    image.load()
    rgb = _to_rgb(image)
    turn = None if image.format == "TIFF" else TURNS.get(orientation(image))  # Pillow turns a TIFF as it loads
    return rgb if turn is None else rgb.transpose(turn)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 (upright) to 8; 1 where there is none, or none that can be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the pixels may be sound whatever is wrong with what is said about them
        return 1
    return int(found) if found in range(1, 9) else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before an opened image is turned."""
    tags = getattr(image, "tag_v2", {})  # a TIFF's, whose size Pillow gives as it will be, turned
    return tags.get(ExifTags.Base.ImageWidth, image.width), tags.get(ExifTags.Base.ImageLength, image.height)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of its owner's pictures."""
    return name.startswith(".") or name in CLUTTER


def kind_left_out(path: str) -> str:
    """Which kind of files a relative path is of that no picture is read from; "" where it is a picture's."""
    if any(map(is_hidden, path.split(os.sep))):
        return "hidden"
    ending = os.path.splitext(path)[1].lower()
    return "" if ending in ENDINGS else ending or "without ending"


def describe_left_out(kinds: Iterable[str]) -> str:
    """How many files of which kinds are left out, the five most frequent by name; "" for none."""
    counts = Counter(filter(None, kinds))
    named = [f"{count} {kind}" for kind, count in counts.most_common(5)]
    others = sum(counts.values()) - sum(count for _, count in counts.most_common(5))
    return ", ".join(named + [f"{others} of other kinds"] * bool(others))


def _to_rgb(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    sixteen_bits = image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM"))
    has_sign = tags.get(ExifTags.Base.SampleFormat) == (2,)
    if has_sign or (image.mode in ("I", "F") and not sixteen_bits):
        found = "{} from {:g} to {:g}".format(image.mode, *image.getextrema()) if image.mode != "L" else "L with a sign"
        raise ValueError(f"values must be bytes, or 16 bits without a sign, got mode {found}; save it scaled to 0..255")
    if sixteen_bits:
        highest = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
        values = np.rint(np.asarray(image) * (255 / highest)).astype(np.uint8)
        white_is_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 0  # which Pillow heeds up to 8 bits alone
        image = Image.fromarray(255 - values if white_is_zero else values)
    return (image.convert("LA") if image.mode == "La" else image).convert("RGB")
