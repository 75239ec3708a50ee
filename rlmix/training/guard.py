"""Steps whose loss or gradient is not finite: found on the device, never applied, and told of when the device is looked at anyway."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rlmix.maps.gradient import Saliency
from rlmix.training.tally import Tally

AGAIN = "what is kept leads there again: start anew with a lower"
"""Of an error that a run which goes on to the bit runs into once more."""


def all_finite(loss: Float[Tensor, ""], parameters: Iterable[nn.Parameter]) -> Bool[Tensor, ""]:
    """Whether the loss and every gradient are finite; stays on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    plain = [gradient.detach() for gradient in gradients if gradient.dtype == torch.float32]
    rest = [gradient.detach() for gradient in gradients if gradient.dtype != torch.float32]
    # torch.amp's own check, in one pass over all of them: a scale of 1 changes no bit, and large finite values stay finite
    found = loss.new_zeros((), dtype=torch.float32)
    torch._amp_foreach_non_finite_check_and_unscale_(plain, found, torch.ones_like(found))
    peaks = torch._foreach_norm(rest, float("inf")) if rest else ()  # the largest magnitude, in which inf and nan show
    return torch.stack([found == 0, loss.detach().isfinite(), *(peak.isfinite() for peak in peaks)]).all()


def finite_saliency(seen: Saliency) -> tuple[Saliency, Bool[Tensor, ""]]:
    """What was seen, and whether all of it was finite; stays on the device.

    An image whose logits or map are not finite, or whose map cannot be summed, is shown without a preference: logits of 0, an even map.
    """
    sound = seen.map.flatten(1).sum(1).isfinite() & seen.logits.isfinite().all(1)
    shown = Saliency(map=torch.where(sound[:, None, None], seen.map, 1.0), logits=torch.where(sound[:, None], seen.logits, 0.0))
    return shown, sound.all()


def spoil_unless(finite: Bool[Tensor, ""], loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The loss, or nan, with its gradient: every rank of several learns of it then."""
    return loss * torch.where(finite, 1.0, float("nan"))


def check_agent(agent: nn.Module, learning_rate: float, epoch: int, global_step: int, scored: bool = True) -> None:
    """Raise FloatingPointError where a learning agent's weights, or the scores it gives (``scored``), are not finite any more."""
    if scored and all(parameter.isfinite().all() for parameter in agent.parameters()):
        return
    where = f"in epoch {epoch}, after step {global_step}, at agent.learning_rate {learning_rate:g}"
    error = FloatingPointError(f"the agent's {'weights' if scored else 'scores'} are not finite {where}")
    error.add_note(f"{AGAIN} --agent.learning-rate")
    raise error


def restore_where_not(finite: Bool[Tensor, ""], buffers: list[Tensor], before: list[Tensor]) -> None:
    """Put the values ``before`` back into ``buffers`` unless ``finite``: a step that is left out leaves no running statistics."""
    with torch.no_grad():
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, old))


class Guard:
    """Stops a training after a step that was not finite.

    Args:
        skip: Such steps are only counted, unless an epoch has no others.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.begin()

    def begin(self, looked_at: int = 0) -> None:
        """Guard an epoch of which so many steps have been looked at."""
        self._looked_at = looked_at
        self._rates: list[float] = []

    def step(self, learning_rate: float) -> None:
        """Remember at what rate a step was taken."""
        self._rates.append(learning_rate)

    def look(self, tally: Tally, epoch: int, trained: int, global_step: int) -> None:
        """Raise FloatingPointError if a step since the last look was not finite; waits for the device."""
        first, rates = self._looked_at, self._rates
        self.begin(trained)
        wrong = (~tally.finite[first:trained]).nonzero().flatten().tolist()
        hopeless = trained == len(tally.finite) and not tally.finite.any()
        if not wrong or (self.skip and not hopeless):
            return
        loss, step = float(tally.losses[first + wrong[0]]), global_step - trained + first + wrong[0] + 1
        what = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        where = f"in epoch {epoch}, step {step}, at learning rate {rates[wrong[0]]:g}"
        error = FloatingPointError(f"{what} {where}" + (", and no other step of the epoch was finite" if self.skip else ""))
        error.add_note(f"{AGAIN} --learning-rate" + ("" if self.skip else ", or with --on-nonfinite skip"))
        raise error
