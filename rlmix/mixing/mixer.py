"""Any mix-up method as a transform of batches, for a loop of one's own."""

import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rlmix.common.names import check_name
from rlmix.evaluation.prediction import evaluating
from rlmix.maps.gradient import check_images, check_labels
from rlmix.mixing.core import Mixed
from rlmix.mixing.objective import Method, Objective
from rlmix.mixing.registry import METHODS
from rlmix.mixing.rmix import RMix
from rlmix.models.as_found import frozen_statistics
from rlmix.models.outputs import logits_of


class Mixer:
    """A method as a batch transform: ``mixed = mixer(model, images, labels)``.

    Args:
        name: What it is called.
        method: The method.
    """

    def __init__(self, name: str, method: Method) -> None:
        self.name, self.method = name, method
        self._classes: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Mixed | Objective:
        """Mix a batch.

        Args:
            model: The classifier in training; left as found.
            images: The batch, as the model takes it.
            labels: Class indices of any integer type, or soft targets (B, N).
            num_classes: N; as many as the model has logits where not given, which one pass of one image tells the first time.
            generator: Draws all that is random; the global one where None.

        Returns:
            Images and targets for a cross-entropy with soft targets; of a method that brings a loss of its own an
            :class:`~rlmix.mixing.objective.Objective`, whose ``score(model)`` gives the loss and the logits.

        Raises:
            ValueError: If the images or labels are none.
        """
        check_images(images)
        labels = check_labels(labels, len(images))
        if num_classes is None:
            num_classes = labels.shape[1] if labels.ndim == 2 else self._count(model, images)
        return self.method(model, images, labels, num_classes=num_classes, generator=generator)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: what :meth:`__init__` takes; how many classes a model has is asked anew."""
        return {"name": self.name, "method": self.method}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _count(self, model: nn.Module, images: Tensor) -> int:
        if model not in self._classes:
            devices = [images.device] if images.device.type == "cuda" else []
            # in eval mode, for a batch norm takes no batch of one
            with torch.no_grad(), torch.random.fork_rng(devices), frozen_statistics(model), evaluating(model):
                self._classes[model] = logits_of(model(images[:1])).shape[1]
        return self._classes[model]


def mixer(name: str, **hyperparameters: Any) -> Mixer:
    """Build a mix-up method for a loop of one's own.

    ``mixed = mixer("cutmix")(model, images, labels)``.

    Args:
        name: ``rmix``, or one of :data:`~rlmix.mixing.registry.METHODS`, or ``module:attribute``.
        hyperparameters: The method's own; ``rlmix list methods`` names them. ``automix`` needs the ``model`` and ``num_steps`` too, and its
            ``.method`` is a module: the parameters of that belong into the optimizer, and its ``after_step(model)`` behind every step.
            ``augmix`` needs the ``mean`` and ``std`` that the images are normalised by.

    Returns:
        A callable that gives images and targets. Manifold mix-up, AutoMix, AlignMix, AugMix and Co-Mixup bring a loss of their own: they
        give an :class:`~rlmix.mixing.objective.Objective`, used as ``loss, logits = mixed.score(model)``;
        :func:`rlmix.mixing.objective.score` takes either.

    Raises:
        ValueError: If there is no such method, it has no such hyperparameter, or one is out of range.
    """
    known: Any = RMix if name == "rmix" else METHODS[name]
    parameters = inspect.signature(known).parameters
    for key in hyperparameters:
        check_name(f"hyperparameter of {name}", key, parameters)
    missing = [key for key, entry in parameters.items() if entry.default is entry.empty and key not in hyperparameters]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given to {name}, which cannot do without")
    return Mixer(name, known(**hyperparameters))
