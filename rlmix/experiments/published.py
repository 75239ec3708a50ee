"""What a reproduced table says beside the published one, in a sentence."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from rlmix.reporting.tables import TITLES
from rlmix.reporting.verdict import Verdict

NAMES = {"top1": "top-1 %", "localization": "localization %", "step_ratio": "step / vanilla"} | TITLES
"""Of figures."""


def beside_published(cells: Sequence[Mapping[str, Any]], runs: int, seeds: int, scale: float, comparable: bool) -> Verdict:
    """How many runs there are, at which scale, and how far ours is from the paper, where that can be told.

    Args:
        cells: As :func:`rlmix.experiments.layout.collect` gives them.
        runs: Trainings behind them.
        seeds: Of each cell.
        scale: The fraction of images and epochs.
        comparable: Whether it is the paper's experiment.
    """
    published = [cell for cell in cells if cell["paper"] is not None]
    counted = f"{_many(runs, 'training')}, {_many(seeds, 'seed')} each"
    if not published:
        return Verdict(f"{counted}: the paper has no such table.")
    if not comparable:
        how = f"at scale {scale:g}" if scale < 1 else "with data or options that are not the paper's"
        return Verdict(f"{counted}, {how}: the paper's figures stand beside ours and cannot be compared with them.")
    figures: dict[str, list[float]] = {}
    for cell in published:
        figures.setdefault(cell["figure"], []).append(cell["ours"]["mean"] - cell["paper"])
    said = "; ".join(_distance(NAMES.get(name, name), found) for name, found in figures.items())
    return Verdict(f"{counted}, at the paper's scale. Ours minus the paper's: {said}.")


def untrained_beside_published(cells: Sequence[Mapping[str, Any]]) -> Verdict:
    """How many properties are the published ones, in a table for which nothing is trained."""
    properties = [cell for cell in cells if isinstance(cell["paper"], str)]
    same = sum(cell["ours"] == cell["paper"] for cell in properties)
    text = f"No training: {same} of {len(properties)} properties are as the paper has them"
    timed = any(cell["figure"] == "step_ratio" for cell in cells)
    return Verdict(f"{text}; speed is timed on this machine, the paper's was on another." if timed else f"{text}.")


def _distance(name: str, found: Sequence[float]) -> str:
    if len(found) == 1:
        return f"{name} {found[0]:+.2f}"
    return f"{name} {mean(found):+.2f} on average ({min(found):+.2f} to {max(found):+.2f} over {len(found)} cells)"


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count > 1)}"
