"""The frozen classifier: nothing moves it, it earns agents the same rewards, and the commands that measure on it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import toy_config, write_folder, write_npz

from rlmix.agents.analysis import Choices, agreement, credit_dilemma, describe_images, draw_choices, draw_dilemma
from rlmix.agents.choices import Recorder
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.policies import ConstantPolicy
from rlmix.common.saved_config import read_config
from rlmix.config import Config
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.experiments.reading import read_options
from rlmix.experiments.settings import settled
from rlmix.mixing.actions import Action
from rlmix.scripts import policies as policies_command
from rlmix.scripts import train as command
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import newest_state
from rlmix.training.run_folder import read_metrics
from rlmix.training.trainer import Training

FROZEN = ["--model", "preactresnet18_w16", "--batch-size", "4", "--device", "cpu", "--flip", "False"]
OPTIONS = [*FROZEN, "--learning-rate", "0.05"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of three steps of four 8x8 images on the classifier of a run of two epochs."""
    folder = tmp_path_factory.mktemp("frozen")
    config = toy_config(folder, 8, model="preactresnet18_w16", num_train=12, num_classes=3, batch_size=4, flip=False)
    command.main(
        [
            "--method",
            "rmix",
            "--data",
            config.data.name,
            *OPTIONS,
            "--epochs",
            "2",
            "--num-patches",
            "2",
            "--out",
            str(folder / "run"),
        ]
    )
    return config.changed(freeze_from=str(folder / "run"))


def kept(config):
    """The classifier that the run ended with."""
    return newest_state(Path(config.model.freeze_from))["training"]["model"]


def test_nothing_moves_a_frozen_classifier(config):
    process = MixingProcess(config)
    process.reset()
    for _ in range(6):
        process.act(torch.rand(4))
    assert process.require_training().finished
    weights = process.require_training().model.state_dict()
    for name, expected in kept(config).items():  # the batch norms' statistics are among them
        assert torch.equal(weights[name], expected), name


def test_first_rewards_are_those_of_the_same_classifier_in_training(config):
    """Before its first step a training classifier with these weights reacts in the same way; after it, no more."""
    frozen, trained = MixingProcess(config), MixingProcess(config.changed(freeze_from=None))
    frozen.reset()
    trained.reset().model.load_state_dict(kept(config))
    top_k = torch.tensor([0.0, 0.33, 0.66, 0.99])
    torch.testing.assert_close(frozen.act(top_k), trained.act(top_k))
    losses = [process.require_training().epoch_metrics()["train_loss"] for process in (frozen, trained)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert not torch.allclose(frozen.act(top_k), trained.act(top_k), atol=1e-6)


def test_a_new_classifier_is_the_same_frozen_one(config):
    env = RLMixVectorEnv(config=config)
    first, _ = env.reset(seed=0)
    for _ in range(6):
        env.step(np.zeros(4, int))
    assert env.process.config.run.seed != 0
    assert torch.equal(env.process.require_training().model.stem.weight, kept(config)["stem.weight"])
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(first["saliency"], again["saliency"])


@pytest.mark.parametrize("reward", ["parameters", "held_out_loss"])
def test_rewards_that_need_a_change_are_refused(config, reward):
    with pytest.raises(ValueError, match=f"reward must be one that needs no change of a frozen classifier, got {reward}"):
        MixingProcess(config.changed(reward=reward))


def test_another_network_or_number_of_classes_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="freeze_from must name a run of the same model and number of classes"):
        Training(config.changed(data=write_npz(tmp_path, 8, num_train=12, num_classes=4)))
    with pytest.raises(FileNotFoundError, match="must be a run's folder"):
        Training(config.changed(freeze_from=str(tmp_path)))


# -- whose data


def test_other_data_than_the_classifiers_are_refused(config, tmp_path, capsys):
    folder, other = Path(config.model.freeze_from), write_npz(tmp_path, 8, num_train=16, num_classes=3)
    moved = tmp_path / "elsewhere.npz"
    shutil.copy(config.data.name.removeprefix("npz:"), moved)
    options = [*FROZEN, "--freeze-from", str(folder), "--num-patches", "2"]
    for name, data in (("train", "digits"), ("policies", "digits"), ("train", f"npz:{tmp_path / 'renamed.npz'}")):
        shutil.copy(other.removeprefix("npz:"), tmp_path / "renamed.npz")
        with pytest.raises(SystemExit, match="2"):
            rlmix_main([name, *options, "--data", data, "--out", str(tmp_path / "out")])
        said = f"--data must be those of freeze_from {folder}, which are {config.data.name}, or be left out, got {data}"
        assert capsys.readouterr().err == f"rlmix: error: {said}\n"
        assert not (tmp_path / "out").exists()
    rlmix_main(["train", *options, "--method", "rmix", "--data", f"npz:{moved}", "--epochs", "1", "--out", str(tmp_path / "out")])
    rlmix_main(["train", *options, "--method", "rmix", "--epochs", "1", "--out", str(tmp_path / "own")])
    whole, again = (read_metrics(tmp_path / name) for name in ("out", "own"))
    assert [line | {"epoch_seconds": 0} for line in whole] == [line | {"epoch_seconds": 0} for line in again]


