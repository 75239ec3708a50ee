"""rlmix reproduce: the tables are those published, cell by cell, and one runs at a small scale and says so."""

import json
import re
from html import unescape

import pytest
from toys import write_npz

from rlmix.common.saved_config import read_config
from rlmix.experiments import layout, reproduce
from rlmix.experiments.commands.evaluate import Evaluate
from rlmix.experiments.commands.reproduce import TABLES, check, read_options
from rlmix.experiments.paper_tables import PAPER_TABLES
from rlmix.experiments.published import beside_published
from rlmix.experiments.settings import settled
from rlmix.experiments.table_form import NETWORKS
from rlmix.scripts import reproduce as command
from rlmix.scripts.main import main as rlmix_main

PARN, WRN16, WRN28, RNX = NETWORKS
SIZES = {
    "table1": (5, 2, 10),
    "table2": (1, 4, 15),
    "table3": (5, 7, 35),
    "table4": (1, 8, 31),
    "table5": (7, 3, 21),
    "table6": (7, 2, 14),
    "table7": (8, 4, 32),
    "table8": (4, 1, 4),
    "table9": (1, 4, 16),
    "table10": (10, 2, 20),
    "table11": (10, 2, 20),
    "table12": (4, 1, 4),
}
"""Rows a network, columns, and published figures."""
SUMS = {"table1": 799.97, "table2": 1212.14, "table4": 2491.4, "table7": 2563.12, "table9": 1309.94, "table12": 316.31}
"""Of all figures, so that no digit is off."""


def options(*args):
    return read_options(args)


def plan(*args):
    wanted = options(*args)
    return reproduce.plan(wanted, TABLES[wanted.table])


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_a_table_has_the_published_cells(name):
    table = PAPER_TABLES[name]
    published = [value for cell in table.cells for value in cell.published.values()]
    assert (len(table.rows), len(table.columns), len(published)) == SIZES[name]
    assert all(set(row) == set(table.columns) and len(names) == len(table.headings) for names, row in table.rows.items())
    if name in SUMS:
        assert sum(published) == pytest.approx(SUMS[name])


@pytest.mark.parametrize(
    ("name", "row", "column", "network", "published"),
    [
        ("table1", ("comixup", "1200"), "onecycle", PARN, 80.3),
        ("table2", (), "puzzlemix", WRN28, 84.05),
        ("table3", ("comixup",), "least saliency", PARN, "no"),
        ("table4", (), "manifold_mixup", RNX, 77.72),
        ("table5", ("rmix",), "localization %", "resnet50", 55.58),
        ("table5", ("puzzlemix",), "cost", "resnet50", 2.8),
        ("table6", ("comixup",), "FGSM error %", PARN, 77.61),
        ("table7", ("{8, 16, 32}",), "K = 16", PARN, 79.55),
        ("table8", ("0.2",), "top-1 %", PARN, 81.29),
        ("table9", (), "rlmix", WRN16, 82.16),
        ("table10", ("alignmix", "2000"), "top-1 %", PARN, 81.71),
        ("table11", ("rmix",), "top-1 %", "resnet50", 77.41),
        ("table12", ("4 mix_least",), "top-1 %", PARN, 75.42),
    ],
)
def test_a_cell_has_its_own_figure(name, row, column, network, published):
    assert TABLES[name].rows[row][column].published[network] == published


def schedule(arm):
    optim = settled(arm.options).optim
    return optim.schedule, optim.learning_rate, optim.epochs, optim.milestones


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.trained])
def test_every_cell_of_a_network_has_its_run_and_no_other(name):
    table = TABLES[name]
    data = ["--data", "imagefolder:PATH"] if not table.data else []
    study = plan(name, *data)
    names = {arm.name for arm in study.arms}
    assert len(names) == len(study.arms)
    assert {arm.baseline for arm in study.arms} <= names
    wanted = {
        layout.arm_name(network, cell.run.label)
        for network in table.networks
        for cell in table.cells
        if network in cell.published or not table.published
    }
    assert names == wanted


