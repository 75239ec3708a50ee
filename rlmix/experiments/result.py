"""What a training comes to."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlmix.config import Config


def finite(value: Any) -> Any:
    """Infinities and NaN, which JSON does not have, as None; in mappings, of their entries."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, eq=False)
class Result(Mapping[str, Any]):
    """The figures of a finished run, by name as result.json has them: ``result["top1"]``.

    Of several processes of one training the first has them; the others' are empty.
    """

    folder: Path
    """Where the run lies."""
    config: Config
    """As it was run."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """method, seed, top1 and the other figures of result.json; percentages are 0 to 100, and what is not finite is None."""
    epochs: Sequence[Mapping[str, Any]] = ()
    """Lines of metrics.jsonl, an epoch each."""

    def __getitem__(self, name: str) -> Any:
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)
