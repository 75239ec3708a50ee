"""How images were mixed, pair by pair: Figures 2 and 4 of the paper from a batch and what was decided about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from rlmix.maps.gradient import patch_saliency
from rlmix.mixing.actions import Action, arrange, weigh
from rlmix.mixing.core import Pairing, blend, soft_targets
from rlmix.reporting.output import literal

OWN, PARTNER, BLEND = 0, 1, 2
GIVERS = {"own": "#3b6fb6", "partner": "#e08a2c", "blend": "#9a9a9a"}
"""Who gave a patch, in the order of OWN, PARTNER, BLEND, and its colour; they differ in lightness too."""
COLUMNS = ("image", "its partner", "saliency", "partner's", "mask", "partner's", "regions", "mixed")


@dataclass(frozen=True)
class MixedBatch:
    """A batch on its way: clean, seen, masked, mixed."""

    images: Tensor
    """Normalised (batch, channel, height, width)."""
    saliency: Tensor
    """(batch, height, width)."""
    patches: Tensor
    """Patch saliency (batch, patch, patch) at the masks' resolution."""
    mask: Tensor
    """Salient patches, bool (batch, patch, patch)."""
    weights: Tensor
    """How much of each patch is the image's own (batch, patch, patch)."""
    top_k: Tensor
    """Each image's quantile (batch,)."""
    pairing: Pairing
    mixed: Tensor
    """As ``images``."""
    targets: Tensor
    """(batch, classes)."""


def mix_batch(
    images: Tensor,
    labels: Tensor,
    saliency: Tensor,
    pairing: Pairing,
    action: Action,
    rule: str,
    num_classes: int,
    center: Tensor | None = None,
) -> MixedBatch:
    """Mix a batch by what was drawn and chosen, and keep the steps."""
    pairing = arrange(pairing, action, saliency)
    mask, weights = weigh(saliency, action, pairing, rule, center=center)
    mixed = blend(images, soft_targets(labels, num_classes), weights, pairing.partner)
    patches = patch_saliency(saliency, mask.shape[1])
    return MixedBatch(images, saliency, patches, mask, weights, action.top_k, pairing, mixed.images, mixed.targets)


def regions(weights: Tensor) -> Tensor:
    """Who gives each patch: OWN, PARTNER or BLEND, by how much of it is the image's own (batch, patch, patch)."""
    return torch.where(weights == 1, OWN, torch.where(weights == 0, PARTNER, BLEND))


def draw_pairs(batch: MixedBatch, pixels: NDArray[np.uint8], mixed: NDArray[np.uint8], names: Sequence[str]) -> Figure:
    """Figure 4: a row a pair, from the two images to the mixed one with the weights of its labels.

    Args:
        batch: Its first images are shown.
        pixels: Of all clean images (batch, height, width, 3).
        mixed: Of the mixed images shown (rows, height, width, 3).
        names: Of the classes.
    """
    count = len(mixed)
    figure = Figure(figsize=(1.3 * len(COLUMNS) + 0.2, 1.6 * count + 0.6), layout="constrained")
    panels = figure.subplots(count, len(COLUMNS), squeeze=False)
    partner = batch.pairing.partner.cpu()
    givers = regions(batch.weights)
    for index, row in enumerate(panels):
        other = int(partner[index])
        for axes, title in zip(row, COLUMNS, strict=True):
            axes.set(xticks=[], yticks=[])
            if index == 0:
                axes.set_title(title, fontsize=9)
        row[0].imshow(pixels[index])
        row[1].imshow(pixels[other])
        for axes, number in zip(row[2:4], (index, other), strict=True):
            _show_map(axes, batch.saliency[number])
        for axes, number in zip(row[4:6], (index, other), strict=True):
            _show_mask(axes, batch.mask[number])
            axes.set_xlabel(f"top-k {float(batch.top_k[number]):.2f}", fontsize=8)
        _show_regions(row[6], givers[index])
        row[7].imshow(mixed[index])
        row[7].set_xlabel(label_weights(batch.targets[index], names), fontsize=7)
    _legend(figure, batch.pairing.lam)
    return figure


def draw_steps(batch: MixedBatch, pixels: NDArray[np.uint8], mixed: NDArray[np.uint8], names: Sequence[str]) -> Figure:
    """Figure 2: the first pair step by step: image, saliency, its average over patches, the mask, the regions, the mixed image.

    Args:
        batch: Its first image and that one's partner are shown.
        pixels: Of all clean images (batch, height, width, 3).
        mixed: Of the mixed images (rows, height, width, 3).
        names: Of the classes.
    """
    partner = batch.pairing.partner.cpu()
    figure = Figure(figsize=(10.2, 3.9), layout="constrained")
    axes = figure.subplot_mosaic([["i0", "s0", "p0", "m0", "r", "x"], ["i1", "s1", "p1", "m1", "r", "x"]])
    for line, number in enumerate((0, int(partner[0]))):
        axes[f"i{line}"].imshow(pixels[number])
        _show_map(axes[f"s{line}"], batch.saliency[number])
        _show_map(axes[f"p{line}"], batch.patches[number])
        _show_mask(axes[f"m{line}"], batch.mask[number])
        axes[f"m{line}"].set_xlabel(f"top-k {float(batch.top_k[number]):.2f}", fontsize=9)
    _show_regions(axes["r"], regions(batch.weights)[0])
    axes["x"].imshow(mixed[0])
    axes["x"].set_xlabel(label_weights(batch.targets[0], names), fontsize=9)
    size = batch.mask.shape[1]
    titles = {
        "i0": "image",
        "i1": "partner",
        "s0": "saliency",
        "p0": f"{size}x{size} patches",
        "m0": "mask",
        "r": "regions",
        "x": "mixed",
    }
    for panel in axes.values():
        panel.set(xticks=[], yticks=[])
    for name, title in titles.items():
        axes[name].set_title(title, fontsize=10)
    _legend(figure, batch.pairing.lam)
    return figure


def label_weights(target: Tensor, names: Sequence[str]) -> str:
    """The classes that share a target, one a line, largest first."""
    found = sorted(((float(share), label) for label, share in enumerate(target.tolist()) if share > 0.005), reverse=True)
    return "\n".join(f"{literal(names[label])} {share:.2f}" for share, label in found)


def _show_map(axes: Axes, values: Tensor) -> None:
    axes.imshow(values.float().cpu().numpy(), cmap="magma", vmin=0)


def _show_mask(axes: Axes, mask: Tensor) -> None:
    axes.imshow(mask.cpu().numpy(), cmap="gray", vmin=0, vmax=1)


def _show_regions(axes: Axes, givers: Tensor) -> None:
    colors = ListedColormap([to_rgb(color) for color in GIVERS.values()])
    axes.imshow(givers.cpu().numpy(), cmap=colors, vmin=0, vmax=len(GIVERS) - 1)


def _legend(figure: Figure, lam: float) -> None:
    labels = {"own": "the image's", "partner": "the partner's", "blend": f"blend, {lam:.2f} of the image"}
    handles = [Patch(facecolor=color, label=labels[name]) for name, color in GIVERS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
