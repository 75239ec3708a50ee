"""What is done with gradients, beside torch's own optimizers and schedules; and what goes on where it was left."""

from copy import deepcopy

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import rlmix
from rlmix.training.accumulation import Accumulation
from rlmix.training.optimization import Optimization

OPTIONS = {"data": "digits", "learning_rate": 0.1, "weight_decay": 0.01, "clip_norm": 0.0, "schedule": "multistep"}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 10))


def optimization_of(model, batches=4, others=(), count=1, **options):
    """Of ``batches`` an epoch, of which ``count`` make a step."""
    config = rlmix.Config.flat(**(OPTIONS | {"epochs": 2, "accumulation": count} | options)).resolved()
    groups, fabric = Accumulation(count, batches), Fabric(accelerator="cpu", devices=1)
    return Optimization(model, others, config, 10, groups, -(-batches // count) * config.recipe.epochs, fabric)


def train(optimization, model, batches, begin=1):
    """Take steps down the mean output of a batch, which is as large as its number; give the rates that they had."""
    rates = []
    for batch in range(begin, begin + batches):
        rates.append(optimization.learning_rate)
        optimization.begin(batch)
        (batch * model(torch.ones(1, 3)).mean()).backward()
        optimization.step(batch, optimization.all_finite(torch.zeros(())))
        optimization.follow(batch)
        optimization.move_on(batch)
    return rates


def assert_same(first, second):
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_steps_rates_and_the_average_are_torchs(clip_norm):
    model = network()
    other, others = deepcopy(model), [nn.Parameter(torch.ones(2))]
    optimization = optimization_of(model, others=others, clip_norm=clip_norm, ema=0.9, epochs=1)
    theirs = torch.optim.SGD(other.parameters(), 0.1, 0.9, weight_decay=0.01, nesterov=True)
    average = AveragedModel(other, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    schedule = torch.optim.lr_scheduler.MultiStepLR(theirs, [2, 3])
    rates = []
    for batch in range(1, 5):
        rates.append(theirs.param_groups[0]["lr"])
        theirs.zero_grad()
        (batch * other(torch.ones(1, 3)).mean()).backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(other.parameters(), clip_norm)
        theirs.step()
        average.update_parameters(other)
        schedule.step()
    assert train(optimization, model, 4) == pytest.approx(rates)
    assert_same(model, other)
    assert_same(optimization.average, average)
    assert torch.equal(others[0], torch.ones(2))  # without a gradient, nothing is done with it


def test_a_gradient_that_is_not_finite_moves_nothing():
    model = network()
    others = [nn.Parameter(torch.ones(2))]
    optimization, before = optimization_of(model, others=others), deepcopy(model)
    assert bool(optimization.all_finite(torch.zeros(())))
    assert not bool(optimization.all_finite(torch.tensor(float("nan"))))
    optimization.begin(1)
    (model(torch.ones(1, 3)).mean() + float("inf") * others[0].sum()).backward()
    finite = optimization.all_finite(torch.zeros(()))
    assert not bool(finite)
    optimization.step(1, finite)
    assert_same(model, before)
    optimization.begin(2)
    assert all(parameter.grad is None for parameter in (*model.parameters(), *others))


def test_layers_have_rates_and_the_heads_is_told():
    optimization = optimization_of(network(), layer_decay=0.5)
    assert sorted(group["lr"] for group in optimization.optimizer.param_groups) == pytest.approx([0.05, 0.1])
    assert optimization.learning_rate == pytest.approx(0.1)


@pytest.mark.parametrize(("epoch", "batch", "rate"), [(1, 0, 0.1), (1, 3, 0.1), (1, 4, 0.01), (2, 2, 0.001), (2, 4, 0.001)])
def test_catching_up_goes_to_the_rate_of_the_next_step(epoch, batch, rate, recwarn):
    """Milestones at half and three quarters of eight steps; after the last one there is none to go to."""
    optimization = optimization_of(network())
    optimization.catch_up(epoch, batch)
    assert optimization.learning_rate == pytest.approx(rate)
    assert optimization.scheduler.last_epoch == min(4 * (epoch - 1) + batch, 7)
    assert not recwarn.list


def test_what_goes_on_for_longer_has_milestones_of_its_own():
    """Of four steps at 2 and 3, of eight at 4 and 6."""
    model = network()
    first, longer = optimization_of(model, epochs=1), optimization_of(model, epochs=2)
    assert train(first, model, 1) == [0.1]
    longer.load_state_dict(deepcopy(first.state_dict(1)))
    longer.catch_up(1, 1)
    assert train(longer, model, 7, begin=2) == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("done", [1, 2, 3])
def test_it_goes_on_within_a_group_where_parameters_have_no_gradient(done):
    def make():
        model = network()
        model[0].requires_grad_(False)  # as a frozen backbone's
        return model, optimization_of(model, batches=5, count=3, ema=0.5, freeze_backbone=True, schedule="onecycle")

    model, optimization = make()
    train(optimization, model, 5)
    stopped, first = make()
    train(first, stopped, done)
    state = deepcopy({"model": stopped.state_dict(), **first.state_dict(done)})
    assert ("gradients" in state) == (done % 3 > 0)
    resumed, second = make()
    resumed.load_state_dict(state["model"])
    second.load_state_dict(state)
    if done % 3:
        kept = state["gradients"][2].clone()
    train(second, resumed, 5 - done, begin=done + 1)
    assert_same(resumed, model)
    assert_same(second.average, optimization.average)
    assert second.learning_rate == optimization.learning_rate
    if done % 3:
        assert torch.equal(state["gradients"][2], kept)  # nothing of the state is shared


def test_gradients_of_another_network_are_refused():
    model, other = network(), network()
    optimization = optimization_of(model, count=2)
    train(optimization, model, 1)
    state = optimization.state_dict(1)
    with pytest.raises(ValueError, match="shorter"):
        optimization_of(other, count=2).load_state_dict(state | {"gradients": state["gradients"][:-1]})
