"""What is no image is named in one line, before it costs anything; so is a decoding process that dies."""

import os
import signal

import pytest
from PIL import EpsImagePlugin, Image
from toys import write_folder

from rlmix.folders import Pictures
from rlmix.image_files import open_image
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


def test_a_decoding_process_that_dies_ends_the_command_in_one_line(tmp_path, monkeypatch, capfd):
    data = write_folder(tmp_path / "data", num_train=2, num_val=1)
    monkeypatch.setattr(Pictures, "__getitem__", lambda pictures, index: os.kill(os.getpid(), signal.SIGKILL))
    options = ["--image-size", "8", "--batch-size", "2", "--epochs", "1", "--model", "preactresnet18_w16", "--workers", "1"]
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", "--data", data, *options, "--method", "vanilla", "--out", str(tmp_path / "run")])
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("rlmix: error: DataLoader worker (pid")
