"""Methods that mix by the training's maps, in the plain trainer: no pass of their own, and maps that learn of every step."""

import copy
import io
import itertools

import pytest
import torch
import torch.nn.functional as F
from toys import DIGITS, toy_config

import rlmix
from rlmix.data.augmentation import normalize
from rlmix.maps.approximate import SALIENCY_MODES
from rlmix.maps.recycled import RATE
from rlmix.mixing import comixup, puzzlemix
from rlmix.mixing.comixup import CoMixup
from rlmix.mixing.core import Mixed
from rlmix.mixing.puzzlemix import PuzzleMix
from rlmix.training.trainer import Training

GUIDED = {"puzzlemix": {"num_patches": (4,), "distance_cost": 0.1}, "comixup": {"clean_lam": 0.0}}

"""Blocks move sooner than by default."""


def make(folder, method, **options):
    config = toy_config(folder, 16, method=method, mixing=GUIDED[method], **options)
    return Training(config, method=method)


def no_pass(*given):
    raise AssertionError("no pass of its own")


def state_of(training):
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(first, second):
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    assert first.epoch_metrics() == second.epoch_metrics()
    kept = second.saliency_source.state_dict()
    for name, value in first.saliency_source.state_dict().items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("method", GUIDED)
@pytest.mark.parametrize("mode", ["recycled", "recycled_8x8"])
def test_recycled_maps_cost_no_pass_and_tell_of_every_image(method, mode, tmp_path, monkeypatch):
    training = make(tmp_path, method, saliency_mode=mode)
    monkeypatch.setattr(training, "saliency_pass", no_pass)
    for module in (puzzlemix, comixup):
        monkeypatch.setattr(module, "saliency", no_pass)
    monkeypatch.setattr(comixup, "clean_pass", no_pass)
    for _ in range(2):
        training.fit_epoch()
    maps = training.saliency_source.store.maps.float()
    assert maps.std((1, 2)).median() > 0.05
    torch.testing.assert_close(maps.mean(), torch.tensor(1.0), atol=0.1, rtol=0)


@pytest.mark.parametrize("method", GUIDED)
def test_recycled_maps_come_near_exact_ones_of_the_same_image(method):
    """Nearer than to those of another image, by the cosine of 8x8 patches about their mean."""
    options = {
        "mixing": GUIDED[method],
        "flip": False,
        "crop_padding": 0,
        "epochs": 6,
        "train_images": 256,
        "saliency_mode": "recycled",
    }
    training = Training(rlmix.Config.flat(**DIGITS | options, method=method), method=method)
    for _ in range(6):
        training.fit_epoch()
    images = normalize(training.data.train_images, training.data.mean, training.data.std)
    exact = rlmix.saliency(training.model, images, training.data.train_labels).map
    kept, looked = (rlmix.patch_saliency(map, 8).flatten(1) - 1 / 64 for map in (training.saliency_source.store.maps, exact))
    own, others = (float(F.cosine_similarity(kept, maps).mean()) for maps in (looked, looked.roll(1, 0)))
    assert own > others + 0.1
    assert own > 0.5


@pytest.mark.parametrize("method", GUIDED)
def test_exact_is_the_methods_own_pass(method, tmp_path):
    """In the same batches, the same draws, and the same weights after them."""
    training, alone = (make(tmp_path, method) for _ in range(2))
    training.fit_epoch()
    for _ in range(4):
        images, labels = alone.next_batch()
        gradient = alone.step(alone.method(alone.model, images, labels, num_classes=10, generator=alone.mixing_generator))
        assert gradient is None
    assert_same(training, alone)


def told_by_loop(made, scaled):
    """Sum of w G, and of w, over all that a mixture shows, pixel by pixel."""
    batch, side = len(scaled), scaled.shape[1]
    total, weight = torch.zeros_like(scaled), torch.zeros_like(scaled)
    pairs = hasattr(made, "partner")
    patches = (made.weights if pairs else made.sources).shape[1]
    pixels = side // patches
    for mixture, row, column in itertools.product(range(batch), range(side), range(side)):
        down, across = row // pixels, column // pixels
        if pairs:
            own, place = made.weights[mixture, down, across], down * patches + across
            blocks = made.source[:, mixture, place].tolist()
            parts = [(mixture, own, blocks[0]), (int(made.partner[mixture]), 1 - own, blocks[1])]
        else:
            parts = [(image, 0.5, down * patches + across) for image in made.sources[mixture, down, across].tolist()]
        for image, share, block in parts:
            at = image, block // patches * pixels + row % pixels, block % patches * pixels + column % pixels
            total[at] += share * scaled[mixture, row, column]
            weight[at] += share
    return total, weight


