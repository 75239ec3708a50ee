"""Co-Mixup against the published iteration written with SciPy, and against NumPy loops written from the energy."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from torch import nn

import rlmix
from rlmix.mixing import comixup
from rlmix.mixing.comixup import CoMixup, Weights, collage, compatibility, match, salient_places, sample_prior, solve
from rlmix.mixing.core import Mixed
from rlmix.mixing.objective import Objective
from rlmix.training.trainer import Training

EDGES = [(4 * r + c, 4 * r + c + 1) for r in range(4) for c in range(3)] + [(s, s + 4) for s in range(12)]
NEAR = [[q for edge in EDGES for q in edge if s in edge and q != s] for s in range(16)]

# Energies of the published iteration on instance(0) ... instance(99): `published` below, 3 s each; a test computes some again.
# fmt: off
PUBLISHED = np.array([
        -8.118, -17.899, -20.649, -18.651, -22.252, -17.515, -18.511, -21.020, -24.290, -4.019, -14.630, 11.631,
        -18.443, -21.076, 8.409, -18.217, -17.627, -12.526, -0.274, -9.736, -22.388, -13.953, -11.571, -13.356,
        2.878, -23.570, -21.709, -13.279, -14.440, -4.100, -15.529, -16.586, -13.973, -2.152, -7.999, -15.378,
        -4.158, -8.091, -13.108, 0.430, 5.985, -20.386, -19.247, 5.158, -21.666, -12.850, -17.739, -1.107,
        -8.539, -22.633, -7.931, 2.877, -10.265, -21.421, 19.451, -15.560, -19.751, 3.934, -6.750, -16.263,
        -15.661, -5.840, -11.646, -10.766, -18.298, -11.131, -14.248, -0.487, -13.535, -4.512, -5.812, 10.954,
        -22.268, -1.816, -3.569, -12.760, -18.545, -22.614, -21.980, -16.760, -18.344, -15.274, -8.241, -1.366,
        -9.663, -7.410, -4.844, -14.096, 3.702, -22.821, -21.921, -13.898, -7.762, -12.742, 23.309, -12.920,
        -15.811, 1.944, -6.568, -9.646,
])
# fmt: on


def instance(seed: int, count: int = 20, size: int = 32):
    """Costs (n, 16) and A (n, n) of a group: noisy saliency maps with a bump each, a drawn prior."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    maps = np.empty((count, size, size))
    for k in range(count):
        centre_y, centre_x = draw.uniform(4, 28, 2)
        width = draw.uniform(4, 12)
        bump = np.exp(-((y - centre_y) ** 2 + (x - centre_x) ** 2) / 2 / width**2) + draw.uniform(0.05, 0.6)
        maps[k] = bump * draw.gamma(2.0, 1, (size, size))
    pooled = maps.reshape(count, 4, 8, 4, 8).mean((2, 4)).reshape(count, 16)
    prior = draw.dirichlet(np.full(count, 2.0))
    cost = -pooled / pooled.sum(1, keepdims=True) - 0.05 / 16 * np.log(prior + 1e-8)[:, None]
    sums = np.cumsum(np.cumsum(np.pad(maps, ((0, 0), (1, 0), (1, 0))), 1), 2)
    windows = sums[:, 8:, 8:] - sums[:, :-8, 8:] - sums[:, 8:, :-8] + sums[:, :-8, :-8]
    peaks = np.stack(np.unravel_index(windows.reshape(count, -1).argmax(1), windows.shape[1:]), 1)
    distance = np.abs(peaks[:, None] - peaks).sum(2)
    return cost, 0.999 * np.eye(count) + 0.001 * distance / distance.sum() * count


def energy(cost, compatible, z, beta=0.32, gamma=1.0, tau=0.83):
    """The energy of a group's labellings z (outputs, sites, inputs), term by term as in the docstring of CoMixup."""
    count, sites = cost.shape
    side = round(sites**0.5)
    total = 0.0
    patches = z.sum(1)
    for i in range(count):
        total += (z[i] * cost.T).sum()
        for s in range(sites):
            for t in [s + 1] * (s % side < side - 1) + [s + side] * (s + side < sites):
                total += beta / sites * ((z[i, s] - z[i, t]) ** 2).sum() / 2
        load = compatible @ (patches.sum(0) - patches[i])
        total += gamma / sites * (patches[i] * load * (load > tau * sites)).sum()
    return total


