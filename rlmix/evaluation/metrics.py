"""The family of metrics: figures of a trained classifier beside its accuracy, in result.json, compare.json and their tables.

A metric is a function of what it names: ``logits`` and ``labels`` of the test split, ``model``, and ``data``. It gives one number.
"""

import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from rlmix.common.registry import Registry
from rlmix.data.dataset import Dataset
from rlmix.evaluation.attacks import fgsm_error
from rlmix.evaluation.calibration import expected_calibration_error

METRICS: Registry[Callable[..., float]] = Registry("metric")
"""Trait ``attacks``: whether it is left out with a frozen classifier, whose weights say nothing of the run."""
_GIVEN = ("logits", "labels", "model", "data")


@METRICS.register("ece")
def ece(logits: Float[Tensor, "image classes"], labels: Int[Tensor, " image"]) -> float:
    """Expected calibration error, in percent."""
    return expected_calibration_error(logits.softmax(1), labels)


@METRICS.register("fgsm_error", attacks=True)
def fgsm(model: nn.Module, data: Dataset) -> float:
    """Top-1 error under FGSM at 8/255, in percent."""
    return fgsm_error(model, data)


def measure_metric(name: str, *, frozen: bool, **given: Any) -> float | None:
    """The metric called ``name``.

    Args:
        name: One of :data:`METRICS`, or ``module:attribute``.
        frozen: Whether the classifier was not trained in this run.
        given: ``logits``, ``labels``, ``model`` and ``data``; it gets those that it names.

    Returns:
        A number; None where the metric says nothing of a frozen classifier.

    Raises:
        ValueError: If there is no such metric, it names something else, or gives no number.
    """
    entry = METRICS.entry(name)
    if frozen and entry.traits.get("attacks"):
        return None
    takes = list(inspect.signature(entry.thing).parameters)
    unknown = [parameter for parameter in takes if parameter not in _GIVEN]
    if unknown:
        raise ValueError(f"metric {name} must be a function of {', '.join(_GIVEN)}, got {', '.join(takes)}")
    found: Any = entry.thing(**{parameter: given[parameter] for parameter in takes})
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"metric {name} must give one number, got {type(found).__name__}") from error
