"""Networks that Python gives, and those of Hugging Face's configurations."""

import copy
import json

import pytest
import torch
import toy_package
from torch import nn
from toys import DIGITS, toy_config

import rlmix
from rlmix.models import build_model
from rlmix.models.given import giving, name_of
from rlmix.recipes import GIVEN
from rlmix.training.run_folder import read_metrics


def network(width=4):
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def config(folder, **options):
    return rlmix.Config.flat(**DIGITS | {"model": None, "out": folder, "method": "rmix", "epochs": 2} | options)


def test_a_module_is_trained_from_its_own_weights_and_stays_as_it_was(tmp_path):
    model = network()
    before = copy.deepcopy(model.state_dict())
    result = rlmix.train(
        config(tmp_path / "run", learning_rate=1e-9, final_learning_rate=1e-12, weight_decay=0.0), model=model, quiet=True
    )
    assert result.config.model.name == GIVEN
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    trained = rlmix.load_model(tmp_path / "run", model=network(), device="cpu").state_dict()
    for name, weight in before.items():
        torch.testing.assert_close(trained[name], weight, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"model given must come with the call, rlmix.train\(config, model=...\)"):
        rlmix.load_model(tmp_path / "run", device="cpu")


def test_a_run_with_a_given_module_goes_on_to_the_bit(tmp_path):
    rlmix.train(config(tmp_path / "whole"), model=network(), quiet=True)
    rlmix.train(config(tmp_path / "part", checkpoint_every=2), model=network(), quiet=True)
    for path in sorted((tmp_path / "part" / "checkpoints").iterdir())[-1:]:
        path.unlink()
    (tmp_path / "part" / "result.json").unlink()
    rlmix.train(config(tmp_path / "part", checkpoint_every=2).changed(resume=tmp_path / "part"), model=network(), quiet=True)
    whole, part = (read_metrics(tmp_path / name) for name in ("whole", "part"))
    assert [epoch["train_loss"] for epoch in whole] == [epoch["train_loss"] for epoch in part]
    assert [epoch["test_loss"] for epoch in whole] == [epoch["test_loss"] for epoch in part]


def test_a_function_that_others_can_import_is_known_by_its_name(tmp_path):
    result = rlmix.train(config(tmp_path / "run", epochs=1), model=toy_package.network, quiet=True)
    assert result.config.model.name == "toy_package:network"
    rlmix.load_model(tmp_path / "run", device="cpu")  # and needs nothing given
    assert name_of(lambda num_classes: network()) == GIVEN
    asked = {}

    def make(num_classes, image_size):
        asked.update(num_classes=num_classes, image_size=image_size)
        return network()

    rlmix.train(config(tmp_path / "other", epochs=1), model=make, quiet=True)
    assert asked == {"num_classes": 10, "image_size": (32, 32)}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18", "model must be a torch.nn.Module or a function that gives one, got str"),
        (lambda num_classes: num_classes, "model given must give a torch.nn.Module, got int"),
        (lambda classes: network(), "model given must be built from , got TypeError: .*missing 1 required positional"),
    ],
)
def test_what_is_no_network_is_refused(tmp_path, model, said):
    with pytest.raises(ValueError, match=said):
        rlmix.train(config(tmp_path / "run"), model=model, quiet=True)
    assert not (tmp_path / "run").exists()


def test_two_names_of_a_network_are_refused(tmp_path):
    with pytest.raises(ValueError, match="model of the configuration must be left out where one is given, got preactresnet18"):
        rlmix.train(config(tmp_path / "run", model="preactresnet18"), model=network(), quiet=True)


def test_given_inside_given_is_the_inner_one():
    with giving(network(4)), giving(network(6)):
        assert build_model(GIVEN, 10)[0].out_channels == 6


VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 224,
    "patch_size": 4,
}


def test_a_configuration_of_hugging_faces_trains(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(VIT))
    name = f"hf:{tmp_path}"
    model = build_model(name, 10, 1, seed=3, image_size=(8, 8))
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    again, other = (build_model(name, 10, 1, seed=seed, image_size=(8, 8)) for seed in (3, 4))
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(iter(model.vit.parameters())), next(iter(other.vit.parameters())))
    result = rlmix.train(toy_config(tmp_path, 16).changed(model=name, method="rmix", epochs=1, out=tmp_path / "run"), quiet=True)
    assert 0 <= result.figures["top1"] <= 100
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"model hf:.* must be an image classifier's: ValueError"):
        build_model(name, 10)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(FileNotFoundError, match=r"model hf:.* must hold a config.json, and there is none"):
        build_model(f"hf:{tmp_path}", 10)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ValueError, match=r'model hf:x must have transformers installed: pip install "rlmix\[transformers\]"'):
        build_model("hf:x", 10)
