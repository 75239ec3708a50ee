"""The processes that train one classifier together, and what they tell each other on the host."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

if dist.is_available():
    import torch.distributed.nn.functional  # default arguments of its functions keep the group that they find when first imported


class Ranks:
    """This process among the others; alone where no process group is there. Every method must be called by all ranks alike.

    What is told lies on the host, over gloo, whatever the gradients go over: no call waits for the device.

    Args:
        alone: Whether to take no notice of the others.

    Attributes:
        size: How many there are.
        rank: Which one this is; 0 decides, writes and prints.
    """

    def __init__(self, alone: bool = False) -> None:
        together = not alone and dist.is_available() and dist.is_initialized()
        self.size, self.rank = (dist.get_world_size(), dist.get_rank()) if together else (1, 0)
        self._group: Any = dist.new_group(backend="gloo") if together and dist.get_backend() != "gloo" else None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor, stacked in front (size, ...), on every rank; all of one shape."""
        if self.size == 1:
            return tensor.cpu()[None]
        own = tensor.cpu().contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own, group=self._group)
        return torch.stack(parts)

    def from_first(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, on every rank."""
        if self.size > 1:
            dist.broadcast(tensor, 0, group=self._group)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        return bool(self.gather(torch.tensor(flag)).any()) if self.size > 1 else flag

    def largest(self, number: int) -> int:
        """Of every rank's number."""
        return int(self.gather(torch.tensor(number)).max()) if self.size > 1 else number

    def share(self, rows: Tensor) -> Tensor:
        """This rank's rows of a whole batch's."""
        count = len(rows) // self.size
        return rows[self.rank * count : (self.rank + 1) * count]


@contextmanager
def peers(ranks: Ranks) -> Iterator[None]:
    """Inside, what the communication libraries say when a process is gone becomes a ConnectionError.

    Gloo notices a closed connection at once. NCCL may not: torchrun ends the other processes then.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if ranks.size == 1 or not re.search("gloo|nccl|connection", reason, re.IGNORECASE):
            raise
        raise ConnectionError(f"rank {ranks.rank} of {ranks.size} cannot go on, as another one is gone: {reason}") from error


def leave() -> None:
    """End the process group, where there is one, after everything that used it is gone: torch aborts in some exits otherwise.

    Gloo's threads end with the last owner of the group, and C++ aborts where they still run when the interpreter is gone.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
