"""Smoothed targets beside torch's own ``label_smoothing``, under every method and in the environment."""

import pytest
import torch
import torch.nn.functional as F

import rlmix
from rlmix.envs.process import MixingProcess
from rlmix.mixing.comixup import clean_pass
from rlmix.mixing.core import Mixed, smoothed
from rlmix.mixing.objective import Objective
from rlmix.mixing.registry import METHODS
from rlmix.training import trainer
from rlmix.training.trainer import Training

E = 0.2


def config_of(**options):
    return rlmix.Config.flat(
        **({"data": "digits", "train_images": 32, "batch_size": 16, "epochs": 1, "device": "cpu", "label_smoothing": E} | options)
    )


def test_the_loss_is_torchs_of_hard_and_of_mixed_targets():
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 5, generator=draw), torch.randint(5, (6,), generator=draw)
    soft = torch.rand(6, 5, generator=draw)
    soft /= soft.sum(1, keepdim=True)
    for targets in (labels, soft):
        found = F.cross_entropy(logits, smoothed(targets, E, 5))
        torch.testing.assert_close(found, F.cross_entropy(logits, targets, label_smoothing=E))


def test_a_smoothed_mixture_is_the_mixture_of_what_is_smoothed():
    labels, partner = torch.arange(4), torch.tensor([1, 2, 3, 0])
    rows = F.one_hot(labels, 5).float()
    mixture = 0.3 * smoothed(labels, E, 5) + 0.7 * smoothed(labels, E, 5)[partner]
    torch.testing.assert_close(mixture, smoothed(0.3 * rows + 0.7 * rows[partner], E))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_towards_smoothed_targets(name, monkeypatch):
    seen = []

    def watched(mixed, network):
        seen.append((mixed, trainer_score(mixed, network)))
        return seen[-1][1]

    trainer_score = trainer.score
    monkeypatch.setattr(trainer, "score", watched)
    training = Training(config_of(method=name, model="preactresnet18_w16"), method=name)
    training.fit_epoch()
    assert len(seen) == 2
    for mixed, (loss, logits) in seen:
        torch.testing.assert_close(mixed.targets.sum(1), torch.ones(len(mixed.targets)))
        assert (mixed.targets >= E / 10 - 1e-6).all()
        plain = (mixed.targets - E / 10) / (1 - E)  # what would be without
        assert plain.max() <= 1 + 1e-6
        if isinstance(mixed, Mixed):
            torch.testing.assert_close(loss, F.cross_entropy(logits, plain.clamp(0), label_smoothing=E), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["manifold_mixup", "alignmix", "augmix", "automix"])
def test_every_cross_entropy_of_an_objective_is_smoothed(name):
    """A loss that is affine in its targets, of which nothing but the targets is smoothed."""
    losses = []
    for targets in (lambda labels: labels, lambda labels: smoothed(labels, E, 10), lambda labels: torch.full((16, 10), 0.1)):
        layers = {"mixing": {"layers": ["stage1"]}} if name == "manifold_mixup" else {}
        training = Training(config_of(method=name, seed=3, label_smoothing=0.0, **layers), method=name)
        images, labels = training.next_batch()
        draw = torch.Generator().manual_seed(2)  # with which alignmix aligns
        mixed = training.method(training.model, images, targets(labels), num_classes=10, generator=draw)
        assert isinstance(mixed, Objective)
        losses.append(trainer.score(mixed, training.model).loss.detach())
    hard, smooth, even = losses
    torch.testing.assert_close(smooth, (1 - E) * hard + E * even, rtol=1e-4, atol=1e-4)
    assert abs(float(smooth - hard)) > 1e-3


def test_comixups_clean_pass_is_of_the_smoothed_loss():
    training = Training(config_of())
    images, labels = training.next_batch()
    inputs = images.clone().requires_grad_()
    loss = F.cross_entropy(training.model(inputs), labels, label_smoothing=E)
    (gradient,) = torch.autograd.grad(loss, inputs)
    found = clean_pass(training.model, images, training.targets(labels))
    torch.testing.assert_close(found.value, loss.detach())
    torch.testing.assert_close(found.map, gradient.square().mean(1).sqrt(), rtol=1e-3, atol=1e-6)


def test_the_environment_mixes_smoothed_targets_and_sees_maps_of_their_loss(monkeypatch):
    process = MixingProcess(config_of(method="rmix"))
    training = process.reset()
    decision = process.observe()
    images, labels = decision.batch
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(training.model(inputs), labels, label_smoothing=E), inputs)
    torch.testing.assert_close(decision.saliency.map, gradient.square().mean(1).sqrt(), rtol=1e-3, atol=1e-6)
    process.act(torch.full((16,), 0.5))
    targets = process.outcome.mixed.targets
    rows = F.one_hot(labels, 10).float()
    partner = decision.pairing.partner
    differs = labels != labels[partner]
    share = (targets[differs].gather(1, labels[differs, None]) - E / 10) / (1 - E)
    expected = share * rows[differs] + (1 - share) * rows[partner][differs]
    torch.testing.assert_close(targets[differs], (1 - E) * expected + E / 10)


def test_what_is_measured_is_not_smoothed_and_without_it_nothing_changes():
    training = Training(config_of())
    training.fit_epoch()
    logits, labels = training.predict(), training.data.labels("test")
    assert training.evaluate()["test_loss"] == pytest.approx(float(F.cross_entropy(logits, labels)))
    plain = Training(config_of(label_smoothing=0.0))
    labels = plain.next_batch().labels
    assert plain.targets(labels) is labels


class Hard:
    """Takes labels only."""

    def __call__(self, model, images, labels, *, num_classes, generator=None):
        return Mixed(images, F.one_hot(labels, num_classes).float())


def test_a_method_of_ones_own_that_takes_no_soft_targets_is_named(register):
    register(METHODS, "hard", Hard)
    with pytest.raises(ValueError, match=r"^label_smoothing must be 0 with method hard, which takes no soft targets"):
        Training(config_of(method="hard"), method="hard").fit_step()
    Training(config_of(method="hard", label_smoothing=0.0), method="hard").fit_step()


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_the_range(value):
    with pytest.raises(ValueError, match=rf"^label_smoothing must be in \[0, 1\), got {value}"):
        config_of(label_smoothing=value).resolved()
