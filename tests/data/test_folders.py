"""Folders of images: what is listed, decoded and augmented, reproducibly; and what is refused."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as oracle
from toys import NETWORK, write_folder

import rlmix
from rlmix.common.seeding import derive, stream
from rlmix.data.folder import IMAGENET_MEAN, IMAGENET_STD, Pictures
from rlmix.data.registry import load_data
from rlmix.envs.process import MixingProcess
from rlmix.training.trainer import Training

OPTIONS = {"model": NETWORK, "image_size": 16, "batch_size": 4, "epochs": 2, "learning_rate": 0.01, "device": "cpu"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    write_folder(root)
    return root


def config_of(root, **options):
    return rlmix.Config.flat(data=f"imagefolder:{root}", **({"workers": 0} | OPTIONS | options))


def assert_same_batches(first, second, number):
    for _ in range(number):
        (images, labels), (other_images, other_labels) = first.next_batch(), second.next_batch()
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_every_image_is_listed_with_its_class(root):
    data = load_data(config_of(root))
    assert (data.num_classes, data.num_channels, data.image_size, data.measured) == (3, 3, (16, 16), ("test",))
    assert data.train_labels.tolist() == sorted(list(range(3)) * 8)
    assert data.labels("test").tolist() == sorted(list(range(3)) * 4)
    assert data.class_names == ["class0", "class1", "class2"]
    assert (tuple(data.mean.tolist()), tuple(data.std.tolist())) == (pytest.approx(IMAGENET_MEAN), pytest.approx(IMAGENET_STD))


@pytest.mark.parametrize(("image_size", "resize_size"), [(16, None), (32, 40), (24, 24)])
def test_test_images_are_resized_and_cropped_at_the_centre(root, image_size, resize_size):
    data = load_data(config_of(root, image_size=image_size, resize_size=resize_size))
    images = torch.cat([images for images, _ in data.batches("test", 5)])
    assert images.shape == (12, image_size, image_size, 3)
    short = resize_size or round(image_size * 256 / 224)
    for index, path in enumerate(sorted((root / "val").rglob("*.png"))):
        picture = oracle.center_crop(oracle.resize(Image.open(path), short), image_size)
        assert np.array_equal(images[index].numpy(), np.asarray(picture)), path


def test_train_images_are_torchvisions_random_crops_of_each_images_own_draw(root):
    training = Training(config_of(root))
    images, labels = training.next_batch()
    seed = derive(stream(0, "augmentation").initial_seed(), "epoch 1")
    paths = sorted((root / "train").rglob("*.png"))
    flipped = 0
    for row, index in enumerate(training.order.indices[:4].tolist()):
        picture = Image.open(paths[index])
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, str(index)))
            from torchvision.transforms import RandomResizedCrop

            box = RandomResizedCrop.get_params(picture, (0.08, 1.0), (3 / 4, 4 / 3))
            mirror = bool(torch.rand(1) < 0.5)
        picture = oracle.resized_crop(picture, *box, (16, 16))
        flipped += mirror
        picture = oracle.hflip(picture) if mirror else picture
        assert np.array_equal(training.to_pixels(images)[row].numpy(), np.asarray(picture))
        assert labels[row] == int(paths[index].parent.name[-1])
    assert 0 < flipped < 4


def test_an_images_draw_depends_on_seed_and_epoch_and_not_on_workers_or_mixing(root):
    config = config_of(root)
    assert_same_batches(Training(config), Training(config.changed(workers=2, mixing_seed=5)), 13)  # into the third epoch's draws
    one, other = Training(config), Training(config.changed(seed=1))
    assert not torch.equal(one.next_batch().images, other.next_batch().images)
    training, seen = Training(config), {}
    for epoch in (0, 1):
        for _ in range(training.steps_per_epoch):
            images, _ = training.next_batch()
            for row, index in enumerate(
                training.order.indices[(training.order.batch - 1) * 4 : training.order.batch * 4].tolist()
            ):
                seen[epoch, index] = images[row]
        training.trained = training.order.batch
    assert not any(torch.equal(seen[0, index], seen[1, index]) for index in range(24))


def test_global_random_state_neither_matters_nor_moves(root):
    for workers in (0, 2):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        training = Training(config_of(root, workers=workers))
        training.fit_step()
        training.evaluate()
        assert torch.equal(torch.get_rng_state(), before)


def test_a_training_goes_on_in_mid_epoch_where_its_state_was_taken(root):
    whole, half = (Training(config_of(root), method="cutmix") for _ in range(2))
    for training in (whole, half):
        for _ in range(8):  # two of six in the second epoch
            training.fit_step()
    resumed = Training(config_of(root, workers=2), method="cutmix")
    resumed.load_state_dict(half.state_dict())
    for _ in range(4):
        whole.fit_step()
        resumed.fit_step()
    assert whole.finished
    assert resumed.finished
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert whole.evaluate() == resumed.evaluate()


def test_cutmix_mixes_every_batch_of_a_folder_as_on_imagenet(root):
    assert Training(config_of(root), method="cutmix").method.probability == 1
    assert Training(rlmix.Config.flat(train_images=64, device="cpu"), method="cutmix").method.probability == 0.5


def test_the_environments_process_runs_on_a_folder(root):
    process = MixingProcess(config_of(root, epochs=1))
    training = process.reset(seed=1)
    process.run_epoch(lambda decision: torch.full((4,), 0.5))
    assert training.finished
    assert 0 < process.epoch_metrics()["reward_mean"] <= 1


def test_train_images_are_taken_from_every_class_in_turn(root):
    data = load_data(config_of(root, train_images=7))
    assert data.train_labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert [path.split("/")[-1] for path in data.splits["train"].paths] == ["00.png"] * 3 + ["01.png"] * 3 + ["02.png"]
    with pytest.raises(ValueError, match=r"train_images must be at most the 24 of .*, got 25"):
        load_data(config_of(root, train_images=25))


def test_validation_images_are_the_same_part_of_every_class(root):
    data, again = (load_data(config_of(root, val_fraction=0.25, seed=seed)) for seed in (0, 1))
    assert data.measured == ("val", "test")
    assert torch.bincount(data.labels("val")).tolist() == [2, 2, 2]
    assert torch.bincount(data.train_labels).tolist() == [6, 6, 6]
    train, val = (set(data.splits[name].paths) for name in ("train", "val"))
    assert not train & val
    assert len(train | val) == 24
    assert again.splits["val"].paths == data.splits["val"].paths
    assert Training(config_of(root, val_fraction=0.25)).evaluate().keys() == {
        f"{split}_{name}" for split in ("val", "test") for name in ("loss", "top1", "top5")
    }


# -- what is refused


@pytest.fixture
def damaged(root, tmp_path):
    """A copy with one truncated image, one of text and one empty."""
    copy = shutil.copytree(root, tmp_path / "copy")
    truncated = copy / "train" / "class1" / "03.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    (copy / "train" / "class0" / "05.png").write_text("no image")
    (copy / "val" / "class2" / "01.png").write_bytes(b"")
    return copy


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named_in_one_line(damaged, workers):
    training = Training(config_of(damaged, workers=workers))
    with pytest.raises(ValueError, match=r"train/class[01]/0[35].png must be an image: .*; --skip-corrupt leaves") as error:
        training.fit_epoch()
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"val/class2/01.png must be an image: "):
        training.predict()


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_are_skipped_and_counted_on_request(damaged, workers):
    with pytest.warns(UserWarning, match="3 of 36 images in .* cannot be decoded and are left out"):
        data = load_data(config_of(damaged, skip_corrupt=True, workers=workers))
    assert data.num_corrupt == 3
    assert torch.bincount(data.train_labels).tolist() == [7, 7, 8]
    assert torch.bincount(data.labels("test")).tolist() == [4, 4, 3]
    assert not any(path.endswith(("class1/03.png", "class0/05.png")) for path in data.splits["train"].paths)
    Training(config_of(damaged, epochs=1), data).fit_epoch()


def test_nothing_is_said_where_nothing_is_corrupt(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data(config_of(root, skip_corrupt=True)).num_corrupt == 0


def test_folders_that_are_no_data_set_are_named(root, tmp_path):
    def refuses(match, kind=ValueError):
        with pytest.raises(kind, match=match) as error:
            load_data(config_of(tmp_path / "data"))
        assert "\n" not in str(error.value)

    train, val = tmp_path / "data" / "train", tmp_path / "data" / "val"
    refuses(r"must hold train/ and val/, and there is no .*/data/train", FileNotFoundError)
    train.mkdir(parents=True)
    refuses(r"data/train must hold a folder of images for each class, and holds none")
    (train / "class0").mkdir()
    refuses(r"data/train must hold images in its 1 class folders, and holds none")
    shutil.copytree(root / "train" / "class0", train / "class0", dirs_exist_ok=True)
    refuses(r"data/train must hold at least 2 classes, got 1 \(class0\)")
    shutil.copytree(root / "train" / "class1", train / "class1")
    refuses(r"must hold train/ and val/, and there is no .*/data/val", FileNotFoundError)
    shutil.copytree(root / "val", val)
    refuses(r"must have the same classes in train/ and val/; 1 are in one alone, such as 'class2'")


# -- what lies in a folder besides, and classes without images


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "copy")


def test_files_that_are_left_out_are_counted_in_one_line_and_hidden_folders_are_no_class(copy):
    (copy / "train" / ".ipynb_checkpoints").mkdir()
    shutil.copy(copy / "train" / "class0" / "00.png", copy / "train" / ".ipynb_checkpoints")
    shutil.copytree(copy / "val" / "class0", copy / "val" / "__MACOSX" / "class0")
    shutil.copytree(copy / "train" / "class1", copy / "train" / "class1" / ".ipynb_checkpoints")  # eight images again
    (copy / "train" / "class2" / "._00.png").write_bytes(b"\0\5\26\7")
    for name in ("a.avif", "b.AVIF", "c.txt", "d"):
        (copy / "train" / "class2" / name).write_text("no image")
    (copy / "train" / "words.txt").write_text("class0 zero")
    with pytest.warns(UserWarning, match="are left out") as said:
        data = load_data(config_of(copy))
    (line,) = [str(warning.message) for warning in said]
    assert line == (
        f"files in {copy} that no image is read from are left out: 9 hidden, 2 .avif, 2 hidden folder, 1 .txt, 1 without ending, "
        "1 of other kinds"
    )
    assert data.class_names == ["class0", "class1", "class2"]
    assert torch.bincount(data.train_labels).tolist() == [8, 8, 8]
    assert torch.bincount(data.labels("test")).tolist() == [4, 4, 4]


def test_every_ending_of_a_format_that_is_read_is_listed_and_read(copy):
    kinds = {"gif": "GIF", "JFIF": "JPEG", "jpe": "JPEG", "tif": "TIFF", "pbm": "PPM", "pgm": "PPM", "webp": "WEBP", "dib": "BMP"}
    for path in (copy / "train" / "class1").iterdir():
        path.unlink()
    for ending, kind in kinds.items():
        Image.new("L", (20, 20), 99).save(copy / "train" / "class1" / f"x.{ending}", kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_data(config_of(copy, train_images=24))
    assert torch.bincount(data.train_labels).tolist() == [8, 8, 8]
    images = torch.cat(
        [images[labels == 1] for images, labels in (Training(config_of(copy), data).data.batches("train", 24),)[0]]
    )
    assert images.shape == (8, 16, 16, 3)
    assert ((images.int() - 99).abs() <= 2).all()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kind", ["none", "avif", "hidden"])
def test_a_class_without_images_is_refused_by_name(copy, split, kind):
    for path in (copy / split / "class1").iterdir():
        if kind == "none":
            path.unlink()
        else:
            path.rename(path.with_suffix(".avif") if kind == "avif" else path.parent / f".{path.name}")
    count = 8 if split == "train" else 4
    besides = {"none": "", "avif": rf" \(left out: {count} .avif\)", "hidden": rf" \(left out: {count} hidden\)"}[kind]
    with pytest.raises(ValueError, match=rf"/{split} must hold images of every class, and holds none of 1: class1{besides}$"):
        load_data(config_of(copy))


def test_a_class_is_refused_that_loses_its_training_images(copy):
    with pytest.raises(ValueError, match=r"train_images 2 of .*/copy must hold .* is tested, and holds none of 1: class2$"):
        load_data(config_of(copy, train_images=2))
    for path in (copy / "train" / "class1").iterdir():
        Image.fromarray(np.zeros((9, 9), np.float32)).save(path, "TIFF")
    message = r"copy/train must hold images of every class that is tested, and holds none of 1: class1$"
    with pytest.warns(UserWarning, match="8 of 36 images"), pytest.raises(ValueError, match=message):
        load_data(config_of(copy, skip_corrupt=True))
    with pytest.raises(ValueError, match=r"class1/0.\.png must be an image: .* mode F from 0 to 0; .*; --skip-corrupt leaves"):
        Training(config_of(copy)).fit_epoch()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 4}, "image_size must be at least 8, got 4"),
        ({"resize_size": 12}, "resize_size must be at least image_size 16, got 12"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"crop_padding": 2}, "crop_padding must be 0 with an imagefolder, .* got 2"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \[0, 1\), got 1.0"),
        ({"val_fraction": 0.01}, "val_fraction must leave every class an image on both sides, got 0.01"),
    ],
)
def test_options_out_of_range_are_named(root, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(config_of(root, **options).resolved())


def test_sizes_are_for_folders_only():
    with pytest.raises(ValueError, match="image_size and resize_size must be left out with digits"):
        rlmix.Config.flat(image_size=64).resolved()


@pytest.mark.parametrize("noise", [1, 2])
def test_what_others_draw_changes_no_picture(tmp_path, noise):
    """As another thread would, that draws from torch's global generator between two draws of an augmentation."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")

    def transform(image):
        first = torch.randint(256, (1,))
        torch.default_generator.manual_seed(noise)
        return Image.new("RGB", (1, 1), (int(first), int(torch.randint(256, (1,))), 0))

    expected = torch.Generator().manual_seed(derive(5, "0"))
    drawn = [int(torch.randint(256, (1,), generator=expected)) for _ in range(2)]
    assert Pictures([str(tmp_path / "image.png")], transform, seed=5)[0].flatten().tolist() == [*drawn, 0]
