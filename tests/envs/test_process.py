"""What the decision process tells of an epoch, and a policy that follows it without an environment."""

import pytest
import torch
from toys import toy_config

from rlmix.envs.process import MixingProcess
from rlmix.maps.gradient import patch_saliency
from rlmix.mixing.actions import Action


@pytest.fixture
def process(tmp_path):
    """Two epochs of three steps of four 8x8 images, five values to choose from: 0, 0.2475, 0.495, 0.7425 and 0.99."""
    process = MixingProcess(toy_config(tmp_path, 8, num_train=12, num_classes=3, batch_size=4, num_top_k=5))
    process.reset()
    return process


CHOICES = torch.tensor([[0.0, 0.1, 0.13, 0.25], [0.3, 0.36, 0.4, 0.5], [0.0, 0.6, 0.61, 0.25]])


def test_an_epoch_under_a_policy_tells_of_each_step_what_was_chosen_and_earned(process):
    decisions, heard = [], []

    def policy(decision):
        decisions.append(decision)
        return CHOICES[len(decisions) - 1]

    process.run_epoch(policy, lambda top_k, rewards: heard.append((top_k.clone(), rewards.clone())))
    assert len(decisions) == len(heard) == 3
    assert process.require_training().at_epoch_end
    for (top_k, rewards), chosen in zip(heard, CHOICES, strict=True):
        assert torch.equal(top_k, chosen)
        assert rewards.shape == (4,)
    assert process.epoch_metrics()["reward_mean"] == pytest.approx(float(torch.cat([rewards for _, rewards in heard]).mean()))


def test_a_policy_finishes_an_epoch_that_was_begun(process):
    process.act(CHOICES[0])
    process.run_epoch(lambda decision: CHOICES[1])
    assert process.require_training().global_step == 3
    assert torch.equal(process.epoch_top_k(), torch.cat([CHOICES[0], CHOICES[1], CHOICES[1]]))


def test_each_value_is_counted_even_if_nobody_chose_it_and_others_for_the_nearest(process):
    for top_k in CHOICES:
        process.act(top_k)
    assert process.epoch_top_k_counts() == [3, 5, 4, 0, 0]
    process.act(torch.full((4,), 0.99))
    assert process.epoch_top_k_counts() == [0, 0, 0, 0, 4], "of another epoch"


def test_nothing_is_told_of_an_epoch_that_has_not_begun(process):
    assert process.epoch_top_k().tolist() == []
    assert process.epoch_top_k_counts() == [0] * 5


def test_each_image_is_mixed_by_its_own_mask_and_its_partners(process):
    """Against the mask's definition in a loop: a patch is salient at or above the quantile of its own image."""
    decision = process.observe()
    top_k = torch.tensor([0.0, 0.4, 0.8, 0.99])
    process.act(top_k)
    outcome = process.outcome
    assert outcome.decision is decision
    assert torch.equal(outcome.top_k, top_k)
    for image in range(4):
        patches = patch_saliency(decision.saliency.map, decision.pairing.num_patches)[image]
        assert torch.equal(outcome.mask[image], patches >= torch.quantile(patches.flatten(), top_k[image]))
    share = {}
    for image, partner in enumerate(decision.pairing.partner.tolist()):
        own, theirs = outcome.mask[image], outcome.mask[partner]
        weight = torch.where(own == theirs, decision.pairing.lam, own.float())
        share[image] = weight.mean()
        weight = weight.repeat_interleave(8 // len(own), 0).repeat_interleave(8 // len(own), 1)
        mixed = weight * decision.batch.images[image] + (1 - weight) * decision.batch.images[partner]
        torch.testing.assert_close(outcome.mixed.images[image], mixed)
        labels = decision.batch.labels
        target = torch.eye(3)[labels[image]] * share[image] + torch.eye(3)[labels[partner]] * (1 - share[image])
        torch.testing.assert_close(outcome.mixed.targets[image], target)


def test_a_box_that_no_action_offers_is_refused_with_what_to_do(process):
    chosen = Action(torch.zeros(4), box=torch.tensor([0.0, 0.5, 0.5, 0.25]))
    for choose in (process.act, process.try_out):
        with pytest.raises(
            ValueError, match=r"action must be one with boxes, such as top_k_cut, where a box is chosen, got top_k$"
        ):
            choose(chosen)
    offering = MixingProcess(process.config.changed(action="top_k_cut"))
    offering.reset()
    assert offering.act(chosen).isfinite().all()
