"""AutoMix: masks and losses against NumPy loops, who gets which gradient, the averaged copy, resuming to the bit."""

import copy
import io

import numpy as np
import oracle
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

import rlmix
from rlmix.mixing.automix import (
    AutoMix,
    MixBlock,
    Pair,
    averaged_copy,
    blend,
    features_after,
    mask_loss,
    rising_momentum,
    sample_pair,
)
from rlmix.mixing.registry import METHODS
from rlmix.models import build_model
from rlmix.training.trainer import Training

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def tiny_model() -> nn.Module:
    return build_model("preactresnet18_w16", 10)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(7, 3, 32, 32, generator=generator), torch.randint(10, (7,), generator=generator)


def awake(method: AutoMix, scale: float = 30.0) -> AutoMix:
    """With weights large enough for masks that differ from place to place."""
    with torch.no_grad():
        for parameter in method.block.parameters():
            parameter.mul_(scale)
        method.block.value.bias.fill_(0.3)
        method.block.query.bias.normal_(generator=torch.Generator().manual_seed(1))
    return method


def looped_mask(block: MixBlock, own: np.ndarray, partners: np.ndarray, size: int) -> np.ndarray:
    """The equation, position by position, float64."""
    weight, bias = (p.detach().double().numpy() for p in (block.query.weight, block.query.bias))
    value_weight, value_bias = (p.detach().double().numpy() for p in (block.value.weight, block.value.bias))
    weight, value_weight = weight[:, :, 0, 0], value_weight[0, :, 0, 0]
    batch, _, height, width = own.shape
    mask = np.zeros((batch, size, size))
    for image in range(batch):
        keys = [weight @ partners[image, :, y, x] + bias for y in range(height) for x in range(width)]
        values = [value_weight @ partners[image, :, y, x] + value_bias[0] for y in range(height) for x in range(width)]
        for row in range(size):
            for column in range(size):
                query = weight @ own[image, :, row * height // size, column * width // size] + bias
                attention = scipy.special.softmax([query @ key / np.sqrt(len(query)) for key in keys])
                mask[image, row, column] = scipy.special.expit(attention @ values)
    return mask


def test_masks_equal_the_loops():
    block = MixBlock(6)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    own, partners = (np.random.default_rng(seed).normal(size=(3, 6, 4, 4)) for seed in (0, 1))
    mask = block(torch.tensor(own).float(), torch.tensor(partners).float(), (8, 8))
    np.testing.assert_allclose(mask.detach(), looped_mask(block, own, partners, 8), atol=1e-5)
    assert mask.std() > 0.05


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0, 1))
def test_blending_keeps_to_the_mask_and_targets_to_lam(seed, size, lam):
    generator = torch.Generator().manual_seed(seed)
    colours, mask = torch.rand(size, generator=generator), torch.rand(size, 4, 4, generator=generator)
    images, targets = colours[:, None, None, None].expand(-1, 3, 4, 4), F.one_hot(torch.arange(size), size).float()
    partner = torch.randperm(size, generator=generator)
    mixed = blend(images, targets, mask, Pair(partner, lam))
    torch.testing.assert_close(mixed.images[:, 0], (1 - mask) * images[:, 0] + mask * images[partner, 0])
    np.testing.assert_allclose(mixed.targets, lam * np.eye(size) + (1 - lam) * np.eye(size)[partner], atol=1e-6)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(size))


