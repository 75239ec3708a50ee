"""How far several trainings are together: told by the lines in their folders."""

from types import SimpleNamespace

import pytest

from rlmix.config import Config
from rlmix.experiments import overall
from rlmix.experiments.overall import Overall
from rlmix.reporting import bar


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    for module in (overall, bar):
        monkeypatch.setattr(module.time, "monotonic", lambda: now.seconds)
    return now


@pytest.fixture
def runs(tmp_path):
    """Four trainings of five epochs; of the first, two were done before."""
    made = {name: Config.flat(data="digits", method="rmix", epochs=5, out=tmp_path / name) for name in "abcd"}
    write(made, "a", 2)
    return made


def write(runs, name, epochs):
    runs[name].folder.mkdir(exist_ok=True)
    (runs[name].folder / "metrics.jsonl").write_text("{}\n" * epochs)


def test_one_after_the_other_each_is_announced_with_what_all_of_them_take(clock, runs, capsys):
    with Overall(runs, at_once=False) as seen:
        seen.begin("a")
        clock.seconds, _ = 30, write(runs, "a", 5)  # three epochs of 18 are done
        seen.end("a", None)
        seen.begin("b")
        clock.seconds = 80  # it stopped early: what it had left is no work any more
        seen.end("b", "the loss is nan")
        seen.begin("c")
    assert capsys.readouterr() == (
        "1/4 a\n2/4 b, 2.5 min left for all\n2/4 b: the loss is nan\n3/4 c, 1.7 min left for all\n",
        "",
    )


def test_at_once_one_line_is_over_all(clock, runs, capsys):
    with Overall(runs, at_once=True) as seen:
        seen.look("abc")
        clock.seconds = 20
        seen.look("abc")  # nothing has changed
        write(runs, "a", 3)
        write(runs, "b", 2)
        seen.look("abc")
        clock.seconds = 24
        seen.end("a", None)
        clock.seconds = 40
        seen.look("bc")
    out, err = capsys.readouterr()
    assert out == "1/4 a: finished\n"
    first, second = err.splitlines()
    assert first == "0/4 trained, now a, b and 1 more: 17%, 1.7 min left"  # 3 of 18 in 20 s
    assert second == "1/4 trained, now b, c: 28%, 1.7 min left"  # 5 of 18 in 40 s


def test_quiet(clock, runs, capsys):
    with Overall(runs, at_once=True, quiet=True) as seen:
        clock.seconds = 100
        seen.look("a")
        seen.end("a", "failed")
        seen.begin("b")
    assert capsys.readouterr() == ("", "")
