"""Values of a YAML file as the fields of a dataclass, kind by kind."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from rlmix.common.groups import read_flat


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    layers: tuple[int, ...] = (64, 64)


@dataclass(frozen=True)
class Group:
    within: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Outer:
    count: int = 1
    rate: float | None = None
    flag: bool = False
    maybe: bool | None = None
    mode: Literal["one", "two"] | None = None
    name: str = "a"
    parts: tuple[float, ...] | None = None
    out: Path | None = None
    inner: Group = field(default_factory=Group)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Outer()),
        ({"count": 3, "rate": 1}, Outer(count=3, rate=1.0)),
        ({"rate": "1e-3", "count": "7"}, Outer(rate=1e-3, count=7)),  # YAML reads 1e-3 as a word
        ({"rate": None, "maybe": None, "mode": None}, Outer()),
        ({"flag": True, "maybe": False, "mode": "two"}, Outer(flag=True, maybe=False, mode="two")),
        ({"parts": [1, 0.5], "out": "some/where"}, Outer(parts=(1.0, 0.5), out=Path("some/where"))),
        ({"inner": {"rate": 2, "layers": [3]}}, Outer(inner=Group(Inner(2.0, (3,))))),
    ],
)
def test_values_become_the_fields_types(values, expected):
    made = read_flat(Outer(), values)
    assert made == expected
    assert type(made.count) is int
    assert made.rate is None or type(made.rate) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1.5}, r"count must be int, got 1\.5"),
        ({"count": True}, r"count must be int, got True"),
        ({"count": None}, r"count must be int, got None"),
        ({"count": "many"}, r"count must be int, got 'many'"),
        ({"rate": [1]}, r"rate must be float or None, got \[1\]"),
        ({"flag": 1}, r"flag must be bool, got 1"),
        ({"mode": "three"}, r"mode must be one of one, two or None, got 'three'"),
        ({"name": 5}, r"name must be str, got 5"),
        ({"parts": [1, "x"]}, r"parts must be a list of float or None, got \[1, 'x'\]"),
        ({"parts": 1}, r"parts must be a list of float or None, got 1"),
        ({"inner": 3}, r"option inner must be a mapping, got 3"),
        ({"inner": {"rate": "x"}}, r"inner\.rate must be float, got 'x'"),
        ({"inner": {"rates": 1}}, r"option must be one of rate, layers, got 'rates' \(did you mean 'rate'\?\)"),
        ({"cuont": 1}, r"option must be one of .*, got 'cuont' \(did you mean 'count'\?\)"),
        ({1: 1}, r"option must be one of .*, got '1'"),
    ],
)
def test_what_is_none_of_the_fields_type_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read_flat(Outer(), values)
