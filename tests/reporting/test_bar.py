"""Bars: what is being done, how much of it is done and how long the rest takes; and where commands wrote."""

import io
from types import SimpleNamespace

import pytest
import torch

from rlmix.reporting import bar as bars
from rlmix.reporting.bar import Bar, Watched
from rlmix.reporting.progress import TrainingProgress


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(bars.time, "monotonic", lambda: now.seconds)
    return now


def test_without_a_terminal_a_line_now_and_then(clock, capsys):
    with Bar("counting", 10) as bar:
        for _ in bar.over(range(10)):
            clock.seconds += 4
    assert capsys.readouterr().err == "counting: 30%, 28 s left\ncounting: 60%, 16 s left\ncounting: 90%, 4 s left\n"


def test_what_is_over_soon_says_nothing(clock, capsys):
    with Bar("counting", 10) as bar:
        for _ in bar.over(range(10)):
            clock.seconds += 0.5
    assert capsys.readouterr() == ("", "")


def test_nor_does_what_is_quiet(clock, capsys):
    with Bar("counting", 2, quiet=True) as bar:
        clock.seconds += 100
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar(monkeypatch):
    from rlmix.reporting.output import make_console

    out = io.StringIO()
    monkeypatch.setattr(
        bars, "make_console", lambda **options: make_console(file=out, force_terminal=True, force_interactive=True, width=80)
    )
    with Bar("[counting]", 4) as bar:
        bar.advance(1, "attack pgd")
        bar.advance(2)
    assert "attack pgd" in out.getvalue()
    assert "75%" in out.getvalue()


def test_a_watched_data_set_is_the_same_and_counts():
    batches = [SimpleNamespace(labels=torch.zeros(count)) for count in (3, 2)]
    data = SimpleNamespace(batches=lambda split, size: iter(batches), num_classes=7)
    bar = Bar("", 5)
    watched = Watched(data, bar)
    assert list(watched.batches("test", 3)) == batches
    assert (watched.num_classes, bar.done) == (7, 5)


def test_a_part_of_a_training_says_how_much_of_it_is_done(monkeypatch):
    said = []
    progress = TrainingProgress(10, 0, 1, quiet=True)
    monkeypatch.setattr(progress, "stage", said.append)
    batches = [SimpleNamespace(labels=torch.zeros(count)) for count in (3, 2)]
    data = SimpleNamespace(batches=lambda split, size: iter(batches))
    for _ in Watched(data, progress.part("measuring fgsm_error", 5)).batches("test", 3):
        pass
    assert said == ["measuring fgsm_error", "measuring fgsm_error: 60%", "measuring fgsm_error: 100%"]