def swapped(labels, unary, distance, a, b):
    """The best labelling in which sites labelled a or b may change to the other: a minimum cut."""
    sites = np.flatnonzero((labels == a) | (labels == b))
    place = {s: i for i, s in enumerate(sites)}
    source, sink = len(sites), len(sites) + 1
    cost_a, cost_b = unary[sites, a].copy(), unary[sites, b].copy()
    rows, columns, capacity = [], [], []
    for s in sites:
        for t in NEAR[s]:
            if t in place:
                rows, columns, capacity = [*rows, place[s]], [*columns, place[t]], [*capacity, distance[a, b]]
            else:
                cost_a[place[s]] += distance[a, labels[t]]
                cost_b[place[s]] += distance[b, labels[t]]
    least = np.minimum(cost_a, cost_b)
    own = list(range(len(sites)))
    rows, columns = rows + [source] * len(sites) + own, columns + own + [sink] * len(sites)
    capacity = np.rint(np.concatenate((capacity, cost_b - least, cost_a - least)) * 2**22).astype(np.int32)
    graph = csr_matrix((capacity, (rows, columns)), (sink + 1, sink + 1))
    residual = graph - maximum_flow(graph, source, sink).flow
    residual.data = np.maximum(residual.data, 0)
    residual.eliminate_zeros()
    reached = breadth_first_order(residual, source, return_predecessors=False)
    changed = labels.copy()
    changed[sites] = np.where(np.isin(own, reached), a, b)
    return changed


def alpha_beta_swap(unary, distance):
    """Swaps of all pairs of labels, again and again until none lowers the energy."""

    def value(labels):
        return unary[np.arange(16), labels].sum() + sum(distance[labels[s], labels[t]] for s, t in EDGES)

    def can_gain(labels, a, b):  # not if no site gains by leaving even if all its neighbours followed
        sites = np.flatnonzero((labels == a) | (labels == b))
        leave = [unary[s, labels[s]] - unary[s, a + b - labels[s]] + distance[labels[s], labels[NEAR[s]]].sum() for s in sites]
        return max(leave, default=0) > 1e-12

    labels = np.zeros(16, int)
    best, before = value(labels), np.inf
    while best < before - 1e-9:
        before = best
        for a, b in itertools.combinations(range(unary.shape[1]), 2):
            if can_gain(labels, a, b):
                changed = swapped(labels, unary, distance, a, b)
                if value(changed) < best - 1e-9:
                    labels, best = changed, value(changed)
    return labels


def published(cost, compatible, seed, beta=0.32, gamma=1.0, tau=0.83, rounds=4):
    """Four rounds over the outputs from a random start: unary costs and a modular penalty, solved by alpha-beta swap.

    From the second round on there are labels that two of an output's two or three largest inputs share.
    """
    count = len(cost)
    eye = np.eye(count)
    z = eye[np.random.default_rng(seed).integers(0, count, (count, 16))]
    for turn in range(rounds):
        for i in range(count):
            patches = z[i].sum(0)
            others = z.sum((0, 1)) - patches
            penalty = 2 * gamma / 16 * (compatible @ ((compatible @ others > tau * 16) * others))
            unary, labels, distance = (cost + penalty[:, None]).T, eye, 1 - eye
            if turn > 0 and (patches > 0).sum() > 1:
                largest = np.sort(np.argsort(-patches, kind="stable")[: min(3, (patches > 0).sum())])
                shared = np.array([(eye[k] + eye[m]) / 2 for k, m in itertools.combinations(largest, 2)])
                labels = np.concatenate((eye, shared))
                unary = np.concatenate((unary, unary @ shared.T - 5e-4), 1)
                distance = 1 - np.eye(len(labels))
                distance[count:, :count][shared > 0] = distance[:count, count:][shared.T > 0] = 0.25
            z[i] = labels[alpha_beta_swap(unary, beta / 16 * distance)]
    return z


