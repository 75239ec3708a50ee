"""PuzzleMix: which block of a pair shows which image is a graph cut, and what is salient moves to where it shows."""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from rlmix.common.groups import check_values
from rlmix.common.ranges import above, at_least
from rlmix.common.transfer import to_device
from rlmix.maps.composition import Pairs
from rlmix.maps.gradient import check_images, patch_saliency, saliency
from rlmix.maps.patches import check_dividing, enlarge
from rlmix.mixing.core import Mixed, Pairing, sample_pairing, soft_targets
from rlmix.mixing.graph_cut import Energy, minimise
from rlmix.mixing.objective import Composed
from rlmix.mixing.registry import METHODS, Setting, dividing

NEIGHBOURHOOD = 4  # pixels; images are averaged over squares of at most this side before their borders are compared


@METHODS.register("puzzlemix", reads=("saliency_mode",))
@dataclass(frozen=True)
class PuzzleMix:
    """Blocks of two images put together so that the mixed image shows what is salient in either.

    Images are cut into b x b blocks, b one of ``num_patches`` for a batch. With the blocks' saliency ``s`` (each image's sums
    to 1), ``lam ~ Beta(alpha, alpha)`` and a random partner, a pair's mask ``m = 1 - l / 2``, ``l`` in {0, 1, 2} a block, minimises

        sum_p m_p s_partner[p] + (1 - m_p) s_own[p] - eta / b^2 log Binomial(2 - l_p; 2, lam)
        + beta / (16 b) sum_pq [ (m_p - m_q)^2 + gamma D_pq(m_p, m_q) ]

    over blocks p and neighbours pq: a block shows what is salient, about lam of all of them the own image, and neighbours agree.
    ``D_pq`` says how badly the images fit at the border of two blocks, see :func:`mask_energy`. The mask is then fixed, and each
    image's blocks move to where it shows them if that is worth their way, see :func:`transport`. Mixed image
    ``m * own + (1 - m) * partner``, both as moved; the target weighs the two labels by the mean of m and of 1 - m.

    Args:
        num_patches: Blocks per side, one drawn a batch; at least 2, and each divides the image size.
        alpha: Parameter of ``lam ~ Beta(alpha, alpha)``, > 0.
        beta: Smoothness of the mask, >= 0.
        gamma: Weight of the fit at the borders, >= 0.
        eta: Weight of lam, >= 0.
        transport: Whether blocks move.
        distance_cost: What a block's way costs, in units of saliency, >= 0.

    Cost: 2 passes, a saliency pass and the training step's own, and a solver; in a training whose maps come from elsewhere
    (``--saliency-mode``) 1. A batch of one is its own partner: only its blocks may move. Odd batches are nothing special.

    Source: Kim, Choo and Song, "Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup" (ICML 2020) and its code.
    Different from that code, and why:

    - An alpha-beta swap on the host, image by image, is replaced by :func:`rlmix.mixing.graph_cut.minimise`: on the device, and
      no worse. Costs are not rounded to integers.
    - The saliency pass runs in the mode the model is in, not in eval mode, as for every method here.
    - Pixel differences are in units of the batch's range in each channel, which is that of bytes / 255 in nearly every batch: the
      images are normalised, and by what is not known here. Weights that become negative (gamma > 1) are cut at 0.
    - Where rounds of the transport end with a place that no block claims, it keeps its own block instead of becoming zero.
    - Its options for adversarial noise and for transport at another resolution than the mask's are left out; they are off by default.
    """

    num_patches: Annotated[tuple[int, ...], at_least(2)] = (2, 4, 8, 16)
    alpha: Annotated[float, above(0)] = 1.0
    beta: Annotated[float, at_least(0)] = 1.2
    gamma: Annotated[float, at_least(0)] = 0.5
    eta: Annotated[float, at_least(0)] = 0.2
    transport: bool = True
    distance_cost: Annotated[float, at_least(0)] = 0.8
    takes_maps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_patches", tuple(self.num_patches))
        check_values(self)

    @classmethod
    def for_training(cls, setting: Setting, **hyperparameters: Any) -> "PuzzleMix":
        """The paper's patches, those that divide the image."""
        return cls(**{"num_patches": dividing("puzzlemix", (2, 4, 8, 16), setting.image_size)} | hyperparameters)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed:
        """Mix a batch; see :class:`rlmix.mixing.objective.Method`."""
        pairing = self._draw(images, generator)
        return self.apply(images, labels, saliency(model, images, labels).map, pairing, num_classes=num_classes)

    def mix_by(
        self,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        map: Float[Tensor, "batch height width"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Composed:
        """Mix a batch by given maps; see :class:`rlmix.mixing.objective.Guided`."""
        return self.compose(images, labels, map, self._draw(images, generator), num_classes=num_classes)

    def _draw(self, images: Tensor, generator: torch.Generator | None) -> Pairing:
        check_images(images)
        check_dividing(self.num_patches, images.shape[2:], "PuzzleMix")
        return sample_pairing(len(images), self.num_patches, self.alpha, generator)

    def apply(
        self,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        map: Float[Tensor, "batch height width"],
        pairing: Pairing,
        *,
        num_classes: int,
    ) -> Mixed:
        """Mix by what has been drawn; deterministic."""
        return self.compose(images, labels, map, pairing, num_classes=num_classes).mixed

    def compose(
        self,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        map: Float[Tensor, "batch height width"],
        pairing: Pairing,
        *,
        num_classes: int,
    ) -> Composed:
        """Mix by what has been drawn, and say which block of which image shows where."""
        check_dividing(pairing.num_patches, images.shape[2:], "PuzzleMix")
        own = patch_saliency(map, pairing.num_patches)
        partner = to_device(pairing.partner, images.device)
        theirs = own[partner]
        energy = mask_energy(images, own, partner, pairing.lam, self.beta, self.gamma, self.eta)
        mask = 1 - minimise(energy).float() / 2
        others, source = images[partner], None
        if self.transport:
            shows = torch.cat([mask > 0, mask < 1])
            source = transport(torch.cat([own, theirs]), shows, self.distance_cost)
            images, others = move_blocks(torch.cat([images, others]), source).chunk(2)
            source = source.unflatten(0, (2, -1))
        pixels = enlarge(mask, images.shape[2:])[:, None].to(images.dtype)
        share = mask.mean((1, 2))[:, None]
        targets = soft_targets(labels, num_classes)
        mixed = Mixed(torch.lerp(others, images, pixels), share * targets + (1 - share) * targets[partner])
        return Composed(mixed, Pairs(mask, partner, source))


class Borders(NamedTuple):
    """Mean pixel difference across the border between blocks, upper against lower and left against right."""

    down: Float[Tensor, "batch edges columns"]
    right: Float[Tensor, "batch rows edges"]


def borders(
    first: Float[Tensor, "batch channel height width"], second: Float[Tensor, "batch channel height width"], num_patches: int
) -> Borders:
    """How much ``first``, above or left of a border, differs from ``second`` beyond it: absolute, averaged along the border."""
    down = _across(first, second, num_patches)
    right = _across(first.transpose(2, 3), second.transpose(2, 3), num_patches).transpose(1, 2)
    return Borders(down, right)


def _across(first: Tensor, second: Tensor, num_patches: int) -> Tensor:
    side = first.shape[2] // num_patches
    last, following = first[:, :, side - 1 :: side][:, :, :-1], second[:, :, side::side]
    return (last - following).abs().mean(1).unflatten(2, (num_patches, -1)).mean(3)


def mask_energy(
    images: Float[Tensor, "batch channel height width"],
    patches: Float[Tensor, "batch patch patch"],
    partner: Int[Tensor, " batch"],
    lam: float,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
) -> Energy:
    """The energy of PuzzleMix's masks, a pair each; see :class:`PuzzleMix`.

    For neighbours p, q that show images i, j of {own, partner}, ``D_pq`` is ``D_ij``, the mean absolute difference of i's pixels
    and j's across their border, but for a constant; between the two it is interpolated: linear in m_p and in m_q by
    half sums, and quadratic in ``m_p - m_q`` by ``(D_op + D_po - D_oo - D_pp) / 2``.

    Args:
        images: The batch.
        patches: Saliency of the blocks, b per side; each image's sums to 1.
        partner: Index of each image's partner in the batch.
        lam: Share of the own image that is expected, in [0, 1].
        beta: Smoothness, before it is divided by 16 b.
        gamma: Weight of ``D``.
        eta: Weight of lam.
    """
    num_patches = patches.shape[1]
    beta = beta / (16 * num_patches)
    lam = min(max(lam, 1e-4), 1 - 1e-4)  # beyond, the 1e-8 below would make the energy non-convex in the labels
    chances = (lam**2, 2 * lam * (1 - lam), (1 - lam) ** 2)
    prior = [-eta * math.log(chance + 1e-8) / num_patches**2 for chance in chances]

    images = images.float().contiguous()
    span = images.amax((2, 3)).amax(0) - images.amin((2, 3)).amin(0)
    images = images / span.clamp(min=torch.finfo(torch.float32).tiny)[:, None, None]
    pooled = F.avg_pool2d(images, _neighbourhood(images.shape[2] // num_patches, images.shape[3] // num_patches))
    others = pooled[partner]
    oo, op, po = (borders(a, b, num_patches) for a, b in ((pooled, pooled), (pooled, others), (others, pooled)))
    pp = Borders(oo.down[partner], oo.right[partner])

    own, theirs = patches[partner], patches.clone()  # what it costs to show one image is the saliency of the other
    weights = []
    for axis, (d_oo, d_op, d_po, d_pp) in enumerate(zip(oo, op, po, pp, strict=True), start=1):
        d_oo, d_op, d_po, d_pp = (beta * gamma / 2 * d for d in (d_oo, d_op, d_po, d_pp))
        first, second = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        own[first] += d_oo + d_op
        own[second] += d_oo + d_po
        theirs[first] += d_pp + d_po
        theirs[second] += d_pp + d_op
        weights.append((beta + d_op + d_po - d_oo - d_pp).clamp(min=0))
    unary = torch.stack([(1 - label / 2) * own + label / 2 * theirs + prior[label] for label in range(3)], 1)
    return Energy(unary, *weights)


def _neighbourhood(*sides: int) -> int:
    """The largest number up to 4 that divides a block's sides."""
    return max(n for n in range(1, NEIGHBOURHOOD + 1) if not any(side % n for side in sides))


def transport(
    patches: Float[Tensor, "batch patch patch"], shows: Bool[Tensor, "batch patch patch"], distance_cost: float = 0.8
) -> Int[Tensor, "batch blocks"]:
    """Where each place's block comes from, places and blocks numbered row by row.

    To put block i in place j costs ``distance_cost * |i - j|^2 / (b - 1)^2 - s_i * shows_j``, distances in blocks. In each of b
    rounds every block claims its cheapest place, of equals the nearest, of these the first; a place is won by its cheapest
    claim, of equals the first block's, and the losers never claim that place again.

    Only places that show matter, and there the resident's claim ``-s_j`` stands from round one: no claim above 0 can win. So a
    round looks only at blocks without a place that have one to gain from, which makes it cheap; the host reads how many they
    are. Beside the best assignment (Hungarian method) the gain lacks up to 2 % in the mean, 11 % at worst, where saliency and
    masks are random, and nothing with a classifier's saliency and its masks.

    Returns:
        Block ``source[k, j]`` of image k comes to place j; j itself where the place does not show.
    """
    batch, num_patches, _ = patches.shape
    blocks = num_patches**2
    order, cost = _nearest(num_patches, patches.device)
    cost = distance_cost * cost
    worth = patches.flatten().float()
    reach = int((cost.amin(0) < worth.max()).sum())  # no block gains anything farther away
    order, cost = order[:, :reach], cost[:, :reach]
    shows = shows.reshape(batch, blocks)

    position = torch.arange(batch * blocks, device=patches.device)
    resident = shows.flatten()
    source = position.clone()
    gain = torch.where(resident, worth, 0.0)  # of the claim that holds a place
    last = torch.zeros_like(position)  # how far each block has come in its list of places
    searching = ~resident & (worth > cost[:, 1:2].amin() if reach > 1 else False)
    steps = torch.arange(reach, device=patches.device)
    for _ in range(num_patches):
        block = searching.nonzero()[:, 0]
        if not len(block):
            break
        image, index = block // blocks, block % blocks
        possible = shows[image[:, None], order[index]] & (steps > last[block, None])
        choice = torch.where(possible, steps, reach).amin(1)
        last[block] = choice
        choice_index = choice.clamp(max=reach - 1)
        claim = torch.where(choice < reach, worth[block] - cost[index, choice_index], -1.0)
        place = image * blocks + order[index, choice_index]
        before = gain.clone()
        gain.scatter_reduce_(0, place, claim, "amax")
        won = (claim == gain[place]) & (claim > before[place])
        first = torch.full_like(position, len(position)).scatter_reduce_(0, place[won], block[won], "amin")
        changed = first < len(position)
        searching.zero_()
        searching[block] = (claim > 0) & (first[place] != block)
        searching |= torch.zeros_like(searching).index_fill_(0, source[changed], True)
        source = torch.where(changed, first, source)
    return source.reshape(batch, blocks) % blocks


@functools.cache
def _nearest(num_patches: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The places around each block, nearest first, and the squared distance to them in units of that across the image."""
    axis = torch.arange(num_patches, device=device)
    row, column = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    squared = (row[:, None] - row).square() + (column[:, None] - column).square()
    distance, order = squared.sort(dim=1, stable=True)
    return order, distance.float() / (num_patches - 1) ** 2


def move_blocks(
    images: Float[Tensor, "batch channel height width"], source: Int[Tensor, "batch blocks"]
) -> Float[Tensor, "batch channel height width"]:
    """Images put together from their own blocks: block ``source[k, j]`` of image k in place j."""
    num_patches = math.isqrt(source.shape[1])
    image, place = (source != torch.arange(source.shape[1], device=source.device)).nonzero(as_tuple=True)
    block = source[image, place]
    result = images.clone()
    tiles, moved = (_tiles(pixels, num_patches) for pixels in (images, result))
    moved[image, :, place // num_patches, :, place % num_patches] = tiles[image, :, block // num_patches, :, block % num_patches]
    return result


def _tiles(images: Tensor, num_patches: int) -> Tensor:
    height, width = images.shape[2] // num_patches, images.shape[3] // num_patches
    return images.unflatten(3, (num_patches, width)).unflatten(2, (num_patches, height))
