"""Passes that leave no trace, whatever the network writes on its way; and passes that do not go through a wrapper."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.quantization import FakeQuantize, HistogramObserver, MovingAverageMinMaxObserver
from torch.nn.utils import parametrizations, spectral_norm

import rlmix.models
from rlmix.envs.classifier_rewards import held_out_batch, held_out_loss
from rlmix.maps.gradient import saliency
from rlmix.mixing.comixup import CoMixup
from rlmix.mixing.core import Mixed
from rlmix.mixing.puzzlemix import PuzzleMix
from rlmix.mixing.rmix import RMix
from rlmix.training.trainer import Training


class Writes(nn.Module):
    """Buffers written in place, replaced and shared, a tensor and a number that are no buffers, a tensor made by the first pass."""

    def __init__(self, shared=None):
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(()), persistent=False)
        self.register_buffer("shared", torch.zeros(()) if shared is None else shared)
        self.register_buffer("empty", None)
        self.plain, self.count, self.memory = torch.zeros(2), 0, None

    def forward(self, features):
        level = features.detach().mean((0, 2, 3))
        self.seen.mul_(0.9).add_(level)
        self.replaced = self.replaced + level.sum()
        self.shared += 1
        self.empty = level
        self.plain += level
        self.count += 1
        self.memory = level
        self.made = level
        return features * (1 + self.seen.sum()) + self.plain.mean() + self.shared


class OwnNorm(nn.BatchNorm2d):
    """Records whatever the flag says."""

    def forward(self, features):
        self.running_mean.lerp_(features.detach().mean((0, 2, 3)), 0.1)
        return F.batch_norm(features, None, None, self.weight, self.bias, True)


def shared_writes():
    first = Writes()
    return nn.Sequential(first, Writes(first.shared))


PARTS = {
    "batch norm": lambda: nn.BatchNorm2d(2),
    "batch norm of one's own": lambda: OwnNorm(2),
    "instance norm": lambda: nn.InstanceNorm2d(2, affine=True, track_running_stats=True),
    "spectral norm, hooked": lambda: spectral_norm(nn.Conv2d(2, 2, 1)),
    "spectral norm, parametrized": lambda: parametrizations.spectral_norm(nn.Conv2d(2, 2, 1)),
    "fake quantization": lambda: FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=255),
    "histogram observer": HistogramObserver,
    "of one's own": Writes,
    "shared": shared_writes,
}
parts = pytest.mark.parametrize("part", PARTS)


def network(part, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(PARTS[part](), nn.Tanh(), nn.Flatten(), nn.Linear(2 * 36, 3))


def batch(seed=0):
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(seed)), torch.tensor([0, 2, 1, 2])


def state(model):
    """Every tensor and number that any module holds."""
    found = {}
    for name, module in model.named_modules():
        stores = [module._buffers, module._parameters, {key: value for key, value in vars(module).items() if key[0] != "_"}]
        for store in stores:
            for key, value in store.items():
                if isinstance(value, torch.Tensor):
                    found[name, key] = value.detach().clone()
                elif value is None or isinstance(value, int | float):
                    found[name, key] = value
    return found


def assert_same_state(before, model):
    after = state(model)
    assert after.keys() == before.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key]
        assert same, key


@parts
@pytest.mark.parametrize("training", [True, False])
def test_no_pass_of_saliency_leaves_a_trace(part, training):
    model, (images, labels) = network(part), batch()
    model(images)  # so that there is something to lose
    model.train(training)
    twin = network(part)
    twin(images)
    twin.train(training)
    before = state(model)
    found = saliency(model, images * 3, labels)
    assert_same_state(before, model)
    inputs = (images * 3).requires_grad_()
    logits = twin(inputs)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), inputs)
    torch.testing.assert_close(found.logits, logits.detach())  # it was the pass that a training step would make
    torch.testing.assert_close(found.map, gradient.square().mean(1).sqrt())
    twin = network(part)
    twin(images)
    twin.train(training)
    assert torch.equal(model(images).detach(), twin(images).detach())  # nor does the next pass know of it


@parts
def test_a_graph_made_before_can_still_be_gone_through(part):
    """Buffers that it saved are not written to."""
    model, (images, labels) = network(part), batch()
    model(images)
    loss = F.cross_entropy(model(images), labels)
    twin = copy.deepcopy(loss.detach())
    saliency(model, images, labels)
    loss.backward()
    assert torch.equal(loss.detach(), twin)
    assert model[3].weight.grad is not None


@parts
@pytest.mark.parametrize("method", [RMix(), PuzzleMix(num_patches=(2,)), CoMixup(num_patches=2)])
def test_no_mixing_by_saliency_leaves_a_trace(part, method):
    if isinstance(method, CoMixup) and part in ("spectral norm, hooked", "of one's own", "shared"):
        pytest.skip("its clean pass is a training pass, of which attributes that are no buffers know")
    model, (images, labels) = network(part), batch()
    model(images)
    before = state(model)
    generator = torch.Generator().manual_seed(0)
    method(model, images, labels, num_classes=3, generator=generator)
    assert_same_state(before, model)


def test_a_lazy_network_is_initialised_and_records_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.LazyInstanceNorm2d(track_running_stats=True))
    model.extend([nn.Flatten(), nn.LazyLinear(3)])
    images, labels = batch()
    first = saliency(model, images, labels)
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert int(model[1].num_batches_tracked) == 0
    assert torch.equal(model[2].running_var, torch.ones(4))
    assert torch.equal(saliency(model, images, labels).map, first.map)
    model(images)
    assert int(model[1].num_batches_tracked) == 1
    assert not torch.equal(model[1].running_mean, torch.zeros(4))


def test_a_network_that_fails_is_as_found():
    model = network("of one's own")
    before = state(model)
    with pytest.raises(RuntimeError):
        saliency(model, torch.zeros(2, 2, 8, 8), torch.tensor([0, 1]))
    assert_same_state(before, model)


def writing_network(num_classes, in_channels):
    return nn.Sequential(
        parametrizations.spectral_norm(nn.Conv2d(in_channels, 2, 3, 2)),
        nn.InstanceNorm2d(2, track_running_stats=True),
        Writes(),
        nn.Flatten(),
        nn.Linear(2 * 15 * 15, num_classes),
    )


def test_looks_of_the_training_leave_no_trace(tiny_config, register):
    register(rlmix.models.MODELS, "writing", writing_network)
    training = Training(tiny_config.changed(model="writing"))
    training.fit_step()
    images, labels = training.next_batch()
    before = state(training.model)
    training.look(Mixed(images, F.one_hot(labels, 10).float()))
    assert_same_state(before, training.model)
    loss = held_out_loss(training, held_out_batch(training))
    assert_same_state(before, training.model)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [*training.model.parameters()]))


# -- wrappers


class Counting(nn.Module):
    """A user's network that merely has a part called ``module``."""

    def __init__(self):
        super().__init__()
        self.module = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))

    def forward(self, images):
        return 2 * self.module(images)


def test_data_parallel_and_compiled_networks_are_run_inside():
    model, (images, labels) = network("batch norm"), batch()
    expected = saliency(model, images, labels)

    def refuse(*args):
        raise AssertionError("the wrapper was run")

    wrapped = nn.DataParallel(torch.compile(nn.DataParallel(model), backend=refuse))
    wrapped.register_forward_pre_hook(refuse)
    for found in (saliency(wrapped, images, labels), saliency(wrapped, images, labels)):
        assert torch.equal(found.map, expected.map)
    assert int(model[0].num_batches_tracked) == 0


def test_a_part_called_module_is_no_wrapper():
    torch.manual_seed(0)
    model, (images, labels) = Counting(), batch()
    assert torch.equal(saliency(model, images, labels).logits, model(images).detach())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_fabrics_precision_is_kept(precision):
    from lightning_fabric import Fabric

    model, (images, labels) = network("batch norm"), batch()
    wrapped = Fabric(accelerator="cpu", devices=1, precision=precision).setup_module(model)
    assert torch.equal(saliency(wrapped, images, labels).logits, copy.deepcopy(wrapped)(images).detach().float())
    assert int(model[0].num_batches_tracked) == 0
