"""Does a higher reward go with a higher accuracy? Over the runs of a study that have a reward."""

from collections.abc import Mapping
from typing import Any

from rlmix.reporting.correlation import Correlation, correlate

FEWEST_RUNS = 4
"""With fewer there is no interval, and three points lie on a line too easily."""
POOLED = {
    "within_seeds": "all methods, each seed's mean removed",
    "within_methods": "all methods, each method's mean removed",
}
"""Correlations over the runs of several methods, and what they are called."""


def reward_correlations(rows: Mapping[str, Mapping[str, Any]], pooled: bool = True) -> dict[str, Any]:
    """The last mixed epoch's mean reward against test top-1 over runs; empty where fewer than four runs have a reward.

    Args:
        rows: ``methods`` of compare.json, with the ``runs`` of each.
        pooled: Whether all were paid by the same reward, so that they may be pooled.

    Returns:
        ``methods``, by row, those of four runs or more: do the runs of one method that earned more classify better? ``within_seeds``,
        over all: do methods that earned more than others did with the same seed and model classify better? It mixes methods, which
        differ in more than what they earn. ``within_methods``: as ``methods``, for all together.
    """
    runs = [
        (name, (row["model"], seed), result["reward_mean"], result["top1"])
        for name, row in rows.items()
        for seed, result in row["runs"].items()
        if result["reward_mean"] is not None
    ]
    if len(runs) < FEWEST_RUNS:
        return {}
    names, places, rewards, top1 = (list(column) for column in zip(*runs, strict=True))
    found: dict[str, Any] = {"methods": {}}
    for name in dict.fromkeys(names):
        own = [row for row, other in enumerate(names) if other == name]
        if len(own) >= FEWEST_RUNS:
            found["methods"][name] = correlate([rewards[row] for row in own], [top1[row] for row in own])._asdict()
    if pooled and len(set(names)) > 1:
        for key, groups in (("within_seeds", places), ("within_methods", names)):
            correlation: Correlation = correlate(rewards, top1, groups)
            if correlation.runs >= FEWEST_RUNS:
                found[key] = correlation._asdict()
    return found if found["methods"] or len(found) > 1 else {}
