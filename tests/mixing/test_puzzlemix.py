"""PuzzleMix's energy, its minimum and its transport against NumPy loops and SciPy's exact solvers."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from torch import nn

import rlmix
from rlmix.mixing.core import Pairing
from rlmix.mixing.graph_cut import Energy, evaluate, minimise
from rlmix.mixing.puzzlemix import PuzzleMix, mask_energy, move_blocks, transport
from rlmix.training.trainer import Training

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)
SIDES = (2, 4, 8, 16)


def random_patches(rng, count: int, side: int, kind: int) -> np.ndarray:
    """Saliency of blocks: noise, a few peaks, or smooth."""
    patches = rng.exponential(size=(count, side, side))
    if kind == 1:
        patches = patches**4
    elif kind == 2:
        patches = gaussian_filter(patches**2, (0, side / 10, side / 10), mode="nearest")
    return patches / patches.sum((1, 2), keepdims=True)


def random_energy(seed: int, side: int, count: int = 1) -> Energy:
    """Energies of pairs of random images with random saliency."""
    rng = np.random.default_rng(seed)
    images = torch.tensor(rng.normal(size=(2 * count, 3, 2 * side, 2 * side))).float()
    patches = torch.tensor(random_patches(rng, 2 * count, side, seed % 3)).float()
    partner = torch.arange(2 * count).roll(count)
    energy = mask_energy(images, patches, partner, float(rng.uniform(0.02, 0.98)))
    return Energy(*(part[:count] for part in energy))


# Oracles: arrays of one grid in, labels out.


def arrays(energy: Energy, index: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unary costs (cells, 3), the neighbours' indices, their weights."""
    unary, down, right = (part[index].double().numpy() for part in energy)
    cells = np.arange(unary[0].size).reshape(unary[0].shape)
    first = np.concatenate([cells[:-1].ravel(), cells[:, :-1].ravel()])
    second = np.concatenate([cells[1:].ravel(), cells[:, 1:].ravel()])
    return unary.reshape(3, -1).T, first, second, np.concatenate([down.ravel(), right.ravel()])


def energy_of(labels, unary, first, second, weight) -> float:
    return unary[np.arange(len(unary)), labels].sum() + (weight * (labels[first] - labels[second]) ** 2 / 4).sum()


def minimum_cut(linear, first, second, forth, back, scale=2**20):
    """x in {0, 1} minimising ``linear . x + sum forth [x_first > x_second] + back [x_first < x_second]``."""
    count = len(linear)
    nodes, source, sink = np.arange(count), np.full(count, count), np.full(count, count + 1)
    row, column = np.concatenate([first, second, source, nodes]), np.concatenate([second, first, nodes, sink])
    capacity = np.concatenate([forth, back, np.maximum(-linear, 0), np.maximum(linear, 0)])
    capacity = np.rint(capacity * scale).astype(np.int32)
    place = (row.astype(np.int32), column.astype(np.int32))  # older versions of scipy take no other
    graph = coo_array((capacity, place), shape=(count + 2, count + 2)).tocsr()
    left = (graph - maximum_flow(graph, count, count + 1).flow).maximum(0)
    left.eliminate_zeros()
    return np.isin(nodes, breadth_first_order(left, count, return_predecessors=False))


def exact(unary, first, second, weight):
    """One cut: l = x_1 + x_2, and (l_p - l_q)^2 = sum_ij |x_pi - x_qj| - x_p1 + x_p2 - x_q1 + x_q2."""
    cells = len(unary)
    degree = (np.bincount(first, weight, cells) + np.bincount(second, weight, cells)) / 4
    linear = np.concatenate([unary[:, 1] - unary[:, 0] - degree, unary[:, 2] - unary[:, 1] + degree])
    heads = np.concatenate([first, first, first + cells, first + cells, np.arange(cells) + cells])
    tails = np.concatenate([second, second + cells, second, second + cells, np.arange(cells)])
    forth = np.concatenate([np.tile(weight / 4, 4), np.full(cells, 8.0)])  # x_2 = 1 without x_1 = 1 is out of the question
    back = np.concatenate([np.tile(weight / 4, 4), np.zeros(cells)])
    x = minimum_cut(linear, heads, tails, forth, back)
    return x[:cells].astype(int) + x[cells:]


