"""What is counted over an epoch's steps, on the device, and read when it is looked at anyway."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlmix import evaluation as metrics
from rlmix.common.ranks import Ranks


@dataclass
class Tally:
    """One rank's sums over an epoch's steps."""

    losses: Float[Tensor, " step"]
    finite: Bool[Tensor, " step"]
    """Whether the step's loss and gradient were; where not, it was left out."""
    top1: Int[Tensor, ""]
    top5: Int[Tensor, ""]

    @classmethod
    def empty(cls, steps: int, device: torch.device) -> Self:
        """For an epoch of so many steps."""
        losses, zero = torch.zeros(steps, device=device), torch.zeros((), dtype=torch.int64, device=device)
        return cls(losses, torch.ones_like(losses, dtype=torch.bool), zero, zero.clone())

    def add(self, index: int, loss: Tensor, finite: Tensor, logits: Tensor, targets: Tensor) -> Int[Tensor, ""]:
        """Count a step, and give how many images it had right; accuracy is against each target's largest share."""
        self.losses[index], self.finite[index] = loss, finite
        dominant = targets.argmax(1)
        correct = metrics.topk_correct(logits, dominant, 1) * finite
        self.top1 += correct
        self.top5 += metrics.topk_correct(logits, dominant, 5) * finite
        return correct

    def means(self, steps: int, batch_size: int, ranks: Ranks) -> dict[str, float]:
        """``train_loss``, ``train_top1``, ``train_top5`` over the first steps of all ranks, and how many of these were left out."""
        finite = self.finite[:steps].cpu()
        count = int(finite.sum())
        losses, top1, top5 = (ranks.gather(sums) for sums in (self.losses, self.top1, self.top5))
        images = max(count, 1) * batch_size
        return {
            "train_loss": float(losses[:, :steps][:, finite].mean()) if count else 0.0,
            "train_top1": 100 * float(top1.sum()) / images,
            "train_top5": 100 * float(top5.sum()) / images,
            "nonfinite_steps": steps - count,
        }

    def mean_loss(self, first: int, last: int, ranks: Ranks) -> float:
        """Over the steps from ``first`` to before ``last`` of all ranks that were not left out; nan where all were."""
        finite = self.finite[first:last].cpu()
        return float(ranks.gather(self.losses)[:, first:last][:, finite].mean())

    def state_dict(self, ranks: Ranks) -> dict[str, Tensor]:
        """All ranks' sums, stacked."""
        return {name: ranks.gather(sums) for name, sums in vars(self).items()}

    @classmethod
    def load(cls, state: dict[str, Tensor], ranks: Ranks, device: torch.device) -> Self:
        """This rank's sums; of another number of ranks, parts that give the same means together."""
        if len(state["losses"]) == ranks.size:
            own = {name: sums[ranks.rank] for name, sums in state.items()}
        else:
            own = {"losses": state["losses"].mean(0), "finite": state["finite"][0]}
            own |= {name: state[name].sum() * ranks.first for name in ("top1", "top5")}
        return cls(**{name: sums.to(device) for name, sums in own.items()})
