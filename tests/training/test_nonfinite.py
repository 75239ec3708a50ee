"""Numbers that go wrong: a loss or gradient that is not finite, a batch of one, missing classes, black images."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from toys import NETWORK, toy_config

from rlmix.agents import bandit, features, learned
from rlmix.agents.features import policy_features
from rlmix.agents.sb3 import vec_env
from rlmix.data.memory import image_data
from rlmix.envs.process import MixingProcess
from rlmix.maps.gradient import Saliency
from rlmix.mixing.objective import Objective, Scored
from rlmix.mixing.vanilla import Vanilla
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import list_checkpoints, newest_state
from rlmix.training.guard import all_finite
from rlmix.training.trainer import Training


class Spoiled(torch.autograd.Function):
    """The identity, whose gradient is nan."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def spoiling(steps, what):
    """Vanilla, with a loss or only a gradient that is not finite at these steps (from 1)."""
    taken = [0]

    def method(model, images, labels, *, num_classes, generator=None):
        mixed = Vanilla()(model, images, labels, num_classes=num_classes, generator=generator)
        taken[0] += 1
        if taken[0] not in steps:
            return mixed

        def score(network):
            bad = torch.full_like(mixed.images, float("inf"))
            logits = network(bad if what == "loss" else mixed.images)
            loss = torch.nn.functional.cross_entropy(logits, mixed.targets)
            return Scored(Spoiled.apply(loss) if what == "gradient" else loss, logits)

        return Objective(mixed.targets, score, mixed.images)

    return method


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return toy_config(tmp_path_factory.mktemp("toy"), 8)


def state_of(training):
    optimizer = training.optimization.optimizer.state_dict()["state"]
    return copy.deepcopy((training.model.state_dict(), {name: value["momentum_buffer"] for name, value in optimizer.items()}))


def assert_same(first, second):
    for left, right in zip(first, second, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_finite_means_the_loss_and_every_gradient(value):
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.full((3,), 1e30), torch.zeros(3)  # one has none; 1e30 squared is inf
    assert all_finite(torch.tensor(2.0), parameters)
    assert not all_finite(torch.tensor(value), parameters)
    parameters[1].grad[2] = value
    assert not all_finite(torch.tensor(2.0), parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 0.0])
def test_the_check_finds_one_value_among_large_ones_and_changes_no_bit(value, dtype):
    """Whose sum, and sum of squares, overflow; among them a negative zero and a subnormal."""
    parameters = [torch.nn.Parameter(torch.zeros(5, 7, dtype=torch.float32)), torch.nn.Parameter(torch.zeros(100, dtype=dtype))]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, torch.finfo(parameter.dtype).max)
        parameter.grad.flatten()[:2] = torch.tensor([-0.0, torch.finfo(parameter.dtype).smallest_normal / 4])
    parameters[1].grad[50] = value
    before = [parameter.grad.clone() for parameter in parameters]
    finite = all_finite(torch.tensor(2.0), parameters)
    assert finite.dtype == torch.bool
    assert finite.shape == ()
    assert bool(finite) == (value == 0)
    for parameter, old in zip(parameters, before, strict=True):
        assert torch.equal(parameter.grad.view(torch.uint8), old.view(torch.uint8))


@pytest.mark.parametrize(("what", "said"), [("loss", "the loss is nan"), ("gradient", "the gradient is not finite")])
@pytest.mark.parametrize("step", [1, 6])
def test_such_a_step_stops_the_training_and_is_not_applied(config, what, said, step):
    training = Training(config)
    method = spoiling({step}, what)
    for _ in range(step - 1):
        training.fit_step(method)
    before, rate = state_of(training), training.learning_rate
    with pytest.raises(FloatingPointError) as caught:
        training.fit_step(method)
    assert str(caught.value) == f"{said} in epoch {1 + step // 5}, step {step}, at learning rate {rate:g}"
    after = state_of(training)
    parameters = dict(training.model.named_parameters())
    assert all(torch.equal(before[0][name], after[0][name]) for name in parameters)
    assert all(torch.equal(before[1][name], after[1][name]) for name in before[1])


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("step", [1, 3])
def test_skipping_leaves_the_step_out_and_counts_it(config, what, step):
    """Weights, momentum and running statistics stay; the schedule moves on."""
    training = Training(config.changed(on_nonfinite="skip"))
    method = spoiling({step}, what)
    for _ in range(step - 1):
        training.fit_step(method)
    before, epoch = state_of(training), training.epoch_metrics() if step > 1 else None
    training.fit_step(method)
    assert_same(before, state_of(training))
    metrics = training.epoch_metrics()
    assert metrics["nonfinite_steps"] == 1
    if epoch is not None:
        assert metrics | {"nonfinite_steps": 0} == epoch
    assert training.optimization.scheduler.last_epoch == training.global_step == step
    training.fit_epoch(method)
    assert np.isfinite(training.epoch_metrics()["train_loss"])
    assert training.epoch_metrics()["nonfinite_steps"] == 1