def alpha_beta_swap(unary, first, second, weight):
    """Boykov, Veksler and Zabih (2001), from all zero until no swap of two labels lowers the energy."""
    labels = np.zeros(len(unary), int)
    best, improved = energy_of(labels, unary, first, second, weight), True
    while improved:
        improved = False
        for a, b in ((0, 1), (0, 2), (1, 2)):
            active = np.flatnonzero((labels == a) | (labels == b))
            number = np.full(len(unary), -1)
            number[active] = np.arange(len(active))
            linear = unary[active, b] - unary[active, a]
            for p, q in ((first, second), (second, first)):
                border = (number[p] >= 0) & (number[q] < 0)
                change = ((b - labels[q[border]]) ** 2 - (a - labels[q[border]]) ** 2) * weight[border] / 4
                linear = linear + np.bincount(number[p[border]], change, len(active))
            inside = (number[first] >= 0) & (number[second] >= 0)
            cut = weight[inside] * (a - b) ** 2 / 4
            swapped = labels.copy()
            swapped[active] = np.where(minimum_cut(linear, number[first[inside]], number[second[inside]], cut, cut), b, a)
            energy = energy_of(swapped, unary, first, second, weight)
            if energy < best - 1e-9:
                labels, best, improved = swapped, energy, True
    return labels


def claims(patches, shows, distance_cost):
    """The transport in rounds, cell by cell: cost matrix, row minima, column winners."""
    side = len(patches)
    blocks = [(i, j) for i in range(side) for j in range(side)]
    cost = np.array(
        [
            [
                np.float32(distance_cost * ((i - k) ** 2 + (j - m) ** 2) / (side - 1) ** 2) - shows[k, m] * patches[i, j]
                for k, m in blocks
            ]
            for i, j in blocks
        ]
    )
    for _ in range(side):
        claimed = cost.argmin(1)
        winner = {}
        for block, place in enumerate(claimed):
            if place not in winner or cost[block, place] < cost[winner[place], place]:
                winner[place] = block
        for block, place in enumerate(claimed):
            if winner[place] != block:
                cost[block, place] += 1
    return winner


# The graph cut


@pytest.mark.parametrize("side", [1, 2])
def test_small_grids_equal_enumeration(side):
    for seed in range(10):
        energy = random_energy(seed, 2)
        energy = Energy(energy.unary[..., :side], energy.down[..., :side], energy.right[..., : side - 1])
        every = torch.tensor(list(itertools.product(range(3), repeat=2 * side))).reshape(-1, 1, 2, side)
        values = evaluate(energy, every)
        expected = [energy_of(labels.numpy().ravel(), *arrays(energy)) for labels in every]
        np.testing.assert_allclose(values[:, 0], expected, rtol=1e-5)
        torch.testing.assert_close(evaluate(energy, minimise(energy)), values.min(0).values)


def test_energies_beside_an_alpha_beta_swap_and_the_optimum():
    """100 instances. Measured: mean gap to the optimum 0.0001 %, worst 0.01 %; the swap's 0.07 % and 1.4 %."""
    ours, swap, optimum = [], [], []
    for side in SIDES:
        for seed in range(25):
            problem = arrays(energy := random_energy(seed, side))
            ours.append(energy_of(minimise(energy)[0].numpy().ravel(), *problem))
            swap.append(energy_of(alpha_beta_swap(*problem), *problem))
            optimum.append(energy_of(exact(*problem), *problem))
    ours, swap, optimum = map(np.array, (ours, swap, optimum))
    assert (ours <= 1.01 * swap).all()
    assert ours.mean() <= swap.mean()
    assert (ours >= optimum * (1 - 1e-5)).all()
    assert (ours / optimum - 1).max() < 1e-3
    assert (ours / optimum - 1).mean() < 2e-5


