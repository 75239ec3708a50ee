"""An epoch's record: figures of hand-made choices and rewards, alone and in parts."""

import math
from types import SimpleNamespace

import pytest
import torch

from rlmix.common.ranks import Ranks
from rlmix.envs.record import EpochRecord
from rlmix.mixing.actions import Action

NAN = float("nan")
STEPS = (([0.5, NAN, 0.25], [0.0, 0.3, 0.9]), ([1.0, 0.0, 0.75], [0.6, 0.6, 0.3]))


def filled(measured=True):
    record = EpochRecord(measured)
    for rewards, top_k in STEPS:
        record.add(torch.tensor(rewards), Action(torch.tensor(top_k), apart=torch.tensor([True, False, False])))
    return record


def test_means_leave_out_what_counts_for_nothing():
    rewards = [0.5, 0.25, 1.0, 0.0, 0.75]
    figures = filled().means(Ranks())
    assert figures["reward_mean"] == pytest.approx(0.5)
    assert figures["reward_std"] == pytest.approx(math.sqrt(sum((reward - 0.5) ** 2 for reward in rewards) / 5))
    assert figures["top_k_mean"] == pytest.approx(2.7 / 6)
    assert figures["apart_mean"] == pytest.approx(1 / 3)


def test_the_last_steps_have_figures_of_their_own():
    assert filled().last_means(1, Ranks()) == pytest.approx({"reward": 1.75 / 3, "top_k": 0.5})
    assert filled().last_means(2, Ranks()) == pytest.approx({"reward": 0.5, "top_k": 0.45})


def test_nothing_is_told_of_a_reward_that_is_not_measured():
    assert list(filled(measured=False).means(Ranks())) == ["top_k_mean", "apart_mean"]
    assert list(filled(measured=False).last_means(1, Ranks())) == ["top_k"]


def test_a_new_epoch_knows_nothing_of_the_last():
    record = filled()
    record.begin()
    assert record.top_k(Ranks()).tolist() == []
    record.add(torch.tensor([0.1, 0.3]), Action(torch.tensor([0.2, 0.4])))
    assert record.means(Ranks()) == pytest.approx({"reward_mean": 0.2, "reward_std": 0.1, "top_k_mean": 0.3})


def test_what_is_loaded_is_what_was_saved():
    record = EpochRecord(True)
    record.load_state_dict(filled().state_dict(Ranks()), Ranks(), torch.device("cpu"))
    assert record.means(Ranks()) == filled().means(Ranks())
    assert torch.equal(record.top_k(Ranks()), filled().top_k(Ranks()))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_several_ranks_divide_what_one_has_saved(size):
    """Each has a part of every step, and all of them together the whole; the parts of a state saved by as many are those they had."""
    state, parts = filled().state_dict(Ranks()), []
    for rank in range(size):
        record, ranks = EpochRecord(True), SimpleNamespace(rank=rank, size=size)
        record.load_state_dict(state, ranks, torch.device("cpu"))
        parts.append(record.state_dict(Ranks()))
    for column, name in enumerate(("rewards", "top_k")):
        together = torch.cat([part[name].view(2, -1) for part in parts], 1)
        torch.testing.assert_close(together, torch.tensor([step[column] for step in STEPS]), equal_nan=True)
    saved = {"rewards": torch.arange(6.0).view(2, 3), "top_k": torch.zeros(2, 3)}
    record = EpochRecord(True)
    record.load_state_dict(saved, SimpleNamespace(rank=1, size=2), torch.device("cpu"))
    assert record.state_dict(Ranks())["rewards"].tolist() == [[3.0, 4.0, 5.0]]


@pytest.mark.parametrize("saved", [1, 2])
@pytest.mark.parametrize("loaded", [1, 2])
def test_the_last_steps_are_the_same_after_a_load(saved, loaded):
    """On as many ranks or others, each of which has a part of every step: rank by rank, a step's images are those of the batch."""
    steps = torch.arange(24.0).view(3, 8) ** 2
    state = {
        "rewards": torch.stack([part.flatten() for part in steps.chunk(saved, 1)]),
        "top_k": torch.stack([part.flatten() for part in (steps / 1000).chunk(saved, 1)]),
        "recorded_steps": 3,
    }
    for last in (1, 2, 3):
        found = []
        for rank in range(loaded):
            record = EpochRecord(True)
            record.load_state_dict(state, SimpleNamespace(rank=rank, size=loaded), torch.device("cpu"))
            figures = record.last_means(last, Ranks())
            part = steps.chunk(loaded, 1)[rank][-last:]
            assert figures == pytest.approx({"reward": float(part.mean()), "top_k": float(part.mean()) / 1000})
            found.append(figures["reward"])
        assert sum(found) / loaded == pytest.approx(float(steps[-last:].mean()))


def test_the_last_steps_are_the_same_in_a_copy_and_go_on():
    record = EpochRecord(True)
    record.load_state_dict(filled().state_dict(Ranks()), Ranks(), torch.device("cpu"))
    assert record.last_means(1, Ranks()) == pytest.approx({"reward": 1.75 / 3, "top_k": 0.5})
    record.add(torch.tensor([0.0, 0.0, 0.5]), Action(torch.tensor([0.1, 0.1, 0.1])))
    assert record.last_means(2, Ranks()) == pytest.approx({"reward": 2.25 / 6, "top_k": 0.3})
    assert record.means(Ranks())["reward_mean"] == pytest.approx(3 / 8)


def test_a_state_of_before_the_first_step_or_of_before_steps_were_counted_is_taken():
    record = EpochRecord(True)
    record.load_state_dict(EpochRecord(True).state_dict(Ranks()), Ranks(), torch.device("cpu"))
    rewards, top_k = map(torch.tensor, STEPS[1])
    record.add(rewards, Action(top_k))
    assert record.last_means(1, Ranks()) == pytest.approx({"reward": 1.75 / 3, "top_k": 0.5})
    state = filled().state_dict(Ranks())
    del state["recorded_steps"]
    record.load_state_dict(state, Ranks(), torch.device("cpu"))
    assert record.means(Ranks()) == filled().means(Ranks())
