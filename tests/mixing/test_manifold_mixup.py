"""Manifold mix-up against a network called stage by stage, features mixed in loops."""

import numpy as np
import oracle
import pytest
import scipy.stats
import torch
from torch import nn
from torchvision.models import resnet18

import rlmix
import rlmix.mixing.manifold_mixup as module
from rlmix.mixing.core import Mixed, sample_lam
from rlmix.mixing.input_mixup import InputMixup
from rlmix.mixing.manifold_mixup import ManifoldMixup
from rlmix.mixing.objective import Method, Objective, score
from rlmix.training.trainer import Training

DEFAULT = ("input", "stage1", "stage2")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Two stages and a classifier, float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stage1 = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh())
        self.stage2 = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Tanh())
        self.classifier = nn.Linear(4 * 9, 3)
        self.double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.stage2(self.stage1(images)).flatten(1))


def drawn(seed: int, batch: int, alpha: float, layers: tuple[str, ...]) -> tuple[str, list[int], float]:
    generator = seeded(seed)
    layer = layers[int(torch.randint(len(layers), (), generator=generator))]
    return layer, torch.randperm(batch, generator=generator).tolist(), sample_lam(alpha, generator)


def mix_rows(values: torch.Tensor, partner: list[int], lam: float) -> torch.Tensor:
    return torch.stack([lam * values[row] + (1 - lam) * values[other] for row, other in enumerate(partner)])