def test_skipping_changes_nothing_where_all_is_finite(config):
    trainings = [Training(config.changed(on_nonfinite=choice)) for choice in ("stop", "skip")]
    for training in trainings:
        training.fit_epoch()
    assert_same(*map(state_of, trainings))


def test_an_epoch_without_any_finite_step_stops_even_where_such_are_skipped(config):
    training = Training(config.changed(on_nonfinite="skip"))
    with pytest.raises(FloatingPointError, match=r"the loss is nan in epoch 1, step 4, .* no other step of the epoch was finite"):
        training.fit_epoch(spoiling({1, 2, 3, 4}, "loss"))


def test_a_checkpoint_is_refused_while_a_step_that_was_not_finite_is_unseen(config, monkeypatch):
    """As on a GPU, which is looked at every hundred steps."""
    training = Training(config)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "check_finite", lambda training: None)
        training.fit_step(spoiling({1}, "gradient"))
        training.fit_step()
    with pytest.raises(FloatingPointError, match=r"the gradient is not finite in epoch 1, step 1, at learning rate 0\.0005"):
        training.state_dict()


def test_the_command_says_where_and_what_is_kept_and_goes_on_with_skip(config, tmp_path, monkeypatch, capsys):
    step, out = Training.step, tmp_path / "run"

    def spoiled(training, mixed, *args, **kwargs):
        if training.global_step == 5:  # an infinite pixel: logits and loss are nan
            mixed = mixed._replace(images=mixed.images.clone().index_fill_(0, torch.tensor([0]), float("inf")))
        return step(training, mixed, *args, **kwargs)

    monkeypatch.setattr(Training, "step", spoiled)
    options = ["--data", config.data.name, "--batch-size", "16", "--epochs", "2", "--model", NETWORK]
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", *options, "--method", "rmix", "--out", str(out)])
    line = capsys.readouterr().err
    assert "the loss is nan in epoch 2, step 6, at learning rate 0." in line
    assert f"1 of 2 epochs are kept in {out}/checkpoints/epoch-0001.pt" in line
    assert len(list_checkpoints(out / "checkpoints")) == 1
    rlmix_main(["train", "--resume", str(out), "--on-nonfinite", "skip"])
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record.get("nonfinite_steps") for record in records] == [None, 1]
    assert all(np.isfinite(value).all() for record in records for value in record.values() if value is not None)


# -- what an agent sees


OPTIONS = ["--batch-size", "16", "--epochs", "2", "--model", NETWORK, "--learning-rate", "0.05", "--device", "cpu"]
AGENTS = {name: ["--algorithm", name] for name in ("ppo", "a2c", "dqn", "bandit")} | {"joint": ["--granularity", "batch"]}


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["train", *map(str, args)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def blinded(monkeypatch):
    """The saliency pass of step 6 goes wrong: the logits of one image, the map of another, one value too large to be summed."""
    saliency, shown = Training.saliency, []

    def spoiled(training, batch):
        seen = saliency(training, batch)
        if training.global_step != 5:
            return seen
        map, logits = seen.map.clone(), seen.logits.clone()
        logits[0, 1], map[1, 2, 3], map[2] = float("nan"), float("inf"), 3e38
        return Saliency(map, logits)

    def watched(observation):
        shown.append(policy_features(observation))
        return shown[-1]

    monkeypatch.setattr(Training, "saliency", spoiled)
    for module in (features, vec_env, bandit, learned):
        monkeypatch.setattr(module, "policy_features", watched)
    return shown


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_never_sees_what_is_not_finite(config, name, blinded, tmp_path, capsys):
    line = refused(capsys, "--data", config.data.name, *OPTIONS, *AGENTS[name], "--out", tmp_path / "run")
    said = (
        r"rlmix: error: the loss is nan in epoch 2, step 6, at learning rate 0\.0\d+; what is kept leads there again: start anew "
    )
    said += r"with a lower --learning-rate, or with --on-nonfinite skip; 1 of 2 epochs are kept in \S+/epoch-0001\.pt"
    assert re.fullmatch(said, line), line
    assert all(np.isfinite(table).all() for table in blinded)


@pytest.mark.parametrize("name", AGENTS)
def test_a_step_that_an_agent_cannot_see_is_left_out(config, name, blinded, tmp_path):
    out = tmp_path / "run"
    rlmix_main(
        [
            "train",
            "--data",
            config.data.name,
            *OPTIONS,
            *AGENTS[name],
            *([] if name == "bandit" else ["--agent.gamma", "0.5"]),
            "--on-nonfinite",
            "skip",
            "--out",
            str(out),
        ]
    )
    assert all(np.isfinite(table).all() for table in blinded)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["nonfinite_steps"] for record in records] == [0, 1]
    assert all(np.isfinite(value).all() for record in records for value in record.values())
    policy = newest_state(out)["decider"]["parameters"]["policy"]
    assert all(torch.as_tensor(value).isfinite().all() for value in policy.values())