def torch_instances(seeds):
    costs, compatibles = zip(*map(instance, seeds), strict=True)
    return torch.tensor(np.stack(costs)).float().unflatten(2, (4, 4)), torch.tensor(np.stack(compatibles)).float()


def weights_of(sources, count):
    """Pairs of inputs (..., p, p, 2) as labellings (..., sites, inputs)."""
    return torch.eye(count)[sources].mean(-2).flatten(-3, -2).double().numpy()


@pytest.fixture(scope="module")
def solved():
    return weights_of(solve(*torch_instances(range(100))), 20)


def test_energy_against_the_published_iteration(solved):
    ours = np.array([energy(*instance(seed), solved[seed]) for seed in range(100)])
    gap = (ours - PUBLISHED) / np.abs(PUBLISHED)
    assert gap.max() < 0.01
    assert ours.mean() < PUBLISHED.mean() - 5


def test_published_energies_are_those_of_the_iteration():
    assert energy(*instance(7), published(*instance(7), 7)) == pytest.approx(PUBLISHED[7], abs=1e-3)


def test_outputs_are_as_rich_as_the_published_ones(solved):
    inputs = (solved.sum(2) > 0).sum(2).mean()
    shared = (solved == 0.5).any(3).mean()
    assert 2.3 < inputs < 3.0  # the published iteration: 2.50 inputs an output
    assert 0.12 < shared < 0.22  # 0.169 of the patches shared


def test_no_load_above_the_threshold(solved):
    patches = solved.sum(2)
    load = patches.sum(1, keepdims=True) - patches
    assert (load[patches > 0] <= 0.83 * 16).all()


def test_halves_are_of_two_inputs_and_weights_are_a_distribution(solved):
    assert set(np.unique(solved)) == {0, 0.5, 1}
    np.testing.assert_array_equal(solved.sum(3), 1)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 7),
    num_patches=st.integers(1, 5),
    beta=st.floats(0, 2),
    gamma=st.floats(0, 2),
    tau=st.floats(0, 2),
)
def test_every_sweep_lowers_the_energy(seed, count, num_patches, beta, gamma, tau):
    draw = np.random.default_rng(seed)
    cost = -draw.dirichlet(np.ones(num_patches**2), count)
    start = torch.tensor(cost).float().reshape(1, count, num_patches, num_patches)
    weights = Weights(beta, gamma, tau)
    energies = []
    for sweeps in range(5):
        z = weights_of(solve(start, torch.eye(count)[None], weights, sweeps), count)[0]
        energies.append(energy(cost, np.eye(count), z, *weights))
    assert (np.diff(energies) <= 1e-5).all()


