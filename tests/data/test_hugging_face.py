"""Folders of Hugging Face's datasets: the same images and labels as went in; and what is refused, with the package and without."""

import io
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image
from toys import NETWORK

from rlmix.config import Config
from rlmix.data.hugging_face import find_columns, numbered
from rlmix.data.registry import load_data
from rlmix.data.splits import assign_splits
from rlmix.scripts.main import main as rlmix_main

RNG = np.random.default_rng(0)
LABELS = {"train": [0, 1] * 8, "test": [1, 0, 1], "validation": [0, 1]}
IMAGES = {split: RNG.integers(0, 256, (len(labels), 9, 12, 3), dtype=np.uint8) for split, labels in LABELS.items()}


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, form="parquet", splits=tuple(LABELS), column="label", more=()):
    """As ``datasets`` writes it."""
    datasets = pytest.importorskip("datasets")
    kinds = {"image": datasets.Image(), column: datasets.ClassLabel(names=["cat", "dog"])}
    kinds |= {name: datasets.ClassLabel(names=["cat", "dog"]) for name in more}
    found = {}
    for split in splits:
        columns = dict.fromkeys((column, *more), LABELS[split]) | {"image": [Image.fromarray(one) for one in IMAGES[split]]}
        found[split] = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    if form == "save_to_disk":
        datasets.DatasetDict(found).save_to_disk(str(folder))
    elif form == "one split":
        found[splits[0]].save_to_disk(str(folder))
    else:
        (folder / "data").mkdir(parents=True)
        for split, part in found.items():
            part.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return f"hf:{folder}"


def load(name, **options):
    return load_data(Config.flat(data=name, **options).resolved())


@pytest.mark.parametrize("form", ["parquet", "save_to_disk"])
def test_images_and_labels_are_those_that_were_written(tmp_path, form):
    data = load(write(tmp_path / "data", form))
    assert data.measured == ("val", "test")
    for split, role in (("train", "train"), ("test", "test"), ("validation", "val")):
        assert np.array_equal(getattr(data, f"{role}_images").numpy(), IMAGES[split])
        assert data.labels(role).tolist() == LABELS[split]
    np.testing.assert_allclose(data.mean.numpy(), IMAGES["train"].reshape(-1, 3).mean(0) / 255, atol=1e-6)


def test_labels_that_are_words_are_numbered_by_the_alphabet(tmp_path):
    datasets = pytest.importorskip("datasets")
    names = ["dog", "cat"]
    for split in ("train", "test"):
        columns = {"image": [Image.fromarray(one) for one in IMAGES[split]], "label": [names[label] for label in LABELS[split]]}
        (tmp_path / "data").mkdir(exist_ok=True)
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
        datasets.Dataset.from_dict(columns, features=kinds).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    data = load(f"hf:{tmp_path}")
    assert data.labels("train").tolist() == [1 - label for label in LABELS["train"]]
    assert data.labels("test").tolist() == [1 - label for label in LABELS["test"]]
    with pytest.raises(ValueError, match="must have labels of the training split's 2, got 'cow' at 0"):
        list(numbered([(None, "cow")], {"cat": 0, "dog": 1}, "x"))


def test_validation_is_tested_on_where_there_is_no_test_split(tmp_path):
    data = load(write(tmp_path / "data", splits=("train", "validation")))
    assert data.measured == ("test",)
    assert np.array_equal(data.test_images.numpy(), IMAGES["validation"])


def test_a_fifth_is_kept_of_a_data_set_without_splits(tmp_path):
    name = write(tmp_path / "data", "one split")
    with pytest.warns(UserWarning, match=r"hf:.* has no test split: 4 of its 16 images, a fifth of every class"):
        data = load(name)
    assert (data.train_labels.bincount().tolist(), data.test_labels.bincount().tolist()) == ([6, 6], [2, 2])


