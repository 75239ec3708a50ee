"""report.html with plots to hover over: what is in it, and how a browser shows it."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import browsing, check_page

from rlmix.evaluation import reliability_bins
from rlmix.reporting import interactive
from rlmix.reporting.plots import PLOTS, draw
from rlmix.reporting.report import Drawn, write_report
from rlmix.reporting.strips import Strip, Strips, Tile, draw_strips
from rlmix.reporting.verdict import verdicts

METHODS = ("rlmix", "rmix", "my_package:Method<b>", "vanilla")
SEEDS, EPOCHS = (0, 1, 4), 5


def curves():
    draws, found = np.random.default_rng(0), {}
    for name in METHODS:
        found[name] = {}
        for seed in SEEDS:
            records = []
            for epoch in range(EPOCHS):
                record = {"test_top1": 60 + 5 * epoch + draws.random(), "train_loss": 2 - 0.3 * epoch + 0.1 * draws.random()}
                record |= {"epoch_seconds": 1 + draws.random()}
                if name != "vanilla":
                    record |= {"reward_mean": draws.random(), "top_k_counts": draws.integers(1, 9, 10).tolist()}
                records.append(record)
            found[name][seed] = records
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a report of four methods and three seeds, and its curves; some names are long and odd."""
    pytest.importorskip("plotly")
    folder, drawn = tmp_path_factory.mktemp("report"), curves()
    probabilities = torch.rand(50, 10, generator=torch.Generator().manual_seed(0)).softmax(1)
    bins = {name: [reliability_bins(probabilities, torch.arange(50) % 10)] for name in METHODS}
    rows = {}
    for name, runs in drawn.items():
        last = {str(seed): {"top1": records[-1]["test_top1"]} for seed, records in runs.items()}
        spread = {"mean": float(np.mean([run["top1"] for run in last.values()])), "std": 1.0, "low": 70.0, "high": 90.0}
        gain = {} if name == "rmix" else {"difference": {"mean": 1.0, "low": -20.25, "high": 22.5}}
        figures = dict.fromkeys(("top1", "top1_median10", "ece", "fgsm_error"), spread | gain)
        rows[name] = {"label": name, "model": "net", "baseline": "rmix", "runs": last, "step_ratio": 1.5} | figures
    config = {"data": "npz:a_rather_long_folder/of_somebodys_own/data.npz", "agent": {"passes": 8, "policy_layers": [64, 64]}}
    report = {"seeds": list(SEEDS), "config": config, "methods": rows, "threads": 1, "reward_top1": {}}
    pixels = np.zeros((16, 16, 3), np.uint8)
    strips = Strips(
        [Strip(name, [Tile(pixels, ["3: 0.60", "4: 0.40"])] * 3 + [Tile(None, ["1: 1.00"])]) for name in METHODS], "lam = 0.6"
    )
    runs = {name: {seed: folder / "runs" / f"{name}-s{seed}" for seed in SEEDS} for name in METHODS}
    facts = {"command": "rlmix compare --methods " + " ".join(METHODS), "rlmix": "0.1.0, commit 0123456789ab"}
    write_report(folder, report, Drawn(drawn, bins, runs, strips, facts), "Comparison", verdict=verdicts(report))
    return folder, drawn


def figures(text):
    """The data of every plot in the page."""
    found = re.findall(r'Plotly\.newPlot\(\s*"plot-(\S+?)",\s*(\[.*?\]),\s*\{"', text, flags=re.DOTALL)
    return {name: json.loads(data) for name, data in found}


def test_every_seeds_value_is_a_dot(made):
    folder, drawn = made
    plots = figures((folder / "report.html").read_text())
    dots = {trace["meta"]: trace for trace in plots["seeds-0"] if "customdata" in trace}
    for name, runs in drawn.items():
        assert dots[name]["x"] == [records[-1]["test_top1"] for records in runs.values()]
        assert dots[name]["customdata"] == [0, 1, 4]
        shown = [trace for trace in plots["learning_curves-0"] if trace["meta"] == name and trace["mode"] == "markers"]
        assert [trace["y"] for trace in shown] == [[record["test_top1"] for record in records] for records in runs.values()]
    means = [
        trace["y"] for trace in plots["learning_curves-0"] if trace["meta"] == "rmix" and "mean" in trace.get("hovertemplate", "")
    ]
    expected = np.mean([[record["test_top1"] for record in records] for records in drawn["rmix"].values()], 0)
    assert means == [pytest.approx(expected.tolist())]


def test_every_plot_can_be_hovered_over(made):
    folder, drawn = made
    known = {path.stem for path in draw(drawn, {}, folder / "again")}
    plots = figures((folder / "report.html").read_text())
    assert known | {"reliability"} == {name.rpartition("-")[0] for name in plots} == set(PLOTS) & set(interactive.DRAWINGS)
    assert len([name for name in plots if name.startswith("top_k-")]) == 3  # vanilla chooses nothing


def test_the_page_begins_with_the_verdict_and_says_where_it_comes_from(made):
    folder, _ = made
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        body = text[text.index("<main>") :] if name.endswith("html") else text
        assert body.index("points of test top-1") < body.index("ECE %")
        for wanted in ("commit 0123456789ab", "rlmix compare --methods", "agent.passes", "runs/rlmix-s4/", "lam = 0.6"):
            assert wanted in body


def test_names_in_scripts_end_no_script(made):
    folder, _ = made
    assert not re.search(r"Method<b>", (folder / "report.html").read_text())


def test_strips_have_a_row_a_method_and_lines_below(tmp_path):
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    figure = draw_strips(
        Strips([Strip("rmix", [Tile(pixels, ["3: 0.60", "4: 0.40"])]), Strip("manifold", [Tile(None, ["1: 1.00"])])], "lam")
    )
    assert [axes.get_ylabel() for axes in figure.axes] == ["rmix", "manifold"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["3: 0.60\n4: 0.40", "1: 1.00"]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, False), (390, True)])
def test_a_browser_shows_it_legibly_and_fetches_nothing(made, width, dark):
    folder, _ = made
    with browsing() as browser:
        plots = len(figures((folder / "report.html").read_text()))
        check_page(browser, folder / "report.html", width, dark=dark, plots=plots)
        ink = browser.run("return getComputedStyle(document.querySelector('.plot text')).fill")
        assert ink == ("rgb(230, 237, 243)" if dark else "rgb(27, 31, 36)")
        shown = "return document.querySelector('#plot-learning_curves-0').data.filter(t => t.meta === 'rmix' && t.visible === false).length"
        assert browser.run(shown) == 0
        browser.run("document.querySelector('.arms input[value=rmix]').click()")
        assert browser.run(shown) == 2 + len(SEEDS)  # the band, the mean, and every seed
        assert browser.run("return document.querySelectorAll('.plot[hidden]').length") == 1
        assert browser.complaints() == []
        assert browser.violations() == []


def test_it_is_not_a_number_that_breaks_the_page(tmp_path):
    """One seed: no interval."""
    one = {name: {0: runs[0]} for name, runs in curves().items()}
    for drawing in interactive.seed_dots(one, {}):
        values = [value for trace in drawing.traces for value in (*trace["x"], *trace.get("error_x", {}).get("array", ()))]
        assert all(math.isfinite(value) for value in values)
    assert Path(next(iter(draw(one, {}, tmp_path)))).exists()