@pytest.mark.parametrize("method", GUIDED)
def test_a_step_moves_the_maps_by_what_it_told_pixel_by_pixel(method, tmp_path, monkeypatch):
    kind = {"puzzlemix": PuzzleMix, "comixup": CoMixup}[method]
    mix_by, step, seen = kind.mix_by, Training.step, {}

    def mixing(self, *given, **options):
        seen["composed"] = mix_by(self, *given, **options)
        return seen["composed"]

    def stepping(self, mixed, input_gradient=False, sound=None):
        model, images = copy.deepcopy(self.model), mixed.images.clone().requires_grad_()
        torch.nn.functional.cross_entropy(model(images), mixed.targets).backward()
        seen["gradient"], seen["asked"] = images.grad, input_gradient
        return step(self, mixed, input_gradient, sound)

    monkeypatch.setattr(kind, "mix_by", mixing)
    monkeypatch.setattr(Training, "step", stepping)
    training = make(tmp_path, method, saliency_mode="recycled", crop_padding=0, flip=False)
    store = training.saliency_source.store
    draw = torch.Generator().manual_seed(0)
    peaks = torch.rand(64, 4, 4, generator=draw).repeat_interleave(4, 1).repeat_interleave(4, 2)
    start = (4 * peaks**6 + 0.1 * torch.rand(64, 16, 16, generator=draw)).half()
    store.maps.copy_(start)
    training.fit_step()
    assert seen["asked"]
    maps = seen["gradient"].square().mean(1).sqrt()
    total, weight = told_by_loop(seen["composed"].made, maps / maps.mean((1, 2), keepdim=True))
    less = 2 / weight.clamp(min=2)
    expected, places = start.float(), training.order.moment.places
    expected[places] += RATE * less * (total - weight * expected[places])
    torch.testing.assert_close(store.maps.float(), expected, atol=2e-3, rtol=2e-3)  # float16
    assert (store.maps[places] != start[places]).any((1, 2)).sum() > 8
    if method == "puzzlemix":
        assert (seen["composed"].made.source[0] != torch.arange(seen["composed"].made.source.shape[2])).any(), "blocks moved"


@pytest.mark.parametrize("method", GUIDED)
@pytest.mark.parametrize("steps", [2, 5])
def test_a_seeded_run_repeats_and_goes_on_to_the_bit_from_any_step(method, steps, tmp_path):
    whole, again, first = (make(tmp_path, method, saliency_mode="recycled", flip=True) for _ in range(3))
    for training in (whole, again):
        for _ in range(8):
            training.fit_step()
    assert_same(whole, again)
    for _ in range(steps):
        first.fit_step()
    second = make(tmp_path, method, saliency_mode="recycled", flip=True, seed=1)  # whatever it draws from is replaced
    second.load_state_dict(state_of(first))
    for _ in range(8 - steps):
        second.fit_step()
    assert_same(whole, second)


@pytest.mark.parametrize("mode", SALIENCY_MODES)
def test_every_mode_gives_the_maps(mode, tmp_path, monkeypatch):
    """PuzzleMix mixes by the very map that the training's source gave; only sources that learn have the input gradient taken."""
    training = make(tmp_path, "puzzlemix", saliency_mode=mode)
    compose, given, used = PuzzleMix.compose, [], []
    look = training.saliency

    def saliency(batch):
        given.append(look(batch).map.clone())
        return look(batch)._replace(map=given[-1])

    def composing(self, images, labels, map, *rest, **options):
        used.append(map)
        return compose(self, images, labels, map, *rest, **options)

    step, asked = training.step, []
    monkeypatch.setattr(training, "saliency", saliency)
    monkeypatch.setattr(
        training, "step", lambda mixed, input_gradient: asked.append(input_gradient) or step(mixed, input_gradient)
    )
    monkeypatch.setattr(PuzzleMix, "compose", composing)
    training.fit_epoch()
    assert len(used) == 4
    assert all(torch.equal(*pair) for pair in zip(given, used, strict=True))
    assert asked == [mode.startswith("recycled")] * 4
    assert training.epoch_metrics()["train_loss"] > 0


@pytest.mark.parametrize("method", GUIDED)
def test_a_step_that_is_left_out_leaves_maps_and_logits_alone(method, tmp_path, monkeypatch):
    training = make(tmp_path, method, saliency_mode="recycled", on_nonfinite="skip")
    training.fit_step()
    before = state_of(training)["saliency"]
    kind, mix_by = type(training.method), type(training.method).mix_by

    def spoiled(self, *given, **options):
        composed = mix_by(self, *given, **options)
        targets = composed.mixed.targets.clone()
        targets[0] = float("inf")
        return composed._replace(mixed=Mixed(composed.mixed.images, targets))

    monkeypatch.setattr(kind, "mix_by", spoiled)
    training.fit_step()
    assert not training.was_finite
    assert all(torch.equal(value, before[name]) for name, value in training.saliency_source.state_dict().items())
    monkeypatch.setattr(kind, "mix_by", mix_by)
    training.fit_step()
    assert training.was_finite
    assert not torch.equal(training.saliency_source.store.maps, before["maps"])


def test_steps_on_images_as_they_are_tell_nothing(tmp_path):
    training = make(tmp_path, "puzzlemix", saliency_mode="recycled", mix_until=0.5)
    training.fit_epoch()
    before = state_of(training)["saliency"]
    training.fit_epoch()
    assert all(torch.equal(value, before[name]) for name, value in training.saliency_source.state_dict().items())


def test_a_clean_loss_keeps_its_own_pass_and_maps(tmp_path):
    assert not CoMixup().takes_maps
    config = toy_config(tmp_path, 16, method="comixup")
    exact, other = (Training(config.changed(saliency_mode=mode), method="comixup") for mode in ("exact", "recycled"))
    for training in (exact, other):
        training.fit_epoch()
    assert (other.saliency_source.store.maps == 1).all()
    for name, weight in exact.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name]), name
