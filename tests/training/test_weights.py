"""Trainings that begin with another's weights, and train all of them, the head alone, or the deeper layers faster."""

import shutil
import signal
import sys
from copy import deepcopy
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from sameness import assert_same_run
from stops import stop_at
from toys import write_npz

import rlmix
from rlmix.mixing.registry import METHODS as METHODS_OF_MIXING
from rlmix.models import build_model
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.trainer import Training

TINY = {"data": "digits", "train_images": 32, "batch_size": 16, "epochs": 1, "device": "cpu", "learning_rate": 0.05}


def training_of(method="vanilla", **options):
    return Training(rlmix.Config.flat(**(TINY | {"model": "preactresnet18_w16", "method": method} | options)), method=method)


@pytest.fixture(scope="module")
def states():
    return {classes: build_model("preactresnet18_w16", classes, seed=7).state_dict() for classes in (10, 4)}


@pytest.fixture(scope="module")
def files(states, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for classes, state in states.items():
        torch.save(state, folder / f"{classes}.pt")
    return folder


def differing(model, state):
    return [name for name, value in model.state_dict().items() if not torch.equal(value, state[name])]


def test_all_is_loaded_where_the_classes_are_the_same(files, states):
    training = training_of(weights=str(files / "10.pt"))
    assert differing(training.model, states[10]) == []
    assert (
        training.loaded == f"weights: {len(states[10])} of {len(states[10])} tensors of preactresnet18_w16 from {files / '10.pt'}"
    )


def test_the_head_stays_as_drawn_where_they_are_not(files, states):
    training = training_of(weights=str(files / "4.pt"), seed=3)
    drawn = build_model("preactresnet18_w16", 10, seed=3).state_dict()
    assert (
        differing(training.model, {**states[4], **{name: drawn[name] for name in ("classifier.weight", "classifier.bias")}}) == []
    )
    count = len(drawn)
    assert training.loaded == (
        f"weights: {count - 2} of {count} tensors of preactresnet18_w16 from {files / '4.pt'}; "
        "left as drawn: classifier, of 4 classes there and 10 here"
    )


def test_wrapped_names_other_tensors_and_a_backbone_alone(states, tmp_path):
    body = {f"module.{name}": value for name, value in states[10].items() if not name.startswith("classifier.")}
    torch.save({"state_dict": body | {"other.weight": torch.zeros(3), "other.bias": torch.zeros(3)}}, tmp_path / "w.pt")
    training = training_of(weights=str(tmp_path / "w.pt"))
    assert differing(training.model, states[10]) == ["classifier.weight", "classifier.bias"]
    assert training.loaded.endswith("; left as drawn: classifier; not of this network: other.weight and 1 more")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("stem.weight"), r"must hold stem.weight of 16x3x3x3 for preactresnet18_w16, and \S+ has none$"),
        (
            lambda state: state.update({"stem.weight": torch.zeros(16, 1, 3, 3), "stage1.0.conv1.weight": torch.zeros(2)}),
            r"must hold stem.weight of 16x3x3x3 for preactresnet18_w16, and \S+ has 16x1x3x3, and 1 more do not fit$",
        ),
    ],
)
def test_a_file_of_another_network_is_refused(change, message, states, tmp_path):
    state = dict(states[10])
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"^weights {message}"):
        training_of(weights=str(tmp_path / "w.pt"))


def test_a_run_of_rlmix(tmp_path):
    config = rlmix.Config.flat(**TINY, method="vanilla", model="preactresnet18_w16", out=tmp_path / "run", metrics=())
    rlmix.train(config, quiet=True)
    begun = training_of(weights=str(tmp_path / "run"), seed=5)
    assert differing(begun.model, rlmix.load_model(tmp_path / "run", device="cpu").state_dict()) == []


def test_safetensors_are_read_where_they_can_be(states, tmp_path, monkeypatch):
    (tmp_path / "w.safetensors").write_bytes(b"")
    library = ModuleType("safetensors.torch")
    library.load_file = lambda path: dict(states[10]) if path == tmp_path / "w.safetensors" else {}
    monkeypatch.setitem(sys.modules, "safetensors", ModuleType("safetensors"))
    monkeypatch.setitem(sys.modules, "safetensors.torch", library)
    assert differing(training_of(weights=str(tmp_path / "w.safetensors")).model, states[10]) == []
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match=r"w.safetensors must be a state_dict: to be read it needs safetensors: pip install"):
        training_of(weights=str(tmp_path / "w.safetensors"))


def test_the_real_safetensors(states, tmp_path):
    library = pytest.importorskip("safetensors.torch")
    library.save_file({name: value.contiguous() for name, value in states[10].items()}, tmp_path / "w.safetensors")
    assert differing(training_of(weights=str(tmp_path / "w.safetensors")).model, states[10]) == []


@pytest.mark.parametrize("method", METHODS_OF_MIXING)
def test_a_frozen_backbone_stays_as_it_is_under_every_method(method):
    training = training_of(method, freeze_backbone=True)
    before = deepcopy(training.model.state_dict())
    training.fit_epoch()
    training.evaluate()
    assert differing(training.model, before) == ["classifier.weight", "classifier.bias"]