def test_columns_and_splits_can_be_named(tmp_path):
    name = write(tmp_path / "data", column="fine", more=("coarse",))
    with pytest.raises(ValueError, match=r"one column of labels \(or give --keys IMAGE LABEL\), got fine, coarse of "):
        load(name)
    data = load(name, keys=("image", "coarse"), splits=("train", "validation"))
    assert data.measured == ("test",)
    assert data.test_labels.tolist() == LABELS["validation"]
    with pytest.raises(ValueError, match=r"splits must be of hf:.*, which has test, train, validation, got dev"):
        load(name, keys=("image", "coarse"), splits=("train", "dev"))
    with pytest.raises(ValueError, match=r"keys must be the columns of images and of labels of hf:.*, got image label"):
        load(name, keys=("image", "label"))


def test_a_run_is_trained_on_it(tmp_path):
    options = ["--model", NETWORK, "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--image-size", "16"]
    rlmix_main(["train", "--data", write(tmp_path / "data"), *options, "--method", "rmix", "--out", str(tmp_path / "run")])
    assert 0 <= json.loads((tmp_path / "run" / "result.json").read_text())["top1"] <= 100


def test_a_folder_of_something_else_is_named(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "notes.xyz").write_text("hello")
    with pytest.raises(ValueError, match=r"data hf:.* must be a folder of datasets: ") as error:
        load(f"hf:{tmp_path}")
    assert "\n" not in str(error.value)


def test_the_missing_package_is_named_with_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SystemExit) as end:
        rlmix_main(["train", "--data", f"hf:{tmp_path}", "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    assert f'data hf:{tmp_path} must have datasets installed: pip install "rlmix[datasets]"' in capsys.readouterr().err


# -- without the package: one that has its calls


class Split(list):
    features = {"image": type("Image", (), {})(), "label": None}  # noqa: RUF012

    def select_columns(self, names):
        assert names == ["image", "label"]
        return self

    def cast_column(self, name, feature):
        assert (name, feature) == ("image", "undecoded")
        return self


@pytest.fixture
def library(monkeypatch):
    """``datasets`` with the splits that ``library.found`` holds."""
    library = types.ModuleType("datasets")
    library.found = {}
    library.load_dataset = lambda path, streaming: library.found
    library.Image = lambda decode: "undecoded"
    monkeypatch.setitem(sys.modules, "datasets", library)
    return library


def as_rows(split):
    pairs = zip(IMAGES[split], LABELS[split], strict=True)
    return Split({"image": {"bytes": png(image), "path": None}, "label": label} for image, label in pairs)


def test_rows_become_images_and_labels(library, tmp_path):
    library.found = {split: as_rows(split) for split in ("train", "test")}
    data = load(f"hf:{tmp_path}")
    for split in ("train", "test"):
        assert np.array_equal(getattr(data, f"{split}_images").numpy(), IMAGES[split])
        assert data.labels(split).tolist() == LABELS[split]


def test_images_of_several_sizes_want_one(library, tmp_path):
    library.found = {split: as_rows(split) for split in ("train", "test")}
    library.found["train"][0]["image"] = {"bytes": png(IMAGES["train"][0][:8]), "path": None}
    with pytest.raises(ValueError, match=r"data hf:.* train must hold images of one size \(or give --image-size\)"):
        load(f"hf:{tmp_path}")
    expected = np.zeros((14, 14, 3), np.uint8)
    expected[3:11, 1:13] = IMAGES["train"][0][:8]
    assert np.array_equal(load(f"hf:{tmp_path}", image_size=14, image_fit="pad").train_images[0].numpy(), expected)


@pytest.mark.parametrize("stored", [None, {"bytes": b"no image", "path": None}, {"bytes": None, "path": "/nowhere.png"}])
def test_an_image_that_is_none_is_named(library, tmp_path, stored):
    library.found = {"train": as_rows("train")}
    library.found["train"][3]["image"] = stored
    with pytest.raises(ValueError, match=r"hf:.* train at 3 must be an image: "):
        load(f"hf:{tmp_path}")


CONFIGS = "configs: [{{config_name: default, data_files: '{}'}}]"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".huggingface.yaml", CONFIGS),
        ("README.md", f"---\n{CONFIGS}\n---\n# Cats\n"),
        ("README.md", f"\ufeff---\r\n{CONFIGS}\r\n---"),
        ("README.md", f"---\nlanguage: en\n---x: 1\n{CONFIGS}\n---\n"),
    ],
)
def test_files_that_would_be_fetched_are_refused(library, tmp_path, name, text):
    if name == "README.md":
        pytest.importorskip("huggingface_hub")
    library.found = {split: as_rows(split) for split in ("train", "test")}
    (tmp_path / name).write_text(text.format("https://example.org/x.parquet"), "utf-8", newline="")
    with pytest.raises(
        ValueError, match=f"data hf:.* must be a folder of datasets: ValueError {name} must name files of the folder"
    ):
        load(f"hf:{tmp_path}")
    (tmp_path / name).write_text(text.format("data/x.parquet"), "utf-8", newline="")
    assert load(f"hf:{tmp_path}").test_labels.tolist() == LABELS["test"]


