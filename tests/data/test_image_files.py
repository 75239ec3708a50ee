"""What is no image is named in one line, before it costs anything; so is a decoding process that dies."""

import os
import signal
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from toys import NETWORK, write_folder

from rlmix.data.folder import Pictures
from rlmix.data.image_files import describe_left_out, kind_left_out, open_image, upright_rgb
from rlmix.scripts.main import main as rlmix_main


def refused(path):
    with pytest.raises(ValueError, match="must be an image: ") as error, open_image(path) as image:
        image.load()
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_image_is_opened_whatever_its_name_says(tmp_path):
    Image.new("L", (3, 2), 7).save(tmp_path / "x.png", "GIF")
    with open_image(tmp_path / "x.png") as image:
        assert image.size == (3, 2)
        assert image.convert("RGB").getpixel((2, 1)) == (7, 7, 7)


def test_postscript_is_not_interpreted(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 3 2\n%%EndComments\nshowpage\n%%EOF\n")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: pytest.fail("Ghostscript was run"))
    assert "cannot identify image file" in refused(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png", "none.png"):
        assert refused(tmp_path / name).endswith("it is no file")


@pytest.mark.parametrize(("size", "allowed"), [((1000, 1), True), ((1, 1000), True), ((1001, 1), False), ((2, 2001), False)])
def test_the_longer_side_is_bounded_by_the_shorter(tmp_path, size, allowed):
    path = tmp_path / "x.png"
    Image.new("RGB", size).save(path)
    if allowed:
        with open_image(path) as image:
            image.load()
    else:
        assert refused(path).endswith("a side must be at most 1000 times the other, got {} x {}".format(*size))


# -- what the values of an image mean


def decoded(path):
    with open_image(path) as image:
        return np.asarray(upright_rgb(image))


RAMP = np.arange(0, 65536, 257).reshape(16, 16)
"""Every 257th value of 16 bits, 0 to 65535: scaled to bytes these are 0 to 255."""


def write_tiff(path, values, bits, sample_format=1, photometric=1):
    """An uncompressed gray TIFF, little-endian, of literal tags."""
    height, width = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2)
        data = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1).astype(np.uint8)
    else:
        data = values
    content = data.tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(content)}
    tags[339] = sample_format
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    head = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    path.write_bytes(head + content + struct.pack("<H", len(tags)) + table + bytes(4))
    return path


def write_pgm(path, values, highest, plain=False):
    body = " ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2" if highest > 255 else np.uint8).tobytes()
    path.write_bytes(b"P%d\n16 16\n%d\n" % (2 if plain else 5, highest) + body)
    return path


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