def test_a_batch_is_solved_like_its_members_and_at_any_scale():
    energy = random_energy(0, 8, count=7)
    labels = minimise(energy)
    for index in range(7):
        torch.testing.assert_close(minimise(Energy(*(part[index : index + 1] for part in energy)))[0], labels[index])
    torch.testing.assert_close(minimise(Energy(*(1024 * part for part in energy))), labels)


def test_without_smoothness_each_cell_takes_its_cheapest_label():
    energy = random_energy(1, 8, count=3)
    energy = Energy(energy.unary, 0 * energy.down, 0 * energy.right)
    torch.testing.assert_close(minimise(energy), energy.unary.argmin(1))


# The energy of masks


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 2), (16, 16, 2), (12, 24, 3), (8, 8, 8)])
def test_energy_of_masks_equals_the_loops(height, width, side):
    rng = np.random.default_rng(side)
    images, lam, beta, gamma, eta = rng.normal(size=(3, 2, height, width)), 0.3, 1.1, 0.7, 0.4
    patches, partner = random_patches(rng, 3, side, 0), np.array([2, 0, 1])
    energy = mask_energy(
        torch.tensor(images).float(), torch.tensor(patches).float(), torch.tensor(partner), lam, beta, gamma, eta
    )
    labels = rng.integers(0, 3, (5, 3, side, side))
    block = (height // side, width // side)
    square = max(n for n in (1, 2, 3, 4) if block[0] % n == 0 and block[1] % n == 0)
    scaled = images / (images.max((0, 2, 3)) - images.min((0, 2, 3)))[:, None, None]
    pooled = scaled.reshape(3, 2, height // square, square, width // square, square).mean((3, 5))
    tall, wide = block[0] // square, block[1] // square
    weight = beta / (16 * side)

    def border(first, second, i, j, axis):
        """Of block (i, j) of an image and the following one of another."""
        if axis == 0:
            across = slice(j * wide, (j + 1) * wide)
            return np.abs(first[:, (i + 1) * tall - 1, across] - second[:, (i + 1) * tall, across]).mean()
        across = slice(i * tall, (i + 1) * tall)
        return np.abs(first[:, across, (j + 1) * wide - 1] - second[:, across, (j + 1) * wide]).mean()

    expected = np.zeros((5, 3))
    for n, k in np.ndindex(5, 3):
        mask = 1 - labels[n, k] / 2
        total = (mask * patches[partner[k]] + (1 - mask) * patches[k]).sum()
        total -= eta * np.log(scipy.stats.binom.pmf(2 - labels[n, k], 2, lam) + 1e-8).mean()
        for i, j, axis in itertools.product(range(side), range(side), (0, 1)):
            following = (i + 1, j) if axis == 0 else (i, j + 1)
            if max(following) == side:
                continue
            pair = [pooled[k], pooled[partner[k]]]
            oo, op, po, pp = (border(a, b, i, j, axis) for a, b in itertools.product(pair, pair))
            p, q = mask[i, j], mask[following]
            if {p, q} <= {0, 1}:  # one of the four, but for a constant
                fit = {(1, 1): oo, (1, 0): op, (0, 1): po, (0, 0): pp}[p, q] + (op + po) / 2
            else:
                linear = p * (oo + op) + (1 - p) * (pp + po) + q * (oo + po) + (1 - q) * (pp + op)
                fit = linear / 2 + (p - q) ** 2 * (op + po - oo - pp) / 2
            total += weight * ((p - q) ** 2 + gamma * fit)
        expected[n, k] = total
    np.testing.assert_allclose(evaluate(energy, torch.tensor(labels)), expected, rtol=1e-5)


def test_weights_are_never_negative():
    images = torch.zeros(2, 1, 8, 8)
    images[:, :, :4] = 1  # both have an edge where the upper blocks end
    energy = mask_energy(images, torch.full((2, 2, 2), 0.25), torch.tensor([1, 0]), 0.5, gamma=3.0)
    assert all((weights >= 0).all() for weights in energy[1:])


# The transport


@pytest.mark.parametrize("side", SIDES)
def test_transport_equals_the_rounds(side):
    rng = np.random.default_rng(side)
    count = 4 if side == 16 else 30
    patches = np.concatenate([random_patches(rng, count, side, kind) for kind in range(3)]).astype(np.float32)
    if side == 2:
        patches[::2] = 0.03
        patches[::2, 1, 0] = 0.91
    shows = rng.random(patches.shape) < rng.random((len(patches), 1, 1))
    source = transport(torch.tensor(patches), torch.tensor(shows), 0.8).numpy()
    moved = 0
    for k in range(len(patches)):
        winner = claims(patches[k], shows[k], 0.8)
        for place in np.flatnonzero(shows[k]):
            assert source[k, place] == winner[place]
            moved += source[k, place] != place
        assert len(set(source[k, shows[k].ravel()])) == shows[k].sum()
        assert (source[k] == np.arange(side**2))[~shows[k].ravel()].all()
    assert moved > 5


def test_transport_beside_the_best_assignment():
    """What moving gains, over what it could: measured 99.0 % in the mean, 89 % at least, on peaks of saliency and random masks."""
    rng = np.random.default_rng(0)
    shares = []
    for side in SIDES[1:]:
        patches = random_patches(rng, 10, side, 1).astype(np.float32)
        shows = rng.random(patches.shape) < 0.5
        source = transport(torch.tensor(patches), torch.tensor(shows)).numpy()
        rows, columns = np.divmod(np.arange(side**2), side)
        way = 0.8 * ((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2) / (side - 1) ** 2
        for k in range(10):
            gain = np.maximum(patches[k].reshape(-1, 1) - way, 0) * shows[k].ravel()
            best = gain[linear_sum_assignment(gain, maximize=True)].sum()
            shares.append(gain[source[k], np.arange(side**2)].sum() / best)
    assert max(shares) <= 1 + 1e-6
    assert min(shares) > 0.85
    assert np.mean(shares) > 0.98


def test_a_salient_block_moves_to_the_nearest_place_that_shows():
    patches = torch.full((1, 4, 4), 0.01)
    patches[0, 0, 0] = 0.85
    shows = torch.zeros(1, 4, 4, dtype=torch.bool)
    shows[0, 1, 1] = shows[0, 3, 3] = True
    source = transport(patches, shows)
    assert source[0, 5] == 0
    assert source[0, 15] == 15


def test_blocks_are_moved_as_told():
    images = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    source = torch.tensor([[3, 1, 2, 0], [0, 0, 2, 3]])
    moved = move_blocks(images, source)
    torch.testing.assert_close(moved[0, :, :2, :3], images[0, :, 2:, 3:])
    torch.testing.assert_close(moved[0, :, 2:, 3:], images[0, :, :2, :3])
    torch.testing.assert_close(moved[1, :, :2, 3:], images[1, :, :2, :3])
    torch.testing.assert_close(moved[1, :, 2:], images[1, :, 2:])
    assert images[0, 0, 0, 0] == 0


# The method


class Tiny(nn.Sequential):
    def __init__(self, size: int = 16) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * size**2, 5))


@PROPERTY
@given(SEEDS, st.sampled_from(SIDES), st.floats(0, 1), st.integers(1, 7), st.booleans())
def test_label_weights_are_pixel_shares(seed, side, lam, batch, moving):
    """Images of constant colour: the mixed pixels' mean is the targets'."""
    rng = np.random.default_rng(seed)
    colours = torch.tensor(rng.random(batch)).float()
    images = colours[:, None, None, None].expand(batch, 3, 32, 32)
    labels = torch.arange(batch)
    map = torch.tensor(rng.exponential(size=(batch, 32, 32)) ** 4).float()
    pairing = Pairing(torch.tensor(rng.permutation(batch)), lam, side)
    mixed = PuzzleMix(transport=moving).apply(images, labels, map, pairing, num_classes=batch)
    torch.testing.assert_close(mixed.images.mean((1, 2, 3)), mixed.targets @ colours, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(batch), atol=1e-6, rtol=0)


def test_what_is_salient_is_shown():
    """Own saliency in the left half, the partner's in the right one: halves, without a way to go."""
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    map = torch.zeros(2, 16, 16)
    map[0, :, :8] = map[1, :, 8:] = 1
    mixed = PuzzleMix().apply(images, torch.tensor([0, 1]), map, Pairing(torch.tensor([1, 0]), 0.5, 2), num_classes=2)
    expected = torch.zeros(3, 16, 16)
    expected[:, :, 8:] = 1
    torch.testing.assert_close(mixed.images, torch.stack([expected, expected]))
    torch.testing.assert_close(mixed.targets, torch.full((2, 2), 0.5))


def test_moved_blocks_are_in_the_mixed_image():
    """Pixels of an image with lam = 1, or of its partner with lam = 0, stay where they are; nothing is lost without the mask."""
    rng = np.random.default_rng(3)
    images, map = torch.tensor(rng.normal(size=(6, 3, 32, 32))).float(), torch.tensor(rng.random((6, 32, 32))).float()
    partner = torch.tensor([3, 4, 5, 0, 1, 2])
    for lam, expected in ((1.0, images), (0.0, images[partner])):
        mixed = PuzzleMix(eta=100.0).apply(images, torch.arange(6), map, Pairing(partner, lam, 8), num_classes=6)
        torch.testing.assert_close(mixed.images, expected)


def test_lam_and_blocks_follow_their_distributions(monkeypatch):
    drawn = []
    apply = PuzzleMix.apply

    def record(self, images, labels, map, pairing, *, num_classes):
        drawn.append(pairing)
        return apply(self, images, labels, map, pairing, num_classes=num_classes)

    monkeypatch.setattr(PuzzleMix, "apply", record)
    generator, method, model = torch.Generator().manual_seed(0), PuzzleMix(alpha=0.5, transport=False), Tiny()
    for _ in range(200):
        method(model, torch.zeros(2, 3, 16, 16), torch.tensor([0, 1]), num_classes=5, generator=generator)
    assert scipy.stats.kstest([pairing.lam for pairing in drawn], scipy.stats.beta(0.5, 0.5).cdf).pvalue > 0.01
    counts = [sum(pairing.num_patches == side for pairing in drawn) for side in SIDES]
    assert scipy.stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("batch", [1, 5])
def test_the_same_generator_gives_the_same_batch(batch):
    torch.manual_seed(1)
    model, images, labels = Tiny(), torch.randn(batch, 3, 16, 16), torch.arange(batch)
    state = torch.get_rng_state()
    first, second = (
        PuzzleMix()(model, images, labels, num_classes=5, generator=torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.targets, second.targets)
    assert torch.equal(torch.get_rng_state(), state)
    assert model[1].weight.grad is None


def test_a_batch_of_one_is_its_own_partner():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 16, 16)
    mixed = PuzzleMix(transport=False)(Tiny(), images, torch.tensor([2]), num_classes=5)
    torch.testing.assert_close(mixed.images, images)
    torch.testing.assert_close(mixed.targets, torch.eye(5)[[2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_patches": ()}, "num_patches must be one or more"),
        ({"num_patches": (1, 2)}, "num_patches must be one or more"),
        ({"alpha": 0.0}, "alpha must be above 0, got 0"),
        ({"alpha": float("nan")}, "alpha must be finite and above 0"),
        ({"beta": -1.0}, "beta must be at least 0, got -1"),
        ({"gamma": -1.0}, "gamma must be at least 0"),
        ({"eta": float("inf")}, "eta must be finite and at least 0"),
        ({"distance_cost": -0.1}, "distance_cost must be at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PuzzleMix(**options)


def test_blocks_that_do_not_divide_the_image_are_refused():
    """All that may be drawn are looked at, in every call."""
    for _ in range(8):
        with pytest.raises(ValueError, match=r"num_patches must divide the image size 16x16 under PuzzleMix, got 3, 32$"):
            PuzzleMix(num_patches=(2, 3, 32))(Tiny(), torch.zeros(2, 3, 16, 16), torch.tensor([0, 1]), num_classes=5)


def test_three_steps_on_digits():
    training = Training(rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1))
    for _ in range(3):
        training.fit_step(PuzzleMix())
    assert np.isfinite(training.epoch_metrics()["train_loss"])
