"""One seed, many independent streams: each source of randomness has its own generator."""

import inspect
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def derive(seed: int, name: str) -> int:
    """A 63-bit seed for the stream ``name``: statistically independent of the other names' (numpy's SeedSequence)."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return int(entropy.generate_state(1, np.uint64)[0]) >> 1


def stream(seed: int, name: str, device: torch.device | None = None) -> torch.Generator:
    """A generator for the stream ``name`` of ``seed``. Drawing on the host, the default, keeps a run the same on every device."""
    return torch.Generator(device or "cpu").manual_seed(derive(seed, name))


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Inside, what this thread draws without naming a generator comes from this one: a layer's initial weights.

    The numbers are those of a global generator seeded alike. That one, which other threads draw from, is neither read nor moved. On
    another device than the host, a generator there that is seeded alike draws.
    """
    with _Drawing(generator):
        yield


class _Drawing(TorchFunctionMode):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generators = {"cpu": generator}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # libraries put functions of their own in the place of nn.init's, such as transformers while it builds
        draws = func in _DRAWS or (inspect.isfunction(func) and func.__name__ in _INITS)
        if draws and kwargs.get("generator") is None:
            tensor = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            device = torch.device(kwargs.get("device") or torch.get_default_device()) if tensor is None else tensor.device
            if device.type != "meta":
                kwargs = kwargs | {"generator": self._on(device)}
        return func(*args, **kwargs)

    def _on(self, device: torch.device) -> torch.Generator:
        if str(device) not in self.generators:
            self.generators[str(device)] = torch.Generator(device).manual_seed(self.generators["cpu"].initial_seed())
        return self.generators[str(device)]


_INITS = frozenset(
    [
        *("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_"),
        *("xavier_uniform_", "xavier_normal_", "orthogonal_", "sparse_"),
    ]
)
"""Functions of ``nn.init`` that draw; these are dispatched as a whole."""
_DRAWS: frozenset[Any] = frozenset(
    [
        *(Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_, Tensor.log_normal_),
        *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial),
        *(getattr(nn.init, name) for name in _INITS),
    ]
)
"""Functions of torch that draw, and take a generator."""
