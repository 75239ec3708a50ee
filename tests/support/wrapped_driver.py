"""What one of two processes does for test_loops.py: ``wrapped_driver.py FOLDER``, under torchrun. A loop of somebody's own, under DDP."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from exit_driver import gloo_threads
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rlmix.agents.transform import RLMix
from rlmix.common.ranks import leave
from rlmix.mixing.comixup import CoMixup
from rlmix.mixing.rmix import RMix


def gradients(method, wrapped: bool) -> list[torch.Tensor]:
    """After three steps on this rank's own images; the method is given the wrapper, or the network inside."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 64, 3))
    ddp = DistributedDataParallel(network, static_graph=True)
    optimizer = torch.optim.SGD(ddp.parameters(), 0.1)
    own = torch.Generator().manual_seed(1 + dist.get_rank())
    for _ in range(3):
        images, labels = torch.randn(8, 3, 8, 8, generator=own), torch.randint(3, (8,), generator=own)
        mixed = method(ddp if wrapped else network, images, labels, num_classes=3, generator=own)
        optimizer.zero_grad()
        F.cross_entropy(ddp(mixed.images), mixed.targets).backward()
        optimizer.step()
    return [parameter.grad.clone() for parameter in network.parameters()]


def frozen(folder: Path) -> None:
    """A learned policy mixes a batch of another size on each rank, and one more on the first alone: ranks do not wait for each other."""
    network, rank = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), dist.get_rank()
    learner = RLMix(learn=True)
    learner(network, torch.rand(6, 3, 8, 8), torch.arange(6) % 3)
    learner.save(folder / f"rank{rank}.zip")
    mixer = RLMix(folder / f"rank{rank}.zip")
    for size in (6 + 2 * rank, *([4] if rank == 0 else [])):
        assert mixer(network, torch.rand(size, 3, 8, 8), torch.arange(size) % 3).images.shape == (size, 3, 8, 8)


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    methods = {"rmix": RMix(), "comixup": CoMixup(num_patches=2, clean_lam=0.0)}
    found = {f"{name} {wrapped}": gradients(method, wrapped) for name, method in methods.items() for wrapped in (True, False)}
    frozen(folder)
    rank, there = dist.get_rank(), gloo_threads()
    dist.barrier()
    leave()
    torch.save((found, there, gloo_threads()), folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
