"""Every method by name: an epoch on digits, what is refused, and the picture of all of them."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

import rlmix
from rlmix.methods import METHODS
from rlmix.mixing import Mixed
from rlmix.objective import score
from rlmix.scripts import visualize
from rlmix.training import Training


@pytest.mark.parametrize("name", METHODS)
def test_an_epoch_on_digits_lowers_the_loss(name):
    config = rlmix.TrainingConfig(data="digits", train_images=480, batch_size=32, epochs=2, learning_rate=0.05)
    training = Training(config, method=name)
    first, second = training.fit_epoch(), training.fit_epoch()
    assert math.isfinite(second["train_loss"])
    assert second["train_loss"] < first["train_loss"]
    assert training.finished


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_the_model_and_the_random_state_as_found(name, tiny_config):
    training = Training(tiny_config, method=name)
    images, labels = training.next_batch()
    before = {key: value.clone() for key, value in training.model.state_dict().items()}
    state = torch.get_rng_state()
    mixed = training.method(training.model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())
    assert training.model.training
    assert all(parameter.grad is None for parameter in training.model.parameters())
    assert all(torch.equal(before[key], value) for key, value in training.model.state_dict().items())
    assert torch.allclose(mixed.targets.sum(1), torch.ones(len(mixed.targets)), atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_usable_in_anyones_loop(name, tiny_config):
    """The same generator seed gives the same loss twice, and its gradient reaches every weight."""
    losses = []
    for _ in range(2):
        training = Training(tiny_config, method=name)
        images, labels = training.next_batch()
        generator = torch.Generator().manual_seed(3)
        mixed = training.method(training.model, images, labels, num_classes=10, generator=generator)
        assert isinstance(mixed, Mixed) or mixed.targets.shape[1] == 10
        loss, logits = score(mixed, training.model)
        loss.backward()
        assert all(parameter.grad is not None for parameter in training.model.parameters())
        assert len(logits) == len(mixed.targets)
        losses.append(loss.item())
    assert losses[0] == losses[1]


def test_an_unknown_method_is_refused_with_the_nearest_name(tiny_config):
    with pytest.raises(ValueError, match=r"method must be one of vanilla, .*, got 'cutmixx' \(did you mean 'cutmix'\?\)"):
        Training(tiny_config, method="cutmixx")


def test_methods_that_need_stages_name_those_a_network_has(tiny_config):
    training = Training(tiny_config)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))
    images, labels = training.next_batch()
    for name in ("manifold_mixup", "alignmix"):
        method = Training(tiny_config, method=name).method
        with pytest.raises(ValueError, match=r"stage must be one of those Sequential has \(none\)"):
            method(plain, images, labels, num_classes=10, generator=torch.Generator().manual_seed(0))


def test_the_picture_shows_every_method(tmp_path):
    path = tmp_path / "methods.png"
    visualize.main(["--train-images", "64", "--batch-size", "16", "--epochs", "1", "--num-images", "4", "--out", str(path)])
    assert Image.open(path).size[1] > 100 * len(visualize.SHOWN)


def test_alpha_reaches_the_method(tiny_config):
    assert Training(replace(tiny_config, alpha=0.3), method="cutmix").method.alpha == 0.3
    assert Training(tiny_config, method="alignmix").method.alpha == 2.0
