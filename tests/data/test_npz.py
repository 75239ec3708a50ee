"""Arrays of any names, shapes and ranges: what an npz may hold, against numbers computed beside it."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from toys import NETWORK

from rlmix.config import Config
from rlmix.data.npz import recognise
from rlmix.data.registry import load_data
from rlmix.scripts.main import main as rlmix_main

RNG = np.random.default_rng(0)
SPLITS = {"train": 12, "test": 6, "val": 6}
IMAGES = {split: RNG.integers(0, 256, (count, 10, 12, 3), dtype=np.uint8) for split, count in SPLITS.items()}
LABELS = {split: np.arange(count) % 3 for split, count in SPLITS.items()}


def save(path, pattern_images, pattern_labels, splits=("train", "test"), **changes):
    arrays = {pattern_images.format(split): IMAGES[split] for split in splits}
    arrays |= {pattern_labels.format(split): LABELS[split] for split in splits}
    np.savez(path / "a.npz", **(arrays | changes))
    return f"npz:{path / 'a.npz'}"


def load(name, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_data(Config.flat(data=name, **options))


# -- names


@pytest.mark.parametrize(
    ("images", "labels", "splits"),
    [
        ("x_{}", "y_{}", ("train", "test")),
        ("X_{}", "y_{}", ("train", "test")),
        ("{}_images", "{}_labels", ("train", "test")),
        ("{}_images", "{}_labels", ("train", "test", "val")),
    ],
)
def test_known_families_are_told_by_their_names(tmp_path, images, labels, splits):
    data = load(save(tmp_path, images, labels, splits))
    assert data.measured == (("val", "test") if "val" in splits else ("test",))
    for split in splits:
        assert np.array_equal(getattr(data, f"{split}_images").numpy(), IMAGES[split])
        assert data.labels(split).tolist() == LABELS[split].tolist()


def test_keys_name_arrays_of_any_name(tmp_path):
    name = save(tmp_path, "pics-{}", "who-{}", ("train", "test", "val"))
    data = load(name, keys=("pics-val", "who-val", "pics-train", "who-train"))
    assert np.array_equal(data.train_images.numpy(), IMAGES["val"])
    assert np.array_equal(data.test_images.numpy(), IMAGES["train"])
    assert data.val_images is None
    keys = [f"{kind}-{split}" for split in SPLITS for kind in ("pics", "who")]
    assert np.array_equal(load(name, keys=tuple(keys)).val_images.numpy(), IMAGES["val"])


def test_keras_names_win_and_its_other_arrays_stay_unread(tmp_path):
    data = load(save(tmp_path, "x_{}", "y_{}", ("train", "test", "val"), train_images=np.zeros(3)))
    assert data.measured == ("test",)
    assert recognise(["train_images", "train_labels", "val_images", "val_labels"]) == ("train_images", "train_labels")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": ("a", "b", "c")}, "keys must be 2, 4 or 6 names, images and labels of a split each, got a b c"),
        (
            {"keys": ("x_train", "y_trian")},
            r"must hold x_train, y_trian; it lacks y_trian \(it has x_train, x_test, y_train, y_test\)",
        ),
        ({"value_range": (1.0, 0.0)}, r"value_range must be two numbers, the lower one first, got \(1.0, 0.0\)"),
        ({"value_range": (1.0,)}, "value_range must be two numbers"),
        ({"value_range": (0.0, 9.0)}, r"x_train of .* must be in \[0, 9\], the value_range, got 0 to 255"),
        (
            {"image_size": 10, "image_fit": "pad"},
            "image_size must be at least the 10x12 of x_train .* with image_fit pad, got 10",
        ),
        ({"resize_size": 10}, "image_size and resize_size must be left out with npz"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    name = save(tmp_path, "x_{}", "y_{}")
    with pytest.raises(ValueError, match=message):
        load_data(Config.flat(data=name, **options).resolved())


@pytest.mark.parametrize("options", [{}, {"value_range": (0.0, 255.0)}])
@pytest.mark.parametrize("labels", [LABELS["train"], np.array(3)])
def test_a_number_is_no_images(tmp_path, options, labels):
    name = save(tmp_path, "x_{}", "y_{}", x_train=np.array(7, np.uint8), y_train=labels)
    with pytest.raises(ValueError, match=r"x_train of npz:.*a.npz must hold .*shape \(\)$"):
        load(name, **options)


def test_a_validation_split_beside_its_own_is_refused(tmp_path):
    name = save(tmp_path, "{}_images", "{}_labels", tuple(SPLITS))
    with pytest.raises(ValueError, match=r"val_fraction must be left out with npz.*, which has a validation split, got 0.5"):
        load(name, val_fraction=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "digits", "--keys", "a", "b"], "--keys must be left out with --data digits"),
        (["--data", "digits", "--value-range", "-1", "1"], "--value-range must be left out with --data digits"),
        (["--data", "npz:x", "--image-fit", "pad"], "--image-fit must be left out with images of their own size"),
        (["--data", "imagefolder:x", "--image-size", "64", "--image-fit", "pad"], "--image-fit must be left out with --data imagefolder:x"),
    ],
)  # fmt: skip
def test_options_that_the_data_do_not_read_are_refused(capsys, options, message):
    with pytest.raises(SystemExit) as end:
        rlmix_main(["train", *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


# -- labels and splits


def test_labels_may_be_a_column(tmp_path):
    columns = {f"y_{split}": LABELS[split][:, None] for split in ("train", "test")}
    data = load(save(tmp_path, "x_{}", "y_{}", **columns))
    assert data.train_labels.tolist() == LABELS["train"].tolist()
    assert data.train_labels.shape == (12,)


@pytest.mark.parametrize("names", [("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels")])
def test_without_a_test_split_a_fifth_of_every_class_is_kept(tmp_path, names):
    images, labels = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.repeat([0, 1], [30, 10])[:, None]
    np.savez(tmp_path / "a.npz", **dict(zip(names, (images, labels), strict=True)))
    with pytest.warns(UserWarning, match="has no test split: 8 of its 40 images, a fifth of every class, are kept for it"):
        data = load_data(Config.flat(data=f"npz:{tmp_path / 'a.npz'}"))
    assert torch.bincount(data.train_labels).tolist() == [24, 8]
    assert torch.bincount(data.test_labels).tolist() == [6, 2]
    found = {image.numpy().tobytes() for image in torch.cat([data.train_images, data.test_images])}
    assert found == {image.tobytes() for image in images}


def test_a_class_too_small_to_be_split_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES["train"], y_train=np.array([0] * 11 + [1]))
    with pytest.raises(ValueError, match=r"the test part kept of npz.* must leave every class an image on both sides, got 0.2"):
        load_data(Config.flat(data=f"npz:{tmp_path / 'a.npz'}"))


# -- values and sizes


@pytest.mark.parametrize(
    ("dtype", "value_range"), [(np.float32, (0, 1)), (np.float64, (-1, 1)), (np.uint16, (0, 4095)), (np.uint8, (0, 255)), (bool, (0, 1))]
)  # fmt: skip
def test_other_numbers_are_scaled_from_their_range(tmp_path, dtype, value_range):
    low, high = value_range
    if np.dtype(dtype).kind == "f":
        values = {split: (low + RNG.random((n, 9, 9, 1)) * (high - low)).astype(dtype) for split, n in SPLITS.items()}
    else:
        values = {split: RNG.integers(low, high + 1, (n, 9, 9, 1)).astype(dtype) for split, n in SPLITS.items()}
    name = save(tmp_path, "x_{}", "y_{}", x_train=values["train"], x_test=values["test"])
    data = load(name, value_range=(float(low), float(high)))
    for split in ("train", "test"):
        exact = (values[split].astype(float) - low) / (high - low) * 255
        found = getattr(data, f"{split}_images").numpy()
        assert found.shape == (SPLITS[split], 9, 9, 3)
        assert np.abs(found - exact).max() <= 0.5 + 1e-4


def test_numbers_of_no_known_range_say_what_to_give(tmp_path):
    name = save(tmp_path, "x_{}", "y_{}", x_train=IMAGES["train"] / 255)
    with pytest.raises(ValueError, match=r"x_train of .*, got float64 of shape .*; --value-range LOW HIGH takes other numbers"):
        load(name)
    name = save(tmp_path, "x_{}", "y_{}", x_train=np.full((12, 8, 8), np.nan))
    with pytest.raises(ValueError, match=r"x_train of .* must be in \[0, 1\], the value_range, got nan to nan"):
        load(name, value_range=(0.0, 1.0))


def test_padding_puts_black_around(tmp_path):
    data = load(save(tmp_path, "x_{}", "y_{}"), image_size=15, image_fit="pad")
    assert data.image_size == (15, 15)
    expected = np.zeros((12, 15, 15, 3), np.uint8)
    expected[:, 2:12, 1:13] = IMAGES["train"]  # 5 rows and 3 columns more, the smaller part above and to the left
    assert np.array_equal(data.train_images.numpy(), expected)
    np.testing.assert_allclose(data.mean.numpy(), expected.reshape(-1, 3).mean(0) / 255, atol=1e-6)


@pytest.mark.parametrize("side", [8, 24])
def test_resizing_is_pillows(tmp_path, side):
    data = load(save(tmp_path, "x_{}", "y_{}"), image_size=side)
    for image, found in zip(IMAGES["test"], data.test_images.numpy(), strict=True):
        expected = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_splits_of_two_sizes_go_together_once_they_are_fitted(tmp_path):
    name = save(tmp_path, "x_{}", "y_{}", x_test=IMAGES["test"][:, :8, :8])
    with pytest.raises(ValueError, match=r"x_test of .* must have images of \(10, 12, 3\), got \(8, 8, 3\)"):
        load(name)
    assert load(name, image_size=16).test_images.shape == (6, 16, 16, 3)


@pytest.mark.parametrize("method", ["rmix", "rlmix"])
def test_a_run_on_medmnists_arrays(tmp_path, method):
    """28x28 and gray, labels (n, 1), validation split: trained, evaluated as a run, and taken along by --freeze-from."""
    levels = {split: np.arange(16 if split == "train" else 6) % 2 for split in SPLITS}
    arrays = {f"{split}_labels": values[:, None].astype(np.uint8) for split, values in levels.items()}
    noise = {split: RNG.integers(0, 56, (len(values), 28, 28)) for split, values in levels.items()}
    arrays |= {
        f"{split}_images": (150 * values[:, None, None] + noise[split]).astype(np.uint8) for split, values in levels.items()
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    shared = ["--model", NETWORK, "--batch-size", "8", "--device", "cpu", "--learning-rate", "0.01"]
    data = ["--data", f"npz:{tmp_path / 'mnist.npz'}", "--image-size", "32", "--image-fit", "pad"]
    for options, out in ((data[:2], "own"), (data, "padded")):
        rlmix_main(["train", "--method", method, *options, *shared, "--epochs", "1", "--out", str(tmp_path / out)])
        result = json.loads((tmp_path / out / "result.json").read_text())
        assert 0 <= result["top1"] <= 100
        (line,) = (tmp_path / out / "metrics.jsonl").read_text().splitlines()
        assert "val_top1" in line
    config = Config.flat(freeze_from=str(tmp_path / "padded")).resolved()
    assert (config.data.image_size, config.data.image_fit) == (32, "pad")
