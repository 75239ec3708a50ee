"""Every method by name: an epoch on digits, what is refused, and the picture of all of them."""

import math

import pytest
import torch
from toys import picture_size, toy_config

from rlmix.experiments import gallery
from rlmix.mixing.core import Mixed
from rlmix.mixing.objective import score
from rlmix.mixing.registry import METHODS, Setting
from rlmix.scripts import visualize
from rlmix.training.trainer import Training

SETTING = Setting(torch.nn.Identity(), (31, 31), torch.zeros(3), torch.ones(3), "npz", 10, 0)


@pytest.mark.parametrize("name", METHODS)
def test_an_epoch_lowers_the_loss(name, tmp_path):
    training = Training(toy_config(tmp_path, 16, num_train=320, batch_size=32), method=name)
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


def test_the_picture_shows_every_method(tmp_path, capsys):
    path = tmp_path / "methods.png"
    few = ["--train-images", "64", "--test-images", "40", "--batch-size", "16", "--epochs", "1", "--num-images", "4"]
    visualize.main([*few, "--out", str(path)])
    assert picture_size(path)[1] > 100 * len(gallery.SHOWN)
    assert capsys.readouterr().out == f"written to {path}\n"


def test_alpha_reaches_the_method(tiny_config):
    assert Training(tiny_config.changed(alpha=0.3), method="cutmix").method.alpha == 0.3
    assert Training(tiny_config, method="alignmix").method.alpha == 2.0


def test_a_stateful_method_belongs_to_its_training(tiny_config):
    own = Training(tiny_config, method="automix")
    with pytest.raises(ValueError, match="method must have no parameters, or be the training's own, got AutoMix"):
        Training(tiny_config).fit_step(own.method)
    before = [value.clone() for value in own.method.encoder.parameters()]
    own.fit_step()
    assert any(not torch.equal(a, b) for a, b in zip(before, own.method.encoder.parameters(), strict=True))


def test_features_that_were_not_mixed_are_noticed(tiny_config):
    training, other = Training(tiny_config), Training(tiny_config)
    images, labels = training.next_batch()
    method = METHODS["manifold_mixup"]()
    objectives = [
        method(training.model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(s)) for s in range(9)
    ]
    hidden = next(objective for objective in objectives if not isinstance(objective, Mixed))
    with pytest.raises(RuntimeError, match="must be run by the network that is scored"):
        hidden.score(other.model)


def test_augmix_stays_in_float32_under_autocast(tiny_config):
    training = Training(tiny_config.changed(precision="bfloat16"), method="augmix")
    images, labels = training.next_batch()
    views = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            objective = training.method(
                training.model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(0)
            )
        views.append(objective.images)
    assert torch.equal(*views)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_in_bfloat16(name, tiny_config):
    training = Training(tiny_config.changed(precision="bfloat16"), method=name)
    training.fit_step()
    assert math.isfinite(training.epoch_metrics()["train_loss"])


def test_image_sizes_that_no_patch_divides_are_refused():
    with pytest.raises(
        ValueError, match=r"images must have sides that one of \(2, 4, 8, 16\) divides under puzzlemix, got 31x31"
    ):
        METHODS["puzzlemix"].for_training(SETTING)
