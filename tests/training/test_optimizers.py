"""Optimizers and schedules beside torch's own steps and the formulas written out, and steps that are not finite."""

import io
import math

import pytest
import torch
from torch import nn
from toys import DIGITS

import rlmix
from rlmix.mixing.core import Mixed
from rlmix.training.optimizers import OPTIMIZERS, make_optimizer, parameter_groups
from rlmix.training.trainer import Training

PLAIN = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.02, 0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.02, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.02, weight_decay=0.01),
    "torch.optim:RAdam": lambda parameters: torch.optim.RAdam(parameters, 0.02, weight_decay=0.01),
}


def config_of(optimizer, **options):
    tiny = DIGITS | {"schedule": "constant", "warmup": 0.0}
    return rlmix.Config.flat(**(tiny | {"optimizer": optimizer, "learning_rate": 0.02, "weight_decay": 0.01} | options))


def test_every_shipped_one_is_tried_here():
    assert set(OPTIMIZERS) <= set(PLAIN)


@pytest.mark.parametrize("name", PLAIN)
def test_steps_are_torchs(name):
    config = config_of(name).resolved()
    torch.manual_seed(0)
    ours, theirs = nn.Linear(6, 4), nn.Linear(6, 4)
    theirs.load_state_dict(ours.state_dict())
    optimizers = make_optimizer(ours, [], config), PLAIN[name](theirs.parameters())
    for _ in range(5):
        inputs = torch.randn(8, 6)
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    for weight, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_a_step_that_is_not_finite_changes_no_weight(name):
    training = Training(config_of(name, on_nonfinite="skip"))
    training.fit_step()
    before = {key: value.clone() for key, value in training.model.state_dict().items()}
    images, labels = training.next_batch()
    training.step(Mixed(images * float("nan"), nn.functional.one_hot(labels, 10).float()))
    assert all(torch.equal(before[key], value) for key, value in training.model.state_dict().items())
    training.fit_step()
    assert not torch.equal(before["stem.weight"], training.model.state_dict()["stem.weight"])
    assert all(value.isfinite().all() for value in training.model.state_dict().values())


@pytest.mark.parametrize("name", PLAIN)
def test_a_training_goes_on_from_its_state_to_the_bit(name):
    whole = Training(config_of(name))
    for _ in range(3):
        whole.fit_step()
    state = torch.load(_stored(whole.state_dict()), weights_only=True)
    resumed = Training(config_of(name, seed=0))
    resumed.load_state_dict(state)
    for training in (whole, resumed):
        training.fit_epoch()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


def _stored(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_norms_and_biases_are_decayed_unless_told_otherwise():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    (together,) = parameter_groups(model, [], decay_norms=True)
    assert len(together["params"]) == 4
    decayed, rest = parameter_groups(model, [nn.Parameter(torch.zeros(2, 2))], decay_norms=False)
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(4, 3, 3, 3), (2, 2)]
    assert [tuple(parameter.shape) for parameter in rest["params"]] == [(4,), (4,), (4,)]
    assert rest["weight_decay"] == 0
    training = Training(config_of("sgd", decay_norms=False))
    assert [group["weight_decay"] for group in training.optimization.optimizer.param_groups] == [0.01, 0.0]


def rates(schedule, **options):
    training = Training(config_of("sgd", schedule=schedule, learning_rate=0.1, **options))
    found = []
    for _ in range(8):
        found.append(training.learning_rate)
        training.fit_step()
    return found


def test_constant_is_one_rate_after_a_linear_warm_up():
    assert rates("constant", warmup=0.0) == pytest.approx([0.1] * 8)
    assert rates("constant", warmup=0.25) == pytest.approx([0.1 / 3, 0.2 / 3, *[0.1] * 6])


def test_cosine_is_half_a_cosine_down_to_the_final_rate_after_a_warm_up():
    low = 1e-3
    expected = [0.1 / 3, 0.2 / 3] + [low + (0.1 - low) * (1 + math.cos(math.pi * step / 5)) / 2 for step in range(6)]
    assert rates("cosine", warmup=0.25, final_learning_rate=low) == pytest.approx(expected)
    assert rates("cosine", warmup=0.0, final_learning_rate=low)[-1] == pytest.approx(low)
