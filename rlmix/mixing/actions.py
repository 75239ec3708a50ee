"""The family of action spaces: what may be chosen for an image beside how much of it counts as salient, and what follows for its mixture.

An action space is a function of ``num_top_k`` that gives a table: an :class:`Action` with a row for each choice there is.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlmix.common.registry import Registry
from rlmix.common.transfer import to_device
from rlmix.maps.gradient import patch_saliency, salient_mask
from rlmix.maps.patches import enlarge
from rlmix.mixing.core import Pairing, patch_weights, top_k_values
from rlmix.mixing.partners import rearrange

LAMS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Weights of the first image that may be chosen."""
SIDES = (2, 4, 8)
"""Patches a side that may be chosen."""


@dataclass(frozen=True)
class Action:
    """What is chosen, for each image of a batch or in each row of a table; what is None stays as chance has drawn it for the batch."""

    top_k: Float[Tensor, " row"]
    """In [0, 1)."""
    lam: Float[Tensor, " row"] | None = None
    """Weight of the image where it is blended with its partner, in [0, 1]."""
    mixes: Bool[Tensor, " row"] | None = None
    """Whether the image is mixed at all; where not, its mixture is the image. Its host has it as a partner in any case."""
    num_patches: Int[Tensor, " row"] | None = None
    """Patches a side of the masks that make its mixture, of :data:`SIDES`."""
    box: Float[Tensor, " row"] | None = None
    """Side of a box that the partner gives, as a part of the image's, in [0, 1], in place of a mixture by saliency; 0 for none."""
    apart: Bool[Tensor, " row"] | None = None
    """Whether the partner is, of those who choose so, one whose saliency lies apart from its own; else it is as chance has it."""

    def __len__(self) -> int:
        return len(self.top_k)

    def __getitem__(self, rows: Any) -> "Action":
        return self._each(lambda column: column[rows])

    def to(self, device: torch.device) -> "Action":
        """Give the same there, without waiting for it."""
        return self._each(lambda column: to_device(column, device))

    def everyone(self, row: int, number: int) -> "Action":
        """Give one row to so many images."""
        return self[torch.full((number,), row, device=self.top_k.device)]

    @property
    def others(self) -> dict[str, Tensor]:
        """What is chosen beside the top-k value, by name."""
        columns = {column.name: getattr(self, column.name) for column in fields(self)[1:]}
        return {name: column for name, column in columns.items() if column is not None}

    @property
    def simplest(self) -> "Tensor | Action":
        """The top-k values alone, where nothing else is chosen."""
        return self if self.others else self.top_k

    @property
    def rows(self) -> Float[Tensor, "row *columns"]:
        """What is chosen as numbers: top-k values, or a row with what else there is, in the order of the fields."""
        columns = [column.float() for column in (self.top_k, *self.others.values())]
        return torch.stack(columns, 1) if self.others else self.top_k

    def labels(self) -> list[str]:
        """Say what each row is, for pictures."""
        said = {"lam": "lam {:.1f}", "num_patches": "{:.0f} patches"}
        lines = []
        for row in range(len(self)):
            if self.mixes is not None and not self.mixes[row]:
                lines.append("not mixed")
                continue
            if self.box is not None and self.box[row] > 0:
                lines.append(f"box of {float(self.box[row]) ** 2:.0%}")
                continue
            parts = [said[name].format(float(column[row])) for name, column in self.others.items() if name in said]
            parts += ["apart"] if self.apart is not None and self.apart[row] else []
            lines.append(", ".join([f"{float(self.top_k[row]):.2f}", *parts]))
        return lines

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Action":
        return Action(change(self.top_k), **{name: change(column) for name, column in self.others.items()})


def as_action(chosen: Tensor | Action) -> Action:
    """Give what somebody chose, top-k values (B,) or more, as an action."""
    return chosen if isinstance(chosen, Action) else Action(chosen)


ACTIONS: Registry[Callable[[int], Action]] = Registry("action")
"""Functions of ``num_top_k`` that give a table of all choices."""


