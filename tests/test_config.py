"""The configuration: recipes, ranges, plain values."""

import dataclasses

import pytest

from rlmix.common.saved_config import read_config
from rlmix.config import TrainingConfig
from rlmix.experiments.settings import Train

RECIPE_FIELDS = ("model", "epochs", "batch_size", "schedule", "learning_rate", "weight_decay", "flip", "crop_padding")


@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100", "fashion_mnist", "npz:some/file.npz", "imagefolder:x"])
def test_every_recipe_resolves_and_sets_every_field(data):
    config = TrainingConfig(data=data).resolved()
    assert config.data == data
    assert all(getattr(config, name) is not None for name in RECIPE_FIELDS)
    assert config.resolved() == config


def test_cifar100_takes_the_papers_recipe():
    config = TrainingConfig(data="cifar100").resolved()
    assert (config.model, config.batch_size, config.epochs, config.schedule) == ("preactresnet18", 100, 300, "onecycle")
    assert (config.learning_rate, config.div_factor, config.pct_start, config.final_learning_rate) == (0.3, 100, 0.3, 3e-5)
    assert (config.momentum, config.weight_decay, config.flip, config.crop_padding) == (0.9, 1e-4, True, 2)


def test_imagefolder_takes_resnet50_for_100_epochs_in_steps():
    config = TrainingConfig(data="imagefolder:some/where").resolved()
    assert (config.model, config.epochs, config.batch_size, config.image_size) == ("resnet50", 100, 256, 224)
    assert (config.schedule, config.learning_rate, config.milestones, config.weight_decay) == (
        "multistep",
        0.1,
        (0.3, 0.6, 0.9),
        1e-4,
    )
    assert config.test_resize == 256
    assert TrainingConfig(data="imagefolder:x", image_size=64).test_resize == 73
    assert TrainingConfig(data="imagefolder:x", resize_size=300).test_resize == 300


def test_digits_are_not_mirrored():
    assert TrainingConfig(data="digits").resolved().flip is False


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", "preactresnet18"), ("epochs", 3), ("batch_size", 7), ("learning_rate", 0.01), ("weight_decay", 0.0),
     ("flip", True), ("crop_padding", 0), ("schedule", "multistep")],
)  # fmt: skip
def test_what_is_set_is_kept_zero_and_false_too(name, value):
    resolved = TrainingConfig(data="digits", **{name: value}).resolved()
    assert getattr(resolved, name) == value
    others = dataclasses.replace(resolved, **{name: getattr(TrainingConfig().resolved(), name)})
    assert others == TrainingConfig(data="digits").resolved()


OUT_OF_RANGE = [
    ("epochs", 0), ("epochs", -3), ("batch_size", 0), ("num_top_k", 0), ("seed", -1), ("mixing_seed", -1), ("train_images", 0),
    ("crop_padding", -1), ("weight_decay", -0.1), ("weight_decay", float("nan")), ("div_factor", 0.5),
    ("learning_rate", 0.0), ("learning_rate", -0.1), ("learning_rate", float("inf")), ("learning_rate", float("nan")),
    ("final_learning_rate", 0.0), ("alpha", 0.0), ("alpha", -1.0), ("alpha", float("inf")),
    ("momentum", 1.0), ("momentum", -0.1), ("pct_start", 0.0), ("pct_start", 1.5),
    ("val_fraction", -0.1), ("val_fraction", 1.0), ("image_size", 4), ("workers", -1),
    ("milestones", (0.5, 1.0)), ("milestones", (0.0,)), ("num_patches", ()), ("num_patches", (2, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_out_of_range_values_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be ") as error:
        TrainingConfig(**{name: value}).resolved()
    assert str(error.value).endswith(f"got {value}")


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [("schedule", "onecycel", "onecycle"), ("rule", "mix_tops", "mix_top"), ("reward", "cosin", "cosine"),
     ("credit", "pairs", "pair"),
     ("precision", "bfloat", "bfloat16"), ("data", "cifar-100", "cifar100"), ("data", "mnist", "fashion_mnist")],
)  # fmt: skip
def test_unknown_names_are_named_with_the_nearest(name, value, near):
    with pytest.raises(ValueError, match=rf"^{name} must be one of .*got '{value}' \(did you mean '{near}'\?\)$"):
        TrainingConfig(**{name: value}).resolved()


@pytest.mark.parametrize("data", ["npz", "npz:", "imagefolder", "imagefolder:", "digits:x", "", "cifar10:here"])
def test_data_with_a_missing_or_needless_path_is_named(data):
    with pytest.raises(ValueError, match=f"^data must be one of .*got '{data}'"):
        TrainingConfig(data=data).resolved()


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().epochs = 3


def test_plain_values_give_the_configuration_back():
    config = TrainingConfig(num_patches=(2, 4), milestones=(0.3, 0.6)).resolved()
    values = config.as_dict()
    assert list(values) == [field.name for field in dataclasses.fields(config)]
    assert all(type(value) in (int, float, str, bool, list, type(None)) for value in values.values())
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    assert TrainingConfig(**tuples) == config


def test_r_mix_takes_the_papers_alpha_on_imagenet_alone():
    assert TrainingConfig(data="imagefolder:PATH").policy_alpha == 0.2
    assert TrainingConfig(data="imagefolder:PATH", alpha=1.0).policy_alpha == 1.0
    assert TrainingConfig(data="cifar100").policy_alpha == 1.0
    assert Train(data="imagefolder:PATH", method="rmix").resolved().alpha == 0.2
    assert Train(data="imagefolder:PATH", method="cutmix").resolved().alpha is None
    assert Train(data="digits", method="rmix").resolved().alpha is None


def test_a_folder_run_of_before_keeps_the_alpha_it_was_mixed_with(tmp_path):
    for method, data, alpha in [("rmix", "imagefolder:X", 1.0), ("cutmix", "imagefolder:X", None), ("rmix", "digits", None)]:
        (tmp_path / "config.yaml").write_text(f"method: {method}\ndata: {data}\nalpha: null\n")
        assert read_config(tmp_path)["alpha"] == alpha
    (tmp_path / "config.yaml").write_text("method: rmix\ndata: imagefolder:X\nalpha: 0.2\n")
    assert read_config(tmp_path)["alpha"] == 0.2