@pytest.mark.parametrize(("mean", "lam", "loss"), [(0.5, 0.5, 0.0), (0.9, 0.8, 0.6), (0.1, 0.2, 0.6), (0.25, 0.7, 0.0)])
def test_loss_of_masks(mean, lam, loss):
    mask = torch.full((2, 4, 4), mean)
    mask[0] += 0.05
    mask[1] -= 0.05
    assert float(mask_loss(mask, lam)) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_loss_is_the_sum_of_its_terms(batch, share):
    model = tiny_model()
    images, labels = batch
    method = awake(AutoMix(model, 10, block_share=share))
    k, block = copy.deepcopy(method.encoder), method.block
    objective = method(model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(3))
    loss, logits = objective.score(model)

    generator = torch.Generator().manual_seed(3)
    mine, blocks = sample_pair(7, 2.0, generator), sample_pair(7, 2.0, generator)
    with torch.no_grad():
        features = k.stage3(k.stage2(k.stage1(k.stem(images)))).double().numpy()

        def mixed(pair):
            mask = looped_mask(block, features, features[pair.partner], 8)
            enlarged = torch.tensor(mask.repeat(4, 1).repeat(4, 2)).float()[:, None]
            return enlarged, (1 - enlarged) * images + enlarged * images[pair.partner]

        def entropy(logits, pair, rows):
            own, theirs = F.cross_entropy(logits, labels[:rows]), F.cross_entropy(logits, labels[pair.partner][:rows])
            return pair.lam * own + (1 - pair.lam) * theirs

        rows = {1.0: 7, 0.4: 3}[share]
        mask, block_images = mixed(blocks)
        terms = (
            F.cross_entropy(model(images), labels),
            entropy(model(mixed(mine)[1]), mine, 7),
            entropy(k(block_images[:rows]), blocks, rows),
            0.1 * max(abs(1 - float(mask[:rows].mean()) - blocks.lam) - 0.1, 0),
        )
        torch.testing.assert_close(loss.detach(), sum(terms), atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(objective.images, mixed(mine)[1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(logits, model(objective.images), atol=1e-4, rtol=1e-4)
    expected = mine.lam * np.eye(10)[labels] + (1 - mine.lam) * np.eye(10)[labels[mine.partner]]
    np.testing.assert_allclose(objective.targets, expected, atol=1e-6)


def test_the_classifier_and_the_block_each_learn_from_their_own_terms(batch):
    model = tiny_model()
    images, labels = batch
    method = awake(AutoMix(model, 10, block_share=1.0))
    objective = method(model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(3))
    objective.score(model).loss.backward()
    gradients = [parameter.grad.clone() for parameter in method.block.parameters()]
    assert all(bool(gradient.any()) for gradient in gradients)
    assert all(parameter.grad is None for parameter in method.encoder.parameters())

    generator = torch.Generator().manual_seed(3)
    _, blocks = sample_pair(7, 2.0, generator), sample_pair(7, 2.0, generator)
    with torch.no_grad():
        features = features_after(method.encoder, images, "stage3")
    alone = method.block_loss(images, F.one_hot(labels, 10).float(), features, blocks)
    for gradient, expected in zip(gradients, torch.autograd.grad(alone, list(method.block.parameters())), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-3)

    copied = copy.deepcopy(model)
    copied.zero_grad()
    loss, logits = objective.score(copied)
    del loss
    (F.cross_entropy(copied(images), labels) + F.cross_entropy(logits, objective.targets)).backward()
    for own, expected in zip(model.parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad, atol=1e-5, rtol=1e-3)


def test_calling_leaves_classifier_and_random_state_as_found(batch):
    model = tiny_model()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    method = AutoMix(model, 10, seed=4)
    copies = copy.deepcopy(method.state_dict())
    images, labels = batch
    first, second = (
        method(model, images, labels, num_classes=10, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )  # fmt: skip
    assert torch.equal(first.targets, second.targets)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(first.score(model).loss, second.score(model).loss)
    assert str(copies) == str(method.state_dict())
    assert not method.encoder.stage3._forward_hooks


def test_the_copy_keeps_out_of_the_optimizer_and_the_classifier_out_of_the_method():
    model = tiny_model()
    method = AutoMix(model, 10).eval()
    assert method.encoder.training
    assert all(module is not model for module in method.modules())
    trainable = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert trainable == {"block.query.weight", "block.query.bias", "block.value.weight", "block.value.bias"}
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    assert not weights & {parameter.data_ptr() for parameter in method.parameters()}


def test_the_seed_decides_the_block():
    model = tiny_model()
    weights = [AutoMix(model, 10, seed=seed).block.query.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_block_takes_the_channels_of_the_stage(batch):
    network = resnet18(num_classes=10)
    method = AutoMix(network, 10)
    assert method.block.query.weight.shape == (128, 256, 1, 1)
    images, labels = batch
    with torch.autocast("cpu", torch.bfloat16):
        loss, logits = method(network, images, labels, num_classes=10).score(network)
    assert loss.dtype == logits.dtype == torch.float32
    assert torch.isfinite(loss)


def test_momentum_rises_along_half_a_cosine():
    assert rising_momentum(0, 100) == pytest.approx(0.999, abs=1e-12)
    assert rising_momentum(50, 100) == pytest.approx((0.999 + 0.999999) / 2, abs=1e-12)
    assert rising_momentum(100, 100) == rising_momentum(250, 100) == pytest.approx(0.999999, abs=1e-12)
    values = [rising_momentum(step, 100) for step in range(101)]
    assert values == sorted(values)


def test_the_copy_follows_the_classifier():
    model = tiny_model()
    method = AutoMix(model, 4, momentum=(0.5, 0.9))
    name = "stage1.0.conv1.weight"
    expected = model.get_parameter(name).detach().double().numpy().copy()
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        method.after_step(model)
        momentum = 0.9 - 0.4 * (1 + np.cos(np.pi * min(step / 4, 1))) / 2
        expected = momentum * expected + (1 - momentum) * model.get_parameter(name).detach().double().numpy()
    np.testing.assert_allclose(method.encoder.get_parameter(name), expected, atol=1e-5)


def test_the_copy_normalises_by_the_batch_and_records_nothing(batch):
    model = tiny_model()
    encoder = averaged_copy(model)
    before = copy.deepcopy(encoder.state_dict())
    logits = encoder(batch[0])
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    torch.testing.assert_close(logits, model.train()(batch[0]))


def test_lam_follows_beta():
    generator = torch.Generator().manual_seed(1)
    drawn = [sample_pair(2, 2.0, generator).lam for _ in range(1500)]
    assert scipy.stats.kstest(drawn, scipy.stats.beta(2, 2).cdf).pvalue > 0.01


@pytest.mark.parametrize("size", [1, 3])
def test_batches_of_one_and_odd_ones_train(size):
    model = tiny_model()
    method = AutoMix(model, 10)
    objective = method(model, torch.randn(size, 3, 32, 32), torch.arange(size), num_classes=10)
    loss, _ = objective.score(model)
    loss.backward()
    assert torch.isfinite(loss)
    torch.testing.assert_close(objective.targets.sum(1), torch.ones(size))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 0.0), ("num_steps", 0), ("momentum", (0.9, 0.8)), ("momentum", (0.9, 1.1)), ("mask_weight", -1.0),
        ("mask_margin", -0.1), ("block_share", 0.0), ("block_share", 1.5),
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(name, value):
    with oracle.unchecked(), pytest.raises(ValueError, match=f"{name} must be .*, got ") as error:
        AutoMix(tiny_model(), **({"num_steps": 10} | {name: value}))
    assert str(value) in str(error.value)


def test_a_network_without_the_stage_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    with pytest.raises(ValueError, match=r"stage must be one of those Sequential has \(none\), got 'stage3'"):
        AutoMix(network, 10)


class Awake(AutoMix):
    @classmethod
    def for_training(cls, setting):
        return awake(AutoMix(setting.model, 8, setting.image_size, momentum=(0.9, 0.99), seed=setting.seed))


def test_a_resumed_training_goes_on_to_the_bit(register):
    register(METHODS, "automix", Awake)
    config = rlmix.Config.flat(
        data="digits", train_images=64, test_images=40, batch_size=16, epochs=2, learning_rate=0.05, device="cpu"
    )
    training = Training(config, method="automix")
    first = copy.deepcopy(training.method.block.state_dict())
    for _ in range(3):
        training.fit_step()
    assert np.isfinite(training.epoch_metrics()["train_loss"])
    assert all(
        not torch.equal(first[name], value) for name, value in training.method.block.state_dict().items() if "weight" in name
    )
    saved = io.BytesIO()
    torch.save(training.state_dict(), saved)
    saved.seek(0)
    resumed = Training(config, method="automix")
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for each in (training, resumed):
        for _ in range(3):
            each.fit_step()
    assert resumed.method.steps == 6
    for left, right in ((training.model, resumed.model), (training.method, resumed.method)):
        others = right.state_dict()
        for name, value in left.state_dict().items():
            assert torch.equal(value, others[name]) if isinstance(value, torch.Tensor) else value == others[name], name
