"""The transforms in somebody's own loop: float16, modules that keep state, wrappers, and images of other kinds."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.ao.quantization import MovingAverageMinMaxObserver
from torch.nn.parallel import DataParallel
from torch.nn.utils import parametrizations, spectral_norm

from rlmix import evaluation as metrics
from rlmix.maps.gradient import patch_saliency, saliency, salient_mask
from rlmix.mixing.comixup import clean_pass
from rlmix.mixing.core import mix, patch_weights
from rlmix.mixing.registry import METHODS, Setting
from rlmix.mixing.rmix import RMix
from rlmix.models import build_model
from rlmix.models.as_found import frozen_statistics
from rlmix.models.stages import stages
from rlmix.models.wrappers import inner
from rlmix.training.trainer import Training

DRIVER = Path(__file__).parents[1] / "support" / "wrapped_driver.py"


def batch(number=16, size=16, classes=4):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(number, 3, size, size, generator=draw), torch.arange(number) % classes


# float16


@pytest.fixture
def network():
    return build_model("preactresnet18_w16", 4)


def fitted(network, images, labels):
    """After some steps it is sure of the batch, and gradients are small."""
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert nn.functional.cross_entropy(network(images), labels) < 0.1
    return network


def masks(map):
    return salient_mask(patch_saliency(map, 4), torch.full((len(map),), 0.5))


@pytest.mark.parametrize("way", ["autocast", "half"])
def test_saliency_in_float16_is_that_of_float32(network, way):
    images, labels = batch(64)
    fitted(network, images, labels)
    exact = saliency(network, images, labels)
    if way == "autocast":
        with torch.autocast("cpu", torch.float16):
            found = saliency(network, images, labels)
            cleaned = clean_pass(network, images, labels)
        torch.testing.assert_close(cleaned.map, found.map, rtol=0.1, atol=1e-3 * float(exact.map.max()))
    else:
        found = saliency(copy.deepcopy(network).half(), images.half(), labels)
    assert found.map.dtype == torch.float32
    assert (found.map == 0).float().mean() < 1e-3
    assert (masks(found.map) != masks(exact.map)).float().mean() < 0.05
    torch.testing.assert_close(found.map.mean(), exact.map.mean(), rtol=0.05, atol=0)  # the loss's scale is taken out again


def test_a_gradient_that_overflows_is_taken_at_a_smaller_scale():
    images, labels = batch(8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    with torch.no_grad():
        model[1].weight.mul_(3e4)  # times the largest factor no float16
    exact = saliency(model, images, labels).map
    with torch.autocast("cpu", torch.float16):
        found = saliency(model, images, labels).map
    assert found.isfinite().all()
    torch.testing.assert_close(found.mean(), exact.mean(), rtol=0.05, atol=0)


def test_an_attack_in_float16_moves_every_pixel(network):
    images, labels = batch(64)
    fitted(network, images, labels).eval()
    with torch.autocast("cpu", torch.float16):
        moved = metrics.fgsm(network, images.sigmoid(), labels) - images.sigmoid()
    assert (moved == 0).float().mean() < 1e-3


def test_masks_of_half_precision_are_those_of_the_same_numbers_in_float32():
    draw = torch.Generator().manual_seed(0)
    for dtype in (torch.bfloat16, torch.float16):
        patches = torch.rand(50, 16, 16, generator=draw).to(dtype)
        top_k = torch.rand(50, generator=draw) * 0.99
        quantiles = [np.quantile(one.double().numpy(), value) for one, value in zip(patches, top_k.double().numpy(), strict=True)]
        expected = np.stack([one.double().numpy() >= value - 1e-7 for one, value in zip(patches, quantiles, strict=True)])
        assert np.array_equal(salient_mask(patches, top_k).numpy(), expected)


def test_a_lam_in_half_precision_weighs_pixels_and_labels_alike():
    images, labels = batch(4)
    mask, partner = torch.ones(4, 2, 2, dtype=torch.bool), torch.tensor([1, 2, 3, 0])
    lam = torch.tensor(0.3, dtype=torch.bfloat16)
    assert torch.equal(patch_weights(mask, mask[partner], lam), torch.full((4, 2, 2), float(lam)))
    mixed = mix(images, labels, mask, partner, lam, num_classes=4)
    torch.testing.assert_close(mixed.images, float(lam) * images + (1 - float(lam)) * images[partner])
    torch.testing.assert_close(mixed.targets[0], torch.tensor([float(lam), 1 - float(lam), 0, 0]))


# modules that keep state


class Counting(nn.Module):
    """Writes a buffer in place, replaces one, and shares one; keeps a tensor as an attribute."""

    def __init__(self, shared):
        super().__init__()
        self.register_buffer("written", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("empty", None)
        self.register_buffer("shared", shared)
        self.kept = torch.zeros(2)

    def forward(self, features):
        self.written += features.detach().mean((0, 2, 3))[:3]
        self.shared += 1
        self.replaced = self.replaced + 1
        self.kept = self.kept + self.shared.sum()
        return features * (1 + self.written.sum() + self.shared.sum())


def stateful():
    torch.manual_seed(0)
    shared = torch.zeros(1)
    first, second = Counting(shared), Counting(shared)
    second.shared = first.shared
    return nn.Sequential(
        spectral_norm(nn.Conv2d(3, 4, 3, padding=1)),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        first,
        parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
        MovingAverageMinMaxObserver(),
        nn.BatchNorm2d(4),
        second,
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(4 * 256, 4),
    )


def state(model):
    found = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return found | {"kept": model[2].kept.clone(), "weight": model[0].weight.detach().clone()}


@pytest.mark.parametrize("training", [True, False])
def test_a_saliency_pass_leaves_every_module_as_found(training):
    images, labels = batch()
    model, twin = stateful().train(training), stateful().train(training)
    for each in (model, twin):
        each(images)  # observers have seen something
    before, identities = state(model), [id(buffer) for buffer in model.buffers()]
    random = torch.get_rng_state()
    RMix()(model, images, labels, num_classes=4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), random)
    after = state(model)
    assert after.keys() == before.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, msg=name)
    assert [id(buffer) for buffer in model.buffers()] == identities
    assert model[2].shared is model[6].shared
    torch.manual_seed(1)
    out = model(images)
    torch.manual_seed(1)
    assert torch.equal(out, twin(images))  # and what follows is what would have been


def test_the_pass_itself_computes_what_it_would_have():
    """With state that is written while it runs: the gradient equals that of a copy that nobody protects."""
    images, labels = batch()
    model = stateful()
    copied = copy.deepcopy(model)
    inputs = images.clone().requires_grad_()
    torch.manual_seed(3)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(copied(inputs), labels), inputs)
    torch.manual_seed(3)
    found = saliency(model, images, labels)
    torch.testing.assert_close(found.map, gradient.square().mean(1).sqrt())


def test_statistics_stay_frozen_when_a_pass_raises():
    model = stateful()
    before = state(model)
    with pytest.raises(RuntimeError), frozen_statistics(model):
        model(torch.zeros(2, 3, 8, 8))  # the last layer does not fit
    for name, value in state(model).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert model[5].track_running_stats


# wrappers


def test_wrappers_are_taken_off_however_nested():
    network = build_model("preactresnet18_w16", 4)
    fabric = Fabric(accelerator="cpu", devices=1)
    for wrapped in (
        DataParallel(network),
        torch.compile(network),
        fabric.setup_module(network),
        torch.compile(DataParallel(network)),
        fabric.setup_module(torch.compile(network)),
    ):
        assert inner(wrapped) is network
        assert list(stages(wrapped)) == ["stage1", "stage2", "stage3", "stage4"]


def test_a_network_with_a_part_called_module_is_no_wrapper():
    own = nn.Module()
    own.module = nn.Linear(2, 2)
    assert inner(own) is own


def test_a_saliency_pass_through_ddp_leaves_the_ranks_gradients_alike(tmp_path):
    args = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(DRIVER), str(tmp_path)]
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (first, *threads), (second, *others) = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for there, left in (threads, others):
        assert there, "gloo has threads while there is a group"
        assert left == []
    for name, gradients in first.items():
        for own, other, plain in zip(gradients, second[name], first[name.replace("True", "False")], strict=True):
            assert torch.equal(own, other), name
            assert torch.equal(own, plain), name


# images of other kinds


OTHER_IMAGES = [
    (torch.zeros(4, 3, 16, 16, dtype=torch.uint8), "must be floating-point numbers, as the model takes them, got torch.uint8"),
    (torch.zeros(4, 3, 16, 16, dtype=torch.int64), "must be floating-point numbers, as the model takes them, got torch.int64"),
    (torch.zeros(4, 3, 16, 16, dtype=torch.bool), "must be floating-point numbers, as the model takes them, got torch.bool"),
    (np.zeros((4, 3, 16, 16), np.float32), "must be a torch tensor, got ndarray"),
    (torch.zeros(4, 16, 16), r"must have shape \(batch, channel, height, width\), got \(4, 16, 16\)"),
]


@pytest.mark.parametrize(("images", "words"), OTHER_IMAGES)
@pytest.mark.parametrize("name", [*METHODS, "rmix", "mix", "saliency"])
def test_images_that_a_model_does_not_take_are_refused_by_name(name, images, words):
    model, labels = build_model("preactresnet18_w16", 4), torch.arange(4)
    with oracle.unchecked():
        if name == "mix":
            mask = torch.ones(4, 2, 2, dtype=torch.bool)

            def run():
                return mix(images, labels, mask, torch.arange(4), 0.5, num_classes=4)
        elif name == "saliency":

            def run():
                return saliency(model, images, labels)
        else:
            plain = torch.zeros(3), torch.ones(3)
            setting, known = Setting(model, (16, 16), *plain, "npz", 10, 0), RMix if name == "rmix" else METHODS[name]
            method = known.for_training(setting) if hasattr(known, "for_training") else known()

            def run():
                return method(model, images, labels, num_classes=4)

        with pytest.raises(ValueError, match=f"images {words}"):
            run()


def test_a_training_goes_on_as_if_nobody_had_looked(tiny_config):
    """The plain networks' batch norms too: a look between two steps changes nothing."""
    plain, looked = Training(tiny_config), Training(tiny_config)
    for training in (plain, looked):
        for _ in range(2):
            images, labels = training.next_batch()
            if training is looked:
                training.saliency_pass(images, labels)
            training.step(mix(images, labels, torch.ones(16, 1, 1, dtype=torch.bool), torch.arange(16), 1.0, num_classes=10))
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, looked.model.state_dict()[name]), name


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_images_are_blended_by_the_labels_weights_and_rounded_once(kind):
    draw = torch.Generator().manual_seed(0)
    images, partner = torch.randn(4, 3, 8, 8, generator=draw).to(kind), torch.tensor([1, 2, 3, 0])
    mask, targets = torch.ones(4, 2, 2).bool(), torch.eye(4)
    for lam in np.random.default_rng(0).random(20):
        mixed = mix(images, targets, mask, partner, float(lam))
        assert mixed.images.dtype == kind
        exact = lam * images.double() + (1 - lam) * images[partner].double()
        # float32's own rounding may tip a tie, but nothing is off by more than half a step of the images' type
        assert torch.allclose(mixed.images.double(), exact, rtol=0.501 * torch.finfo(kind).eps, atol=1e-6)
        np.testing.assert_allclose(mixed.targets.diagonal(), lam, atol=1e-7)


def test_mixing_is_in_float32_whatever_the_default():
    images, labels = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

    def mixed():
        return RMix()(model, images, labels, num_classes=3, generator=torch.Generator().manual_seed(0))

    expected = mixed()
    torch.set_default_dtype(torch.float64)
    try:
        found = mixed()
    finally:
        torch.set_default_dtype(torch.float32)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)
