"""The best choices, against trying out every combination; and policies on common random numbers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import toy_config

import rlmix
from rlmix.agents.measurement import closed_share, difference, try_policies
from rlmix.agents.policies import CoinPolicy, ConstantPolicy, FixedRandomPolicy
from rlmix.agents.search import best_constant, best_joint, reward_table
from rlmix.envs.process import MixingProcess
from rlmix.scripts import train as command


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> rlmix.Config:
    """Three epochs of three steps of four 8x8 images, on the classifier of a short run; three values to choose from."""
    folder = tmp_path_factory.mktemp("frozen")
    config = toy_config(folder, 8, num_train=12, num_classes=3, batch_size=4)
    options = ["--model", config.model.name, "--batch-size", "4", "--epochs", "1", "--device", "cpu", "--learning-rate", "0.05"]
    command.main(["--method", "vanilla", "--data", config.data.name, *options, "--out", str(folder / "run")])
    return config.changed(epochs=3, freeze_from=str(folder / "run"), num_top_k=3)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 5), values=st.integers(1, 3))
def test_joint_search_finds_what_trying_everything_finds(seed, batch, values):
    draw = np.random.default_rng(seed)
    table = torch.from_numpy(draw.random((batch, values, values)))
    partner = torch.from_numpy(draw.permutation(batch))
    found = best_joint(table, partner)
    every = {
        choice: np.mean([float(table[i, choice[i], choice[partner[i]]]) for i in range(batch)])
        for choice in itertools.product(range(values), repeat=batch)
    }
    assert found.reward == pytest.approx(max(every.values()))
    assert every[tuple(found.indices.tolist())] == pytest.approx(found.reward)


def test_joint_search_alternates_where_winners_need_losers():
    """Image i earns 1 where it has 0 and its partner 1: on a cycle of four, every second one wins."""
    table = torch.zeros(4, 2, 2)
    table[:, 0, 1] = 1
    found = best_joint(table, torch.tensor([1, 2, 3, 0]))
    assert found.reward == 0.5
    assert found.indices.tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])


def test_table_holds_what_equal_choices_bring_and_nothing_changes(frozen):
    process = MixingProcess(frozen)
    process.reset()
    decision = process.observe()
    table = reward_table(process)
    assert table.shape == (4, 3, 3)
    for index, value in enumerate(process.values):
        torch.testing.assert_close(table[:, index, index], process.try_out(value.expand(4)))
    best = best_constant(process)
    assert best.reward == pytest.approx(float(table.diagonal(dim1=1, dim2=2).max(1).values.mean()))
    assert best.indices.tolist() == np.argmax(table.diagonal(dim1=1, dim2=2).numpy(), 1).tolist()
    assert process.observe() is decision
    assert process.require_training().trained == 0


def test_choice_of_a_partner_is_the_partners_choice(frozen):
    """Trying out (own, partner's) choices that one batch can bring about gives that batch's rewards."""
    process = MixingProcess(frozen)
    process.reset()
    top_k = torch.tensor([0.0, 0.99, 0.495, 0.0])
    partner = process.observe().pairing.partner
    torch.testing.assert_close(process.try_out(top_k, top_k[partner]), process.try_out(top_k))


def test_trying_out_gives_the_rewards_of_acting(frozen):
    process = MixingProcess(frozen)
    process.reset()
    for _ in range(3):
        top_k = torch.tensor([0.0, 0.99, 0.495, 0.0])
        tried = process.try_out(top_k)
        torch.testing.assert_close(tried, process.act(top_k))


def test_policies_meet_the_same_batches_whatever_the_others_choose(frozen):
    def run(**policies):
        process = MixingProcess(frozen)
        process.reset()
        return try_policies(process, policies, num_batches=5, num_searched=2)

    alone = run(zero=ConstantPolicy(0.0))
    beside = run(uniform=FixedRandomPolicy(3, 0), coin=CoinPolicy(3, 0), zero=ConstantPolicy(0.0))
    np.testing.assert_array_equal(alone["zero"], beside["zero"])
    np.testing.assert_array_equal(alone["best joint"], beside["best joint"])
    assert np.isnan(alone["best joint"]).tolist() == [False, False, True, True, True]
    assert len(set(beside["zero"].tolist())) == 5
    assert (beside["best constant"][:2] >= beside["zero"][:2] - 1e-6).all()


def test_nothing_is_searched_unless_it_is_asked_for(frozen):
    process = MixingProcess(frozen)
    process.reset()
    assert list(try_policies(process, {"zero": ConstantPolicy(0.0)}, 2)) == ["zero"]


def test_policies_are_refused_where_the_classifier_trains(frozen):
    process = MixingProcess(frozen.changed(freeze_from=None))
    process.reset()
    with pytest.raises(ValueError, match="policies must be tried on a frozen classifier"):
        try_policies(process, {"zero": ConstantPolicy(0.0)}, 1)


def test_differences_are_those_of_a_paired_t_test_over_common_batches():
    draw = np.random.default_rng(0)
    first, second = draw.random(8), draw.random(8)
    second[5:] = np.nan
    found = difference(first, second)
    low, high = stats.ttest_rel(first[:5], second[:5]).confidence_interval(0.95)
    assert found == pytest.approx(((first[:5] - second[:5]).mean(), low, high))


def test_share_of_the_gap_is_over_the_searched_batches():
    uniform, ceiling = np.array([0.5, 0.5, 0.5]), np.array([0.7, 0.7, np.nan])
    assert closed_share(np.array([0.6, 0.6, 9.0]), uniform, ceiling) == pytest.approx(0.5)
    assert closed_share(ceiling, uniform, ceiling) == pytest.approx(1)


def test_coin_has_two_sides():
    policy = CoinPolicy(10, seed=0)

    class Decision:
        patches = torch.zeros(10_000, 8, 8)

    values, counts = policy(Decision()).unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, 0.99]))
    assert abs(int(counts[0]) - 5000) < 200  # four standard deviations
    assert CoinPolicy(1, seed=0)(Decision()).unique().tolist() == [0], "the one value there is"
