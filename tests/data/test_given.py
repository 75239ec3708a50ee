"""Data that Python gives with the call: torch data sets and arrays of every form are the same images, and train to the same bits."""

import numpy as np
import pytest
import torch
from PIL import Image
from toys import NETWORK, write_npz

import rlmix
from rlmix.config import Config
from rlmix.data.memory import ImageData
from rlmix.data.own import settle_given
from rlmix.scripts.main import main as rlmix_main

RNG = np.random.default_rng(0)
LABELS = {"train": np.arange(20) % 2, "test": np.arange(8) % 2}
IMAGES = {split: RNG.integers(0, 256, (len(labels), 12, 9, 3), dtype=np.uint8) for split, labels in LABELS.items()}
SMALL = {"model": NETWORK, "batch_size": 16, "epochs": 2, "learning_rate": 0.05, "device": "cpu", "seed": 0}


class Listed(torch.utils.data.Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


class Streamed(torch.utils.data.IterableDataset):
    def __init__(self, images, labels):
        self.pairs = list(zip(images, labels, strict=True))

    def __iter__(self):
        return iter(self.pairs)


def floats(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255


FORMS = {
    "PIL": lambda images, labels: Listed([Image.fromarray(image) for image in images], labels.tolist()),
    "bytes": lambda images, labels: Listed(images, labels),
    "floats": lambda images, labels: Listed(floats(images).float(), torch.from_numpy(labels)),
    "a stream": lambda images, labels: Streamed(images, labels.tolist()),
    "torch's own": lambda images, labels: torch.utils.data.TensorDataset(floats(images), torch.from_numpy(labels)),
    "a list of pairs": lambda images, labels: list(zip(images, labels.tolist(), strict=True)),
    "arrays": lambda images, labels: (images, labels),
    "a column of labels": lambda images, labels: (images, labels[:, None]),
    "tensors": lambda images, labels: (torch.from_numpy(images), torch.from_numpy(labels)),
    "floats in an array": lambda images, labels: [floats(images).numpy(), labels.tolist()],
    "a list of pictures": lambda images, labels: ([Image.fromarray(image) for image in images], labels.tolist()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images_and_labels(form):
    pair = tuple(FORMS[form](IMAGES[split], LABELS[split]) for split in ("train", "test"))
    data, config = settle_given(pair, Config())
    assert isinstance(data, ImageData)
    assert config.data.name == "given"
    for split in ("train", "test"):
        assert np.array_equal(getattr(data, f"{split}_images").numpy(), IMAGES[split])
        assert data.labels(split).tolist() == LABELS[split].tolist()
    np.testing.assert_allclose(data.mean.numpy(), IMAGES["train"].reshape(-1, 3).mean(0) / 255, atol=1e-6)


def test_two_data_sets_of_two_images_are_no_arrays():
    pair = ([(IMAGES["train"][0], 0), (IMAGES["train"][1], 1)], [(IMAGES["test"][0], 1), (IMAGES["test"][1], 0)])
    data, _ = settle_given(pair, Config())
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([0, 1], [1, 0])


def test_without_test_data_a_fifth_is_kept():
    with pytest.warns(UserWarning, match="given has no test split: 4 of its 20 images, a fifth of every class"):
        data, _ = settle_given(((IMAGES["train"], LABELS["train"]), None), Config())
    assert torch.bincount(data.test_labels).tolist() == [2, 2]


def test_images_of_many_sizes_are_fitted():
    images = [RNG.integers(0, 256, (8 + index, 10, 3), dtype=np.uint8) for index in range(4)]
    pair = ((images, [0, 1, 0, 1]), (images, [0, 1, 0, 1]))
    with pytest.raises(ValueError, match=r"data given train must hold images of one size \(or give --image-size\), got"):
        settle_given(pair, Config())
    data, _ = settle_given(pair, Config.flat(image_size=12, image_fit="pad"))
    for index, image in enumerate(images):
        top = (4 - index) // 2
        expected = np.zeros((12, 12, 3), np.uint8)
        expected[top : top + 8 + index, 1:11] = image
        assert np.array_equal(data.train_images[index].numpy(), expected)


def test_floats_of_another_range_are_scaled():
    images = 2 * floats(IMAGES["train"]) - 1
    pair = ((images, LABELS["train"]), None)
    with pytest.raises(ValueError, match=r"must be float in \[0, 1\] \(or give --value-range\), got -1 to "):
        settle_given(pair, Config())
    with pytest.warns(UserWarning, match="no test split"):
        data, _ = settle_given(pair, Config.flat(value_range=(-1.0, 1.0)))
    found = {image.numpy().tobytes() for image in torch.cat([data.train_images, data.test_images])}
    assert found == {image.tobytes() for image in IMAGES["train"]}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("cifar10", {}, r"data must be two data sets, \(train, test\), or an rlmix.data.dataset.Dataset, got str"),
        ((1, 2, 3), {}, "data must be two data sets, .* got tuple"),
        ((iter([]), None), {}, "data given train must be a torch data set, or images and labels, got list_iterator"),
        (((IMAGES["train"], [0, 1]), None), {}, "data given train must have a label an image, got 2 for 20"),
        (((IMAGES["train"], LABELS["train"] / 2), None), {}, "data given train must have integers as labels, got float64 at 0"),
        (([], None), {}, "data given train must hold images, and is empty"),
        (((IMAGES["train"], LABELS["train"]), None), {"data": "digits"}, "data of the configuration must be left out .* got digits"),
        (((IMAGES["train"], LABELS["train"]), None), {"image_size": 4}, "image_size must be at least 8, got 4"),
    ],
)  # fmt: skip
def test_what_is_no_pair_of_data_sets_is_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        settle_given(data, Config.flat(**options))


def test_a_run_on_given_data_is_that_on_the_same_archive_and_can_be_gone_on_with(tmp_path):
    path = write_npz(tmp_path, 16)
    with np.load(path.removeprefix("npz:")) as archive:
        pair = tuple((archive[f"x_{split}"], archive[f"y_{split}"]) for split in ("train", "test"))
    for method in ("rlmix", "rmix"):
        given, archived = (
            rlmix.train(Config.flat(**SMALL, method=method, out=tmp_path / f"{method}-{name}", **more), data, quiet=True)
            for name, more, data in (("given", {}, pair), ("npz", {"data": path}, None))
        )
        assert [given[name] for name in ("top1", "ece", "reward_mean")] == [
            archived[name] for name in ("top1", "ece", "reward_mean")
        ]
    folder = given.folder
    assert "data: given" in (folder / "config.yaml").read_text()
    first = rlmix.load_run(folder, pair).training.model.state_dict()
    for name, value in rlmix.load_model(archived.folder).state_dict().items():
        assert torch.equal(first[name], value)
    with pytest.raises(ValueError, match=r"data given must come with the call, rlmix.train\(config, data=\(train, test\)\)"):
        rlmix.load_model(folder)
    (folder / "checkpoints" / "epoch-0002.pt").unlink()
    again = rlmix.train(Config.from_yaml(folder / "config.yaml").changed(out=folder, resume=folder), pair, quiet=True)
    assert again["top1"] == given["top1"]


def test_the_environments_take_it_too():
    pair = tuple((IMAGES[split], LABELS[split]) for split in ("train", "test"))
    env = rlmix.make_vec_env(Config.flat(**SMALL | {"batch_size": None}), 5, data=pair)
    env.reset(seed=0)
    assert env.process.training.steps_per_epoch == 4
    single = rlmix.make_env(Config.flat(**SMALL), data=pair)
    assert single.observation_space["logits"].shape == (16, 2)


def test_the_command_line_says_that_python_gives_it(capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        rlmix_main(["train", "--data", "given", "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    assert "data given must come with the call" in capsys.readouterr().err
