"""One seed, many independent streams: each source of randomness has its own generator."""

import zlib

import numpy as np
import torch


def derive(seed: int, name: str) -> int:
    """A 63-bit seed for the stream ``name``: statistically independent of the other names' (numpy's SeedSequence)."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return int(entropy.generate_state(1, np.uint64)[0] >> 1)


def stream(seed: int, name: str) -> torch.Generator:
    """A CPU generator for the stream ``name`` of ``seed``. Drawing on the host keeps a run the same on every device."""
    return torch.Generator().manual_seed(derive(seed, name))
