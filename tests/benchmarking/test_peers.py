"""Other people's mix-up as the benchmark times it: what they mix is what their targets say."""

import json
import sys

import pytest
import torch
from toys import NETWORK, network

from rlmix.benchmarking import peers as peers_module
from rlmix.benchmarking.peers import (
    PEERS,
    PublishedRMix,
    check_installed,
    missing_package,
    published_mask,
    whole_backward,
    with_peers,
)
from rlmix.benchmarking.steps import check_timed
from rlmix.maps.gradient import gradient_map, patch_saliency, salient_mask
from rlmix.maps.gradient import saliency as own_saliency
from rlmix.mixing.rmix import RMix
from rlmix.scripts import benchmark
from rlmix.scripts.main import main as rlmix_main

CLASSES = 8
SMALL = ["--model", NETWORK, "--batch-size", "8", "--image-size", "16", "--num-classes", "4", "--rounds", "1", "--warmup", "0"]
SMALL += ["--device", "cpu"]


@pytest.fixture
def batch():
    """Eight images of classes of their own, so that a target names the images it is of."""
    draw = torch.Generator().manual_seed(0)
    return torch.rand(CLASSES, 3, 16, 16, generator=draw), torch.arange(CLASSES)


def mixture(peer, images, labels, seed=0):
    package = missing_package(peer)
    if package is not None:
        pytest.skip(f"{package} is not installed")
    torch.manual_seed(seed)
    model = network(CLASSES)
    generator = torch.Generator().manual_seed(seed)
    return PEERS[peer](CLASSES)(model, images.clone(), labels, num_classes=CLASSES, generator=generator)


@pytest.mark.parametrize("peer", PEERS)
def test_targets_are_shares_of_two_images(peer, batch):
    mixed = mixture(peer, *batch)
    assert mixed.images.shape == batch[0].shape
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(CLASSES))
    assert float(mixed.targets.min()) >= 0
    assert int((mixed.targets > 0).sum(1).max()) <= 2


@pytest.mark.parametrize("peer", [name for name in PEERS if PEERS.entry(name).traits["ours"] == "input_mixup"])
def test_a_blended_image_is_the_combination_that_its_target_says(peer, batch):
    """Class i is image i's alone, so the targets times the images are the mixtures."""
    images, _ = batch
    mixed = mixture(peer, *batch)
    torch.testing.assert_close(mixed.images, torch.einsum("bn,nchw->bchw", mixed.targets, images))


@pytest.mark.parametrize("peer", [name for name in PEERS if PEERS.entry(name).traits["ours"] == "cutmix"])
def test_a_pasted_box_has_the_share_that_its_target_says(peer, batch):
    images, _ = batch
    pasted = False
    for seed in range(4):
        mixed = mixture(peer, *batch, seed)
        for own, (image, target) in enumerate(zip(mixed.images, mixed.targets, strict=True)):
            kept = (image == images[own]).all(0)
            assert float(target[own]) == pytest.approx(float(kept.float().mean()), abs=1e-6)
            theirs = [number for number in target.nonzero().flatten().tolist() if number != own]
            for number in theirs:
                pasted = True
                assert torch.equal(image[:, ~kept], images[number][:, ~kept])
                rows, columns = (~kept).nonzero().unbind(1)
                assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)  # one box
    assert pasted


def test_published_r_mix_cuts_the_masks_that_ours_does(batch):
    images, _ = batch
    draw = torch.Generator().manual_seed(1)
    gradient = torch.randn(images.shape, generator=draw)
    top_k = torch.linspace(0, 0.99, CLASSES)
    for num_patches in (2, 4, 8):
        own = salient_mask(patch_saliency(gradient_map(gradient), num_patches), top_k)
        assert torch.equal(published_mask(gradient, num_patches, top_k), own)


def test_a_whole_backward_gives_the_map_of_the_cheaper_pass_and_keeps_no_gradient(batch):
    model = network(CLASSES)
    before = own_saliency(model, *batch).map
    torch.testing.assert_close(gradient_map(whole_backward(model, *batch)), before, rtol=1e-4, atol=1e-8)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_published_r_mix_mixes_as_ours_does_from_the_same_draws(batch):
    model = network(CLASSES)
    theirs = PublishedRMix()(model, *batch, num_classes=CLASSES, generator=torch.Generator().manual_seed(3))
    ours = RMix()(model, *batch, num_classes=CLASSES, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(theirs.images, ours.images)
    torch.testing.assert_close(theirs.targets, ours.targets)
    again = PublishedRMix()(model, *batch, num_classes=CLASSES, generator=torch.Generator().manual_seed(3))
    assert torch.equal(theirs.images, again.images)


def test_every_image_is_cut_at_its_own_quantile():
    gradient = torch.arange(1.0, 17.0).view(1, 1, 4, 4).repeat(2, 1, 1, 1)
    mask = published_mask(gradient, 2, torch.tensor([0.0, 0.9]))
    assert mask[0].all()
    assert mask[1].tolist() == [[False, False], [False, True]]


def test_timm_takes_even_batches(batch):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="batch_size must be even with timm-mixup, got 7"):
        PEERS["timm-mixup"](CLASSES)(network(CLASSES), batch[0][:7], batch[1][:7], num_classes=CLASSES)


def test_missing_packages_are_left_out_in_a_line_each_or_refused_by_name(monkeypatch, capsys):
    for package in ("timm", "mixup"):
        monkeypatch.setitem(sys.modules, package, None)
    methods, notices = with_peers(("vanilla", "rmix"))
    assert methods == ("vanilla", "rmix", "input_mixup", "cutmix", "torchvision-mixup", "torchvision-cutmix", "rmix-published")
    assert notices == [
        'left out: timm-mixup and timm-cutmix, for timm is not installed: pip install timm, or "rlmix[peers]"',
        'left out: mixup-mixup and mixup-cutmix, for mixup is not installed: pip install mixup, or "rlmix[peers]"',
    ]
    check_installed("torchvision-mixup")
    with pytest.raises(ValueError, match=r'methods must leave out timm-cutmix, for timm is not installed: .*"rlmix\[peers\]"'):
        check_timed("timm-cutmix")
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["benchmark", "--methods", "rmix", "mixup-mixup"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--methods must leave out mixup-mixup" in line


def test_peers_are_timed_beside_ours(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(peers_module, "find_spec", lambda package: None)
    benchmark.main([*SMALL, "--methods", "rmix", "--peers", "--json", str(tmp_path / "figures.json")])
    found = json.loads((tmp_path / "figures.json").read_text())["methods"]
    assert list(found) == [
        *("vanilla", "rmix", "input_mixup", "cutmix"),
        *("torchvision-mixup", "torchvision-cutmix", "rmix-published"),
    ]
    for name, row in found.items():
        assert ("ours" in row) == (name in PEERS)
    for peer, ours in (("torchvision-mixup", "input_mixup"), ("torchvision-cutmix", "cutmix"), ("rmix-published", "rmix")):
        assert found[peer]["ours"] == ours
        assert found[peer]["ours_ratio"] == pytest.approx(found[peer]["step_ms"] / found[ours]["step_ms"])  # of one round
    printed = capsys.readouterr().out
    assert "left out: timm-mixup and timm-cutmix" in printed
    assert "relative to ours" in printed