def test_settings_are_the_papers():
    arms = {arm.name: arm for arm in plan("table4").arms}
    assert f"{WRN28}-comixup" not in arms  # the paper has no figure there
    assert schedule(arms[f"{PARN}-cutmix"]) == ("multistep", 0.2, 300, (1 / 3, 2 / 3))
    assert schedule(arms[f"{PARN}-cutmix+"])[:3] == ("onecycle", 0.3, 300)
    assert schedule(arms[f"{RNX}-rmix"])[:3] == ("onecycle", 0.3, 300)
    assert schedule(arms[f"{WRN28}-rmix"])[:3] == ("onecycle", 0.3, 400)
    assert schedule(arms[f"{WRN28}-vanilla"]) == ("multistep", 0.1, 400, (0.5, 0.75))
    assert arms[f"{PARN}-cutmix+"].options.run.method == "cutmix"

    arms = {arm.name: arm for arm in plan("table1").arms}
    assert schedule(arms[f"{PARN}-comixup-multistep-1200"]) == ("multistep", 0.1, 1200, (1 / 3, 2 / 3))
    assert schedule(arms[f"{PARN}-puzzlemix-onecycle-300"])[:3] == ("onecycle", 0.3, 300)

    grid = {(arm.options.mixing.num_patches, arm.options.mixing.num_top_k) for arm in plan("table7").arms}
    assert len(grid) == 32
    assert {((2, 32), 16), ((8, 16, 32), 20), ((2, 4), 10)} <= grid
    assert [arm.options.mixing.rule for arm in plan("table12").arms] == ["cut_top", "cut_top_least", "mix_top", "mix_least"]
    assert [arm.options.mixing.alpha for arm in plan("table8").arms] == [0.2, 0.5, 1.0, 2.0]
    epochs = {arm.label: arm.options.optim.epochs for arm in plan("table10").arms}
    assert (epochs["saliencymix"], epochs["automix"], epochs["alignmix"], epochs["rmix"]) == (2000, 1200, 2000, 300)


def test_the_papers_recipe_is_taken_whatever_form_its_data_are_given_in():
    for data in ([], ["--data", "npz:FILE"]):
        arms = {arm.label: settled(arm.options) for arm in plan("table4", "--models", PARN, *data).arms}
        assert {arm.optim.clip_norm for arm in arms.values()} == {0}
        assert (arms["rmix"].optim.learning_rate, arms["vanilla"].optim.learning_rate) == (0.3, 0.2)
        assert (arms["rmix"].optim.batch_size, arms["rmix"].data.crop_padding, arms["rmix"].data.flip) == (100, 2, True)
    assert {settled(arm.options).optim.clip_norm for arm in plan("table11", "--data", "imagefolder:PATH").arms} == {0}


def test_in_small_the_recipe_is_the_datas(small):
    without_rate = [arg for arg in small if arg not in ("--learning-rate", "0.05")]
    arms = {arm.label: settled(arm.options) for arm in plan("table4", "--models", PARN, "--scale", "0.5", *without_rate).arms}
    assert (arms["rmix"].optim.learning_rate, arms["vanilla"].optim.learning_rate, arms["rmix"].optim.clip_norm) == (
        0.05,
        0.05,
        1.0,
    )
    assert arms["vanilla"].optim.schedule == "multistep"


def test_imagenets_r_mix_has_the_papers_alpha():
    arms = {arm.label: settled(arm.options) for arm in plan("table5", "--data", "imagefolder:PATH").arms}
    assert (arms["rmix"].mixing.alpha, arms["rmix"].mixing.num_patches, arms["rmix"].mixing.num_top_k) == (0.2, (2, 4), 10)
    assert (arms["rmix"].model.name, arms["rmix"].optim.epochs) == ("resnet50", 100)
    assert arms["input_mixup"].mixing.alpha is None  # its own


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ("paper", "own", (8,))),
        (["--observation", "paper"], ("paper", "own", (8,))),
        (["--observation", "pair", "--credit", "pair"], ("pair", "pair", (8,))),
        (["--num-patches", "2", "4"], ("paper", "own", (2, 4))),
    ],
)
def test_what_is_given_is_taken_also_where_it_is_a_default_elsewhere(given, expected):
    (arm,) = [arm for arm in plan("table9", "--models", PARN, *given).arms if arm.label == "rlmix"]
    assert (arm.options.env.observation, arm.options.env.credit, arm.options.mixing.num_patches) == expected
    (arm,) = [arm for arm in plan("policies", *given).arms if arm.label == "rlmix"]
    assert settled(arm.options).env.observation == (expected[0] if given[:1] == ["--observation"] else "pair")


