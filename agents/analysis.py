"""What a learned policy does: its choices against what is known of an image, and the dilemma that credit resolves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray

from rlmix.envs.process import Decision

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Choices(NamedTuple):
    """Of many images: how likely a policy makes each choice, and what is known of the image."""

    probabilities: NDArray[np.float32]
    """(images, K)"""
    quantities: dict[str, NDArray[np.float32]]
    """By name, each (images,)."""

    @classmethod
    def join(cls, probabilities: Sequence[torch.Tensor], quantities: Sequence[dict[str, torch.Tensor]]) -> "Choices":
        """Batches as one; quantities as :func:`describe_images` gives them."""
        joined = {name: torch.cat([each[name] for each in quantities]).cpu().numpy() for name in quantities[0]}
        return cls(torch.cat(list(probabilities)).numpy(), joined)


def describe_images(decision: Decision) -> dict[str, torch.Tensor]:
    """What a choice may depend on, each (B,).

    Confidence is the largest probability; the map's entropy is in units of log 64, so 1 for a uniform map; overlap is the cosine of the
    image's map with its partner's; loss is the clean image's cross-entropy.
    """
    maps, (images, labels) = decision.patches.flatten(1), decision.batch
    logits, partner = decision.saliency.logits, decision.pairing.partner
    return {
        "lam": torch.full((len(images),), decision.pairing.lam),
        "confidence": logits.softmax(1).amax(1),
        "loss": F.cross_entropy(logits, labels, reduction="none"),
        "entropy of the map": torch.special.entr(maps).sum(1) / np.log(maps.shape[1]),
        "overlap with the partner": F.cosine_similarity(maps, maps[partner]),
        "progress": torch.full((len(images),), decision.progress),
    }


def agreement(probabilities: Float[torch.Tensor, "images values"], best: Int[torch.Tensor, " images"]) -> tuple[float, float]:
    """How often a policy chooses what is best, and how often it would by chance: if its choices were dealt out among the images."""
    shares = torch.bincount(best, minlength=probabilities.shape[1]) / len(best)
    return float(probabilities.gather(1, best[:, None]).mean()), float((probabilities.mean(0) * shares).sum())


def draw_choices(choices: Choices, labels: Sequence[str], num_bins: int = 10) -> "Figure":
    """For every quantity a panel: how often each choice is made, by the quantity's quantile bins."""
    from matplotlib.figure import Figure

    shown = {name: numbers for name, numbers in choices.quantities.items() if np.ptp(numbers) > 0}
    figure = Figure(figsize=(3.2 * len(shown), 3.4), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (name, numbers) in zip(panels, shown.items(), strict=True):
        bins = np.array_split(np.argsort(numbers, kind="stable"), num_bins)
        shares = np.array([choices.probabilities[rows].mean(0) for rows in bins])
        picture = axes.imshow(shares.T, origin="lower", aspect="auto", vmin=0, vmax=1, cmap="viridis")
        axes.set_xticks(range(0, num_bins, 3), [f"{numbers[rows].mean():.2f}" for rows in bins[::3]])
        axes.set(xlabel=name)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylabel("top-k value")
    figure.colorbar(picture, ax=list(panels), label="share of the choices")
    return figure


class Dilemma(NamedTuple):
    """What choosing each of the K values changes, each (K,), against the mean over all choices."""

    own: NDArray[np.float64]
    """The image's own reward, where its partner chooses at random."""
    host: NDArray[np.float64]
    """The reward of the image that it is the partner of, which chooses at random."""
    everyone: NDArray[np.float64]
    """Everyone's reward, where everyone chooses that value."""


def credit_dilemma(tables: Sequence[torch.Tensor]) -> Dilemma:
    """From tables of rewards ``[image, own choice, partner's choice]`` (:func:`~rlmix.agents.search.reward_table`)."""
    table = torch.cat(list(tables)).double().mean(0)
    mean = table.mean()
    parts = (table.mean(1), table.mean(0), table.diagonal())
    return Dilemma(*((part - mean).cpu().numpy() for part in parts))


def draw_dilemma(dilemma: Dilemma, labels: Sequence[str]) -> "Figure":
    """What a choice is worth to whom."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    pair = (dilemma.own + dilemma.host) / 2
    lines = [("own reward (credit own)", dilemma.own), ("its host's reward", dilemma.host), ("both, halved (credit pair)", pair)]
    for line, numbers in [*lines, ("everyone's, if all choose so", dilemma.everyone)]:
        axes.plot(labels, numbers, marker=".", label=line, linestyle="--" if line.startswith("everyone") else "-")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="choice: top-k value", ylabel="reward against a random choice")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
