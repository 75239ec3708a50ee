"""One classifier's training: reproducibility, schedules, data order, checkpoints in mid-epoch, errors."""

import copy
import io
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rlmix
from rlmix.common.seeding import stream
from rlmix.data.memory import image_data
from rlmix.mixing.core import Mixed, mix
from rlmix.mixing.rmix import RMix
from rlmix.mixing.vanilla import Vanilla
from rlmix.training.schedules import make_schedule
from rlmix.training.trainer import Training


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config.changed(device="cpu")


def numbered_images(count):
    """Image i is uniformly of the grey level i, so that a batch tells which images it holds; 8x8 pixels."""
    levels = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None], (count, 8, 8)).copy()
    return image_data(images, levels % 10, images[:20], levels[:20] % 10)


def vanilla(model, images, labels, *, num_classes, generator):
    return Mixed(images, F.one_hot(labels, num_classes).float())


def drop_in(config):
    """R-Mix whose top-k draws have a generator of their own."""
    return partial(RMix(num_patches=(2, 4)), top_k_generator=stream(config.run.seed, "policy"))


def assert_same_weights(first, second):
    for (name, tensor), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def one_cycle(step, config, num_steps):
    """Smith's one cycle in closed form: cosine from max / div_factor up to max, then cosine down to the final rate."""
    peak_at, last = config.optim.pct_start * num_steps - 1, num_steps - 1
    low, high, end = (
        config.optim.learning_rate / config.optim.div_factor,
        config.optim.learning_rate,
        config.optim.final_learning_rate,
    )
    if step <= peak_at:
        return low + (high - low) * (1 - math.cos(math.pi * step / peak_at)) / 2
    return end + (high - end) * (1 + math.cos(math.pi * (step - peak_at) / (last - peak_at))) / 2


def schedule_rates(config, num_steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], config.optim.learning_rate, config.optim.momentum, nesterov=True)
    scheduler = make_schedule(optimizer, config, num_steps)
    rates, momenta = [], []
    for step in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if step < num_steps - 1:
            scheduler.step()
    return rates, momenta


@pytest.mark.parametrize("method", [Vanilla(), RMix(num_patches=(2, 4))], ids=["vanilla", "rmix"])
def test_same_seed_gives_the_same_weights_bit_for_bit(config, method):
    first, second = Training(config), Training(config)
    assert first.fit_epoch(method) == second.fit_epoch(method)
    assert_same_weights(first.model, second.model)


def test_another_seed_gives_other_initial_weights(config):
    first, second = Training(config), Training(config.changed(seed=1))
    assert not torch.equal(first.model.stem.weight, second.model.stem.weight)


def test_global_random_state_neither_matters_nor_moves(config):
    torch.manual_seed(1)
    first = Training(config, numbered_images(64))
    first.fit_step(drop_in(config))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = Training(config, numbered_images(64))
    second.fit_step(drop_in(config))
    assert torch.equal(before, torch.get_rng_state())
    assert_same_weights(first.model, second.model)


def test_mixing_seed_moves_the_mixing_and_neither_data_order_nor_augmentation(config):
    trainings = [Training(config.changed(mixing_seed=seed), numbered_images(64)) for seed in (None, 7)]
    assert_same_weights(trainings[0].model, trainings[1].model)
    mixed_alike = []
    for _ in range(trainings[0].num_steps):
        batches = [training.next_batch() for training in trainings]
        assert torch.equal(batches[0].labels, batches[1].labels)
        assert torch.equal(batches[0].images, batches[1].images)  # after crop and flip
        mixed = [
            RMix()(t.model, *b, num_classes=10, generator=t.mixing_generator) for t, b in zip(trainings, batches, strict=True)
        ]
        mixed_alike.append(torch.equal(mixed[0].images, mixed[1].images))
    assert not any(mixed_alike)


def test_data_order_does_not_depend_on_the_method(config):
    labels = []
    for method in (Vanilla(), drop_in(config)):
        training, seen = Training(config, numbered_images(64)), []
        for _ in range(training.num_steps):
            images, batch_labels = training.next_batch()
            seen.append(batch_labels.tolist())
            training.step(method(training.model, images, batch_labels, num_classes=10, generator=training.mixing_generator))
        labels.append(seen)
    assert labels[0] == labels[1]


