"""rlmix benchmark: what it writes. How long things take is the benchmark's own business and no test's."""

import json

import pytest

from rlmix.scripts import benchmark
from rlmix.scripts.main import main as rlmix_main

SMALL = ["--batch-size", "8", "--image-size", "16", "--num-classes", "4", "--rounds", "2", "--warmup", "1", "--device", "cpu"]


def test_figures_of_each_method(tmp_path, capsys):
    path = tmp_path / "figures.json"
    benchmark.main([*SMALL, "--methods", "saliency", "rmix", "rmix-dropin", "rlmix", "cutmix", "--json", str(path)])
    figures = json.loads(path.read_text())
    assert list(figures["methods"]) == ["vanilla", "saliency", "rmix", "rmix-dropin", "rlmix", "cutmix"]
    vanilla = figures["methods"]["vanilla"]["step_ms"]
    for row in figures["methods"].values():
        assert row["ratio"] == pytest.approx(row["step_ms"] / vanilla)
        assert 0 < row["spread_ms"][0] <= row["spread_ms"][1]
    assert figures["methods"]["rlmix"]["parts_ms"]["ppo_update"] > 0
    assert {"model", "batch_size", "threads", "device", "torch"} <= set(figures["machine"])
    printed = capsys.readouterr().out
    assert all(f" {name} " in printed for name in figures["methods"])


def test_bad_input_is_one_line(capsys):
    for args, words in (
        (["--methods", "rmixx"], "(did you mean 'rmix'?)"),
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
    ):
        with pytest.raises(SystemExit) as stop:
            rlmix_main(["benchmark", *args])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
