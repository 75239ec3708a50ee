"""Images are mixed in the first part of the epochs, and as they are in the rest, under every kind of method."""

import shutil

import pytest
import torch
from toys import NETWORK

import rlmix
from rlmix.experiments.train import train
from rlmix.mixing.cutmix import CutMix
from rlmix.training.trainer import Training

TOY = {"data": "digits", "train_images": 60, "test_images": 20, "batch_size": 20, "epochs": 4, "model": NETWORK, "device": "cpu"}


def options(tmp_path, method, **more):
    return rlmix.Config.flat(**TOY, method=method, out=tmp_path / method, mix_until=0.5, learning_rate=0.02, **more)


@pytest.mark.parametrize(("part", "epochs"), [(1.0, 4), (0.8, 3), (0.5, 2), (0.01, 1)])
def test_whole_epochs_are_mixed_and_at_least_one(part, epochs):
    assert Training(rlmix.Config.flat(**TOY, mix_until=part)).mixed_epochs == epochs


def test_a_methods_targets_are_soft_first_and_hard_at_last(monkeypatch):
    seen = []
    plain = Training.step
    monkeypatch.setattr(Training, "step", lambda self, mixed, *rest: seen.append(mixed.targets) or plain(self, mixed, *rest))
    training = Training(rlmix.Config.flat(**TOY, mix_until=0.5, method="input_mixup"), method="input_mixup")
    for _ in range(4):
        training.fit_epoch()
    hard = [bool((targets.amax(1) == 1).all()) for targets in seen]
    assert hard == [False] * 6 + [True] * 6


def test_the_end_is_that_of_vanilla_from_the_same_weights():
    """Twins: one under --mix-until, the other told by hand to mix no more."""
    one, other = (Training(rlmix.Config.flat(**TOY, mix_until=part), method="vanilla") for part in (0.5, 1.0))
    for epoch in range(4):
        one.fit_epoch(CutMix())
        other.fit_epoch(CutMix() if epoch < 2 else None)
    assert all(torch.equal(a, b) for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True))


@pytest.mark.parametrize("method", ["rlmix", "rmix"])
def test_who_decides_is_asked_no_more(tmp_path, method):
    """Rewards and choices are of the mixed epochs alone; the policy that is kept is that of their end; a run goes on within the rest."""
    again, states = tmp_path / "again", []

    class Copies(rlmix.Callback):
        def on_checkpoint(self, path):
            states.append(torch.load(path, weights_only=True))
            if states[-1]["epoch"] == 3:
                shutil.copytree(tmp_path / method, again)

    result = train(options(tmp_path, method, reward="cosine"), callbacks=[Copies()], quiet=True)
    records = result.epochs
    assert ["reward_mean" in record for record in records] == [True, True, False, False]
    assert result["reward_mean"] == records[1]["reward_mean"]
    if method == "rlmix":
        first, last = (state["decider"]["parameters"]["policy"] for state in (states[1], states[3]))
        assert all(torch.equal(first[name], last[name]) for name in first)
    more = train(rlmix.Config.from_yaml(again / "config.yaml").changed(resume=again, out=again), quiet=True)
    assert (more["top1"], more["reward_mean"]) == (result["top1"], result["reward_mean"])
    end = torch.load(again / "checkpoints" / "epoch-0004.pt", weights_only=True)["training"]["model"]
    assert all(torch.equal(end[name], tensor) for name, tensor in states[3]["training"]["model"].items())


def test_an_environment_ends_with_the_mixing():
    envs = rlmix.make_vec_env(config=rlmix.Config.flat(**TOY, mix_until=0.5))
    envs.reset(seed=0)
    ends = []
    for _ in range(6):
        _, _, terminated, truncated, _ = envs.step(envs.action_space.sample())
        ends.append((bool(terminated.all()), bool(truncated.all())))
    assert ends == [(False, False)] * 2 + [(False, True)] + [(False, False)] * 2 + [(True, False)]


@pytest.mark.parametrize("method", ["vanilla"])
def test_it_is_refused_where_it_would_do_nothing(method, capsys):
    from rlmix.experiments.command import run_command
    from rlmix.scripts.train import main

    with pytest.raises(SystemExit) as error:
        run_command(lambda: main(["--method", method, "--mix-until", "0.5"]))
    assert error.value.code == 2
    assert "--mix-until must be left out with --method vanilla" in capsys.readouterr().err
