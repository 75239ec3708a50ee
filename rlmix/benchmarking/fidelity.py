"""How near cheaper saliency comes to the exact one: the same masks cut from both, batch by batch, while R-Mix trains on the exact one."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from rich.table import Table
from torch import Tensor

from rlmix.agents.policies import FixedRandomPolicy
from rlmix.benchmarking.options import Fidelity
from rlmix.common.files import write_json
from rlmix.common.groups import check_values
from rlmix.config import Config
from rlmix.envs.process import MixingProcess
from rlmix.envs.rewards import AGENT_PATCHES
from rlmix.maps.approximate import SALIENCY_MODES, build_source
from rlmix.maps.gradient import patch_saliency, salient_mask
from rlmix.reporting.bar import Bar
from rlmix.reporting.output import make_console
from rlmix.training.allocator import keep_freed_memory

FIGURES = ("same", "overlap", "rank", "cosine")
"""As :func:`measure` gives them."""


def fidelity(options: Fidelity) -> None:
    """Train, print, and write where --json says; ValueError where an option is out of range."""
    check_values(options)
    keep_freed_memory()
    figures = measure(options.config, options.every)
    print_table(figures)
    if options.json is not None:
        write_json(options.json, figures)
        make_console().print(f"written to {options.json}", soft_wrap=True)


def measure(config: Config, every: int = 1) -> dict[str, Any]:
    """Train R-Mix and compare masks, drawn at the same quantiles and patches.

    Returns:
        For each mode ``same``, the share of patches that both masks call alike; ``overlap``, the salient patches of both over those
        of either; ``rank``, Spearman's correlation of the 8x8 maps; and ``cosine``, their similarity, which a map that says nothing has
        too. Means over images. ``chance`` is the exact mask with its patches shuffled, ``uniform`` an even map.
    """
    process = MixingProcess(config)
    training = process.reset()
    policy = FixedRandomPolicy(process.config.mixing.num_top_k, config.run.seed)
    chance = torch.Generator().manual_seed(config.run.seed)
    sources = {mode: build_source(mode, training.surroundings) for mode in SALIENCY_MODES if mode != "exact"}
    remembering = [mode for mode, source in sources.items() if source.state_dict()]
    process.listeners += [source for source in sources.values() if source.learns]
    sums: dict[str, Tensor] = {name: torch.zeros(len(FIGURES), dtype=torch.float64) for name in (*sources, "uniform", "chance")}
    steps = 0
    with Bar("fidelity", training.num_steps) as bar:
        while not training.finished:
            decision = process.observe()
            top_k = policy(decision)
            compares = training.order.batch % every == 0
            steps += compares
            num_patches = decision.pairing.num_patches
            exact_mask = salient_mask(patch_saliency(decision.saliency.map, num_patches), top_k)
            maps = {
                mode: source(training.saliency_pass, *decision.batch, training.order.moment).map
                for mode, source in sources.items()
                if compares or mode in remembering
            }
            if compares:
                exact = decision.patches.flatten(1)
                for mode, map in (maps | {"uniform": torch.ones_like(decision.saliency.map)}).items():
                    mask = salient_mask(patch_saliency(map, num_patches), top_k)
                    patches = patch_saliency(map, AGENT_PATCHES).flatten(1)
                    near = rank_correlation(exact, patches).mean(), F.cosine_similarity(exact, patches).mean()
                    sums[mode] += torch.stack([*agreement(exact_mask, mask), *near]).double().cpu()
                shuffled = exact_mask.flatten(1)[:, torch.randperm(num_patches**2, generator=chance)].view_as(exact_mask)
                sums["chance"][:2] += torch.stack(agreement(exact_mask, shuffled)).double().cpu()
            process.act(top_k)
            bar.advance()
    rows = {name: dict(zip(FIGURES, (total / steps).tolist(), strict=True)) for name, total in sums.items()}
    rows["chance"] = {name: rows["chance"][name] for name in FIGURES[:2]}
    return {"config": process.config.as_dict(), "steps": steps, "modes": rows}


def agreement(exact: Bool[Tensor, "batch patch patch"], other: Bool[Tensor, "batch patch patch"]) -> tuple[Tensor, Tensor]:
    """Share of patches that two masks call alike, and salient patches of both over those of either; means over the batch."""
    both, either = (exact & other).sum((1, 2)), (exact | other).sum((1, 2))
    return (exact == other).float().mean(), (both / either).mean()


def rank_correlation(first: Float[Tensor, "batch patches"], second: Float[Tensor, "batch patches"]) -> Float[Tensor, " batch"]:
    """Spearman's correlation, row by row; equal values share their mean rank, and where all are equal it is 0."""
    ranks = [
        (row[:, :, None] > row[:, None, :]).sum(2).float() + ((row[:, :, None] == row[:, None, :]).sum(2).float() - 1) / 2
        for row in (first, second)
    ]
    own, other = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return F.cosine_similarity(own, other)


def print_table(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    config = figures["config"]
    table = Table(title=f"masks against the exact ones: {config['model']} on {config['data']}, {figures['steps']} steps")
    for column in ("saliency", "patches alike", "overlap", "rank correlation of 8x8 maps", "their cosine"):
        table.add_column(column, justify="left" if column == "saliency" else "right")
    for name, row in figures["modes"].items():
        table.add_row(name, *(f"{row[key]:.3f}" if key in row else "" for key in FIGURES))
    make_console().print(table)