@ACTIONS.register("top_k")
def top_k(num_top_k: int) -> Action:
    """The quantile from which on a patch is salient: the paper's."""
    return Action(top_k_values(num_top_k))


@ACTIONS.register("top_k_mix")
def top_k_mix(num_top_k: int) -> Action:
    """The quantile, or that the image is not mixed."""
    values = top_k_values(num_top_k)
    return Action(torch.cat([values, values[:1]]), mixes=torch.arange(num_top_k + 1, device="cpu") < num_top_k)


@ACTIONS.register("top_k_lam")
def top_k_lam(num_top_k: int) -> Action:
    """The quantile, and lam: 0.1, 0.3, 0.5, 0.7 or 0.9."""
    values, lams = top_k_values(num_top_k), torch.tensor(LAMS, dtype=torch.float32, device="cpu")
    return Action(values.repeat_interleave(len(lams)), lam=lams.repeat(num_top_k))


@ACTIONS.register("top_k_patches")
def top_k_patches(num_top_k: int) -> Action:
    """The quantile, and how many patches a side the masks have: 2, 4 or 8."""
    values, sides = top_k_values(num_top_k), torch.tensor(SIDES, device="cpu")
    return Action(values.repeat_interleave(len(sides)), num_patches=sides.repeat(num_top_k))


@ACTIONS.register("top_k_cut")
def top_k_cut(num_top_k: int) -> Action:
    """The quantile, or a box of the partner's, as large as one of CutMix's may be."""
    values = top_k_values(num_top_k)
    places = torch.arange(num_top_k, dtype=torch.float32, device="cpu")
    areas = (places + 0.5) / num_top_k  # as many, as likely as CutMix's alpha 1 has them
    none = torch.zeros_like(values)
    return Action(torch.cat([values, none]), box=torch.cat([none, areas.sqrt()]))


@ACTIONS.register("top_k_partner")
def top_k_partner(num_top_k: int) -> Action:
    """The quantile, and whether the partner is as chance has it or one whose saliency lies apart from the image's own."""
    return Action(top_k_values(num_top_k).repeat(2), apart=torch.arange(2 * num_top_k, device="cpu") >= num_top_k)


def action_table(name: str, num_top_k: int) -> Action:
    """The table of the action space called so.

    Raises:
        ValueError: If there is none, or it gives no table of choices in range.
    """
    table: Any = ACTIONS[name](num_top_k)
    if not isinstance(table, Action):
        raise ValueError(f"action {name} must give an Action, got {type(table).__name__}")
    found = {"top_k": table.top_k, **table.others}
    shapes = {tuple(column.shape) for column in found.values()}
    if shapes != {(len(table.top_k),)} or not len(table.top_k):
        raise ValueError(f"action {name} must give columns of one length, got {', '.join(map(str, sorted(shapes)))}")
    check_action(table, f"action {name}")
    return table


def check_action(action: Action, giver: str) -> None:
    """Raise ValueError where what is chosen is out of range; ``giver`` is who chose it."""
    found = {"top_k": action.top_k, **action.others}
    for column in ("top_k", "lam", "box"):
        values, most = found.get(column), 1.0 - (column == "top_k") * 1e-6
        if values is not None and not 0 <= float(values.min()) <= float(values.max()) <= most:
            raise ValueError(f"{giver} must give a {column} in [0, 1{')' if column == 'top_k' else ']'}, got {values.tolist()}")
    for column in ("mixes", "apart"):
        if column in found and found[column].dtype != torch.bool:
            raise ValueError(f"{giver} must give {column} as bool, got {found[column].dtype}")
    sides = action.num_patches
    if sides is not None and not {*sides.tolist()} <= {*SIDES}:
        raise ValueError(f"{giver} must give num_patches of {', '.join(map(str, SIDES))}, got {sides.tolist()}")


def check_finest(num_patches: tuple[int, ...]) -> None:
    """Raise ValueError where a box, which is of whole patches of the finest kind, does not go with masks of so many."""
    if any(max(SIDES) % count for count in num_patches):
        raise ValueError(
            f"num_patches must be of {', '.join(map(str, (1, *SIDES)))} where a box may be chosen, got {num_patches}"
        )