def test_the_best_collage_of_two_images():
    saliency = torch.tensor([[0.0, 0, 1, 1], [1, 1, 0, 0]]).repeat_interleave(4, 0).reshape(2, 4, 4) / 8
    sources = solve(-saliency[None], torch.eye(2)[None])
    want = (saliency[0] == 0).long()
    assert torch.equal(sources[0, 0, ..., 0], want)
    assert torch.equal(sources[0, 0], sources[0, 1])


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 20), rounds=st.integers(0, 20))
def test_matching_is_a_permutation(seed, count, rounds):
    benefit = torch.rand(3, count, count, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(match(benefit, rounds).sort(1).values, torch.arange(count).expand(3, -1))


def test_matching_against_scipy():
    benefit = torch.rand(50, 20, 20, generator=torch.Generator().manual_seed(0)) * 0.6
    ours = benefit.gather(2, match(benefit)[..., None]).sum((1, 2)).numpy()
    best = np.array([b[linear_sum_assignment(b, maximize=True)].sum() for b in benefit.numpy()])
    assert (ours <= best + 1e-4).all()
    assert ours.mean() > 0.95 * best.mean()


def test_compatibility_against_loops():
    map = torch.rand(2 * 3, 12, 12, generator=torch.Generator().manual_seed(0))
    peaks = salient_places(map, 3)
    for k, (row, column) in enumerate(peaks.long().tolist()):
        sums = {(r, c): map[k, r : r + 3, c : c + 3].sum() for r in range(10) for c in range(10)}
        assert (row, column) == max(sums, key=sums.get)
    got = compatibility(peaks.reshape(2, 3, 2), 0.25)
    for g in range(2):
        place = peaks.reshape(2, 3, 2)[g].tolist()
        distance = np.array([[abs(a - c) + abs(b - d) for c, d in place] for a, b in place])
        np.testing.assert_allclose(got[g], 0.75 * np.eye(3) + 0.25 * distance / distance.sum() * 3, atol=1e-6)


def test_compatibility_where_all_peaks_coincide():
    torch.testing.assert_close(compatibility(torch.ones(1, 4, 2), 0.5), torch.eye(4)[None] / 2)


def test_collage_against_loops():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(5, 3, 8, 8, generator=generator), torch.randint(4, (5,), generator=generator)
    sources = torch.randint(5, (5, 4, 4, 2), generator=generator)
    mixed = collage(images, labels, sources, num_classes=4)
    targets = torch.zeros(5, 4)
    for i, y, x in itertools.product(range(5), range(8), range(8)):
        first, second = sources[i, y // 2, x // 2].tolist()
        torch.testing.assert_close(mixed.images[i, :, y, x], (images[first, :, y, x] + images[second, :, y, x]) / 2)
        for k in (first, second):
            targets[i, labels[k]] += 1 / 128
    torch.testing.assert_close(mixed.targets, targets)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6), batch=st.integers(1, 23), group_size=st.integers(1, 20), num_patches=st.sampled_from([1, 2, 4])
)
def test_targets_are_the_pixel_shares(seed, batch, group_size, num_patches):
    generator = torch.Generator().manual_seed(seed)
    map = torch.rand(batch, 8, 8, generator=generator) ** 3
    colours = F.one_hot(torch.arange(batch), batch).float()[:, :, None, None].expand(-1, -1, 8, 8)  # channel k is on in image k
    method = CoMixup(group_size, num_patches)
    mixed = method.apply(colours, torch.arange(batch), map, sample_prior(batch, group_size, 2.0, generator), num_classes=batch)
    assert (mixed.images.mean((2, 3)) - mixed.targets).abs().max() <= 1e-6
    assert (mixed.targets.sum(1) - 1).abs().max() <= 1e-6
    group = torch.arange(batch) // group_size
    assert mixed.targets[group[:, None] != group].eq(0).all()


def test_an_image_alone_in_its_group_stays():
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for batch, size in ((1, 20), (5, 4), (5, 1)):
        mixed = CoMixup(group_size=size).apply(
            images[:batch], torch.zeros(batch, dtype=torch.int64), images[:batch, 0].abs(), torch.ones(batch), num_classes=2
        )
        alone = slice(batch - 1, None) if size > 1 else slice(None)
        assert torch.equal(mixed.images[alone], images[:batch][alone])


def test_groups_do_not_depend_on_one_another():
    map = torch.rand(13, 8, 8, generator=torch.Generator().manual_seed(0)) ** 3
    prior = sample_prior(13, 5, 2.0, torch.Generator().manual_seed(1))
    method = CoMixup(group_size=5)
    parts = [method.sources(map[start : start + 5], prior[start : start + 5]) + start for start in (0, 5, 10)]
    assert torch.equal(method.sources(map, prior), torch.cat(parts))


def test_flat_maps_give_valid_collages():
    sources = CoMixup().sources(torch.zeros(20, 8, 8), torch.full((20,), 0.05))
    patches = weights_of(sources, 20).sum(1)
    load = patches.sum(0) - patches
    assert (load[patches > 0] <= 0.83 * 16).all()


def test_layout_and_dtype_stay():
    images = torch.randn(20, 3, 8, 8).to(memory_format=torch.channels_last).bfloat16()
    mixed = CoMixup().apply(images, torch.arange(20), images[:, 0].abs().float(), torch.ones(20), num_classes=20)
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)
    assert mixed.images.dtype == torch.bfloat16
    assert mixed.targets.dtype == torch.float32