@pytest.mark.parametrize("layers", [("input",), ("stage1",), ("stage2",), DEFAULT])
@pytest.mark.parametrize("batch", [2, 5])
def test_loss_and_gradients_equal_the_network_called_stage_by_stage(layers, batch):
    images, labels = torch.randn(batch, 2, 6, 6, generator=seeded(0)).double(), torch.arange(batch) % 3
    for seed in range(3):
        net, twin = Net(), Net()
        mixed = ManifoldMixup(1.5, layers)(net, images, labels, num_classes=3, generator=seeded(seed))
        loss, logits = score(mixed, net)
        layer, partner, lam = drawn(seed, batch, 1.5, layers)
        assert isinstance(mixed, Mixed if layer == "input" else Objective)
        features = images
        for name, part in (("input", nn.Identity()), ("stage1", twin.stage1), ("stage2", twin.stage2)):
            features = part(features)
            features = mix_rows(features, partner, lam) if name == layer else features
        expected_logits = twin.classifier(features.flatten(1)).float()
        targets = mix_rows(torch.eye(3)[labels], partner, lam)
        expected = -(targets * expected_logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(logits, expected_logits, atol=1e-6, rtol=0)
        torch.testing.assert_close(mixed.targets, targets, atol=1e-6, rtol=0)
        torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
        loss.backward()
        expected.backward()
        for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


def test_the_hook_is_gone_after_the_step_also_when_it_fails():
    net, images, labels = Net().eval(), torch.randn(4, 2, 6, 6).double(), torch.arange(4) % 3
    clean = net(images)
    mixed = ManifoldMixup(layers=("stage2",))(net, images, labels, num_classes=3, generator=seeded(0))
    assert torch.equal(net(images), clean)  # building the objective hooks nothing
    score(mixed, net)
    assert torch.equal(net(images), clean)

    def failing(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        score(mixed, nn.Sequential(net, _Call(failing)))
    assert torch.equal(net(images), clean)


class _Call(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.function(values)


def test_one_pass_a_step():
    net, calls = Net(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    for seed in range(6):
        score(
            ManifoldMixup()(net, torch.randn(4, 2, 6, 6).double(), torch.arange(4) % 3, num_classes=3, generator=seeded(seed)),
            net,
        )
    assert len(calls) == 6


def test_a_batch_of_one_stays():
    net, images = Net().eval(), torch.randn(1, 2, 6, 6).double()
    for seed in range(5):
        mixed = ManifoldMixup()(net, images, torch.tensor([1]), num_classes=3, generator=seeded(seed))
        torch.testing.assert_close(score(mixed, net).logits, net(images).float())
        assert mixed.targets.tolist() == [[0, 1, 0]]


def test_at_the_input_alone_it_is_input_mixup():
    net, images, labels = Net(), torch.randn(4, 2, 6, 6).double(), torch.arange(4) % 3
    generator = seeded(3)
    mixed = ManifoldMixup(1.0, ("input",))(net, images, labels, num_classes=3, generator=generator)
    generator = seeded(3)
    torch.randint(1, (), generator=generator)
    expected = InputMixup(1.0)(net, images, labels, num_classes=3, generator=generator)
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.targets, expected.targets)


def test_layers_are_equally_likely_and_lam_is_beta(monkeypatch):
    names, lams, generator = [], [], seeded(0)
    monkeypatch.setattr(module, "score", lambda mixed, network: network(mixed.images))
    original = module.transformed
    monkeypatch.setattr(module, "transformed", lambda model, name, t: names.append(name) or original(model, name, t))
    net, images = Net(), torch.zeros(4, 2, 6, 6).double()
    with oracle.unchecked():
        while len(lams) < 900:
            mixed = ManifoldMixup()(net, images, torch.arange(4), num_classes=4, generator=generator)
            if isinstance(mixed, Objective):
                mixed.score(net)
            else:
                names.append("input")
            rows = (mixed.targets.topk(2).values[:, 1] > 0).nonzero()
            if len(rows):
                lams.append(float(mixed.targets.diagonal()[rows[0, 0]]))
    assert scipy.stats.chisquare([names.count(name) for name in DEFAULT]).pvalue > 0.01
    assert scipy.stats.kstest(lams, scipy.stats.beta(2, 2).cdf).pvalue > 0.01
    assert scipy.stats.kstest(lams, scipy.stats.beta(1, 1).cdf).pvalue < 1e-6  # the test would notice


def test_repeats_with_the_generators_seed_and_leaves_the_global_state():
    net, images, labels, state = Net().eval(), torch.rand(8, 2, 6, 6).double(), torch.arange(8) % 3, None
    state = torch.get_rng_state()
    losses = [
        score(ManifoldMixup()(net, images, labels, num_classes=3, generator=seeded(seed)), net).loss.item() for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1] != losses[2]


def test_a_network_without_a_needed_stage_is_refused_whatever_is_drawn():
    images, labels = torch.rand(2, 2, 6, 6), torch.arange(2)
    for seed in range(6):
        with pytest.raises(ValueError, match=r"stage must be one of those Sequential has \(none\), got 'stage[12]'"):
            ManifoldMixup()(nn.Sequential(nn.Flatten()), images, labels, num_classes=3, generator=seeded(seed))
        with pytest.raises(ValueError, match=r"stage must be one of those Net has \(stage1, stage2\), got 'stage3'"):
            ManifoldMixup(layers=("input", "stage3"))(Net(), images, labels, num_classes=3, generator=seeded(seed))


def test_works_on_torchvisions_networks():
    net, images = resnet18(num_classes=4), torch.randn(2, 3, 32, 32)
    mixed = ManifoldMixup(layers=("stage1",))(net, images, torch.tensor([0, 3]), num_classes=4, generator=seeded(0))
    assert score(mixed, net).loss.isfinite()


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_alpha_out_of_range_is_named(alpha):
    with oracle.unchecked(), pytest.raises(ValueError, match=f"alpha must be (finite and )?above 0, got {alpha}"):
        ManifoldMixup(alpha)


@pytest.mark.parametrize("layers", [(), ("stage1", "stage9"), ("stem",)])
def test_unknown_layers_are_named(layers):
    with pytest.raises(ValueError, match="layers must be one or more of input, stage1, stage2, stage3, stage4, got"):
        ManifoldMixup(layers=layers)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trains_on_digits(precision):
    config = rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1, precision=precision)
    training = Training(config)
    methods = [ManifoldMixup(layers=(name,)) for name in DEFAULT]
    assert isinstance(methods[0], Method)
    for method in methods:
        training.fit_step(method)
    assert np.isfinite(training.epoch_metrics()["train_loss"])
