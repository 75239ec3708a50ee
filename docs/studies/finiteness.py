"""Time the check of a step's gradients, as it is and by infinity norms: ``python docs/studies/finiteness.py``."""

import time
from collections.abc import Callable

import torch
from torch import nn

from rlmix.models import build_model
from rlmix.reporting.output import make_console
from rlmix.training.guard import all_finite

TIMES = 30


def main() -> None:
    torch.set_num_threads(1)
    loss = torch.tensor(1.0)
    for name in ("preactresnet18_w16", "preactresnet18"):
        weights = list(build_model(name, 100).parameters())
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        norms, fused = fastest(lambda: by_norms(weights)), fastest(lambda: all_finite(loss, weights))  # noqa: B023  (called at once)
        make_console().print(f"{name}: infinity norms {norms:.2f} ms, all_finite {fused:.2f} ms", highlight=False)


def by_norms(weights: list[nn.Parameter]) -> torch.Tensor:
    """Whether each gradient's largest magnitude is finite."""
    norms = torch._foreach_norm([weight.grad for weight in weights if weight.grad is not None], float("inf"))
    return torch.stack(norms).isfinite().all()


def fastest(check: Callable[[], torch.Tensor]) -> float:
    """Milliseconds of the fastest of so many calls."""
    found = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        check()
        found.append(time.perf_counter() - begun)
    return 1000 * min(found)


if __name__ == "__main__":
    main()