def test_prior_is_dirichlet():
    prior = sample_prior(20 * 500, 20, 2.0, torch.Generator().manual_seed(0)).reshape(500, 20)
    torch.testing.assert_close(prior.sum(1), torch.ones(500))
    assert stats.kstest(prior[:, 0].numpy(), stats.beta(2, 38).cdf).pvalue > 0.01
    assert stats.kstest(prior[:, 7].numpy(), stats.beta(2, 38).cdf).pvalue > 0.01
    assert sample_prior(23, 20, 2.0)[20:].sum().item() == pytest.approx(1)


def network():
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(96, 5),
    )
    return nn.Sequential(*layers)


def batch_of(size=23):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(size, 3, 8, 8, generator=generator), torch.randint(5, (size,), generator=generator)


def run(model, seed=0, **keywords):
    return CoMixup(**keywords)(model, *batch_of(), num_classes=5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("clean_lam", [1.0, 0.3])
def test_gradient_is_that_of_both_losses(clean_lam):
    images, labels = batch_of()
    model, plain = network(), network()
    objective = run(model, clean_lam=clean_lam)
    assert isinstance(objective, Objective)
    loss, _ = objective.score(model)
    loss.backward()

    mixed = run(network(), clean_lam=0.0)
    clean_loss = F.cross_entropy(plain(images), labels)  # the clean batch first: running statistics see it before the mixed one
    want = F.cross_entropy(plain(mixed.images), mixed.targets) + clean_lam * clean_loss
    want.backward()
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(objective.targets, mixed.targets)
    torch.testing.assert_close(objective.images, mixed.images)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("clean_lam", [1.0, 0.0])
def test_the_call_leaves_model_and_global_state_as_found(clean_lam):
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    run(model, clean_lam=clean_lam)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_one_pass_of_the_clean_batch():
    model = network()
    sizes = []
    model.register_forward_hook(lambda module, inputs, logits: sizes.append(len(inputs[0])))
    run(model).score(model)
    assert sizes == [23, 23]


def test_frozen_parameters_take_no_gradient():
    model = network()
    model[0].requires_grad_(False)
    run(model).score(model).loss.backward()
    assert model[0].weight.grad is None
    assert model[5].weight.grad is not None


def test_same_seed_same_result():
    results = [run(network(), seed=seed, clean_lam=0.0, eta=2.0) for seed in (0, 0, 1)]
    assert isinstance(results[0], Mixed)
    assert torch.equal(results[0].images, results[1].images)
    assert not torch.equal(results[0].images, results[2].images)


def test_the_saliency_of_the_clean_pass_is_the_library_s():
    model = network()
    torch.testing.assert_close(comixup.clean_pass(model, *batch_of()).map, rlmix.saliency(model, *batch_of()).map)


def test_three_steps_on_digits():
    training = Training(rlmix.Config.flat(data="digits", train_images=64, test_images=40, batch_size=16, epochs=1))
    method = CoMixup()
    for _ in range(3):
        training.fit_step(method)
    assert np.isfinite(training.epoch_metrics()["train_loss"])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"num_patches": 0}, "num_patches must be at least 1, got 0"),
        ({"sweeps": -1}, "sweeps must be at least 0, got -1"),
        ({"alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ({"beta": -1.0}, "beta must be at least 0, got -1.0"),
        ({"gamma": float("nan")}, "gamma must be finite and at least 0, got nan"),
        ({"eta": -1.0}, "eta must be at least 0, got -1.0"),
        ({"tau": -1.0}, "tau must be at least 0, got -1.0"),
        ({"clean_lam": -1.0}, "clean_lam must be at least 0, got -1.0"),
        ({"omega": 2.0}, r"omega must be in \[0, 1\], got 2.0"),
    ],
)
def test_parameters_out_of_range(keywords, message):
    with pytest.raises(ValueError, match=message):
        CoMixup(**keywords)


def test_patches_that_do_not_divide_the_image():
    with pytest.raises(ValueError, match="num_patches must divide the image size 8x8 under Co-Mixup, got 3"):
        run(network(), num_patches=3)