def test_a_default_that_is_given_is_noticed_where_the_table_varies_it(capsys):
    with pytest.raises(ValueError, match="num_top_k must be left out with table7, which varies it itself"):
        check(options("table7", "--num-top-k", "10"))
    assert check(options("table12", "--momentum=0.9")) == TABLES["table12"]
    assert options("table12", "--momentum=0.9", "--no-download").given == {"momentum": 0.9, "download": False}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Arguments of a run on half of 64 images and 1/150 of the epochs."""
    folder = tmp_path_factory.mktemp("reproduce")
    more = ["--learning-rate", "0.05", "--batch-size", "16", "--device", "cpu", "--seeds", "3"]
    return ["--data", write_npz(folder, 16), *more]


def test_a_table_at_a_small_scale_says_so_and_is_laid_out_as_published(small, tmp_path, capsys):
    args = ["--scale", "0.5", *small, "--model", "preactresnet18_w16", "--epochs", "1", "--out", str(tmp_path)]
    command.main(["table12", *args])
    report = json.loads((tmp_path / "compare.json").read_text())
    assert (report["table"], report["scale"]) == ("table12", 0.5)
    rules = ["cut_top", "cut_top_least", "mix_top", "mix_least"]
    published = [79.88, 79.52, 81.49, 75.42]
    lines = []
    for number, (rule, paper) in enumerate(zip(rules, published, strict=True), start=1):
        folder = tmp_path / "runs" / f"preactresnet18_w16-rule={number}-{rule}-s3"
        config, result = read_config(folder), json.loads((folder / "result.json").read_text())
        assert (config["rule"], config["train_images"], config["epochs"]) == (rule, 32, 1)
        cell = report["cells"][number - 1]
        assert (cell["row"], cell["column"], cell["ours"]["mean"], cell["paper"]) == (
            [f"{number} {rule}"],
            "top-1 %",
            result["top1"],
            paper,
        )
        lines.append(f"{result['top1']:.2f} ({paper:.2f})")
    out = capsys.readouterr().out
    wanted = [f"{number}/4 preactresnet18_w16-rule={number}-{rule}-s3" for number, rule in enumerate(rules, start=1)]
    assert out.startswith(f"4 trainings in {tmp_path / 'runs'}\n")
    assert [line.partition(",")[0] for line in out.splitlines() if re.match("[1-4]/4 ", line)] == wanted
    assert out.splitlines()[-1] == f"written to {tmp_path / 'report.html'}, report.md, compare.json, compare.csv and plots"
    for text in (out, (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()):
        text = " ".join(unescape(text).split())
        assert "At scale 0.5: 1 of the paper's 300 epochs, on 32 training and 20 test images of npz." in text
        assert all(line in text for line in lines)
        assert "4 trainings, 1 seed each, at scale 0.5: the paper's figures stand beside ours and cannot be compared" in text
        assert "One seed tells nothing about which method is better." in text
        assert "(the paper's: preactresnet18)" in text  # the paper had no network like ours


def test_cells_stand_where_the_paper_has_them():
    table = TABLES["table2"]
    methods = {
        f"{network}-{run.label}": {"top1": {"mean": 10.0 * row + column, "std": None}}
        for row, network in enumerate((PARN, WRN28))
        for column, run in enumerate(table.runs(network))
    }
    header, lines = layout.lay_out(layout.collect({"methods": methods}, table, (PARN, WRN28)), table, (PARN, WRN28))
    assert header == ["network", "cutmix", "puzzlemix", "comixup", "cutmix+"]
    assert lines == [
        [PARN, "0.00 (78.71)", "1.00 (79.38)", "2.00 (80.13)", "3.00 (80.60)"],
        [WRN28, "10.00 (82.50)", "11.00 (84.05)", "", "12.00 (83.97)"],
    ]


def test_properties_are_laid_out_without_a_training(tmp_path, capsys):
    command.main(["table3", "--model", "preactresnet18_w16", "--batch-size", "20", "--device", "cpu", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "compare.json").read_text())
    cells = {(cell["row"][0], cell["column"]): (cell["ours"], cell["paper"]) for cell in report["cells"]}
    assert cells["cutout", "full image"] == ("no", "no")
    assert cells["comixup", "second objective"] == ("yes", "yes")
    assert cells["cutmix", "top saliency"] == ("?", "mixed")
    ratio, paper = cells["rmix", "speed"]
    assert ratio == report["methods"]["preactresnet18_w16-rmix"]["step_ratio"] > 0
    assert paper == 2
    text, out = (tmp_path / "report.md").read_text(), capsys.readouterr().out
    assert f"| rmix | {ratio:.2f} (2) |" in text
    asked = [pair for (_, column), pair in cells.items() if column != "speed"]
    said = (
        f"No training: {sum(ours == paper for ours, paper in asked)} of {len(asked)} properties are as the paper has them; speed"
    )
    assert said in text
    assert said in out
    assert out.splitlines()[-1] == f"written to {tmp_path / 'report.md'} and compare.json"


def cell(figure, ours, paper):
    return {"figure": figure, "ours": {"mean": ours, "std": None}, "paper": paper}


def test_ours_is_set_against_the_papers_where_it_is_the_papers_experiment():
    cells = [cell("top1", 80.0, 81.0), cell("top1", 82.5, 82.0), cell("top1", 78.0, 78.2), cell("ece", 5.0, 4.0)]
    said = beside_published([*cells, cell("ece", 3.0, None)], runs=12, seeds=3, scale=1, comparable=True).text
    assert said == (
        "12 trainings, 3 seeds each, at the paper's scale. Ours minus the paper's: "
        "top-1 % -0.23 on average (-1.00 to +0.50 over 3 cells); ECE % +1.00."
    )
    assert "not the paper's: the paper's figures" in beside_published(cells, 4, 1, scale=1, comparable=False).text
    assert (
        beside_published([cell("top1", 1.0, None)], 6, 2, 1, True).text
        == "6 trainings, 2 seeds each: the paper has no such table."
    )


def test_only_the_papers_own_experiment_is_comparable(small):
    def comparable(name, *args):
        return reproduce.is_the_papers(TABLES[name], options(name, *args))

    assert comparable("table4")
    assert comparable("table4", "--models", WRN16)
    assert not any(
        comparable("table4", *args) for args in (["--scale", "0.5"], ["--models", "resnet50"], ["--alpha", "2"], small[:2])
    )


def test_a_scale_is_a_fraction_of_images_and_epochs_at_least_an_image_a_class(small):
    def arms(*args):
        chosen = [arm.options for arm in plan(*args, *small).arms]
        return {(each.optim.epochs, each.data.train_images, each.data.test_images, each.optim.batch_size) for each in chosen}

    assert arms("table8", "--scale", "0.5") == {(150, 32, 20, 16)}
    assert arms("table8", "--scale", "0.25") == {(75, 16, 10, 16)}
    assert arms("table8", "--scale", "0.002") == {(1, 10, 10, 10)}
    assert arms("table8", "--scale", "0.002", "--test-images", "30") == {(1, 10, 30, 10)}
    assert arms("steps", "--scale", "0.25") == {(1, 16, 10, 16)}
    assert plan("steps", *small).timed
    assert not plan("table8", *small).timed


def test_localization_is_asked_of_evaluate_once(tmp_path, monkeypatch):
    asked, found = [], {"localization": {"top1": 10.0, "gt_known": 30.0}}
    monkeypatch.setattr(layout, "evaluate", lambda wanted: asked.append(wanted) or found)
    boxes = tmp_path / "boxes.csv"
    for _ in range(2):
        assert layout.localize(tmp_path, boxes) == 10.0
    assert asked == [Evaluate(source=tmp_path, boxes=boxes, attacks=())]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["table13"], "table must be one of table1, table2, table3"),
        (["table12", "--scale", "0"], "scale must be in (0, 1], got 0.0"),
        (["table12", "--scale", "1.5"], "scale must be in (0, 1], got 1.5"),
        (["table8", "--alpha", "2"], "alpha must be left out with table8, which varies it itself"),
        (["table8", "--alpha", "1"], "alpha must be left out with table8, which varies it itself"),
        (["table10", "--epochs", "3"], "epochs must be left out with table10, which varies it itself"),
        (["table5"], "data must be given with table5"),
        (["table11"], "data must be given with table11"),
        (["table5", "--data", "imagefolder:X"], "boxes must be given with table5"),
        (["table2", "--data", "digits", "--boxes", "x.csv"], "boxes must be left out with table2"),
        (["table12", "--data", "digits", "--seeds", "1", "1"], "seeds must differ"),
        (["table3", "--scale", "0.5"], "scale must be left out with table3, for which nothing is trained"),
        (["table4", "--data", "digits", "--models", "resnet50", "resnet50"], "models must differ"),
    ],
)
def test_bad_input_is_one_line(args, words, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["reproduce", *args, "--out", str(tmp_path / "x")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "x").exists()


def test_a_runs_folder_is_refused(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("method: rmix\n")
    with pytest.raises(SystemExit):
        rlmix_main(["reproduce", "table12", "--data", "digits", "--out", str(tmp_path)])
    assert "holds a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