def test_a_learned_policy_never_sees_it_either(config, blinded, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Training, "saliency", lambda training, batch: training.saliency_pass(*batch))
        rlmix_main(["train", "--data", config.data.name, *OPTIONS, "--epochs", "1", "--out", str(tmp_path / "agent")])
    options = ["--method", "policy", "--policy", tmp_path / "agent", "--out", tmp_path / "run"]
    assert "the loss is nan in epoch 2, step 6" in refused(capsys, "--data", config.data.name, *OPTIONS, *options)
    assert all(np.isfinite(table).all() for table in blinded)


def test_rewards_of_a_step_that_is_left_out_are_zero_and_count_for_nothing(config, blinded):
    process = MixingProcess(config.changed(on_nonfinite="skip"))
    process.reset()
    rewards = [process.act(torch.full((16,), 0.5)) for _ in range(8)]
    assert rewards[5].tolist() == [0.0] * 16
    epoch = torch.cat([rewards[step] for step in (4, 6, 7)])  # an epoch is four steps
    assert process.epoch_metrics()["reward_mean"] == pytest.approx(float(epoch.mean()))
    assert process.epoch_metrics()["reward_std"] == pytest.approx(float(epoch.std(correction=0)))


def test_a_frozen_classifier_tells_of_it_too(config, blinded, tmp_path, capsys):
    rlmix_main(
        ["train", "--data", config.data.name, *OPTIONS, "--method", "vanilla", "--epochs", "1", "--out", str(tmp_path / "run")]
    )
    others = [option for option in OPTIONS if option not in ("--learning-rate", "0.05")]
    options = ["--data", config.data.name, *others, "--freeze-from", tmp_path / "run", "--out", tmp_path / "agent"]
    assert "the loss is nan in epoch 2, step 6" in refused(capsys, *options)


def small_minibatches(name, size):
    return [] if name in ("a2c", "bandit") else ["--agent.minibatch-size", str(size)]  # they take all of a rollout


@pytest.mark.parametrize("name", [name for name in AGENTS if name != "dqn"])  # whose best of any scores is a choice
def test_an_agent_that_diverges_is_named(config, name, tmp_path, capsys):
    out = ["--agent.learning-rate", "1e37", *small_minibatches(name, 16), "--out", tmp_path / "run"]
    line = refused(capsys, "--data", config.data.name, *OPTIONS, *AGENTS[name], *out)
    said = r"rlmix: error: the agent's (weights|scores) are not finite in epoch \d, after step \d, at agent\.learning_rate 1e\+37; what "
    assert re.match(said + r"is kept leads there again: start anew with a lower --agent\.learning-rate; \d of 2 epochs", line), (
        line
    )
    assert len(line) < 500


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["ppo", "a2c", "joint"])
def test_scores_that_are_not_finite_are_named_though_the_weights_are(config, name, value, tmp_path, monkeypatch, capsys):
    """One score of the second epoch."""
    forward, calls = torch.nn.Linear.forward, []

    def spoiled(layer, features):
        scores = forward(layer, features)
        if layer.out_features != 10 or torch.is_grad_enabled():  # the actor's last, where it decides
            return scores
        calls.append(layer)
        return scores.clone().index_fill_(scores.ndim - 1, torch.tensor([3]), value) if len(calls) == 7 else scores

    monkeypatch.setattr(torch.nn.Linear, "forward", spoiled)
    line = refused(capsys, "--data", config.data.name, *OPTIONS, *AGENTS[name], "--out", tmp_path / "run")
    assert re.match(
        r"rlmix: error: the agent's scores are not finite in epoch 2, after step \d, at agent\.learning_rate ", line
    ), line