SIXTEEN = {
    "png": lambda path: save(path / "x.png", RAMP.astype(np.uint16)),
    "little-endian tiff": lambda path: save(path / "x.tif", RAMP.astype("<u2")),
    "big-endian tiff": lambda path: save(path / "x.tif", RAMP.astype(">u2")),
    "compressed tiff": lambda path: save(path / "x.tif", RAMP.astype("<u2"), compression="tiff_lzw"),
    "tiff in which white is 0": lambda path: write_tiff(path / "x.tif", (65535 - RAMP).astype("<u2"), 16, photometric=0),
    "12-bit tiff": lambda path: write_tiff(path / "x.tif", RAMP // 16, 12),
    "pgm": lambda path: write_pgm(path / "x.pgm", RAMP, 65535),
    "pgm of 1000 levels": lambda path: write_pgm(path / "x.pgm", np.rint(RAMP * 1000 / 65535).astype(int), 1000),
    "plain pgm": lambda path: write_pgm(path / "x.pgm", RAMP, 65535, plain=True),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_sixteen_bits_are_scaled_to_bytes(tmp_path, kind):
    found = decoded(SIXTEEN[kind](tmp_path))
    assert found.shape == (16, 16, 3)
    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[-1, -1].tolist() == [255, 255, 255]
    off_by = 0 if "1000" not in kind and "12" not in kind else 1
    assert np.abs(found.astype(int) - np.arange(256).reshape(16, 16, 1)).max() <= off_by


def test_a_middle_value_is_rounded(tmp_path):
    values = np.array([[128, 129, 32767, 32768, 40000, 65406, 65407, 65535]], np.uint16)
    assert decoded(save(tmp_path / "x.png", values))[0, :, 0].tolist() == [0, 1, 127, 128, 156, 254, 255, 255]


def write_ppm(path):
    path.write_bytes(b"P6\n1 1\n65535\n" + np.array([65535, 32896, 0], ">u2").tobytes())
    return path


def write_png16(path):
    """RGB of 16 bits, which Pillow cannot write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = zlib.compress(b"\0" + np.array([65535, 32896, 0], ">u2").tobytes())
    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("write", [write_ppm, write_png16])
def test_colour_of_sixteen_bits_is_scaled_too(tmp_path, write):
    assert decoded(write(tmp_path / "x")).tolist() == [[[255, 128, 0]]]


REFUSED = {
    "int32 tiff": (lambda path: save(path, np.array([[0, 70000]] * 2, np.int32)), "I from 0 to 70000"),
    "int32 tiff of bytes": (lambda path: save(path, np.array([[3, 255]] * 2, np.int32)), "I from 3 to 255"),
    "uint32 tiff": (lambda path: write_tiff(path, np.array([[1, 9]] * 2, "<u4"), 32), "I from 1 to 9"),
    "float tiff in [0, 1]": (lambda path: save(path, np.array([[0, 1]] * 2, np.float32)), "F from 0 to 1"),
    "float tiff": (lambda path: save(path, np.array([[-0.5, 255]] * 2, np.float32)), "F from -0.5 to 255"),
    "pfm": (lambda path: path.write_bytes(b"Pf\n2 2\n-1.0\n" + np.full(4, 0.25, "<f4").tobytes()), "F from 0.25 to 0.25"),
    "16 bits with a sign": (lambda path: write_tiff(path, np.array([[-5, 300]] * 2, "<i2"), 16, 2), "I from -5 to 300"),
    "8 bits with a sign": (lambda path: write_tiff(path, np.array([[-5, 100]] * 2, "i1"), 8, 2), "L with a sign"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_values_without_a_range_are_refused_by_name(tmp_path, kind):
    write, found = REFUSED[kind]
    write(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=r"x.tif must be an image: ValueError values must be bytes, or 16 bits .*") as error:
        decoded(tmp_path / "x.tif")
    assert f"got mode {found}; save it scaled to 0..255" in str(error.value)


BYTES = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (6, 5, 1), dtype=np.uint8)
GRAY = BYTES[..., :1].repeat(3, 2)


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("x.png", lambda: Image.fromarray(BYTES), BYTES),
        ("x.webp", lambda: Image.fromarray(BYTES), BYTES),
        ("x.bmp", lambda: Image.fromarray(BYTES), BYTES),
        ("x.png", lambda: Image.fromarray(BYTES[..., 0]), GRAY),
        ("x.gif", lambda: Image.fromarray(BYTES[..., 0]), GRAY),
        ("x.jpe", lambda: Image.new("L", (5, 6), 77), np.full((6, 5, 3), 77)),
        ("x.png", lambda: Image.fromarray(BYTES[..., 0] > 99), np.where(BYTES[..., :1] > 99, 255, 0).repeat(3, 2)),
        ("x.pbm", lambda: Image.fromarray(BYTES[..., 0] > 99), np.where(BYTES[..., :1] > 99, 255, 0).repeat(3, 2)),
        ("x.png", lambda: Image.fromarray(np.concatenate([BYTES, ALPHA], 2)), BYTES),
        ("x.tif", lambda: Image.fromarray(np.concatenate([BYTES, ALPHA], 2)), BYTES),
        ("x.png", lambda: Image.fromarray(np.concatenate([GRAY[..., :1], ALPHA], 2)), GRAY),
        ("x.tif", lambda: Image.fromarray(BYTES).convert("CMYK"), BYTES),
        ("x.tif", lambda: Image.fromarray(BYTES[..., 0]).convert("P"), GRAY),
    ],
)
def test_bytes_are_taken_as_they_are_and_transparency_is_left_out(tmp_path, name, image, expected):
    image().save(tmp_path / name, **({"lossless": True} if name == "x.webp" else {}))
    assert np.array_equal(decoded(tmp_path / name), expected)


def test_gray_that_was_multiplied_with_its_opacity_is_divided_again():
    image = Image.fromarray(np.array([[[100, 255], [200, 128]]], np.uint8), "LA").convert("La")
    assert image.getpixel((1, 0)) == (100, 128)
    assert np.abs(np.asarray(upright_rgb(image))[0].astype(int) - [[100], [200]]).max() <= 1


def test_a_palette_with_a_transparent_colour_and_several_frames(tmp_path):
    frames = [Image.fromarray(BYTES[..., channel]).convert("P") for channel in range(2)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], transparency=int(BYTES[0, 0, 0]), disposal=2)
    assert np.array_equal(decoded(tmp_path / "x.gif"), GRAY)
    pages = [Image.fromarray(BYTES[..., channel]) for channel in range(2)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(decoded(tmp_path / "x.tif"), GRAY)


# -- which way is up

SIDES = ["top left", "top right", "bottom right", "bottom left", "left top", "right top", "right bottom", "left bottom"]
"""By orientation from 1: where the stored image's first row and first column are to be seen (EXIF 2.3, tag 274)."""


def seen(stored, orientation):
    """Pixel by pixel from the standard's words."""
    height, width = stored.shape[:2]
    sides = SIDES[orientation - 1].split()
    sideways = sides[0] in ("left", "right")
    upright = np.zeros_like(stored.swapaxes(0, 1) if sideways else stored)
    for row in range(height):
        for column in range(width):
            place = {}
            for side, index, length in zip(sides, (row, column), (height, width), strict=True):
                axis = "y" if side in ("top", "bottom") else "x"
                place[axis] = index if side in ("top", "left") else length - 1 - index
            upright[place["y"], place["x"]] = stored[row, column]
    return upright


def with_orientation(path, array, orientation, **options):
    exif = Image.Exif()
    exif[274] = orientation
    return save(path, array, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_orientation_asks(tmp_path, orientation):
    expected = seen(BYTES, orientation)
    for name, options in (("x.png", {}), ("x.webp", {"lossless": True}), ("x.tif", {}), ("y.tif", {"compression": "tiff_lzw"})):
        assert np.array_equal(decoded(with_orientation(tmp_path / name, BYTES, orientation, **options)), expected), name
    blocks = BYTES[:2, :2].repeat(8, 0).repeat(16, 1)
    path = with_orientation(tmp_path / "x.jpg", blocks, orientation, quality=100, subsampling=0)
    assert np.abs(decoded(path).astype(int) - seen(blocks, orientation)).max() <= 3
    sixteen = with_orientation(tmp_path / "z.png", RAMP[:5].astype(np.uint16), orientation)
    assert np.array_equal(decoded(sixteen)[..., 0], seen(np.arange(80).reshape(5, 16), orientation))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_upright(tmp_path, orientation):
    for name in ("x.png", "x.tif"):
        assert np.array_equal(decoded(with_orientation(tmp_path / name, BYTES, orientation)), BYTES)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\0\x01"]
)
def test_damaged_exif_does_not_harm_the_pixels(tmp_path, exif):
    Image.new("RGB", (5, 6), (200, 100, 50)).save(tmp_path / "x.jpg", exif=exif, quality=100, subsampling=0)
    assert np.abs(decoded(tmp_path / "x.jpg").astype(int) - [200, 100, 50]).max() <= 2


# -- what is no picture


def test_kinds_that_are_left_out_are_counted():
    kinds = map(
        kind_left_out, ["a.JPG", "a.avif", "b.AVIF", "name", ".DS_Store", "._a.jpg", "x/.ipynb_checkpoints/a.png", "b.jfif"]
    )
    assert describe_left_out(kinds) == "3 hidden, 2 .avif, 1 without ending"
    assert describe_left_out(["", ""]) == ""
    assert describe_left_out(f".{index}" for index in range(8)) == "1 .0, 1 .1, 1 .2, 1 .3, 1 .4, 3 of other kinds"


def test_a_decoding_process_that_dies_ends_the_command_in_one_line(tmp_path, monkeypatch, capfd):
    data = write_folder(tmp_path / "data", num_train=2, num_val=1)
    monkeypatch.setattr(Pictures, "__getitem__", lambda pictures, index: os.kill(os.getpid(), signal.SIGKILL))
    options = ["--image-size", "8", "--batch-size", "2", "--epochs", "1", "--model", NETWORK, "--workers", "1"]
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", "--data", data, *options, "--method", "vanilla", "--out", str(tmp_path / "run")])
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("rlmix: error: DataLoader worker (pid")