def arrange(pairing: Pairing, action: Action, map: Float[Tensor, "batch height width"]) -> Pairing:
    """Give the batch its partners: as drawn, or where they are chosen, those of :func:`rlmix.mixing.partners.rearrange`.

    Args:
        pairing: As drawn.
        action: What is chosen for each image.
        map: Saliency; looked at in patches of the finest kind.
    """
    return pairing if action.apart is None else rearrange(pairing, action.apart, patch_saliency(map, max(SIDES)))


class Weighed(NamedTuple):
    """How a batch is mixed."""

    mask: Bool[Tensor, "batch patch patch"]
    """Each image's salient patches, as its own mixture reads them."""
    weights: Float[Tensor, "batch patch patch"]
    """How much of each patch is the image's own, in [0, 1]."""


def weigh(
    map: Float[Tensor, "batch height width"],
    action: Action,
    pairing: Pairing,
    rule: str = "mix_top",
    partner_top_k: Float[Tensor, " batch"] | None = None,
    center: Float[Tensor, "batch 2"] | None = None,
) -> Weighed:
    """What is salient, and how much of each patch is the image's own (Eq. 4 to 7 of R-Mix, with what is chosen in place of what is drawn).

    An image's masks are cut as its own action says, and its partner's for its mixture likewise. Where patches a side are chosen image by
    image, or a box, masks and weights of fewer are repeated over the finest ones, which must be a multiple of them.

    Args:
        map: Saliency.
        action: What is chosen for each image.
        pairing: Partners (:func:`arrange`), and what is drawn of the rest.
        rule: How patches are mixed.
        partner_top_k: The choice of each image's partner, in [0, 1), where it is not what ``action`` says of it.
        center: Of each image's box, row and column as parts of the sides, in [0, 1) (:func:`~rlmix.mixing.core.sample_center`); where
            ``action`` has boxes.

    Raises:
        ValueError: If there are boxes, and no centers.
    """
    if action.box is not None and center is None:
        raise ValueError("center must be given where a box may be chosen, got None")
    theirs = action.top_k if partner_top_k is None else partner_top_k[pairing.partner.argsort()]
    lam = pairing.lam if action.lam is None else action.lam

    def cut(side: int) -> Weighed:
        patches = patch_saliency(map, side)
        mask = salient_mask(patches, action.top_k)
        partners = mask if partner_top_k is None else salient_mask(patches, theirs)
        return Weighed(mask, patch_weights(mask, partners[pairing.partner], lam, rule))

    size = (max(SIDES), max(SIDES))
    if action.num_patches is None:
        mask, weights = cut(pairing.num_patches)
    else:
        mask, weights = (enlarge(part, size) for part in cut(SIDES[0]))
        for side in SIDES[1:]:
            chosen = (action.num_patches == side)[:, None, None]
            mask, weights = (
                torch.where(chosen, enlarge(part, size), before) for part, before in zip(cut(side), (mask, weights), strict=True)
            )
    if action.box is not None and center is not None:
        inside = boxes(action.box, center, max(SIDES))
        weights = torch.where((action.box > 0)[:, None, None], 1 - inside.float(), enlarge(weights, size))
        mask = enlarge(mask, size)
    if action.mixes is not None:
        weights = torch.where(action.mixes[:, None, None], weights, 1.0)
    return Weighed(mask, weights)


def boxes(side: Float[Tensor, " batch"], center: Float[Tensor, "batch 2"], num_patches: int) -> Bool[Tensor, "batch patch patch"]:
    """Which patches lie in a square box, in whole patches and cut off at the border, as CutMix's is (Yun et al. 2019).

    Args:
        side: Of the box, as a part of the image's, in [0, 1].
        center: Row and column, as parts of the sides.
        num_patches: Patches a side.
    """
    length = (side * num_patches).round().clamp(min=1)[:, None]
    first = (center * num_patches - length / 2).round()
    places = torch.arange(num_patches, device=side.device)
    within = (places >= first[:, :, None]) & (places < (first + length)[:, :, None])  # (batch, rows or columns, place)
    return within[:, 0, :, None] & within[:, 1, None, :]