def test_data_are_those_of_the_run_unless_named(config, tmp_path):
    """From Python, unresolved or resolved, and whoever opens them."""
    bare = Config.flat(freeze_from=config.model.freeze_from, batch_size=4, device="cpu")
    for found in (bare.resolved(), MixingProcess(bare).config, Training(bare).config, RLMixVectorEnv(config=bare).process.config):
        assert (found.data.name, found.model.name) == (config.data.name, "preactresnet18_w16")
    assert RLMixVectorEnv(config=bare).process.data.num_classes == 3
    other = write_npz(tmp_path, 8, num_train=16, num_classes=3)
    assert bare.changed(data=other).resolved().data.name == other


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A run on the first 9 images of a folder, of which some are kept for validation."""
    folder = tmp_path_factory.mktemp("pictures")
    data = write_folder(folder / "data")
    options = ["--image-size", "16", "--resize-size", "20", "--train-images", "18", "--val-fraction", "0.4", "--workers", "0"]
    options += ["--skip-corrupt", "--model", "preactresnet18_w16", "--batch-size", "4", "--epochs", "1", "--device", "cpu"]
    command.main(["--method", "vanilla", "--data", data, *options, "--out", str(folder / "run")])
    return data, folder / "run"


def test_how_data_were_taken_comes_along_and_typed_options_win(pictures, tmp_path):
    data, run = pictures
    options = ["--freeze-from", str(run), "--batch-size", "4", "--workers", "0", "--device", "cpu"]
    taken = read_options([*options, "--val-fraction", "0.0", "--out", str(tmp_path / "run")])
    expected = {"data": data, "image_size": 16, "resize_size": 20, "train_images": 18, "skip_corrupt": True, "val_fraction": 0.0}
    assert {name: taken.as_dict()[name] for name in expected} == expected
    command.main([*options, "--epochs", "1", "--out", str(tmp_path / "agent")])
    assert {name: read_config(tmp_path / "agent")[name] for name in expected} == expected | {"val_fraction": 0.4}
    command.main(["--resume", str(tmp_path / "agent")])
    policies_command.main(
        [*options, "--batches", "2", "--out", str(tmp_path / "policies"), "--policies", str(tmp_path / "agent")]
    )


def test_what_contradicts_the_run_is_one_line(config, pictures, tmp_path, capsys):
    def refused(*options):
        with pytest.raises(SystemExit) as stop:
            rlmix_main(["train", "--batch-size", "4", "--device", "cpu", "--out", str(tmp_path / "out"), *options])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    run = config.model.freeze_from
    line = refused("--freeze-from", run, "--model", "wideresnet16_8")
    assert f"model must be that of freeze_from {run}, which is preactresnet18_w16, or be left out, got wideresnet16_8" in line
    line = refused("--freeze-from", run, "--data", write_npz(tmp_path, 8, num_train=12, num_classes=4))
    assert f"{run} must hold preactresnet18_w16 for the data's 4 classes, and holds it for 3" in line
    assert f"--data must be those of freeze_from {run}" in refused("--freeze-from", run, "--data", "digits")
    moved = shutil.copytree(run, tmp_path / "moved")
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(text.replace(config.data.name, "npz:/gone/away.npz"))
    assert "/gone/away.npz must name a file" in refused("--freeze-from", str(moved))
    (moved / "config.yaml").write_text(text.replace(f"data: {config.data.name}", "data: [5]"))
    assert f"data in {moved}/config.yaml must be str, got [5]" in refused("--freeze-from", str(moved))
    assert "must be a run's folder" in refused("--freeze-from", str(tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()


# -- the commands


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    """Two seeds of an agent that learned on the frozen classifier."""
    root = tmp_path_factory.mktemp("agents")
    for seed in ("0", "1"):
        options = [
            "--data",
            config.data.name,
            *FROZEN,
            "--epochs",
            "2",
            "--freeze-from",
            config.model.freeze_from,
            "--observation",
            "pair",
        ]
        options += ["--agent.policy-layers", "8", "--agent.value-layers", "8", "--agent.passes", "1", "--seed", seed]
        command.main([*options, "--out", str(root / f"pair-s{seed}")])
    return root


def test_training_on_a_frozen_classifier_moves_the_agent_alone(config, runs):
    state = newest_state(runs / "pair-s0")
    for name, expected in kept(config).items():
        assert torch.equal(state["training"]["model"][name], expected)
    records = read_metrics(runs / "pair-s0")
    assert len({record["test_top1"] for record in records}) == 1
    result = json.loads((runs / "pair-s0" / "result.json").read_text())
    assert result["top1"] == records[0]["test_top1"]
    assert result["fgsm_error"] is None


def test_learned_policy_is_a_method_and_resumes(config, runs, tmp_path):
    options = ["--data", config.data.name, *OPTIONS, "--epochs", "2", "--method", "policy", "--policy", str(runs / "pair-s0")]
    command.main([*options, "--out", str(tmp_path / "whole")])
    records = read_metrics(tmp_path / "whole")
    assert all(0 < record["policy_entropy"] <= np.log(10) + 1e-6 for record in records)
    assert not torch.equal(newest_state(tmp_path / "whole")["training"]["model"]["stem.weight"], kept(config)["stem.weight"])
    (tmp_path / "whole" / "checkpoints" / "epoch-0002.pt").unlink()
    command.main(["--resume", str(tmp_path / "whole")])
    again = read_metrics(tmp_path / "whole")
    assert [record["reward_mean"] for record in again] == [record["reward_mean"] for record in records]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "policy"}, "policy must be given with method policy or shuffled, and only then"),
        ({"method": "rmix", "policy": "DIR"}, "policy must be given with method policy or shuffled, and only then"),
        ({"method": "cutmix", "freeze_from": "DIR"}, "freeze_from must go with a policy"),
        ({"algorithm": "ppoo"}, "algorithm must be one of"),
        ({"observation": "pairs"}, "observation must be one of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        settled(Config.flat(**options))


def test_policies_command_pairs_what_it_measures(config, runs, tmp_path, capsys):
    out = tmp_path / "policies"
    options = [
        "--data",
        config.data.name,
        *FROZEN,
        "--freeze-from",
        config.model.freeze_from,
        "--batches",
        "5",
        "--searched",
        "2",
    ]
    options += ["--policies", str(runs / "pair-s0"), str(runs / "pair-s1"), "--constants", "0", "0.99", "--num-top-k", "3"]
    policies_command.main([*options, "--out", str(out)])
    rewards = json.loads((out / "policies.json").read_text())
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if line.startswith("|")
    ]
    table = {row[0]: row[1:] for row in rows[2:]}
    assert list(table) == ["uniform", "coin", "constant 0", "constant 0.99", "pair", "best constant", "best joint"]
    assert table["pair"][0] == "2"
    zero, uniform = np.array(rewards["constant 0"]), np.array(rewards["uniform"])
    assert float(table["constant 0"][2].split()[0]) == pytest.approx((zero - uniform).mean(), abs=6e-5)
    joint = np.array(rewards["best joint"][:2])
    share = (zero - uniform)[:2].mean() / (joint - uniform[:2]).mean()
    assert table["constant 0"][-1] == f"{share:.0%}"
    assert rewards["best joint"][2] is None
    assert {path.name for path in out.iterdir()} >= {"report.md", "choices-pair-s0.png", "choices-pair-s1.png", "dilemma.png"}
    with pytest.raises(ValueError, match="freeze_from must name the run"):
        policies_command.main(["--data", config.data.name])


def test_policies_of_one_name_have_rows_and_pictures_of_their_own(config, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = ["A/x-s0", "A/x-s1", "B/x-s0", "uniform", "A-x-s0"]
    for place in places:
        shutil.copytree(runs / "pair-s0", place)
    options = ["--data", config.data.name, *FROZEN, "--freeze-from", config.model.freeze_from, "--batches", "3", "--constants"]
    policies_command.main([*options, "--policies", *places])
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    found = {name.strip(): seeds.strip() for name, seeds in rows[2:]}
    assert len(found) == len(rows) - 2
    assert found == {"uniform": "1", "coin": "1", "A/x": "2", "B/x": "1", f"{tmp_path.name}/uniform": "1", "A-x": "1"}
    pictures = {path.name for path in Path("policies").glob("*.png")}
    names = {"choices-A-x-s0.png", "choices-x-s1.png", "choices-B-x-s0.png", "choices-uniform.png", "choices-A-x-s0~2.png"}
    assert pictures == names
    assert set(json.loads(Path("policies/policies.json").read_text())) == {"uniform", "coin", *places[:3], "./uniform", "A-x-s0"}
    with pytest.raises(ValueError, match=r"policies must be different runs, got A/x-s0 \./A/x-s0/"):
        policies_command.main([*options, "--policies", "A/x-s0", "./A/x-s0/"])


# -- what a policy does


def test_choices_are_drawn_beside_what_is_known(config):
    process = MixingProcess(config)
    process.reset()
    seen = []
    for _ in range(3):
        decision = process.observe()
        seen.append(describe_images(decision))
        process.act(torch.zeros(4))
    choices = Choices.join([torch.full((4, 10), 0.1)] * 3, seen)
    assert choices.probabilities.shape == (12, 10)
    for image in range(4):
        probabilities = decision.saliency.logits[image].double().softmax(0)
        at = {name: numbers[8 + image] for name, numbers in choices.quantities.items()}
        assert at["confidence"] == pytest.approx(float(probabilities.max()), rel=1e-4)
        assert at["loss"] == pytest.approx(-math.log(float(probabilities[decision.batch.labels[image]])), rel=1e-4)
        map = decision.patches[image].double().flatten()
        assert at["entropy of the map"] == pytest.approx(float(-(map * map.log()).sum()) / math.log(64), rel=1e-4)
        other = decision.patches[decision.pairing.partner[image]].double().flatten()
        assert at["overlap with the partner"] == pytest.approx(float(map @ other / map.norm() / other.norm()), rel=1e-4)
        assert (at["lam"], at["progress"]) == pytest.approx((decision.pairing.lam, 2 / 6))
    figure = draw_choices(choices, process.actions.labels(), num_bins=4)
    assert [axes.get_xlabel() for axes in figure.axes[:-1]] == list(choices.quantities)


def test_policies_are_watched_early_and_late_for_every_image(config):
    """One that goes from the smallest value to the largest halfway, whatever the image."""

    class Turning(LearnedPolicy):
        def __init__(self):
            self.actions = Action(torch.tensor([0.0, 0.5, 0.99]))

        def probabilities(self, decision):
            return torch.eye(3)[[2 if decision.progress >= 0.5 else 0] * 4]

    process, recorder = MixingProcess(config), Recorder({"turning": Turning(), "constant": ConstantPolicy(0.0)})
    process.reset()
    recorder.batch(process.observe())
    choices = Choices.join(recorder.probabilities["turning"], recorder.quantities)
    assert choices.quantities["progress"].tolist() == pytest.approx(np.repeat(np.arange(10) / 10, 4).tolist())
    late = choices.quantities["progress"] >= 0.5
    assert choices.probabilities[~late].mean(0).tolist() == [1, 0, 0]
    assert choices.probabilities[late].mean(0).tolist() == [0, 0, 1]
    assert list(recorder.draw([0.0, 0.99])) == ["choices-turning"]


def test_agreement_is_whole_for_the_best_and_a_tenth_for_the_uniform():
    best = torch.tensor([0, 9, 9, 3])
    sure, even = torch.nn.functional.one_hot(best, 10).float(), torch.full((4, 10), 0.1)
    assert agreement(sure, best) == (1, pytest.approx(1 / 16 + 1 / 4 + 1 / 16))
    assert agreement(even, best) == pytest.approx((0.1, 0.1))
    assert agreement(even[:2], best[:1].expand(2)) == pytest.approx((0.1, 0.1)), "the largest values are best for nobody"


def test_dilemma_of_a_table_in_which_winning_costs_the_host():
    """Own reward 1 for choice 0, and the host loses 2 by it; the numbers are deviations from the mean."""
    table = torch.zeros(3, 2, 2)
    table[:, 0] += 1  # own choice 0
    table[:, :, 0] -= 2  # the partner's choice 0
    found = credit_dilemma([table])
    np.testing.assert_allclose(found.own, [0.5, -0.5])
    np.testing.assert_allclose(found.host, [-1, 1])
    np.testing.assert_allclose(found.everyone, [-0.5, 0.5])
    assert len(draw_dilemma(found, [0, 0.99]).axes[0].lines) == 5  # and the line at 0
