"""The protocol between a mix-up method and the training step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rlmix.common.members import has_members
from rlmix.maps.composition import Composition
from rlmix.mixing.core import Mixed
from rlmix.models.outputs import logits_of


class Scored(NamedTuple):
    """What a training step computes: the loss to minimise, and the logits to count accuracy with."""

    loss: Float[Tensor, ""]
    logits: Float[Tensor, "batch classes"]


@dataclass(frozen=True)
class Objective:
    """A loss of a method's own, where softmax cross-entropy on mixed images is not all there is to it.

    It is used as ``loss, logits = objective.score(network)``. ``targets`` belong to the rows of those logits.
    """

    targets: Float[Tensor, "batch classes"]
    score: Callable[[nn.Module], Scored]
    images: Float[Tensor, "batch channel height width"] | None = None
    """What is trained on, for pictures; None where features are mixed and not images."""


@runtime_checkable
class Method(Protocol):
    """A mix-up method: a clean batch in, what the training step trains on out.

    A method with parameters or buffers of its own is an ``nn.Module`` too: the training puts its parameters into the optimizer and
    its ``state_dict`` into the checkpoints, and after every step calls its ``after_step(model)`` where it has one.
    """

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Mixed | Objective:
        """Mix a batch.

        Args:
            model: The classifier in training (the inner module), left as found.
            images: Normalised images.
            labels: Class indices, or under ``label_smoothing`` soft targets (B, N).
            num_classes: N.
            generator: Draws all that is random, on the host; the global one where None.
        """
        ...


class Composed(NamedTuple):
    """A mixed batch, and of what it is made."""

    mixed: Mixed
    made: Composition


@runtime_checkable
class Guided(Protocol):
    """A method that mixes by a map of each image, and takes whatever maps a training has (:data:`~rlmix.maps.approximate.SALIENCY_MODES`).

    It follows :class:`Method` too, for loops that have no maps, and says so where it is registered:
    ``@METHODS.register(name, reads=("saliency_mode",))``.
    """

    @property
    def takes_maps(self) -> bool:
        """Whether, as its hyperparameters are, it has no use for a pass of its own."""
        ...

    def mix_by(
        self,
        images: Float[Tensor, "batch channel height width"],
        labels: Shaped[Tensor, "batch *classes"],
        map: Float[Tensor, "batch height width"],
        *,
        num_classes: int,
        generator: torch.Generator | None = None,
    ) -> Composed:
        """Mix a batch by these maps.

        Args:
            images: As of :class:`Method`; the other arguments likewise.
            labels: Class indices or soft targets.
            map: How salient each pixel is, at least 0, at any scale; where it is zero or not finite, nothing is known.
            num_classes: N.
            generator: Draws all that is random, the same as a call without maps does.
        """
        ...


def is_guided(method: Method) -> TypeGuard[Guided]:
    """Whether a method takes the maps that a training has, as its hyperparameters are."""
    found: Any = method
    return has_members(found, Guided) and bool(found.takes_maps)


def score(mixed: Mixed | Objective, network: nn.Module) -> Scored:
    """Softmax cross-entropy with soft targets of a mixed batch, or the objective's own loss; float32."""
    if isinstance(mixed, Objective):
        return mixed.score(network)
    logits = logits_of(network(mixed.images)).float()
    return Scored(F.cross_entropy(logits, mixed.targets), logits)
