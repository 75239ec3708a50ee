"""Where maps come from by default: kept ones for R-Mix where that costs nothing, exact ones where it is measured against others."""

import numpy as np
import pytest
import torch
import yaml
from toys import toy_config, write_folder

from rlmix.common.saved_config import read_config
from rlmix.config import Config
from rlmix.data.memory import image_data
from rlmix.data.own import settle_given
from rlmix.envs.process import MixingProcess
from rlmix.experiments import study
from rlmix.experiments.commands.compare import Compare
from rlmix.experiments.commands.reproduce import check, read_options
from rlmix.experiments.reproduce import plan
from rlmix.experiments.saved_run import load_run
from rlmix.experiments.settings import settled
from rlmix.experiments.train import train
from rlmix.maps.approximate import SaliencySource
from rlmix.option_groups import MixingConfig
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.trainer import Training


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"method": "rmix"}, "recycled"),
        ({"method": "rmix-p8"}, "recycled"),
        ({"method": "rmix", "data": "npz:PATH"}, "recycled"),
        ({"method": "rmix", "data": "hf:PATH"}, "recycled"),
        ({"method": "rmix", "data": "imagefolder:PATH"}, "exact"),
        ({"method": "rmix", "saliency_mode": "exact"}, "exact"),
        ({"method": "rmix", "saliency_mode": "half"}, "half"),
        ({"method": "rlmix"}, "exact"),
        ({"method": "rlmix", "saliency_mode": "recycled"}, "recycled"),
        ({"method": "coin"}, "exact"),
        ({"method": "puzzlemix"}, "exact"),
        ({"method": "vanilla"}, "exact"),
    ],
)
def test_what_a_run_has_by_default(options, mode):
    assert settled(Config.flat(**{"data": "digits"} | options)).mixing.saliency_mode == mode


def test_a_frozen_classifier_has_exact_maps(tmp_path):
    first = train(toy_config(tmp_path, 16, method="vanilla", epochs=1, out=tmp_path / "run"), quiet=True)
    assert settled(Config.flat(method="rmix", freeze_from=str(first.folder))).map_source == "exact"


def test_an_environment_and_a_training_have_exact_maps_unless_told(tmp_path):
    config = toy_config(tmp_path, 16, method="rmix")
    assert type(MixingProcess(config).reset().saliency_source) is SaliencySource
    assert type(Training(config).saliency_source) is SaliencySource


class Elsewhere:
    """A data set whose images are wherever ``inner`` has them."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.mark.parametrize(("kept", "mode"), [(True, "recycled"), (False, "exact")])
def test_data_that_are_not_in_memory_have_exact_maps(kept, mode):
    images, labels = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2
    data = image_data(images, labels, images, labels, source="zeros")
    _, config = settle_given(data if kept else Elsewhere(data), Config.flat(method="rmix"))
    assert settled(config).mixing.saliency_mode == mode


@pytest.mark.parametrize(
    ("methods", "typed", "modes"),
    [
        (("rmix", "vanilla"), None, {"rmix": "recycled", "vanilla": "exact"}),
        (("rmix", "rmix-p8"), None, {"rmix": "recycled", "rmix-p8": "recycled"}),
        (("rlmix", "rmix"), None, {"rlmix": "exact", "rmix": "exact", "rmix-p8": "exact"}),
        (("coin", "rmix"), None, {"coin": "exact", "rmix": "exact"}),
        (("rlmix", "rmix"), "recycled", {"rlmix": "recycled", "rmix": "recycled", "rmix-p8": "recycled"}),
        (("rmix", "vanilla"), "exact", {"rmix": "exact", "vanilla": "exact"}),
    ],
)
def test_policies_that_are_compared_have_the_same_maps(methods, typed, modes):
    options = Compare(methods=methods, mixing=MixingConfig(saliency_mode=typed))
    found = {arm.name: settled(arm.options).mixing.saliency_mode for arm in options.study.arms}
    assert {name: found[name] for name in modes} == modes


def test_the_papers_tables_have_exact_maps():
    def modes(*words):
        options = read_options(["table4", *words])
        runs = [settled(arm.options) for arm in plan(options, check(options)).arms]
        return {run.mixing.saliency_mode for run in runs if run.run.method == "rmix"}

    assert modes() == {"exact"}
    assert modes("--saliency-mode", "recycled") == {"recycled"}


def test_each_method_of_a_comparison_is_timed_with_its_own_maps(tmp_path, monkeypatch):
    asked = []

    def timed(config, methods, **rest):
        asked.append((config.map_source, tuple(methods)))
        return {"methods": {method: {"ratio": 1.0, "step_ms": 2.0} for method in methods}}

    monkeypatch.setattr(study.benchmark, "measure", timed)
    options = Compare(methods=("rmix", "vanilla", "cutmix"), seeds=(0,), out=tmp_path)
    timing = study.measure(options.study, 1)
    assert asked == [("recycled", ("rmix",)), ("exact", ("vanilla", "cutmix"))]
    assert set(timing) == {"rmix", "vanilla", "cutmix"}


def test_a_run_of_before_goes_on_with_the_maps_that_it_had(tmp_path):
    """Its config.yaml has no saliency_mode; what somebody writes by hand has today's defaults."""
    config = toy_config(tmp_path, 16, method="rmix", saliency_mode="exact", epochs=1, out=tmp_path / "run")
    train(config, quiet=True)
    path = tmp_path / "run" / "config.yaml"
    lines = [line for line in path.read_text().splitlines(True) if not line.startswith(("saliency_mode", "clip_norm"))]
    path.write_text("".join(lines))
    for options in (Config.from_mapping(read_config(tmp_path / "run")), Config.from_yaml(path)):
        assert (options.mixing.saliency_mode, options.optim.clip_norm) == ("exact", 0.0)
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"method": "rmix", "data": config.data.name, "epochs": 2}))
    written = settled(Config.from_yaml(own))
    assert (written.mixing.saliency_mode, written.optim.clip_norm) == ("recycled", 1.0)


@pytest.mark.parametrize("mode", ["recycled", "exact"])
def test_pictures_are_of_the_maps_that_the_run_has(mode, tmp_path):
    """Kept maps as the checkpoint has them; before anything was learned they are even."""
    run = train(toy_config(tmp_path, 16, method="rmix", saliency_mode=mode, out=tmp_path / "run"), quiet=True)
    bare = load_run(run.folder).training
    assert type(bare.saliency_source) is SaliencySource  # which takes no memory
    training = load_run(run.folder, maps=True).training
    batch = training.next_batch()
    found = training.saliency(batch).map
    expected = training.saliency_pass(batch.images, batch.labels).map
    if mode == "recycled":
        moment = training.order.moment
        assert torch.equal(found, training.saliency_source.store.seen(moment.places, moment.draw))
        assert found.std() > 0.01
    else:
        torch.testing.assert_close(found, expected)


def test_a_run_says_where_its_maps_come_from(tmp_path, capsys):
    for method, said in [("rmix", "; recycled maps;"), ("rlmix", "; exact maps;"), ("vanilla", None)]:
        train(toy_config(tmp_path, 16, method=method, dry_run=True, out=tmp_path / method))
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("method")]
        assert (said in line) if said else ("maps" not in line)


def test_a_folder_of_images_is_trained_by_exact_maps(tmp_path, capsys):
    words = ["--data", write_folder(tmp_path), "--image-size", "16", "--model", "preactresnet18_w16", "--batch-size", "8"]
    rlmix_main(["train", *words, "--workers", "0", "--device", "cpu", "--method", "rmix", "--dry-run"])
    assert "; exact maps;" in capsys.readouterr().out
