"""Eq. 5 to 7 and the four rules against NumPy; what is drawn follows its distribution."""

import numpy as np
import oracle
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rlmix
from rlmix.mixing.core import mix, sample_lam, sample_pairing, sample_top_k, top_k_values

RULES = ("cut_top", "cut_top_least", "mix_top", "mix_least")
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)


def random_case(seed: int, batch: int, num_patches: int, size: int = 8, num_classes: int = 5):
    """Float64 arrays: images, soft targets, mask, partner."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, 3, size, size))
    targets = rng.dirichlet(np.ones(num_classes), batch)
    mask = rng.random((batch, num_patches, num_patches)) < rng.random()
    return images, targets, mask, rng.permutation(batch)


def tensors(images, targets, mask, partner):
    return torch.tensor(images).float(), torch.tensor(targets).float(), torch.tensor(mask), torch.tensor(partner)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("num_patches", [1, 2, 4, 8])
def test_soft_targets_equal_the_loops(rule, num_patches):
    for seed, lam in enumerate((0.0, 0.3, 1.0)):
        case = random_case(seed, 6, num_patches)
        mixed = mix(*tensors(*case), lam, rule)
        images, targets = oracle.mix(*case, lam, rule)
        np.testing.assert_allclose(mixed.images.numpy(), images, atol=1e-5)
        np.testing.assert_allclose(mixed.targets.numpy(), targets, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_labels_and_one_lam_an_image_equal_the_loops(rule):
    for seed, num_patches in enumerate((1, 2, 3, 6)):
        rng = np.random.default_rng(seed)
        images, _, mask, partner = random_case(seed, 7, num_patches, size=12)
        labels, lam = rng.integers(0, 4, 7), rng.random(7)
        mixed = mix(
            torch.tensor(images).float(), torch.tensor(labels), torch.tensor(mask), torch.tensor(partner),
            torch.tensor(lam).float(), rule, num_classes=4,
        )  # fmt: skip
        expected, targets = oracle.mix(images, np.eye(4)[labels], mask, partner, lam, rule)
        np.testing.assert_allclose(mixed.images.numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(mixed.targets.numpy(), targets, atol=1e-5)


def test_images_that_are_not_square_equal_the_loops():
    rng = np.random.default_rng(0)
    images, mask, partner = rng.normal(size=(3, 2, 4, 8)), rng.random((3, 2, 2)) < 0.5, np.array([1, 2, 0])
    mixed = mix(torch.tensor(images).float(), torch.arange(3), torch.tensor(mask), torch.tensor(partner), 0.3, num_classes=3)
    expected, targets = oracle.mix(images, np.eye(3), mask, partner, 0.3, "mix_top")
    np.testing.assert_allclose(mixed.images.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(mixed.targets.numpy(), targets, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "first", "share"),
    [  # patches: both salient, own only, partner's only, neither; image 0 is 1 everywhere, image 1 is 0; lam = 1/4
        ("cut_top", [[1.0, 1.0], [0.0, 0.0]], 0.5),
        ("cut_top_least", [[1.0, 0.0], [0.0, 1.0]], 0.5),
        ("mix_top", [[0.25, 1.0], [0.0, 0.25]], 0.375),
        ("mix_least", [[0.25, 0.0], [1.0, 0.25]], 0.375),
    ],
)
def test_each_rule_by_hand(rule, first, share):
    images = torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    mask = torch.tensor([[[True, True], [False, False]], [[True, False], [True, False]]])
    mixed = mix(images, torch.tensor([2, 0]), mask, torch.tensor([1, 0]), 0.25, rule, num_classes=3)
    assert mixed.images[0, 0].tolist() == first
    assert mixed.targets[0].tolist() == [1 - share, 0, share]


def test_one_lam_may_be_a_tensor():
    case = tensors(*random_case(0, 4, 4))
    for lam in (torch.tensor(0.25), torch.tensor([0.25])):
        assert torch.equal(mix(*case, lam).images, mix(*case, 0.25).images)
        assert torch.equal(mix(*case, lam).targets, mix(*case, 0.25).targets)
    with oracle.unchecked(), pytest.raises(ValueError, match=r"lam must be one number or have shape \(4,\), got \(2,\)"):
        mix(*case, torch.tensor([0.25, 0.5]))


def test_mix_top_is_the_default_rule():
    case = tensors(*random_case(0, 4, 4))
    assert torch.equal(mix(*case, 0.3).images, mix(*case, 0.3, "mix_top").images)


def test_arguments_are_not_written_to_and_dtypes_are_as_stated():
    case = tensors(*random_case(0, 4, 4))
    before = [tensor.clone() for tensor in case]
    mix(*case, 0.3)
    assert all(torch.equal(old, new) for old, new in zip(before, case, strict=True))
    mixed = mix(case[0].bfloat16(), *case[1:], 0.3)
    assert mixed.images.dtype == torch.bfloat16
    assert mixed.targets.dtype == torch.float32


@PROPERTY
@given(seed=SEEDS, batch=st.integers(1, 6), num_patches=st.sampled_from([1, 2, 4, 8]), lam=st.floats(0, 1),
       rule=st.sampled_from(RULES))  # fmt: skip
def test_targets_sum_to_one(seed, batch, num_patches, lam, rule):
    mixed = mix(*tensors(*random_case(seed, batch, num_patches)), lam, rule)
    np.testing.assert_allclose(mixed.targets.sum(1).numpy(), 1, atol=1e-6)


@PROPERTY
@given(seed=SEEDS, batch=st.integers(1, 6), num_patches=st.sampled_from([1, 2, 3, 4, 6]), per_image=st.booleans(),
       rule=st.sampled_from(RULES))  # fmt: skip
def test_a_targets_weight_is_its_images_share_of_the_pixels(seed, batch, num_patches, per_image, rule):
    """Image i is 1 in channel i and 0 elsewhere, its label is i: the mean pixel counts what is left of each image."""
    rng = np.random.default_rng(seed)
    _, _, mask, partner = random_case(seed, batch, num_patches)
    images = torch.eye(batch)[:, :, None, None].expand(batch, batch, 12, 12)
    lam = torch.tensor(rng.random(batch)).float() if per_image else float(rng.random())
    mixed = mix(images, torch.arange(batch), torch.tensor(mask), torch.tensor(partner), lam, rule, num_classes=batch)
    torch.testing.assert_close(mixed.images.mean((2, 3)), mixed.targets, atol=1e-6, rtol=0)


@PROPERTY
@given(seed=SEEDS, num_patches=st.sampled_from([1, 2, 4, 8]), lam=st.floats(0, 1), salient=st.booleans(),
       rule=st.sampled_from(["mix_top", "mix_least"]))  # fmt: skip
def test_equal_masks_give_input_mixup(seed, num_patches, lam, salient, rule):
    """The images to the bit, the targets to float32's rounding (a share is a mean over patches)."""
    images, targets, _, partner = tensors(*random_case(seed, 5, 1))
    shape = (num_patches, num_patches)
    shared = torch.tensor(np.random.default_rng(seed).random(shape) < 0.5).expand(5, *shape)
    masks = [torch.full((5, *shape), salient), shared]
    weight = torch.tensor(lam)
    for mask in masks:
        mixed = mix(images, targets, mask, partner, lam, rule)
        assert torch.equal(mixed.images, weight * images + (1 - weight) * images[partner])
        torch.testing.assert_close(mixed.targets, weight * targets + (1 - weight) * targets[partner], atol=1e-6, rtol=0)


