"""What may be chosen for an image, and what its mixture is then."""

import pickle
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import NETWORK

import rlmix
from rlmix.agents.policies import FunctionPolicy
from rlmix.experiments.reading import refusal
from rlmix.experiments.settings import settled
from rlmix.experiments.task import Task
from rlmix.experiments.train import train
from rlmix.mixing.actions import ACTIONS, LAMS, SIDES, Action, action_table, as_action, boxes, weigh
from rlmix.mixing.core import Pairing, mix, top_k_values

TINY = {"data": "digits", "train_images": 60, "test_images": 20, "batch_size": 20, "epochs": 1, "model": NETWORK, "device": "cpu"}
PAIRING = Pairing(torch.tensor([1, 2, 0, 3]), 0.3, 4)


def draw(size=8, number=4):
    return torch.rand(number, size, size, generator=torch.Generator().manual_seed(0))


def by_hand(map, top_k, side):
    """Which pixels of one map lie in a salient patch, by NumPy alone."""
    height, width = map.shape
    rows, columns = ([index * length // side for index in range(side + 1)] for length in (height, width))
    means = np.array([[map[a:b, c:d].mean() for c, d in pairwise(columns)] for a, b in pairwise(rows)])
    salient = means >= np.quantile(means, top_k) - 1e-7
    pixels = np.zeros(map.shape, bool)
    for row in range(side):
        for column in range(side):
            pixels[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = salient[row, column]
    return pixels


def test_tables_hold_every_choice_once():
    assert torch.equal(action_table("top_k", 5).top_k, top_k_values(5))
    table = action_table("top_k_mix", 5)
    assert len(table) == 6
    assert table.mixes.tolist() == [True] * 5 + [False]
    assert table.labels() == ["0.00", "0.25", "0.50", "0.74", "0.99", "not mixed"]
    table = action_table("top_k_cut", 5)
    assert table.box.square().tolist() == pytest.approx([0] * 5 + [0.1, 0.3, 0.5, 0.7, 0.9])
    said = ["0.00", "0.25", "0.50", "0.74", "0.99", "box of 10%", "box of 30%", "box of 50%", "box of 70%", "box of 90%"]
    assert table.labels() == said
    table = action_table("top_k_partner", 2)
    assert (table.top_k.tolist(), table.apart.tolist()) == (pytest.approx([0, 0.99] * 2), [False, False, True, True])
    assert table.labels() == ["0.00", "0.99", "0.00, apart", "0.99, apart"]
    assert action_table("top_k_lam", 2).labels()[4:6] == ["0.00, lam 0.9", "0.99, lam 0.1"]
    assert action_table("top_k_patches", 2).labels()[2:4] == ["0.00, 8 patches", "0.99, 2 patches"]
    assert Action(torch.tensor([0.5, 0.5]), mixes=torch.tensor([False, True])).labels() == ["not mixed", "0.50"]
    for name, column, values in (("top_k_lam", "lam", LAMS), ("top_k_patches", "num_patches", SIDES)):
        table = action_table(name, 3)
        chosen = {(round(float(a), 3), round(float(b), 3)) for a, b in zip(table.top_k, getattr(table, column), strict=True)}
        assert chosen == {(value, other) for value in (0.0, 0.495, 0.99) for other in values}
        assert len(table) == len(chosen) == len(set(table.labels()))


def test_rows_are_what_is_chosen_as_numbers():
    top_k, lam, mixes = torch.tensor([0.0, 0.5]), torch.tensor([0.1, 0.9]), torch.tensor([True, False])
    assert torch.equal(Action(top_k).rows, top_k)
    several = Action(top_k, lam=lam, mixes=mixes)
    assert torch.equal(several.rows, torch.tensor([[0.0, 0.1, 1.0], [0.5, 0.9, 0.0]]))
    assert several.simplest is several


def test_what_is_not_chosen_stays_as_it_was_drawn():
    """The paper's action mixes as the core does."""
    map, top_k, images = draw(), torch.tensor([0.0, 0.4, 0.7, 0.99]), torch.rand(4, 3, 8, 8)
    mask, weights = weigh(map, Action(top_k), PAIRING)
    expected = mix(images, torch.arange(4), mask, PAIRING.partner, 0.3, num_classes=4)
    own = weights.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    torch.testing.assert_close(own * images + (1 - own) * images[PAIRING.partner], expected.images)
    assert as_action(top_k).simplest is top_k


@pytest.mark.parametrize("size", [8, 12, 30])
def test_patches_a_side_and_lam_are_each_images_own(size):
    """Beside loops over pixels: an image's mixture reads its own and its partner's mask, cut as its own action says."""
    map = draw(size)
    action = Action(
        torch.tensor([0.2, 0.4, 0.7, 0.9]), lam=torch.tensor([0.1, 0.9, 0.5, 0.3]), num_patches=torch.tensor([2, 4, 8, 2])
    )
    _, weights = weigh(map, action, PAIRING)
    edges = [index * size // 8 for index in range(9)]
    for image, partner in enumerate(PAIRING.partner.tolist()):
        side, lam = int(action.num_patches[image]), float(action.lam[image])
        own, theirs = (by_hand(map[which].numpy(), float(action.top_k[which]), side) for which in (image, partner))
        expected = np.where(own == theirs, lam, own.astype(float))
        found = np.zeros((size, size))
        for row in range(8):
            for column in range(8):
                found[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = float(weights[image, row, column])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_that_is_not_mixed_is_itself_and_its_host_has_it():
    map, mixes = draw(), torch.tensor([True, False, True, True])
    top_k = torch.full((4,), 0.5)
    _, mixed = weigh(map, Action(top_k, mixes=mixes), PAIRING)
    _, plain = weigh(map, Action(top_k), PAIRING)
    assert bool((mixed[1] == 1).all())
    assert torch.equal(mixed[[0, 2, 3]], plain[[0, 2, 3]])


def test_a_partners_choice_may_be_another():
    map, own, theirs = draw(), torch.full((4,), 0.5), torch.tensor([0.0, 0.9, 0.0, 0.9])
    _, weights = weigh(map, Action(own), PAIRING, partner_top_k=theirs)
    for image, partner in enumerate(PAIRING.partner.tolist()):
        salient = [
            by_hand(map[image].numpy(), 0.5, 4)[::2, ::2],
            by_hand(map[partner].numpy(), float(theirs[image]), 4)[::2, ::2],
        ]
        np.testing.assert_allclose(weights[image], np.where(salient[0] == salient[1], 0.3, salient[0]), atol=1e-6)


def of_two_lengths():
    action = Action(torch.zeros(3))
    object.__setattr__(action, "lam", torch.zeros(2))
    return action


def test_boxes_are_those_of_loops():
    """Whole patches around the centre, cut off at the border, at least one a side."""
    side = torch.tensor([0.5, 0.1, 1.0, 0.75, 0.1])
    center = torch.tensor([[0.5, 0.5], [0.99, 0.0], [0.3, 0.6], [0.0, 0.95], [0.55, 0.55]])
    found = boxes(side, center, 8)
    for image in range(5):
        length = max(1, round(float(side[image]) * 8))
        first = [round(float(part) * 8 - length / 2) for part in center[image]]
        for row in range(8):
            for column in range(8):
                inside = all(start <= place < start + length for start, place in zip(first, (row, column), strict=True))
                assert bool(found[image, row, column]) == inside
    assert found[0].sum() == 16


def test_a_box_is_the_partners_and_its_share_the_labels():
    map, center = draw(), torch.full((4, 2), 0.5)
    action = Action(torch.full((4,), 0.5), box=torch.tensor([0.5, 0.0, 0.75, 0.0]))
    mask, weights = weigh(map, action, PAIRING, center=center)
    assert weights.shape == mask.shape == (4, 8, 8)
    assert weights.mean((1, 2))[[0, 2]].tolist() == pytest.approx([1 - 0.25, 1 - 0.75**2])
    assert bool((weights[0, 2:6, 2:6] == 0).all())
    _, plain = weigh(map, Action(torch.full((4,), 0.5)), PAIRING)
    assert torch.equal(weights[[1, 3]], plain[[1, 3]].repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_boxes_need_masks_that_the_finest_divide():
    with pytest.raises(ValueError, match=r"^num_patches must be of 1, 2, 4, 8 where a box may be chosen, got \(3,\)$"):
        rlmix.make_vec_env(config=rlmix.Config.flat(data="digits", action="top_k_cut", num_patches=(3,)))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (lambda num_top_k: torch.zeros(3), "must give an Action"),
        (lambda num_top_k: of_two_lengths(), "columns of one length"),
        (lambda num_top_k: Action(torch.ones(3)), r"a top_k in \[0, 1\)"),
        (lambda num_top_k: Action(torch.zeros(1), lam=torch.tensor([1.5])), r"a lam in \[0, 1\]"),
        (lambda num_top_k: Action(torch.zeros(1), num_patches=torch.tensor([3])), "num_patches of 2, 4, 8"),
    ],
)
def test_ones_own_is_told_what_is_wrong(own, words, monkeypatch):
    monkeypatch.setitem(globals(), "OWN", own)
    with pytest.raises(ValueError, match=words):
        action_table(f"{__name__}:OWN", 3)


@pytest.mark.parametrize("name", [*ACTIONS])
def test_an_environment_of_each_space(name):
    """What index means what is ``process.actions``; the mean of what was chosen is in the epoch's figures."""
    config = rlmix.Config.flat(
        data="digits", train_images=60, test_images=20, batch_size=20, epochs=1, model=NETWORK, action=name
    )
    envs = rlmix.make_vec_env(config=config)
    table = envs.process.actions
    assert envs.single_action_space.n == len(table)
    envs.reset(seed=0)
    index = np.arange(20) % len(table)
    rewards = envs.step(index)[1]
    assert np.isfinite(rewards).all()
    assert envs.process.outcome.top_k.tolist() == table.top_k[index].tolist()
    figures = envs.process.epoch_metrics()
    for column, values in table.others.items():
        assert figures[f"{column}_mean"] == pytest.approx(float(values[index].float().mean()), abs=1e-6)
    if name != "top_k":
        with pytest.raises(ValueError, match="action must be top_k where actions are continuous"):
            rlmix.make_vec_env(config=config, continuous=True)


def halves(decision):
    """A policy of one's own: boxes of half of a side for every other image."""
    box = 0.5 * (torch.arange(len(decision.patches)) % 2)
    return Action(torch.full((len(box),), 0.5), box=box)


def test_a_box_without_a_centre_is_refused():
    with pytest.raises(ValueError, match=r"^center must be given where a box may be chosen, got None$"):
        weigh(draw(), Action(torch.zeros(4), box=torch.ones(4)), PAIRING)


def test_a_policy_that_learned_with_boxes_has_them_elsewhere(tmp_path):
    """Its zip, or its run, decides in a process of the plain top-k values; a copy of it too."""
    train(rlmix.Config.flat(**TINY, method="rlmix", action="top_k_cut", out=tmp_path / "learned"), quiet=True)
    options = settled(rlmix.Config.flat(**TINY, method="policy", policy=str(tmp_path / "learned"), seed=1))
    task = Task(options)
    assert task.process.actions.box is None
    table = task.policy.actions
    process = pickle.loads(pickle.dumps(task.process))
    for each in (task.process, process):
        assert each.observe().center.shape == (20, 2)
        each.act(table[torch.full((20,), len(table) - 1)])
        share = 1 - each.outcome.mixed.targets.gather(1, each.outcome.decision.batch.labels[:, None])
        assert float(share.max()) > 0.3  # boxes of 95 % of the image, less what lies outside
    with pytest.raises(ValueError, match=r"^num_patches must be of 1, 2, 4, 8 where a box may be chosen, got \(3,\)$"):
        Task(options.changed(num_patches=(3,)))


def test_ones_own_policy_may_choose_boxes_in_their_action_space():
    config = rlmix.Config.flat(**TINY, method="policy", policy=f"{__name__}:halves")
    task = Task(settled(config))
    chosen = task.policy(task.process.observe())
    with pytest.raises(ValueError, match=r"^action must be one with boxes, such as top_k_cut, where a box is chosen, got top_k$"):
        task.process.act(chosen)
    task = Task(settled(config.changed(action="top_k_cut")))
    task.process.act(task.policy(task.process.observe()))
    assert task.process.epoch_metrics()["box_mean"] == pytest.approx(0.25)
    assert refusal(config.changed(action="top_k_cut"), "action") is None


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("lam", torch.full((4,), 1.5), r"must give a lam in \[0, 1\]"),
        ("box", torch.full((4,), -0.5), r"must give a box in \[0, 1\]"),
        ("box", torch.zeros(3), r"must give one box value an image, \(4,\), got \(3,\)"),
        ("num_patches", torch.full((4,), 3), r"must give num_patches of 2, 4, 8"),
        ("apart", torch.ones(4), r"must give apart as bool, got torch.float32"),
        ("mixes", torch.ones(4), r"must give mixes as bool, got torch.float32"),
    ],
)
def test_ones_own_policy_is_told_what_is_out_of_range(column, value, words):
    action = Action(torch.zeros(4))
    object.__setattr__(action, column, value)  # past the tests' own check of shapes
    policy = FunctionPolicy("mine", lambda decision: action)
    decision = SimpleNamespace(patches=torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match=f"^policy mine {words}"):
        policy(decision)
