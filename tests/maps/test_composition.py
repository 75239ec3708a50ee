"""What mixtures are made of, against the mixing itself probed pixel by pixel, and against loops."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmix.maps.approximate import Evidence
from rlmix.maps.composition import Collage, Pairs, move_back
from rlmix.maps.recycled import read_evidence
from rlmix.mixing.comixup import CoMixup
from rlmix.mixing.puzzlemix import PuzzleMix, move_blocks, transport

PROPERTY = settings(max_examples=12, deadline=None, derandomize=True)
BATCH, SIDE = 4, 8
METHODS = {  # what is shown must not depend on the images, or probing them would change it
    "puzzlemix": PuzzleMix((2, 4), gamma=0.0, distance_cost=0.05),
    "puzzlemix, still": PuzzleMix((2, 4), gamma=0.0, transport=False),
    "comixup": CoMixup(clean_lam=0.0),
    "comixup, in groups": CoMixup(group_size=3, num_patches=2, clean_lam=0.0),
}


def compose(name, seed):
    """A batch whose every pixel has a channel of its own, so that the mixture shows what of it is where."""
    draw = torch.Generator().manual_seed(seed)
    map = torch.rand(BATCH, SIDE, SIDE, generator=draw) ** 4
    probes = torch.eye(BATCH * SIDE**2).reshape(BATCH, SIDE, SIDE, -1).permute(0, 3, 1, 2)
    return METHODS[name].mix_by(probes, torch.arange(BATCH), map, num_classes=BATCH, generator=draw)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_transpose_of_the_mixing(name, seed):
    mixed, made = compose(name, seed)
    shown = mixed.images.reshape(BATCH, BATCH, SIDE, SIDE, SIDE, SIDE)  # mixture, image, its pixel, the mixture's pixel
    maps = torch.rand(BATCH, SIDE, SIDE, generator=torch.Generator().manual_seed(seed + 1))
    torch.testing.assert_close(made.share_out(maps), torch.einsum("mkyxrc,mrc->kyx", shown, maps))
    torch.testing.assert_close(made.share_out(torch.ones_like(maps)), shown.sum((0, 4, 5)))
    share = shown.sum((2, 3, 4, 5)) / SIDE**2
    torch.testing.assert_close(share, mixed.targets)
    rows = torch.arange(BATCH * 3.0).reshape(BATCH, 3)
    for image, row in enumerate(made.of_largest(rows, (SIDE, SIDE))):
        if share[:, image].max() == 0:
            assert row.isnan().all()
        else:
            best = share[:, image].max()
            assert any(torch.equal(row, rows[mixture]) for mixture in range(BATCH) if share[mixture, image] >= best - 1e-6)


def test_blocks_move_in_what_is_probed():
    moved = [compose("puzzlemix", seed).made for seed in range(6)]
    places = [torch.arange(made.source.shape[2]) for made in moved]
    assert any((made.source != place).any() for made, place in zip(moved, places, strict=True))


def test_moved_pairs_against_loops_over_the_pixels():
    """Of a mixture's place j the image that leads it shows block source[0, i, j], its partner block source[1, i, j]."""
    draw = torch.Generator().manual_seed(0)
    weights = torch.tensor([[[1.0, 0.5], [0.0, 0.5]], [[0.0, 0.0], [1.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    source = torch.tensor([[[2, 1, 2, 3], [0, 1, 0, 3], [3, 2, 1, 0]], [[0, 0, 2, 3], [2, 3, 2, 3], [1, 0, 3, 2]]])
    partner, maps = torch.tensor([1, 2, 0]), torch.rand(3, 4, 6, generator=draw)
    expected = torch.zeros(3, 4, 6)
    for lead, row, column in itertools.product(range(3), range(4), range(6)):
        place, own = 2 * (row // 2) + column // 3, weights[lead, row // 2, column // 3]
        for side, image, share in ((0, lead, own), (1, int(partner[lead]), 1 - own)):
            block = int(source[side, lead, place])
            expected[image, 2 * (block // 2) + row % 2, 3 * (block % 2) + column % 3] += share * maps[lead, row, column]
    torch.testing.assert_close(Pairs(weights, partner, source).share_out(maps), expected)


def test_a_collage_against_loops_over_the_pixels():
    draw = torch.Generator().manual_seed(0)
    sources, maps = torch.randint(5, (5, 2, 2, 2), generator=draw), torch.rand(5, 4, 6, generator=draw)
    expected = torch.zeros(5, 4, 6)
    for mixture, row, column, which in itertools.product(range(5), range(4), range(6), range(2)):
        image = int(sources[mixture, row // 2, column // 3, which])
        expected[image, row, column] += maps[mixture, row, column] / 2
    torch.testing.assert_close(Collage(sources).share_out(maps), expected)


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from([2, 4, 8]), st.floats(0.01, 1))
def test_what_is_moved_and_moved_back_is_as_it_was_where_it_showed(seed, side, cost):
    """For no two places that show have the same block."""
    draw = torch.Generator().manual_seed(seed)
    patches = torch.rand(6, side, side, generator=draw) ** 6
    shows = torch.rand(6, side, side, generator=draw) < 0.5
    source = transport(patches / patches.sum((1, 2), keepdim=True), shows, cost)
    images = torch.rand(6, 1, 16, 16, generator=draw) + 1
    back = move_back(move_blocks(images, source)[:, 0], source, shows)
    shown = back > 0
    assert torch.equal(back[shown], images[:, 0][shown])
    assert shown.sum() == shows.sum() * (16 // side) ** 2


def test_an_image_in_many_mixtures_moves_by_no_more_than_a_pairs_two():
    """All four mixtures show image 0: it is told their mean, with weight 2. Image 2, in none, is told nothing, its logits least of all."""
    sources = torch.zeros(4, 2, 2, 2, dtype=torch.int64)
    sources[3, :, :, 1] = 1
    gradient = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = torch.arange(12.0).reshape(4, 3)
    told = read_evidence(Evidence(gradient, logits, Collage(sources)))
    maps = gradient.square().mean(1).sqrt()
    maps = maps / maps.mean((1, 2), keepdim=True)
    torch.testing.assert_close(told.weight[0], torch.full((8, 8), 2.0))
    torch.testing.assert_close(told.total[0], 2 * (maps[:3].sum(0) + maps[3] / 2) / 3.5)
    torch.testing.assert_close(told.total[1], maps[3] / 2)
    torch.testing.assert_close(told.weight[1], torch.full((8, 8), 0.5))
    assert not told.weight[2:].any()
    assert not told.total[2:].any()
    assert torch.equal(told.logits[:2], logits[[0, 3]])
    assert told.logits[2:].isnan().all()