@pytest.mark.parametrize("reward", ["cosine", "parameters", "last_layer"])
def test_a_frozen_backbone_in_the_environment(reward):
    env = rlmix.make_vec_env(rlmix.Config.flat(**TINY, freeze_backbone=True, reward=reward, model="preactresnet18_w16"))
    env.reset(seed=0)
    before = deepcopy(env.process.training.model.state_dict())
    _, rewards, *_ = env.step(env.action_space.sample())
    assert (abs(rewards) > 0).any()
    assert differing(env.process.training.model, before) == ["classifier.weight", "classifier.bias"]


def test_a_heads_step_is_that_of_a_linear_classifier_on_fixed_features():
    training = training_of(freeze_backbone=True, schedule="constant", warmup=0.0, momentum=0.5, weight_decay=0.0)
    batch, seen = training.next_batch(), []
    handle = training.model.classifier.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    rows = F.one_hot(batch.labels, 10).float()
    weight = training.model.classifier.weight.detach().clone()
    training.step(rlmix.Mixed(batch.images, rows))
    handle.remove()
    features, logits = (value.detach() for value in seen[0])
    gradient = (logits.softmax(1) - rows).T @ features / 16
    torch.testing.assert_close(training.model.classifier.weight.detach(), weight - 0.05 * 1.5 * gradient)


def test_layers_take_steps_by_their_depth():
    options = {"schedule": "constant", "warmup": 0.0, "momentum": 0.5, "weight_decay": 0.0, "decay_norms": False}
    training = training_of(layer_decay=0.5, **options)
    batch = training.next_batch()
    before = deepcopy(training.model)
    training.step(rlmix.Mixed(batch.images, F.one_hot(batch.labels, 10).float()))
    depths = ["stem", *(f"stage{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)), "classifier"]
    for (name, old), new in zip(before.named_parameters(), training.model.parameters(), strict=True):
        depth = next(index for index, layer in enumerate(depths) if name.startswith(f"{layer}."))
        torch.testing.assert_close(new, old - 0.05 * 0.5 ** (9 - depth) * 1.5 * new.grad, msg=name)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "multistep", "constant"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "torch.optim:RAdam"])
def test_schedules_keep_to_the_layers_rates(schedule, optimizer):
    training, plain = (training_of(layer_decay=decay, schedule=schedule, optimizer=optimizer) for decay in (0.5, 1.0))
    for _ in range(2):
        groups = training.optimization.optimizer.param_groups
        assert len(groups) == 10
        for index, group in enumerate(groups):
            assert group["lr"] == pytest.approx(0.5 ** (9 - index) * plain.learning_rate)
        assert training.learning_rate == plain.learning_rate
        for each in (training, plain):
            each.fit_step()


METHODS = {
    "vanilla": ["--method", "vanilla", "--layer-decay", "0.7", "--no-decay-norms"],
    "rlmix": ["--method", "rlmix", "--freeze-backbone"],
    "automix": ["--method", "automix", "--layer-decay", "0.9", "--optimizer", "adamw"],
}


@pytest.fixture(scope="module")
def tiny(files, tmp_path_factory):
    data = write_npz(tmp_path_factory.mktemp("toy"), 8, num_train=80)
    recipe = ["--model", "preactresnet18_w16", "--learning-rate", "0.05", "--weights", str(files / "gone.pt")]
    shutil.copy(files / "4.pt", files / "gone.pt")
    return ["--data", data, "--batch-size", "16", "--epochs", "2", "--device", "cpu", *recipe]


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_goes_on_to_the_bit_without_the_file(runs, tiny, files, name, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    shutil.copy(files / "4.pt", files / "gone.pt")
    whole = runs(name)
    assert "left as drawn: classifier, of 4 classes there and 10 here\n" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        stop_at(patch, 7, signal.SIGTERM)
        with pytest.raises(SystemExit, match="143"):
            rlmix_main(["train", *tiny, *METHODS[name], "--out", str(out)])
    (files / "gone.pt").unlink()
    rlmix_main(["train", "--resume", str(out)])
    assert_same_run(whole, out)
    rlmix_main(["export", str(out)])
    assert rlmix.load_model(out, device="cpu").classifier.out_features == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--layer-decay 0", "--layer-decay must be in (0, 1], got 0"),
        (
            "--layer-decay 0.5 --freeze-backbone",
            "--layer-decay must be left out with freeze_backbone, which trains one layer, got 0.5",
        ),
        ("--weights nowhere.pt", "nowhere.pt"),
        (
            "--freeze-from RUN --freeze-backbone",
            "--freeze-backbone must be left out with --freeze-from, whose classifier is not updated",
        ),
        ("--freeze-from RUN --weights x", "--weights must be left out with --freeze-from, whose classifier is not updated"),
    ],
)
def test_what_cannot_be_is_refused(line, message, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("model: preactresnet18_w16\ndata: digits\n")
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", "--data", "digits", *line.replace("RUN", str(tmp_path)).split(), "--out", str(tmp_path / "run")])
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said
    assert not (tmp_path / "run").exists()