def test_addresses_elsewhere_in_a_readme_are_none_of_its_files(library, tmp_path):
    pytest.importorskip("huggingface_hub")
    library.found = {split: as_rows(split) for split in ("train", "test")}
    (tmp_path / "README.md").write_text("---\nlicense_link: https://example.org\n---\nSee https://example.org\n")
    assert load(f"hf:{tmp_path}").test_labels.tolist() == LABELS["test"]


def test_a_missing_folder_is_named(library, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data hf:.*/none must name a folder, and there is none"):
        load(f"hf:{tmp_path / 'none'}")


def test_columns_are_told_by_kind_and_then_by_name():
    kind = {name: type(name, (), {})() for name in ("Image", "ClassLabel", "Value")}
    assert find_columns({"pic": kind["Image"], "who": kind["ClassLabel"], "label": kind["Value"]}, None, "x") == ("pic", "who")
    assert find_columns({"pic": kind["Image"], "id": kind["Value"], "labels": kind["Value"]}, None, "x") == ("pic", "labels")
    with pytest.raises(
        ValueError, match=r"x must have one column of images \(or give --keys IMAGE LABEL\), got none of id, label"
    ):
        find_columns({"id": kind["Value"], "label": kind["Value"]}, None, "x")


@pytest.mark.parametrize(
    ("found", "named", "roles"),
    [
        (["train", "test"], None, {"train": "train", "test": "test"}),
        (["Training", "Testing"], None, {"train": "Training", "test": "Testing"}),
        (["train", "valid"], None, {"train": "train", "test": "valid"}),
        (["train", "dev", "test", "extra"], None, {"train": "train", "test": "test", "val": "dev"}),
        (["train"], None, {"train": "train"}),
        (["a", "b", "c"], ("b", "a"), {"train": "b", "test": "a"}),
        (["a", "b", "c"], ("b", "a", "c"), {"train": "b", "test": "a", "val": "c"}),
    ],
)
def test_splits_are_told_by_their_names(found, named, roles):
    assert assign_splits(found, named, "x") == roles


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (["test"], r"x must have a split called train \(or give --splits TRAIN TEST\), and has test"),
        ([], "x must have a split called train .*, and has none"),
        (["train", "val", "dev"], r"x must have one val split \(or give --splits TRAIN TEST\), got dev, val"),
    ],
)
def test_splits_of_no_clear_role_are_refused(found, message):
    with pytest.raises(ValueError, match=message):
        assign_splits(found, None, "x")


def test_splits_that_are_named_twice_are_refused():
    with pytest.raises(ValueError, match="splits must be 1 to 3 different names"):
        Config.flat(data="hf:x", splits=("a", "a")).resolved()
