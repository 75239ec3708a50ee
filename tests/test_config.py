"""The configuration: recipes, ranges, plain values."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from rlmix.common.groups import options_of
from rlmix.common.saved_config import read_config
from rlmix.config import Config
from rlmix.experiments.settings import settled
from rlmix.option_groups import NOT_SAVED


def value(config, name):
    return options_of(Config)[name].of(config)


RECIPE_FIELDS = ("model", "epochs", "batch_size", "schedule", "learning_rate", "weight_decay", "flip", "crop_padding")


@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100", "fashion_mnist", "npz:some/file.npz", "imagefolder:x"])
def test_every_recipe_resolves_and_sets_every_field(data):
    config = Config.flat(data=data).resolved()
    assert config.data.name == data
    assert all(value(config, name) is not None for name in RECIPE_FIELDS)
    assert config.resolved() == config


def test_cifar100_takes_the_papers_recipe():
    config = Config.flat(data="cifar100").resolved()
    optim = config.optim
    assert (config.model.name, optim.batch_size, optim.epochs, optim.schedule) == ("preactresnet18", 100, 300, "onecycle")
    assert (optim.learning_rate, optim.div_factor, optim.pct_start, optim.final_learning_rate) == (0.3, 100, 0.3, 3e-5)
    assert (optim.momentum, optim.weight_decay, config.data.flip, config.data.crop_padding) == (0.9, 1e-4, True, 2)


def test_imagefolder_takes_resnet50_for_100_epochs_in_steps():
    config = Config.flat(data="imagefolder:some/where").resolved()
    assert (config.model.name, config.optim.epochs, config.optim.batch_size, config.data.image_size) == (
        "resnet50",
        100,
        256,
        224,
    )
    assert (config.optim.schedule, config.optim.learning_rate, config.optim.milestones, config.optim.weight_decay) == (
        "multistep",
        0.1,
        (0.3, 0.6, 0.9),
        1e-4,
    )
    assert config.test_resize == 256
    assert Config.flat(data="imagefolder:x", image_size=64).test_resize == 73
    assert Config.flat(data="imagefolder:x", resize_size=300).test_resize == 300


def test_digits_are_not_mirrored():
    assert Config.flat(data="digits").resolved().data.flip is False


@pytest.mark.parametrize(
    ("name", "given"),
    [("model", "preactresnet18"), ("epochs", 3), ("batch_size", 7), ("learning_rate", 0.01), ("weight_decay", 0.0),
     ("flip", True), ("crop_padding", 0), ("schedule", "multistep")],
)  # fmt: skip
def test_what_is_set_is_kept_zero_and_false_too(name, given):
    resolved = Config.flat(data="digits", **{name: given}).resolved()
    assert value(resolved, name) == given
    others = resolved.changed(**{name: value(Config.flat().resolved(), name)})
    assert others == Config.flat(data="digits").resolved()


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
        Config.flat(**{name: value}).resolved()
    assert str(error.value).endswith(f"got {value}")


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [("schedule", "onecycel", "onecycle"), ("rule", "mix_tops", "mix_top"), ("reward", "cosin", "cosine"),
     ("credit", "pairs", "pair"),
     ("observation", "pairs", "pair"), ("saliency_mode", "haf", "half"), ("algorithm", "pp", "ppo"), ("method", "cutmx", "cutmix"),
     ("data", "cifar-100", "cifar100"), ("data", "mnist", "fashion_mnist")],
)  # fmt: skip
def test_unknown_names_are_named_with_the_nearest(name, value, near):
    with pytest.raises(ValueError, match=rf"^{name} must be one of .*got '{value}' \(did you mean '{near}'\?\)$"):
        Config.flat(**{name: value}).resolved()


@pytest.mark.parametrize("data", ["npz", "npz:", "imagefolder", "imagefolder:", "digits:x", "", "cifar10:here"])
def test_data_with_a_missing_or_needless_path_is_named(data):
    with pytest.raises(ValueError, match=f"^data must be one of .*got '{data}'"):
        Config.flat(data=data).resolved()


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config.flat().optim.epochs = 3


def test_plain_values_give_the_configuration_back():
    config = Config.flat(num_patches=(2, 4), milestones=(0.3, 0.6)).resolved()
    values = config.as_dict()
    plain = (int, float, str, bool, list, dict, type(None))
    assert all(type(value) in plain for value in values.values())
    assert set(values) == {name.partition(".")[0] for name in options_of(Config)} - set(NOT_SAVED)
    assert Config.from_mapping(values) == config


def test_r_mix_takes_the_papers_alpha_on_imagenet_alone():
    assert Config.flat(data="imagefolder:PATH").policy_alpha == 0.2
    assert Config.flat(data="imagefolder:PATH", alpha=1.0).policy_alpha == 1.0
    assert Config.flat(data="cifar100").policy_alpha == 1.0
    assert settled(Config.flat(data="imagefolder:PATH", method="rmix")).mixing.alpha == 0.2
    assert settled(Config.flat(data="imagefolder:PATH", method="cutmix")).mixing.alpha is None
    assert settled(Config.flat(data="digits", method="rmix")).mixing.alpha is None


def test_a_folder_run_of_before_keeps_the_alpha_it_was_mixed_with(tmp_path):
    for method, data, alpha in [("rmix", "imagefolder:X", 1.0), ("cutmix", "imagefolder:X", None), ("rmix", "digits", None)]:
        (tmp_path / "config.yaml").write_text(f"method: {method}\ndata: {data}\nalpha: null\n")
        assert read_config(tmp_path)["alpha"] == alpha
    (tmp_path / "config.yaml").write_text("method: rmix\ndata: imagefolder:X\nalpha: 0.2\n")
    assert read_config(tmp_path)["alpha"] == 0.2


def test_a_folder_may_be_given_as_text():
    config = Config.flat(out="runs/mine", resume=None, freeze_from="runs/other")
    assert config.run.out == Path("runs/mine")
    assert config.run.resume is None
    assert config.model.freeze_from == "runs/other"


def test_text_may_be_given_as_a_folder():
    config = Config.flat(method="policy", policy=Path("runs") / "agent", freeze_from=Path("runs/other"), data_root=Path("data"))
    found = (config.run.policy, config.model.freeze_from, config.data.data_root)
    assert found == ("runs/agent", "runs/other", "data")
    again = yaml.safe_load(yaml.safe_dump(config.as_dict()))
    assert (again["policy"], again["freeze_from"], again["data_root"]) == found
    assert config.changed(weights=Path("a.pt")).model.weights == "a.pt"
