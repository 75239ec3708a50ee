"""Data sets: what is in them, and that every malformed one is refused in words."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import write_npz

from rlmix.config import Config
from rlmix.data.dataset import stratified_split
from rlmix.data.memory import ImageData, image_data
from rlmix.data.registry import load_data
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint


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
    return load_data(Config.flat(data=f"npz:{path}", **options))


def test_digits_are_all_there_split_disjointly_with_every_class_in_both():
    data = load_data(Config.flat(data="digits"))
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
    data = load_data(Config.flat(data="digits"))
    expected = np.bincount(labels)
    found = torch.bincount(data.train_labels) + torch.bincount(data.test_labels)
    assert found.tolist() == expected.tolist()
    corners = {(*scan[[0, 7, 56, 63]].astype(int), label) for scan, label in zip(scans, labels, strict=True)}
    pixels = torch.round(data.test_images[:, [0, 0, 31, 31], [0, 31, 0, 31], 0].double() / 255 * 16).int()
    assert all((*corner, label) in corners for corner, label in zip(pixels.tolist(), data.test_labels.tolist(), strict=True))


def test_digits_are_the_same_every_time():
    first, second = (load_data(Config.flat(data="digits")) for _ in range(2))
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


def taken_in_turn(labels: np.ndarray, number: int) -> list[int]:
    """Round after round, the next image of every class that has one left."""
    left = {label: list(np.flatnonzero(labels == label)) for label in sorted(set(labels.tolist()))}
    taken: list[int] = []
    while len(taken) < number:
        taken += [int(images.pop(0)) for images in left.values() if images]
    return taken[:number]


def test_train_images_takes_the_classes_in_turn_and_leaves_the_test_split():
    full, part = (load_data(Config.flat(data="digits", train_images=number)) for number in (None, 54))
    index = taken_in_turn(full.train_labels.numpy(), 54)
    assert torch.equal(part.train_images, full.train_images[index])
    assert part.train_labels.tolist() == [*range(10)] * 5 + [0, 1, 2, 3]
    assert torch.equal(part.test_images, full.test_images)
    assert part.num_classes == 10
    pixels = part.train_images.double().reshape(-1, 3) / 255
    np.testing.assert_allclose(part.mean.numpy(), pixels.mean(0).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match=r"train_images must be at most the \d+ of digits, got 5000"):
        load_data(Config.flat(data="digits", train_images=5000))


@pytest.mark.parametrize("labels", [[0] * 5 + [1] * 2 + [2] * 4, [2, 0, 0, 1, 2, 2, 0, 1, 0, 2, 0]], ids=["sorted", "mixed"])
def test_train_images_of_an_npz_are_of_every_class_in_its_own_order(tmp_path, labels):
    expected = arrays(x_train=np.arange(11, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3))
    np.savez(tmp_path / "a.npz", **(expected | {"y_train": np.array(labels)}))
    for number in (3, 7, 10):
        data = load_npz(tmp_path / "a.npz", train_images=number)
        index = taken_in_turn(np.array(labels), number)
        assert data.train_images[:, 0, 0, 0].tolist() == index
        assert data.train_labels.tolist() == [labels[image] for image in index]
    whole = load_npz(tmp_path / "a.npz", train_images=11)  # all are there: nothing is chosen
    assert whole.train_images[:, 0, 0, 0].tolist() == list(range(11))
    with pytest.raises(ValueError, match=r"train_images 2 of npz.* of every class that is tested, and holds none of 1: 2"):
        load_npz(tmp_path / "a.npz", train_images=2)


def test_what_val_fraction_leaves_has_every_class():
    """Of 300 and 2 images, nine tenths: scikit-learn keeps both of the small class for validation."""
    labels = torch.tensor([0] * 300 + [1] * 2)
    with pytest.raises(ValueError, match=r"what val_fraction 0.9 leaves to train on must hold .* none of 1: 1"):
        stratified_split(labels, 0.9)
    with pytest.raises(ValueError, match=r"val_fraction must leave every class an image on both sides, got 0\.5"):
        stratified_split(torch.tensor([0, 0, 0, 0, 1]), 0.5)
    assert set(labels[stratified_split(labels, 0.5)[0]].tolist()) == {0, 1}


# -- the order of axes, and labels that do not count from 0


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (4, 64, 64), (3, 8, 9), (4, 32, 12)])
@pytest.mark.parametrize("splits", [("x_train", "x_test"), ("x_train",), ("x_test",)])
def test_channels_that_come_first_are_told_from_rows(tmp_path, shape, splits):
    rng = np.random.default_rng(0)
    first = {name: rng.integers(0, 256, (count, *shape), dtype=np.uint8) for name, count in (("x_train", 9), ("x_test", 4))}
    last = {name: value.transpose(0, 2, 3, 1) for name, value in first.items()}
    np.savez(tmp_path / "a.npz", **arrays(**(last | {name: first[name] for name in splits})))
    with pytest.warns(
        UserWarning, match=rf"is of shape .*: taken as {shape[0]} channels of {shape[1]}x{shape[2]} pixels"
    ) as said:
        data = load_npz(tmp_path / "a.npz")
    assert len(said) == len(splits)
    channel = range(3) if shape[0] == 1 else range(shape[0])
    for name, images in (("x_train", data.train_images), ("x_test", data.test_images)):
        assert images.shape == (len(first[name]), *shape[1:], len(channel))
        for index in channel:
            assert np.array_equal(images[..., index].numpy(), first[name][:, index % shape[0]])


ODD_SHAPES = [(3, 32, 3), (3, 3, 3), (1, 32, 1), (4, 4, 4), (4, 64, 4), (3, 7, 32), (7, 32, 3), (32, 3, 32), (32, 32, 2)]
ODD_SHAPES += [(2, 32, 32), (32, 32, 5), (32, 32, 32), (3, 32), (32, 3), (7, 7)]


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_shapes_that_are_no_images_are_refused(tmp_path, shape):
    np.savez(tmp_path / "a.npz", **arrays(x_train=np.zeros((9, *shape), np.uint8), x_test=np.zeros((4, *shape), np.uint8)))
    with pytest.raises(
        ValueError, match=r"x_train of npz.* must be uint8 of shape .* C of 1, 3 or 4 and H and W of at least 8, got"
    ):
        load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("train", "test", "without", "classes"),
    [
        ([1, 2, 3], [3, 1], "3 classes with labels 1 to 3: of the network's 4 outputs 1 are for no class; --relabel", [1, 2, 3]),
        ([7, 0, 2], [0, 7], "3 classes with labels 0 to 7: of the network's 8 outputs 5 are for no class; --relabel", [0, 2, 7]),
    ],
)
def test_labels_with_gaps_are_said_and_numbered_on_request(tmp_path, train, test, without, classes):
    train, test = np.array(train * 3), np.array(test * 2)
    np.savez(tmp_path / "a.npz", **arrays(y_train=train, y_test=test))
    with pytest.warns(UserWarning, match=without):
        data = load_npz(tmp_path / "a.npz")
    assert (data.num_classes, data.train_labels.tolist(), data.test_labels.tolist()) == (max(train) + 1, list(train), list(test))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_npz(tmp_path / "a.npz", relabel=True, train_images=7)
    assert data.num_classes == 3
    assert data.train_labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert [classes[label] for label in data.test_labels.tolist()] == list(test)
    with pytest.raises(ValueError, match="relabel must be left out with an imagefolder"):
        Config.flat(data="imagefolder:x", relabel=True).resolved()


def test_any_integers_are_numbered(tmp_path):
    train, test = np.array([-1, 1, 1000000] * 3), np.array([1, 1, -1, 1000000])
    np.savez(tmp_path / "a.npz", **arrays(y_train=train, y_test=test))
    data = load_npz(tmp_path / "a.npz", relabel=True)
    assert (data.num_classes, data.train_labels.tolist(), data.test_labels.tolist()) == (3, [0, 1, 2] * 3, [1, 1, 0, 2])


def test_a_run_keeps_relabel_and_an_older_one_goes_on_without(tmp_path, capsys):
    path = write_npz(tmp_path, 8).removeprefix("npz:")
    with np.load(path) as archive:
        np.savez(tmp_path / "b.npz", **{name: value + (name[0] == "y") for name, value in archive.items()})
    options = [
        "--model",
        "preactresnet18_w16",
        "--batch-size",
        "16",
        "--epochs",
        "1",
        "--learning-rate",
        "0.01",
        "--device",
        "cpu",
    ]
    options += ["--method", "vanilla"]
    rlmix_main(["train", "--data", f"npz:{tmp_path / 'b.npz'}", "--relabel", *options, "--out", str(tmp_path / "new")])
    assert "relabel: true" in (tmp_path / "new" / "config.yaml").read_text()
    rlmix_main(["train", "--data", f"npz:{path}", *options, "--out", str(tmp_path / "old")])
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("new", "old")]
    assert [results[0][name] for name in ("top1", "ece", "fgsm_error")] == [
        results[1][name] for name in ("top1", "ece", "fgsm_error")
    ]
    rlmix_main(["evaluate", str(tmp_path / "new"), "--attacks", "fgsm"])
    with pytest.raises(SystemExit):
        rlmix_main(["evaluate", str(tmp_path / "new"), "--relabel"])
    assert "relabel must be left out with a run's folder" in capsys.readouterr().err
    config = tmp_path / "old" / "config.yaml"
    config.write_text(config.read_text().replace("relabel: false\n", ""))
    newest = list_checkpoints(tmp_path / "old" / "checkpoints")[-1]
    state = load_checkpoint(newest)
    assert state["config"].pop("relabel") is False
    save_checkpoint(newest.parent, state["epoch"], state)
    rlmix_main(["train", "--resume", str(tmp_path / "old")])


@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_validation_split_is_disjoint_stratified_and_the_same_for_every_seed(fraction):
    whole = load_data(Config.flat(data="digits"))
    data, again = (load_data(Config.flat(data="digits", val_fraction=fraction, seed=seed)) for seed in (0, 7))
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
            load_data(Config.flat(data="digits", val_fraction=fraction))


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
        ({"x_test": np.zeros((4, 8, 8), np.uint8)}, r"x_test of .* must have images of \(8, 8, 3\), got \(8, 8, 1\)"),
        ({"x_test": np.zeros((4, 16, 8, 3), np.uint8)}, r"x_test of .* must have images of \(8, 8, 3\), got \(16, 8, 3\)"),
        ({"x_train": np.zeros((0, 8, 8, 3), np.uint8), "y_train": np.zeros(0, int)}, r"x_train of .* got shape \(0, 8, 8, 3\)"),
        ({"x_test": np.zeros((0, 8, 8, 3), np.uint8), "y_test": np.zeros(0, int)}, r"x_test of .* got shape \(0, 8, 8, 3\)"),
        ({"x_train": np.zeros((9, 0, 8, 3), np.uint8)}, r"x_train of .* got shape \(9, 0, 8, 3\)"),
        ({"y_train": np.arange(8)}, r"y_train of .* integers of shape \(9,\), got int64 of shape \(8,\)"),
        ({"y_train": np.arange(18).reshape(9, 2)}, r"y_train of .* got int64 of shape \(9, 2\)"),
        ({"y_train": np.array(1)}, r"y_train of .* got int64 of shape \(\)"),
        ({"y_test": np.zeros(4)}, r"y_test of .* integers of shape \(4,\), got float64"),
        ({"y_test": np.array(["a", "b", "c", "d"])}, r"y_test of .* integers of shape \(4,\), got <U1"),
        ({"y_train": np.arange(9) % 3 - 1}, "y_train of .* class indices from 0 .*, got -1"),
        ({"y_test": np.array([0, 1, -2, 1])}, "y_test of .* class indices from 0 .*, got -2"),
        ({"y_test": np.array([0, 1, 3, 1])}, "y_train of .* of every class that is tested, and holds none of 1: 3"),
        ({"y_train": np.array([0, 1, 3] * 3), "y_test": np.array([0, 1, 2, 3])}, "y_train of .* and holds none of 1: 2"),
        ({"y_test": np.array([6, 5, 4, 3])}, r"y_train of .* and holds none of 4: 3, 4, 5, \.\.\."),
        ({"y_train": np.full(9, 2), "y_test": np.full(4, 2)}, "y_train of .* at least 2 classes, got 1"),
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
        load_data(Config.flat(data=name, data_root=str(tmp_path)))
    message = str(error.value)
    assert name in message
    assert str(tmp_path) in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_test_images_are_of_every_class_in_its_own_order():
    labels = np.repeat([0, 1, 2], [5, 4, 3])
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    data = image_data(images, labels, images, labels, num_test=7)
    assert data.test_labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.test_images[:, 0, 0, 0].tolist() == [0, 5, 9, 1, 6, 10, 2]
    assert len(data.train_labels) == 12
    with pytest.raises(ValueError, match="test_images must be at most the 12 of the data, got 13"):
        image_data(images, labels, images, labels, num_test=13)