@PROPERTY
@given(seed=SEEDS, num_patches=st.sampled_from([1, 2, 4, 8]), lam=st.sampled_from([0.0, 1.0]), rule=st.sampled_from(RULES))
def test_lam_of_zero_or_one_selects_every_pixel_from_one_image(seed, num_patches, lam, rule):
    images, targets, mask, partner = tensors(*random_case(seed, 5, num_patches))
    mixed = mix(images, targets, mask, partner, lam, rule)
    own, theirs = mixed.images == images, mixed.images == images[partner]
    assert (own | theirs).all()
    if rule.startswith("mix"):  # where both agree, the blend is one image's
        same = (mask == mask[partner]).repeat_interleave(8 // num_patches, 1).repeat_interleave(8 // num_patches, 2)
        chosen = own if lam else theirs
        assert chosen.movedim(1, -1)[same].all()


@PROPERTY
@given(seed=SEEDS, num_patches=st.sampled_from([1, 2, 4]), lam=st.floats(0, 1), rule=st.sampled_from(RULES))
def test_an_image_that_is_its_own_partner_stays(seed, num_patches, lam, rule):
    images, targets, mask, _ = tensors(*random_case(seed, 4, num_patches))
    mixed = mix(images, targets, mask, torch.arange(4), lam, rule)
    torch.testing.assert_close(mixed.images, images)
    torch.testing.assert_close(mixed.targets, targets)


def test_partners_are_permutations_and_every_place_is_reached():
    reached = np.zeros((5, 5), int)
    for seed in range(300):
        partner = sample_pairing(5, (2,), 1.0, torch.Generator().manual_seed(seed)).partner.tolist()
        for image in range(5):
            assert partner.count(image) == 1
            reached[image, partner[image]] += 1
    assert scipy.stats.chisquare(reached.ravel()).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_lam_follows_its_beta_distribution(alpha):
    generator = torch.Generator().manual_seed(0)
    lams = [sample_lam(alpha, generator) for _ in range(3000)]
    assert scipy.stats.kstest(lams, scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01
    other = scipy.stats.beta(2 * alpha, 2 * alpha).cdf
    assert scipy.stats.kstest(lams, other).pvalue < 1e-6  # the test would notice
    pairings = [sample_pairing(2, (2, 4), alpha, generator) for _ in range(1000)]
    assert scipy.stats.kstest([pairing.lam for pairing in pairings], scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01
    counts = np.bincount([pairing.num_patches for pairing in pairings], minlength=5)
    assert scipy.stats.chisquare(counts[[2, 4]]).pvalue > 0.01
    assert counts[[2, 4]].sum() == 1000


@pytest.mark.parametrize("num_top_k", [2, 10])
def test_top_k_values_are_equally_likely(num_top_k):
    drawn = sample_top_k(20000, num_top_k, torch.Generator().manual_seed(0)).double().numpy()
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_allclose(values, np.linspace(0, 0.99, num_top_k), atol=1e-7)
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_top_k_of_neighbouring_images_are_independent():
    drawn = sample_top_k(20000, 4, torch.Generator().manual_seed(1))
    index = (drawn[:, None] == top_k_values(4)).int().argmax(1).numpy()
    table = np.zeros((4, 4), int)
    np.add.at(table, (index[:-1], index[1:]), 1)
    assert scipy.stats.chi2_contingency(table).pvalue > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lam": 1.5}, r"lam must be in \[0, 1\], got 1.5"),
        ({"lam": -0.25}, r"lam must be in \[0, 1\], got -0.25"),
        ({"lam": float("nan")}, r"lam must be in \[0, 1\], got nan"),
        ({"lam": torch.tensor([0.0, 1.0, 1.25, 0.5])}, r"lam must be in \[0, 1\], got 1.25"),
        ({"lam": torch.rand(3)}, r"lam must .* shape \(4,\), got \(3,\)"),
        ({"rule": "mix_best"}, "rule must be one of cut_top, cut_top_least, mix_top, mix_least, got 'mix_best'"),
        ({"mask": torch.ones(3, 2, 2).bool()}, r"mask must be bool of shape \(4, p, p\), got torch.bool of \(3, 2, 2\)"),
        ({"mask": torch.ones(4, 2, 4).bool()}, r"mask must be bool of shape \(4, p, p\), got torch.bool of \(4, 2, 4\)"),
        ({"mask": torch.ones(4, 2, 2)}, r"mask must be bool of shape \(4, p, p\), got torch.float32 of \(4, 2, 2\)"),
        ({"mask": torch.ones(4, 9, 9).bool()}, "mask must have at most a patch a pixel of 8x8, got 9 a side"),
        ({"partner": torch.arange(3)}, r"partner must have shape \(4,\), got \(3,\)"),
        ({"num_classes": None}, "num_classes must be given where targets are labels, got None"),
        ({"targets": torch.tensor([0, 1, 2])}, r"targets must .*got \(3,\)"),
        ({"targets": torch.rand(5, 3)}, r"targets must .*got \(5, 3\)"),
        ({"images": torch.rand(4, 8, 8)}, r"images must .*got \(4, 8, 8\)"),
    ],
)
def test_wrong_arguments_of_mix_are_named(changes, message):
    arguments = {"images": torch.rand(4, 3, 8, 8), "targets": torch.tensor([0, 1, 2, 1]), "mask": torch.ones(4, 2, 2).bool(),
                 "partner": torch.arange(4), "lam": 0.5, "rule": "mix_top", "num_classes": 3}  # fmt: skip
    with oracle.unchecked(), pytest.raises(ValueError, match=message):
        rlmix.mix(**(arguments | changes))


def test_targets_of_another_batch_are_refused_even_for_one_image():
    """One image's share would be broadcast over three targets."""
    with oracle.unchecked(), pytest.raises(ValueError, match=r"targets must .*got \(3, 3\)"):
        mix(torch.rand(1, 3, 8, 8), torch.eye(3), torch.ones(1, 2, 2).bool(), torch.tensor([0]), 0.5)
