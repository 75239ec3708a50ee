"""Partners that are chosen: those who ask for it are paired so that their salient patches lie apart, everyone else as chance has it."""

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rlmix.mixing.core import Pairing


def rearrange(pairing: Pairing, apart: Bool[Tensor, " batch"], patches: Float[Tensor, "batch patch patch"]) -> Pairing:
    """Pair anew, the images of either choice among themselves; the partners are a permutation again.

    On a GPU the host waits for the choices and the maps of those who chose so.

    Args:
        pairing: As drawn.
        apart: Who is to have a partner whose saliency lies apart from its own.
        patches: Saliency of each patch, of any scale an image.

    Returns:
        The same with other partners: of the rest, whoever comes next in the drawn permutation, so that theirs are as evenly drawn. An
        image that is alone in its choice is its own partner, and stays as it is.
    """
    partner = next_among(pairing.partner, ~apart)
    members = apart.nonzero()[:, 0]
    return pairing._replace(partner=partner.index_put((members,), members[least_overlap(patches[members])]))


def next_among(partner: Int[Tensor, " batch"], members: Bool[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Follow a permutation from each member to the next one: of the members a permutation again.

    Pointer jumping: after n rounds 2^n steps are looked at, without a number read. What is found for others means nothing.
    """
    following = partner
    for _ in range(len(partner).bit_length()):
        following = torch.where(members[following], following, following[following])
    return following


def least_overlap(patches: Float[Tensor, "batch patch patch"]) -> Int[Tensor, " batch"]:
    """Give each image another one as its partner, each once, so that their maps overlap least: the least ``sum_i sum_p m_i m_partner(i)``.

    GuidedMixup's aim (Kang and Kim 2023), which pairs greedily by distance; this is the exact least assignment. Maps count by their
    shares, which sum to 1.
    """
    shares = patches.flatten(1).cpu().double()
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-12)
    overlap = shares @ shares.T
    overlap.fill_diagonal_(2.0 * len(overlap))  # more than all others together, for an overlap is at most 1
    return torch.from_numpy(linear_sum_assignment(overlap.numpy())[1]).to(patches.device)