def test_one_cycle_in_training_follows_the_closed_form_and_momentum_stays(config):
    training = Training(config, numbered_images(64))
    group = training.optimization.optimizer.param_groups[0]
    for step in range(8):
        assert training.learning_rate == pytest.approx(one_cycle(step, training.config, 8), rel=1e-12)
        assert group["momentum"] == 0.9
        assert group["nesterov"]
        training.fit_step(Vanilla())
    assert training.finished
    assert training.learning_rate == pytest.approx(3e-5, rel=1e-12)  # of the last step: the schedule ends with it


def test_one_cycle_of_the_cifar_recipe_starts_peaks_and_ends_where_the_paper_says():
    config = rlmix.Config.flat(data="cifar100", epochs=3).resolved()
    rates, momenta = schedule_rates(config, 1500)
    assert rates[0] == pytest.approx(0.3 / 100)
    assert max(rates) == pytest.approx(0.3)
    assert rates.index(max(rates)) == 449
    assert rates[-1] == pytest.approx(3e-5)
    assert set(momenta) == {0.9}
    assert rates == pytest.approx([one_cycle(step, config, 1500) for step in range(1500)], rel=1e-9)


@given(num_steps=st.integers(1, 60), pct_start=st.floats(0.05, 0.9), final=st.floats(1e-6, 1e-3))
@settings(max_examples=50, deadline=None)
def test_one_cycle_equals_the_closed_form_for_any_length(num_steps, pct_start, final):
    config = rlmix.Config.flat(learning_rate=0.2, pct_start=pct_start, final_learning_rate=final).resolved()
    rates, _ = schedule_rates(config, num_steps)
    if abs(pct_start * num_steps - 1) > 1e-3:  # there the warm-up is one step, and the closed form divides by nothing
        assert rates == pytest.approx([one_cycle(step, config, num_steps) for step in range(num_steps)], rel=1e-6)
    assert rates[-1] == pytest.approx(final if num_steps > 1 else rates[-1])


@pytest.mark.parametrize(("num_steps", "pct_start"), [(10, 0.1), (2, 0.5), (5, 0.2), (1, 0.3)])
def test_one_cycle_whose_warm_up_is_one_step_or_none_is_finite(num_steps, pct_start):
    config = rlmix.Config.flat(pct_start=pct_start).resolved()
    rates, _ = schedule_rates(config, num_steps)
    assert all(0 < rate <= config.optim.learning_rate * (1 + 1e-9) for rate in rates)
    assert rates[-1] == pytest.approx(3e-5)


def test_multistep_divides_by_ten_at_each_milestone(config):
    config = config.changed(schedule="multistep", learning_rate=0.1, milestones=(0.5, 0.75))
    training = Training(config, numbered_images(64))
    rates = []
    for _ in range(8):
        rates.append(training.learning_rate)
        training.fit_step(Vanilla())
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


