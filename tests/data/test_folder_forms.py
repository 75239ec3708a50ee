"""Folders of images in other forms than train/ and val/: splits of other names, and labels in a table."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from toys import NETWORK, write_folder

import rlmix
from rlmix.data.label_table import order_classes
from rlmix.data.registry import load_data
from rlmix.scripts.main import main as rlmix_main

OPTIONS = {"model": NETWORK, "image_size": 16, "batch_size": 4, "epochs": 1, "learning_rate": 0.01, "device": "cpu"}


def config_of(root, **options):
    return rlmix.Config.flat(data=f"imagefolder:{root}", **({"workers": 0} | OPTIONS | options))


@pytest.fixture
def root(tmp_path):
    """Eight images a class to train on, four to test on, of three classes."""
    write_folder(tmp_path / "pictures")
    return tmp_path / "pictures"


def names(data, split):
    return [path.rsplit("pictures/", 1)[1] for path in data.splits[split].paths]


# -- splits of other names


@pytest.mark.parametrize("others", [("training", "testing"), ("train", "test"), ("train", "valid"), ("Training", "Validation")])
def test_splits_are_known_by_other_names(root, others):
    expected = load_data(config_of(root))
    for old, new in zip(("val", "train"), reversed(others), strict=True):
        (root / old).rename(root / new)
    data = load_data(config_of(root))
    assert data.measured == ("test",)
    for split, old, new in (("train", "train", others[0]), ("test", "val", others[1])):
        assert names(data, split) == [name.replace(f"{old}/", f"{new}/") for name in names(expected, split)]
        assert torch.equal(data.labels(split), expected.labels(split))


def test_a_third_split_is_the_validation_split(root):
    shutil.copytree(root / "val", root / "test")
    assert load_data(config_of(root)).measured == ("test",)  # train/ and val/ are ImageNet's
    assert names(load_data(config_of(root)), "test")[0].startswith("val/")
    named = load_data(config_of(root, splits=("train", "test", "val")))
    (root / "val").rename(root / "valid")
    told = load_data(config_of(root))
    assert named.measured == told.measured == ("val", "test")
    assert names(told, "val") == sorted(f"valid/class{label}/{index:02d}.png" for label in range(3) for index in range(4))
    assert names(told, "test") == [name.replace("valid/", "test/") for name in names(told, "val")]
    with pytest.raises(ValueError, match=r"val_fraction must be left out with .*, which has a validation split, got 0.5"):
        load_data(config_of(root, val_fraction=0.5))


def test_splits_can_be_named(root):
    (root / "train").rename(root / "day")
    (root / "val").rename(root / "night")
    data = load_data(config_of(root, splits=("day", "night")))
    assert (len(names(data, "train")), len(names(data, "test"))) == (24, 12)
    assert all(name.startswith("night/") for name in names(data, "test"))
    with pytest.warns(UserWarning, match=r"has no test split: 5 of its 24 images, a fifth of every class"):
        alone = load_data(config_of(root, splits=("day",)))
    assert sorted(names(alone, "train") + names(alone, "test")) == names(data, "train")
    with pytest.raises(ValueError, match=r"splits must be of .*, which has day, night, got noon"):
        load_data(config_of(root, splits=("day", "noon")))
    with pytest.raises(FileNotFoundError, match=r"must hold train/ and val/, and there is no .*train"):
        load_data(config_of(root))


def test_a_missing_test_split_is_named_as_ever(root):
    shutil.rmtree(root / "val")
    with pytest.raises(FileNotFoundError, match=r"must hold train/ and val/, and there is no .*val"):
        load_data(config_of(root))


# -- labels in a table


def write_table(root, rows, header="path,label"):
    with open(root / "labels.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([header.split(","), *rows])


@pytest.fixture
def table(tmp_path):
    """Ten images in pictures/images, of two classes in turn, each of one gray level."""
    root = tmp_path / "pictures"
    (root / "images").mkdir(parents=True)
    for index in range(10):
        Image.fromarray(np.full((16, 16, 3), 20 * index, np.uint8)).save(root / "images" / f"{index}.png")
    return root


def levels(data, split):
    """Gray level of each image, and its class."""
    images = torch.cat([images for images, _ in data.batches(split, 3)])
    return [(int(image[0, 0, 0]) // 20, data.class_names[label]) for image, label in zip(images, data.labels(split), strict=True)]


KINDS = ["owl", "cat"]


@pytest.mark.parametrize("prefix", ["", "images/"])
@pytest.mark.parametrize("header", ["path,label,split", "Filename,Class,Set", "image,target,subset"])
def test_a_table_names_labels_and_splits(table, prefix, header):
    split = ["train"] * 6 + ["test"] * 2 + ["val"] * 2
    write_table(table, [(f"{prefix}{index}.png", KINDS[index % 2], split[index]) for index in range(10)], header)
    data = load_data(config_of(table, resize_size=16))
    assert data.class_names == ["cat", "owl"]
    assert data.measured == ("val", "test")
    assert levels(data, "train") == [(index, KINDS[index % 2]) for index in range(6)]
    assert levels(data, "test") == [(6, "owl"), (7, "cat")]
    assert levels(data, "val") == [(8, "owl"), (9, "cat")]
    named = load_data(config_of(table, resize_size=16, splits=("val", "train")))
    assert named.measured == ("test",)
    assert levels(named, "train") == levels(data, "val")
    assert levels(named, "test") == levels(data, "train")


def test_a_class_of_a_split_that_is_not_used_is_none(table):
    split = ["train"] * 4 + ["test"] * 4 + ["extra"] * 2
    kinds = [*(KINDS[index % 2] for index in range(8)), "bat", "bat"]
    write_table(table, [(f"{index}.png", kinds[index], split[index]) for index in range(10)], "path,label,split")
    data = load_data(config_of(table, resize_size=16))
    assert data.class_names == ["cat", "owl"]
    assert levels(data, "train") == [(index, KINDS[index % 2]) for index in range(4)]
    with pytest.raises(ValueError, match="must hold images of every class that is tested, and holds none of 1: bat"):
        load_data(config_of(table, splits=("train", "extra")))


def test_a_table_without_splits_keeps_a_fifth(table):
    write_table(table, [(f"{index}.png", KINDS[index % 2], "x") for index in range(10)], "file,kind,note")
    with pytest.raises(
        ValueError, match=r"must have the columns path and label \(or give --keys PATH LABEL\), got file,kind,note"
    ):
        load_data(config_of(table))
    with pytest.warns(UserWarning, match="has no test split: 2 of its 10 images, a fifth of every class, are kept for it"):
        data = load_data(config_of(table, resize_size=16, keys=("file", "kind")))
    assert sorted(levels(data, "train") + levels(data, "test")) == [(index, KINDS[index % 2]) for index in range(10)]
    assert sorted(kind for _, kind in levels(data, "test")) == ["cat", "owl"]


def test_numbers_are_in_the_order_of_their_values():
    assert order_classes({"10", "9", "-1"}) == ["-1", "9", "10"]
    assert order_classes({"10", "9", "b"}) == ["10", "9", "b"]
    assert order_classes({"-5", "--5", "1"}) == ["--5", "-5", "1"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "labels.csv must have a row an image, and has none"),
        ([("0.png", "a"), ("none.png", "b")], "line 3 must name an image in .*images, got 'none.png'"),
        ([("0.png", "a"), ("../images/1.png", "b")], r"line 3 must name an image in .*, got '\.\./images/1.png'"),
        ([("0.png", "a"), ("", "b")], "line 3 must name an image in .*, got ''"),
        ([("0.png", "a"), ("1.png", "")], "line 3 must have a label, got none for 1.png"),
        ([("0.png", "a"), ("0.png", "b")], "line 3 must name another image than the lines before, got 0.png"),
        ([("0.png", "a"), ("1.png", "a")], r"must have at least 2 classes, got 1 \(a\)"),
        ([("0.png", "a"), ("1.png", "b")], "the test part kept of .* must leave every class an image on both sides"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_line(table, rows, message):
    write_table(table, rows)
    with pytest.raises(ValueError, match=message):
        load_data(config_of(table))


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        (
            "path,label,split",
            {},
            r"labels.csv must have a split called train \(or give --splits TRAIN TEST\), and has day, night",
        ),
        ("path,label,split", {"splits": ("day", "dusk")}, "splits must be of .*labels.csv, which has day, night, got dusk"),
        ("path,label,split", {"keys": ("path", "kind")}, "keys must be the columns .* which has path,label,split, got path kind"),
        ("path,label,note", {"splits": ("day", "night")}, "splits must be of .*labels.csv, which has none, got day, night"),
    ],
)
def test_splits_and_columns_that_a_table_lacks_are_refused(table, header, options, message):
    write_table(table, [(f"{index}.png", KINDS[index % 2], "day" if index < 6 else "night") for index in range(10)], header)
    with pytest.raises(ValueError, match=message):
        load_data(config_of(table, **options))


def test_a_table_beside_train_and_val_is_not_read_and_neither_are_keys(root):
    write_table(root, [("nothing.png", "a")])
    data = load_data(config_of(root))
    assert len(names(data, "train")) == 24
    with pytest.raises(ValueError, match=r"keys must be left out with .*, which has no labels.csv that is read"):
        load_data(config_of(root, keys=("path", "label")))


def test_a_run_on_a_table_is_trained_and_gone_on_with(table, tmp_path):
    write_table(
        table, [(f"{index}.png", KINDS[index % 2], "train" if index < 8 else "test") for index in range(10)], "path,label,split"
    )
    options = ["--model", NETWORK, "--batch-size", "4", "--device", "cpu", "--image-size", "16", "--workers", "0"]
    options += ["--data", f"imagefolder:{table}", "--method", "rmix", "--epochs", "2", "--learning-rate", "0.01", "--seed", "0"]
    rlmix_main(["train", *options, "--out", str(tmp_path / "run")])
    first = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "checkpoints" / "epoch-0002.pt").unlink()
    rlmix_main(["train", "--resume", str(tmp_path / "run")])
    again = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [first[name] for name in ("top1", "ece", "reward_mean")] == [again[name] for name in ("top1", "ece", "reward_mean")]
