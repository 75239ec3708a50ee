"""Data sets: what is in them, and that every malformed one is refused in words."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rlmix.config import TrainingConfig
from rlmix.datasets import ImageData, image_data, load_data


class Canary:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(9) % 3,
        "x_test": rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(4) % 3,
    } | changes


def load_npz(path: Path, **options) -> ImageData:
    return load_data(TrainingConfig(data=f"npz:{path}", **options))


def test_digits_are_all_there_split_disjointly_with_every_class_in_both():
    data = load_data(TrainingConfig(data="digits"))
    assert data.train_images.shape[1:] == data.test_images.shape[1:] == (32, 32, 3)
    assert data.train_images.dtype == torch.uint8
    assert data.image_size == (32, 32)
    assert data.num_channels == 3
    assert data.num_classes == 10
    assert len(data.train_images) + len(data.test_images) == 1797
    assert len(data.train_labels) == len(data.train_images)
    assert len(data.test_labels) == len(data.test_images)
    for labels in (data.train_labels, data.test_labels):
        assert labels.unique().tolist() == list(range(10))
    train = {image.numpy().tobytes() for image in data.train_images}
    test = {image.numpy().tobytes() for image in data.test_images}
    assert len(train) + len(test) == 1797  # scikit-learn's scans are all different
    assert not train & test


def test_digits_come_from_scikit_learn_with_its_labels():
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    data = load_data(TrainingConfig(data="digits"))
    expected = np.bincount(labels)
    found = torch.bincount(data.train_labels) + torch.bincount(data.test_labels)
    assert found.tolist() == expected.tolist()
    corners = {(*scan[[0, 7, 56, 63]].astype(int), label) for scan, label in zip(scans, labels, strict=True)}
    pixels = torch.round(data.test_images[:, [0, 0, 31, 31], [0, 31, 0, 31], 0].double() / 255 * 16).int()
    assert all((*corner, label) in corners for corner, label in zip(pixels.tolist(), data.test_labels.tolist(), strict=True))


def test_digits_are_the_same_every_time():
    first, second = (load_data(TrainingConfig(data="digits")) for _ in range(2))
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.test_labels, second.test_labels)


def test_npz_round_trip(tmp_path):
    expected = arrays()
    np.savez(tmp_path / "a.npz", **expected)
    data = load_npz(tmp_path / "a.npz")
    for key, tensor in (("x_train", data.train_images), ("x_test", data.test_images)):
        assert np.array_equal(tensor.numpy(), expected[key])
    for key, tensor in (("y_train", data.train_labels), ("y_test", data.test_labels)):
        assert tensor.dtype == torch.int64
        assert np.array_equal(tensor.numpy(), expected[key])
    assert data.num_classes == 3
    pixels = expected["x_train"].reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean.numpy(), pixels.mean(0), atol=1e-6)
    np.testing.assert_allclose(data.std.numpy(), pixels.std(0), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer_type(tmp_path, dtype):
    expected = arrays()
    np.savez_compressed(tmp_path / "a.npz", **(expected | {key: expected[key].astype(dtype) for key in ("y_train", "y_test")}))
    assert load_npz(tmp_path / "a.npz").train_labels.tolist() == expected["y_train"].tolist()


@pytest.mark.parametrize("axis", [(), (1,)])
def test_grey_images_get_three_equal_channels(tmp_path, axis):
    grey = {key: value[..., 0].reshape(*value.shape[:3], *axis) for key, value in arrays().items() if key.startswith("x")}
    np.savez(tmp_path / "a.npz", **(arrays() | grey))
    data = load_npz(tmp_path / "a.npz")
    assert data.num_channels == len(data.mean) == len(data.std) == 3
    for channel in range(3):
        assert np.array_equal(data.train_images[..., channel].numpy(), arrays()["x_train"][..., 0])
        assert np.array_equal(data.test_images[..., channel].numpy(), arrays()["x_test"][..., 0])


def test_train_images_takes_the_first_and_leaves_the_test_split():
    full, part = (load_data(TrainingConfig(data="digits", train_images=number)) for number in (None, 50))
    assert torch.equal(part.train_images, full.train_images[:50])
    assert torch.equal(part.train_labels, full.train_labels[:50])
    assert torch.equal(part.test_images, full.test_images)
    assert part.num_classes == 10
    pixels = part.train_images.double().reshape(-1, 3) / 255
    np.testing.assert_allclose(part.mean.numpy(), pixels.mean(0).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match=r"train_images must be at most the \d+ of digits, got 5000"):
        load_data(TrainingConfig(data="digits", train_images=5000))


@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_validation_split_is_disjoint_stratified_and_the_same_for_every_seed(fraction):
    whole = load_data(TrainingConfig(data="digits"))
    data, again = (load_data(TrainingConfig(data="digits", val_fraction=fraction, seed=seed)) for seed in (0, 7))
    assert (whole.measured, data.measured) == (("test",), ("val", "test"))
    assert torch.equal(data.test_images, whole.test_images)
    counts, kept = torch.bincount(whole.train_labels), torch.bincount(data.labels("val"))
    assert ((kept - fraction * counts).abs() <= 1).all()
    assert (torch.bincount(data.train_labels) + kept == counts).all()
    train, val = ({image.numpy().tobytes() for image in images} for images in (data.train_images, data.val_images))
    assert not train & val
    assert train | val == {image.numpy().tobytes() for image in whole.train_images}
    assert torch.equal(data.val_images, again.val_images)
    pixels = data.train_images.double().reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean.numpy(), pixels.mean(0).numpy(), atol=1e-6)
    first = next(iter(data.batches("val", 5)))
    assert torch.equal(first.images, data.val_images[:5])
    assert torch.equal(first.labels, data.val_labels[:5])


def test_a_validation_split_that_would_lack_a_class_is_refused():
    for fraction in (0.001, 0.999):
        with pytest.raises(ValueError, match=f"val_fraction must leave every class an image on both sides, got {fraction}"):
            load_data(TrainingConfig(data="digits", val_fraction=fraction))


def test_constant_channels_keep_statistics_finite():
    data = image_data(**{key.replace("x_", "").replace("y_", "") + ("_images" if key[0] == "x" else "_labels"): value
                         for key, value in arrays(x_train=np.full((9, 8, 8, 3), 7, np.uint8)).items()})  # fmt: skip
    assert (data.std > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((9, 8, 8, 3), np.float32)}, r"x_train of .* must be uint8 .* got float32"),
        ({"x_train": np.zeros((9, 8, 8, 3), np.int64)}, r"x_train of .* must be uint8 .* got int64"),
        ({"x_test": np.zeros((4, 64), np.uint8)}, r"x_test of .* got uint8 of shape \(4, 64\)"),
        ({"x_test": np.zeros((4, 8, 8), np.uint8)}, r"x_test of .* must have images of \(8, 8, 3\), got \(8, 8\)"),
        ({"x_test": np.zeros((4, 16, 8, 3), np.uint8)}, r"x_test of .* must have images of \(8, 8, 3\), got \(16, 8, 3\)"),
        ({"x_train": np.zeros((0, 8, 8, 3), np.uint8), "y_train": np.zeros(0, int)}, r"x_train of .* got shape \(0, 8, 8, 3\)"),
        ({"x_test": np.zeros((0, 8, 8, 3), np.uint8), "y_test": np.zeros(0, int)}, r"x_test of .* got shape \(0, 8, 8, 3\)"),
        ({"x_train": np.zeros((9, 0, 8, 3), np.uint8)}, r"x_train of .* got shape \(9, 0, 8, 3\)"),
        ({"y_train": np.arange(8)}, r"y_train of .* integers of shape \(9,\), got int64 of shape \(8,\)"),
        ({"y_train": np.arange(9)[:, None]}, r"y_train of .* got int64 of shape \(9, 1\)"),
        ({"y_train": np.array(1)}, r"y_train of .* got int64 of shape \(\)"),
        ({"y_test": np.zeros(4)}, r"y_test of .* integers of shape \(4,\), got float64"),
        ({"y_test": np.array(["a", "b", "c", "d"])}, r"y_test of .* integers of shape \(4,\), got <U1"),
        ({"y_train": np.arange(9) % 3 - 1}, "y_train of .* class indices from 0, got -1"),
        ({"y_test": np.array([0, 1, -2, 1])}, "y_test of .* class indices from 0, got -2"),
        ({"y_test": np.array([0, 1, 3, 1])}, "y_test of .* below the 3 classes of y_train, got 3"),
        ({"y_train": np.zeros(9, int)}, "y_train of .* at least 2 classes, got 1"),
    ],
)
def test_malformed_arrays_are_named_with_file_and_value(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message) as error:
        load_npz(tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(error.value)


def test_a_missing_array_is_named_with_what_is_there(tmp_path):
    content = arrays()
    content["x_valid"] = content.pop("x_test")
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(ValueError, match=r"lacks x_test \(it has .*x_valid\)"):
        load_npz(tmp_path / "a.npz")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match="must name a file, and there is none") as error:
            load_npz(path)
        assert str(path) in str(error.value)


def write_npy(path: Path) -> None:
    with open(path, "wb") as handle:
        np.save(handle, np.zeros(3))


def write_flipped(path: Path) -> None:
    """A byte inside the compressed stream of x_train."""
    np.savez_compressed(path, **arrays(x_train=np.zeros((9, 8, 8, 3), np.uint8)))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("x_train.npy")
    start = info.header_offset + 30 + len("x_train.npy") + int.from_bytes(content[info.header_offset + 28 :][:2], "little")
    content[start] ^= 0xFF
    path.write_bytes(content)


def write_text_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for key in arrays():
            archive.writestr(key, "not an array")


def write_truncated(path: Path) -> None:
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:1500])


def write_encrypted(path: Path) -> None:
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    for offset in range(len(content) - 10):
        if content[offset : offset + 4] == b"PK\x01\x02":
            content[offset + 8] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello, this is no archive"),
        lambda path: path.write_bytes(b"PK\x03\x04 and nothing more"),
        write_npy,
        write_truncated,
        write_flipped,
        write_text_members,
        write_encrypted,
    ],
    ids=["empty", "text", "zip magic", "bare npy", "truncated", "flipped byte", "members that are no arrays", "encrypted"],
)
def test_files_that_are_no_archive_of_arrays_are_named(tmp_path, write):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_npz(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("bare", [True, False])
def test_pickles_are_refused_and_never_executed(tmp_path, bare):
    path, canary = tmp_path / "a.npz", tmp_path / "executed"
    if bare:
        path.write_bytes(pickle.dumps(Canary(canary)))
    else:
        objects = np.empty(9, dtype=object)
        objects[:] = [Canary(canary)] * 9
        np.savez(path, **arrays(x_train=objects))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_npz(path)
    assert not canary.exists()
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_absent_torchvision_sets_say_where_they_must_lie(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="--download") as error:
        load_data(TrainingConfig(data=name, data_root=str(tmp_path)))
    message = str(error.value)
    assert name in message
    assert str(tmp_path) in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []
