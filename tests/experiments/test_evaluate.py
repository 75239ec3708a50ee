"""rlmix evaluate: a run, a bare state_dict, what it writes, and errors of one line."""

import json
import re
import shutil
from dataclasses import fields

import pytest
import torch
import yaml
from PIL import Image
from toys import NETWORK, write_folder, write_npz

from rlmix.config import Config
from rlmix.data.registry import load_data
from rlmix.experiments.commands.evaluate import OF_STATE_DICT, Evaluate
from rlmix.models import build_model
from rlmix.models.weights import identify
from rlmix.option_groups import DataConfig
from rlmix.scripts import evaluate as command
from rlmix.scripts import train
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints, load_checkpoint
from rlmix.training.run_folder import read_metrics

RECIPE = ["--model", "preactresnet18_w16", "--batch-size", "16", "--epochs", "2", "--learning-rate", "0.05", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("toy"), 16)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vanilla"
    train.main(["--method", "vanilla", "--data", data, *RECIPE, "--val-fraction", "0.25", "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def evaluated(run):
    command.main([str(run)])
    return json.loads((run / "evaluate.json").read_text())


def weights(run):
    return load_checkpoint(list_checkpoints(run / "checkpoints")[-1])["training"]["model"]


def refused(capsys, args):
    """The one line that rlmix says about ``args``."""
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["evaluate", *map(str, args)])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_run_is_measured_as_its_training_measured_it(run, evaluated):
    last, result = read_metrics(run)[-1], json.loads((run / "result.json").read_text())
    assert (evaluated["top1"], evaluated["top5"], evaluated["loss"]) == (last["test_top1"], last["test_top5"], last["test_loss"])
    assert evaluated["ece"] == result["ece"]
    assert evaluated["fgsm_error"] == result["fgsm_error"]
    assert (evaluated["model"], evaluated["split"], evaluated["num_images"]) == ("preactresnet18_w16", "test", 40)
    assert 0 <= evaluated["pgd_error"] <= 100
    bins = evaluated["reliability"]
    assert len(bins["edges"]) == 16
    assert sum(bins["count"]) == 40
    gaps = [n * abs(a - c) for n, a, c in zip(bins["count"], bins["accuracy"], bins["confidence"], strict=True) if n]
    assert 100 * sum(gaps) / 40 == pytest.approx(evaluated["ece"])
    with Image.open(run / "reliability.png") as picture:
        assert picture.size == (440, 550)


def test_the_validation_split_is_measured_on_request(run, tmp_path):
    command.main([str(run), "--split", "val", "--attacks", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "evaluate.json").read_text())
    assert result["num_images"] == 16
    assert result["top1"] == read_metrics(run)[-1]["val_top1"]
    assert "fgsm_error" not in result


def test_a_run_with_a_validation_split_chooses_on_it_alone(run):
    records, result = read_metrics(run), json.loads((run / "result.json").read_text())
    assert all({"val_loss", "val_top1", "val_top5", "test_top1"} <= record.keys() for record in records)
    best = max(record["val_top1"] for record in records)
    assert result["top1_best"] == next(record["test_top1"] for record in records if record["val_top1"] == best)
    assert result["val_top1"] == records[-1]["val_top1"]


def test_the_table_names_what_was_measured(run, evaluated, capsys):
    command.main([str(run)])
    text = capsys.readouterr().out
    for label in ("top-1", "top-5", "calibration error, 15 bins", "FGSM error at 8/255", "PGD-7 error at 8/255"):
        assert label in text
    assert f"{evaluated['top1']:.2f}" in text


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    ],
    ids=["bare", "state_dict", "model of DDP", "compiled"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_gives_what_its_run_gives(run, data, evaluated, wrap, legacy, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(wrap(weights(run)), path, _use_new_zipfile_serialization=not legacy)
    used = load_data(Config.flat(data=data, val_fraction=0.25))  # the run's training images, whose mean and deviation it took
    normalisation = ["--mean", *map(str, used.mean.tolist()), "--std", *map(str, used.std.tolist())]
    args = ["--model", "preactresnet18_w16", "--data", data, "--attacks", "fgsm", "--device", "cpu", *normalisation]
    command.main([str(path), *args])
    result = json.loads((tmp_path / "evaluate.json").read_text())
    measures = ("top1", "top5", "num_images", "ece", "fgsm_error")
    assert [result[name] for name in measures] == [evaluated[name] for name in measures]


def test_the_splits_that_are_named_are_measured(tmp_path):
    data = write_folder(tmp_path / "data", size=(32, 32), num_val=2)
    (tmp_path / "data" / "val").rename(tmp_path / "data" / "late")
    (tmp_path / "data" / "train").rename(tmp_path / "data" / "early")
    torch.save(build_model(NETWORK, 3).state_dict(), tmp_path / "weights.pt")
    small = ["--model", NETWORK, "--data", data, "--image-size", "32", "--workers", "0", "--attacks", "--device", "cpu"]
    counts = []
    for splits in (["early", "late"], ["late", "early"]):
        command.main([str(tmp_path / "weights.pt"), *small, "--splits", *splits])
        counts.append(json.loads((tmp_path / "evaluate.json").read_text())["num_images"])
    assert counts == [6, 24]


def test_localization_through_the_command(tmp_path, capsys):
    data = write_folder(tmp_path / "data", size=(32, 32))
    small = ["--batch-size", "8", "--epochs", "1", "--image-size", "32", "--workers", "0", "--out", str(tmp_path / "run")]
    train.main(["--method", "vanilla", "--data", data, *RECIPE, *small])
    rows = "".join(f"val,val/class{label}/00.png,0,0,31,31\n" for label in range(3))
    (tmp_path / "boxes.csv").write_text(f"split,path,x0,y0,x1,y1\n{rows}val,val/class0/01.png,9,9,3,3\n")
    capsys.readouterr()
    command.main([str(tmp_path / "run"), "--boxes", str(tmp_path / "boxes.csv"), "--threshold", "0.15", "--workers", "0"])
    found = json.loads((tmp_path / "run" / "evaluate.json").read_text())["localization"]
    assert (found["num_images"], found["threshold"], found["skipped_boxes"]) == (3, 0.15, {"degenerate": 1})
    assert found["protocol"] == "comixup"
    assert 0 <= found["top1"] <= found["gt_known"] <= 100
    text = " ".join(capsys.readouterr().out.split())
    assert "localization, class known" in text
    assert "1 boxes degenerate skipped" in text


# -- what is refused


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    assert f"{tmp_path} must be a run's folder, and holds no config.yaml" in refused(capsys, [tmp_path])
    assert f"there is no {tmp_path / 'none'}" in refused(capsys, [tmp_path / "none"])


def test_a_run_without_a_checkpoint_is_one_line(run, tmp_path, capsys):
    shutil.copy(run / "config.yaml", tmp_path)
    assert f"{tmp_path} must hold a checkpoint, and has none" in refused(capsys, [tmp_path])


def test_a_checkpoint_of_another_model_names_both(run, data, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"model": "resnext29_4x24"}))
    line = refused(capsys, [copy])
    assert re.search("epoch-0002.pt must hold the weights of resnext29_4x24, and holds those of preactresnet18_w16$", line), line
    torch.save(build_model("preactresnet18", 10).state_dict(), tmp_path / "weights.pt")
    line = refused(capsys, [tmp_path / "weights.pt", "--model", "preactresnet18_w16", "--data", data])
    assert re.search("weights.pt must hold the weights of preactresnet18_w16, and holds those of preactresnet18$", line), line


def test_weights_for_other_classes_and_of_no_known_network_are_said(data, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    torch.save(build_model("preactresnet18_w16", 7).state_dict(), path)
    args = [path, "--model", "preactresnet18_w16", "--data", data]
    assert "must hold preactresnet18_w16 for the data's 10 classes, and holds it for 7" in refused(capsys, args)
    torch.save({"a.weight": torch.zeros(3)}, path)
    assert "and holds those of another network (1 tensors, the first a.weight of 3)" in refused(capsys, args)


def test_networks_are_known_by_their_tensors():
    for name in ("preactresnet18", "wideresnet16_8", "alexnet", "convnext_tiny"):
        with torch.device("meta"):
            state = build_model(name, 12).state_dict()
        assert identify({key: tuple(value.shape) for key, value in state.items()}) == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: path.write_text("hello"), "must be a state_dict"),
        (lambda path: path.write_bytes(b""), "must be a state_dict"),
        (lambda path: torch.save(torch.zeros(3), path), "must be a state_dict, got Tensor"),
        (lambda path: torch.save({"model": torch.nn.Linear(2, 2)}, path), "it is damaged, or holds more than tensors"),
    ],
)
def test_files_that_are_no_state_dict_are_one_line(data, tmp_path, content, message, capsys):
    content(tmp_path / "weights.pt")
    line = refused(capsys, [tmp_path / "weights.pt", "--model", "preactresnet18_w16", "--data", data])
    assert str(tmp_path / "weights.pt") in line
    assert message in line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "resnet50"], "model must be left out with a run's folder"),
        (["--threshold", "0.5"], r"threshold must be in \[0.15, 0.25\], got 0.5"),
        (["--splits", "a", "b"], "splits must be left out with a run's folder"),
        (["--mean", "0.5"], "mean must be left out with a run's folder"),
        (["--epsilon", "300"], r"epsilon must be in \[0, 255\], got 300"),
        (["--boxes", "boxes.csv"], "boxes must be given with an imagefolder only, got npz:"),
        (["--split", "train"], "split"),
        (["--attacks", "cw"], "attacks"),
    ],
)
def test_options_that_do_not_fit_are_one_line(run, args, message, capsys):
    assert re.search(message, refused(capsys, [run, *args]))


def test_every_option_of_data_is_a_state_dicts():
    offered = {field.name for field in fields(Evaluate)} & {field.name for field in fields(DataConfig)}
    assert offered - {"workers"} <= {*OF_STATE_DICT}


def test_a_state_dict_needs_model_and_data(tmp_path, capsys):
    torch.save({}, tmp_path / "weights.pt")
    assert "model and data must be given with a state_dict" in refused(capsys, [tmp_path / "weights.pt", "--model", "resnet50"])
