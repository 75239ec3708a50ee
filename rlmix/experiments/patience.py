"""Ending a run that validation says is over."""

from collections.abc import Mapping, Sequence
from typing import Any


class Patience(Exception):  # noqa: N818  (it is no error)
    """The validation top-1 has not risen for as long as was asked for."""


def exhausted(epochs: Sequence[Mapping[str, Any]], patience: int | None) -> bool:
    """Whether the last ``patience`` measurements of the validation top-1 are no better than one before.

    Only where the last epoch was measured: a run ends with an epoch that its result can be of.

    Args:
        epochs: Lines of metrics.jsonl; those that were not measured count for nothing.
        patience: None for any.
    """
    top1 = [record["val_top1"] for record in epochs if "val_top1" in record]
    if patience is None or not epochs or "val_top1" not in epochs[-1]:
        return False
    return len(top1) > patience and max(top1[-patience:]) <= max(top1[:-patience])