@pytest.mark.parametrize("count", [64, 75])
def test_an_epoch_holds_no_image_twice_and_epochs_differ(config, count):
    training = Training(config.changed(train_images=None, crop_padding=0), numbered_images(count))
    orders = []
    for epoch in range(2):
        seen = []
        for batch in range(count // 16):
            images, labels = training.next_batch()
            assert (training.epoch, training.order.batch) == (epoch + 1, batch + 1)
            levels = training.to_pixels(images)[:, 0, 0, 0].long()
            assert torch.equal(levels % 10, labels)
            seen += levels.tolist()
        assert len(seen) == len(set(seen)) == 64
        orders.append(seen)
    assert orders[0] != orders[1]


def test_epoch_metrics_are_means_over_the_steps_so_far(config):
    training = Training(config, numbered_images(64))
    losses, top1, top5 = [], [], []
    for _ in range(3):
        images, labels = training.next_batch()
        with torch.no_grad():
            logits = copy.deepcopy(training.model)(images)
        losses.append(F.cross_entropy(logits, labels).item())
        ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
        top1 += (ranks < 1).tolist()
        top5 += (ranks < 5).tolist()
        training.step(Mixed(images, F.one_hot(labels, 10).float()))
    assert training.epoch_metrics() == pytest.approx(
        {"train_loss": np.mean(losses), "train_top1": 100 * np.mean(top1), "train_top5": 100 * np.mean(top5)}, rel=1e-5
    )


def test_loss_that_is_not_finite_stops_the_training_and_says_where(config):
    training = Training(config, numbered_images(64))
    for _ in range(5):
        training.fit_step(Vanilla())
    with torch.no_grad():
        training.model.stem.weight[0, 0, 0, 0] = float("nan")
    rate = one_cycle(5, training.config, 8)
    with pytest.raises(FloatingPointError) as caught:
        training.fit_step(Vanilla())
    assert str(caught.value) == f"the loss is nan in epoch 2, step 6, at learning rate {rate:g}"


@pytest.mark.parametrize("steps", [0, 3, 4, 6])
def test_state_saved_at_any_step_continues_bit_for_bit(config, steps):
    method = RMix(num_patches=(2, 4))
    whole = Training(config, numbered_images(64))
    for _ in range(steps):
        whole.fit_step(method)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    for _ in range(8 - steps):
        whole.fit_step(method)
    file.seek(0)
    resumed = Training(config.changed(seed=1), numbered_images(64))  # whatever it draws from is replaced
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.global_step == steps
    for _ in range(8 - steps):
        resumed.fit_step(method)
    assert_same_weights(whole.model, resumed.model)
    assert whole.epoch_metrics() == resumed.epoch_metrics()
    assert whole.evaluate() == resumed.evaluate()
    assert resumed.finished
    for ours, theirs in zip(whole.state_dict()["generators"], resumed.state_dict()["generators"], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("rule", ["mix_top", "cut_top"])
def test_input_gradient_of_a_step_is_that_of_the_training_loss(config, rule):
    training = Training(config, numbered_images(64))
    images, labels = training.next_batch()
    mask = torch.rand(16, 4, 4, generator=stream(0, "test")) < 0.5
    mixed = mix(images, labels, mask, torch.arange(16).roll(1), 0.3, rule, num_classes=10)
    model = copy.deepcopy(training.model)
    gradient = training.step(mixed, input_gradient=True)
    inputs = mixed.images.clone().requires_grad_()
    loss = -(mixed.targets * model(inputs).log_softmax(1)).sum(1).mean()
    loss.backward()
    assert gradient is not None
    assert gradient.shape == images.shape
    torch.testing.assert_close(gradient, inputs.grad, rtol=1e-4, atol=1e-8)
    assert training.epoch_metrics()["train_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_asking_for_the_input_gradient_does_not_change_the_step(config):
    trainings = [Training(config, numbered_images(64)), Training(config, numbered_images(64))]
    for training, wanted in zip(trainings, (True, False), strict=True):
        for _ in range(2):
            images, labels = training.next_batch()
            gradient = training.step(Mixed(images, F.one_hot(labels, 10).float()), input_gradient=wanted)
            assert (gradient is not None) == wanted
    assert_same_weights(trainings[0].model, trainings[1].model)


def test_step_is_nesterov_sgd_with_weight_decay(config):
    training = Training(config, numbered_images(64))
    model = copy.deepcopy(training.model)
    rates = [one_cycle(step, training.config, 8) for step in range(2)]
    momenta = [torch.zeros_like(weight) for weight in model.parameters()]
    for rate in rates:
        images, labels = training.next_batch()
        training.step(Mixed(images, F.one_hot(labels, 10).float()))
        gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
        with torch.no_grad():
            for weight, gradient, momentum in zip(model.parameters(), gradients, momenta, strict=True):
                decayed = gradient + 1e-4 * weight
                momentum.mul_(0.9).add_(decayed)
                weight -= rate * (decayed + 0.9 * momentum)
    for ours, theirs in zip(training.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_memory_format_changes_no_result(config):
    losses = []
    for channels_last in (True, False):
        training = Training(config.changed(channels_last=channels_last, model="preactresnet18_w16"), numbered_images(64))
        training.fit_step(Vanilla())
        assert training.model.stem.weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        losses.append(training.epoch_metrics()["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_skipping_an_epoch_moves_the_schedule_as_training_it_would(config):
    training = Training(config, numbered_images(64))
    training.fit_step(Vanilla())
    training.skip_epoch()
    assert training.at_epoch_end
    assert training.global_step == 4
    assert training.learning_rate == pytest.approx(one_cycle(4, training.config, 8))


def test_batch_larger_than_the_data_is_refused(config):
    with pytest.raises(ValueError, match=r"batch_size must be at most the 64 training images, got 65"):
        Training(config.changed(batch_size=65))


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_device_that_is_not_there_is_refused(config, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=rf"device must be one that is there .*, got '{device}'"):
        Training(config.changed(device=device))


@pytest.mark.parametrize("device", ["gpu", "meta", "cpu:x"])
def test_device_that_is_none_is_refused(config, device):
    with pytest.raises(ValueError, match=rf"device must be auto, cpu, cuda, cuda:N or mps, got '{device}'"):
        Training(config.changed(device=device))
