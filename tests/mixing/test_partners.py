"""Partners that are chosen."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import NETWORK

import rlmix
from rlmix.agents.search import reward_table
from rlmix.mixing.actions import Action, action_table, arrange
from rlmix.mixing.core import Pairing
from rlmix.mixing.partners import least_overlap, next_among, rearrange


def by_hand(partner, members, start):
    """Follow the permutation, one image at a time."""
    now = partner[start]
    while not members[now]:
        now = partner[now]
    return now


@given(st.permutations(range(7)), st.lists(st.booleans(), min_size=7, max_size=7))
def test_the_next_member_is_found_and_members_are_permuted(partner, members):
    found = next_among(torch.tensor(partner), torch.tensor(members)).tolist()
    own = [image for image in range(7) if members[image]]
    assert [found[image] for image in own] == [by_hand(partner, members, image) for image in own]
    assert sorted(found[image] for image in own) == own


@pytest.mark.parametrize("seed", range(5))
def test_the_least_overlap_is_that_of_all_permutations_without_a_fixed_point(seed):
    maps = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(seed)) ** 4
    shares = (maps.flatten(1) / maps.flatten(1).sum(1, keepdim=True)).double()

    def overlap(partner):
        return sum(float(shares[image] @ shares[other]) for image, other in enumerate(partner))

    best = min((order for order in permutations(range(6)) if all(a != b for a, b in enumerate(order))), key=overlap)
    found = least_overlap(maps * torch.tensor([1, 10, 0.1, 1, 1, 7])[:, None, None])
    assert overlap(found.tolist()) == pytest.approx(overlap(best))


@given(st.permutations(range(6)), st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 99))
def test_each_kind_is_paired_among_its_own(partner, apart, seed):
    maps = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(seed))
    found = rearrange(Pairing(torch.tensor(partner), 0.3, 2), torch.tensor(apart), maps)
    assert sorted(found.partner.tolist()) == list(range(6))
    assert (found.lam, found.num_patches) == (0.3, 2)
    assert all(apart[image] == apart[other] for image, other in enumerate(found.partner.tolist()))
    if not any(apart):
        assert found.partner.tolist() == list(partner)


def test_without_such_a_choice_partners_are_as_drawn():
    pairing = Pairing(torch.tensor([1, 2, 0]), 0.3, 2)
    assert arrange(pairing, Action(torch.zeros(3)), torch.rand(3, 8, 8)) is pairing


def test_left_and_right_are_paired():
    """Two images with all saliency on the left, two on the right: whoever asks for it gets one of the other side, where there is one."""
    maps = torch.zeros(4, 8, 8)
    maps[:2, :, :4] = maps[2:, :, 4:] = 1
    drawn = Pairing(torch.tensor([1, 2, 3, 0]), 0.5, 2)
    found = arrange(drawn, Action(torch.zeros(4), apart=torch.tensor([True] * 4)), maps).partner.tolist()
    assert {*found[:2]} == {2, 3}
    assert {*found[2:]} == {0, 1}
    found = arrange(drawn, Action(torch.zeros(4), apart=torch.tensor([True, False, True, False])), maps).partner.tolist()
    assert found == [2, 3, 0, 1]


def test_the_process_mixes_and_pays_by_the_partners_that_were_chosen():
    """The outcome's pairing is what the images were made of, and half of a reward is that of the mixture one really is the partner in."""
    config = rlmix.Config.flat(
        data="digits", train_images=60, test_images=20, batch_size=20, epochs=1, model=NETWORK, action="top_k_partner",
        credit="pair", num_patches=(4,),
    )  # fmt: skip
    envs = rlmix.make_vec_env(config=config)
    envs.reset(seed=0)
    process = envs.process
    decision = process.observe()
    table = action_table("top_k_partner", 10)
    index = torch.arange(20) % len(table)
    chosen = table[index]
    alone = process.try_out(chosen)
    with pytest.raises(ValueError, match=r"^searched must be 0 where partners are chosen"):
        reward_table(process)
    paid = process.act(chosen)
    partner = process.outcome.pairing.partner
    assert not torch.equal(partner, decision.pairing.partner)
    assert bool((chosen.apart[partner] == chosen.apart).all())
    host = [partner.tolist().index(image) for image in range(20)]
    torch.testing.assert_close(paid, (alone + alone[host]) / 2, atol=1e-5, rtol=0)
    labels = decision.batch.labels
    targets = process.outcome.mixed.targets
    both = torch.nn.functional.one_hot(labels, 10) + torch.nn.functional.one_hot(labels[partner], 10)
    assert bool((targets[both == 0] == 0).all())
    assert process.epoch_metrics()["apart_mean"] == pytest.approx(float(chosen.apart.float().mean()))
