"""What a comparison says, in sentences: which method is better, by how much, and whether that is beyond noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlmix.reporting.statistics import Difference, paired_difference


class Verdict(NamedTuple):
    """A sentence, and what else is to be said."""

    text: str
    more: str = ""


def verdicts(report: Mapping[str, Any]) -> list[Verdict]:
    """A verdict a model, from what compare.json holds; where there are several models each begins with its name."""
    models: dict[str, list[Mapping[str, Any]]] = {}
    for row in report["methods"].values():
        models.setdefault(row["model"], []).append(row)
    bases = {name: row["label"] for name, row in report["methods"].items()}
    found = {model: verdict(rows, bases[rows[0]["baseline"]]) for model, rows in models.items()}
    return [said._replace(text=f"{model}: {said.text}") if len(found) > 1 else said for model, said in found.items()]


def verdict(rows: Sequence[Mapping[str, Any]], baseline: str) -> Verdict:
    """Compare the method of the highest mean test top-1 with the baseline, or the baseline with the next where it is the highest.

    A difference is beyond noise where its interval, Student's of the paired differences, excludes 0.

    Args:
        rows: Of one model, as in compare.json.
        baseline: Label of the one that differences are from.
    """
    ranked = sorted(rows, key=lambda row: -row["top1"]["mean"])
    first, seeds = ranked[0], len(ranked[0]["runs"])
    if len(ranked) == 1:
        mean = f"test top-1 {first['top1']['mean']:.2f} % over {seeds} seed{'s' * (seeds > 1)}"
        return Verdict(f"Only {first['label']} was trained, so that nothing is compared: {mean}.")
    other = ranked[1] if first["label"] == baseline else next(row for row in ranked if row["label"] == baseline)
    found = _difference(first, other)
    names, gap = (first["label"], other["label"]), f"{found.mean:.2f} points of test top-1"
    if seeds == 1:
        what = (
            f"{names[0]} is {gap} above {names[1]} under this one, and another may turn that round: compare over three or more."
        )
        return Verdict("One seed tells nothing about which method is better.", what)
    bounds = f"95 % interval {found.low:+.2f} to {found.high:+.2f}, {seeds} seeds"
    if not found.mean:
        return Verdict(f"No difference: {names[0]} and {names[1]} have the same mean test top-1 ({bounds}).")
    if math.isclose(found.low, found.high, abs_tol=1e-9):
        text = f"{names[0]} is {gap} above {names[1]} under each of {seeds} seeds: without spread, noise and effect cannot be told apart."
        return Verdict(text)
    if found.low <= 0:
        text = f"No method is shown to be better: {names[0]} is {gap} above {names[1]}, which is within noise ({bounds})."
    else:
        text = f"{names[0]} is better than {names[1]} by {gap}, which is beyond noise ({bounds})."
    return Verdict(text, _others(first, [row for row in ranked[1:] if row is not other]))


def _others(first: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Which of the other methods the first one is beyond noise above; nothing where there are none."""
    if not others:
        return ""
    beaten = [row["label"] for row in others if _difference(first, row).low > 0]
    level = [row["label"] for row in others if row["label"] not in beaten]
    parts = [f"beyond noise above {', '.join(beaten)}"] if beaten else []
    parts += [f"not told apart from {', '.join(level)}"] if level else []
    luck = "Each interval is of one pair: of many methods one is easily ahead by luck."
    return f"{first['label']} is {' and '.join(parts)}. {luck}"


def _difference(row: Mapping[str, Any], other: Mapping[str, Any]) -> Difference:
    values, base = ({int(seed): run["top1"] for seed, run in entry["runs"].items()} for entry in (row, other))
    return paired_difference(values, base)