@pytest.mark.parametrize("name", ["ppo", "a2c", "joint"])
def test_probabilities_that_cannot_be_drawn_from_are_named(config, name, tmp_path, monkeypatch, capsys):
    """Scores near the largest float pass torch's check of a distribution, and not always its draw."""
    draw, calls = torch.multinomial, []

    def spoiled(probabilities, *args, **kwargs):
        calls.append(probabilities)
        return draw(probabilities * (float("nan") if len(calls) == 9 else 1), *args, **kwargs)

    monkeypatch.setattr(torch, "multinomial", spoiled)
    options = [*AGENTS[name], "--epochs", "4", "--out", tmp_path / "run"]
    line = refused(capsys, "--data", config.data.name, *OPTIONS, *options)
    assert re.match(
        r"rlmix: error: the agent's scores are not finite in epoch \d+, after step \d+, at agent\.learning_rate ", line
    ), line


def losing(update):
    """An optimizer's step that leaves a weight nan."""

    def step(optimizer, *args, **kwargs):
        update(optimizer, *args, **kwargs)
        with torch.no_grad():
            optimizer.param_groups[0]["params"][0].fill_(float("nan"))

    return step


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_whose_weights_are_lost_is_named(config, name, tmp_path, monkeypatch, capsys):
    """By whatever; after its first update."""
    for optimizer in (torch.optim.Adam, torch.optim.RMSprop):  # the latter is a2c's
        monkeypatch.setattr(optimizer, "step", losing(optimizer.step))
    passes = [] if name in ("a2c", "bandit") else ["--agent.passes", "1"]
    options = [*AGENTS[name], *passes, *small_minibatches(name, 64), "--out", tmp_path / "run"]
    line = refused(capsys, "--data", config.data.name, *OPTIONS, *options)
    assert re.search("the agent's (weights|scores) are not finite in epoch ", line), line


# -- odd data


def data_of(train_labels, test_labels, black=(), size=16):
    draw = np.random.default_rng(0)
    images = draw.integers(256, size=(len(train_labels), size, size, 3)).astype(np.uint8)
    images[list(black)] = 0
    tests = draw.integers(256, size=(len(test_labels), size, size, 3)).astype(np.uint8)
    return image_data(images, np.array(train_labels), tests, np.array(test_labels))


@pytest.mark.filterwarnings("ignore:y_train of the data has 4 classes")
@pytest.mark.parametrize("data", ["one image", "missing classes", "black images", "only black images"])
def test_odd_data_train_to_finite_numbers(config, data):
    labels, black, batch_size = [0, 1, 2, 4] * 4, (), 4
    if data == "one image":
        batch_size = 1
    if data == "black images":
        black = (0, 5, 6)
    if data == "only black images":
        black = range(16)
    images = data_of(labels, [4, 4, 0], black)
    process = MixingProcess(config.changed(batch_size=batch_size, epochs=1), images)
    training = process.reset()
    assert training.data.num_classes == 5  # class 3 has no image, and only two have test images
    process.run_epoch(lambda decision: torch.full((batch_size,), 0.5))
    figures = process.epoch_metrics() | training.epoch_metrics() | training.evaluate()
    assert all(np.isfinite(value) for value in figures.values())
    assert 0 <= figures["reward_mean"] <= 1 + 1e-6
    assert training.finished


def test_a_batch_of_one_that_leaves_batch_norm_a_single_value_is_refused(config):
    training = Training(config.changed(batch_size=1))  # 8x8 pixels are one after three halvings
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        training.fit_step()


def test_a_test_class_without_training_images_is_refused():
    with pytest.raises(ValueError, match=r"y_train of the data must hold images of every class that is tested, .* none of 1: 3"):
        data_of([0, 1, 2], [3])
