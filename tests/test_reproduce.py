"""rlmix reproduce: the specifications hold together, and a table runs at a small scale and says so."""

import json
from html import unescape

import pytest
from toys import write_npz

from rlmix.runs import read_config
from rlmix.scripts import reproduce as command
from rlmix.scripts.evaluate import Evaluate
from rlmix.scripts.main import main as rlmix_main
from rlmix.scripts.options import parse
from rlmix.scripts.paper_tables import NETWORKS, TABLES


def options(*args):
    return parse(command.Reproduce, "reproduce", args)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_at_full_scale_is_the_papers_recipe(name):
    table = TABLES[name]
    data = ["--data", "imagefolder:PATH"] if not table.data else []
    study = command.plan(options(name, *data), table)
    assert len(study.arms) == len(table.arms) * len(table.models)
    assert len({arm.name for arm in study.arms}) == len(study.arms)
    names = {arm.name for arm in study.arms}
    for arm in study.arms:
        assert arm.baseline in names
        assert arm.options.epochs == table.epochs
        assert arm.options.train_images is None
        assert (arm.options.alpha, arm.options.credit) == (arm.options.alpha if "alpha" in table.varied else None, "pair")
    labels = {arm.label for arm in table.arms}
    assert table.baseline in labels
    for model, label, figure in table.known:
        assert model in (*NETWORKS, "resnet50")
        assert label in labels or figure == "top1"
        assert figure in command.FIGURES
    assert set(table.figures) <= set(command.FIGURES)


def test_strategies_and_grid():
    rules = [arm.options["rule"] for arm in TABLES["table12"].arms]
    assert rules == ["cut_top", "cut_top_least", "mix_top", "mix_least"]
    grid = {(arm.options["num_patches"], arm.options["num_top_k"]) for arm in TABLES["table7"].arms}
    assert len(grid) == 12
    assert ((2, 4), 10) in grid


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Arguments of a run on half of 64 images and 1/150 of the epochs."""
    folder = tmp_path_factory.mktemp("reproduce")
    more = ["--model", "preactresnet18_w16", "--learning-rate", "0.05", "--batch-size", "16", "--device", "cpu", "--seeds", "3"]
    return ["--data", write_npz(folder, 16), *more]


def test_a_table_at_a_small_scale_says_so_and_shows_the_papers_figures_beside(small, tmp_path, capsys):
    command.main(["table12", "--scale", "0.5", *small, "--epochs", "1", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "compare.json").read_text())
    assert report["scale"] == 0.5
    assert [row["label"] for row in report["methods"].values()] == [arm.label for arm in TABLES["table12"].arms]
    for arm in TABLES["table12"].arms:
        config = read_config(tmp_path / "runs" / f"preactresnet18_w16-{arm.label.replace(' ', '-')}-s3")
        assert (config["rule"], config["train_images"], config["epochs"]) == (arm.options["rule"], 32, 1)
    for text in (capsys.readouterr().out, (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()):
        assert "At scale 0.5: 1 of the paper's 300 epochs on 32 training images of npz." in " ".join(unescape(text).split())
        assert command.UNKNOWN in text
        assert "81.49 (preactresnet18)" in text  # the paper had no network like ours


def test_the_papers_figure_is_beside_its_own_row_only():
    table = TABLES["table2"]
    shared = {"model": "preactresnet18", "paper_model": "preactresnet18"}
    rows = {
        "a": shared | {"label": "rmix", "top1": {"mean": 1.0, "std": None}, "paper": {"top1": 81.49}},
        "b": shared | {"label": "vanilla", "top1": {"mean": 2.0, "std": 0.5}, "paper": {"top1": None}},
    }
    assert table.known["preactresnet18", "rmix", "top1"] == 81.49
    header, lines = command.beside_the_paper({"methods": rows}, table)
    assert header == ["model", "row", "top-1 %", "paper's top-1 %"]
    assert lines == [["preactresnet18", "rmix", "1.00", "81.49"], ["preactresnet18", "vanilla", "2.00 ± 0.50", command.UNKNOWN]]


def test_a_scale_is_a_fraction_of_images_and_epochs_at_least_one(small):
    study = command.plan(options("table8", "--scale", "0.25", *small), TABLES["table8"])
    assert {(arm.options.epochs, arm.options.train_images) for arm in study.arms} == {(75, 16)}
    study = command.plan(options("table9", "--scale", "0.25", *small), TABLES["table9"])
    assert {arm.options.epochs for arm in study.arms} == {1}
    assert study.timed


def test_localization_is_asked_of_evaluate_once(tmp_path, monkeypatch):
    asked, found = [], {"localization": {"top1": 10.0, "gt_known": 30.0}}
    monkeypatch.setattr(command, "evaluate", lambda wanted: asked.append(wanted) or found)
    boxes = tmp_path / "boxes.csv"
    for _ in range(2):
        assert command.localize(tmp_path, boxes) == {"localization": 10.0, "localization_gt_known": 30.0}
    assert asked == [Evaluate(source=tmp_path, boxes=boxes, attacks=())]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["table3"], "table must be one of table1, table2"),
        (["table12", "--scale", "0"], "scale must be in (0, 1], got 0.0"),
        (["table12", "--scale", "1.5"], "scale must be in (0, 1], got 1.5"),
        (["table8", "--alpha", "2"], "alpha must be left out with table8, which varies it itself"),
        (["table4"], "data must be given with table4"),
        (["table5", "--data", "imagefolder:X"], "boxes must be given with table5"),
        (["table2", "--data", "digits", "--boxes", "x.csv"], "boxes must be left out with table2"),
        (["table12", "--data", "digits", "--seeds", "1", "1"], "seeds must differ"),
    ],
)
def test_bad_input_is_one_line(args, words, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["reproduce", *args, "--out", str(tmp_path / "x")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "x").exists()
