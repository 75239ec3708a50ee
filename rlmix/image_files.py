"""Image files from anywhere: opened as one of a few formats, and whatever is wrong with one said in a line that names it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its name says. Left to itself, Pillow tries all that it knows, and runs Ghostscript on PostScript."""
LARGEST_ASPECT = 1000
"""Of the longer side to the shorter: a file of some hundred bytes can hold 65,535 x 1 pixels, which resized are gigabytes."""


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """An image, not decoded yet.

    Raises:
        ValueError: If ``path`` is no such image, or anything goes wrong with it while it is open.
    """
    try:
        if not Path(path).is_file():
            raise ValueError("it is no file")  # a named pipe would be waited for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's name no file
            with Image.open(path, formats=FORMATS) as image:
                if max(image.size) > LARGEST_ASPECT * min(image.size):
                    raise ValueError("a side must be at most {} times the other, got {} x {}".format(LARGEST_ASPECT, *image.size))
                yield image
    except Exception as error:  # whatever a damaged file makes the decoders stumble over
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} must be an image: {type(error).__name__} {reason}") from error
