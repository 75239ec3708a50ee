"""Policies that are controls: a static mixture, and a learned policy's choices given to other images."""

import pytest
import torch
from toys import DIGITS

import rlmix
from rlmix.agents.learned import LearnedPolicy, ShuffledPolicy
from rlmix.agents.policies import MixturePolicy
from rlmix.envs.process import MixingProcess
from rlmix.training.run_folder import read_metrics


def test_a_mixture_draws_each_value_as_often_as_it_is_told(tiny_config):
    process = MixingProcess(tiny_config)
    process.reset()
    decision = process.observe()
    policy = MixturePolicy((2.0, 0.0, 1.0, 1.0), seed=0)
    drawn = torch.cat([policy(decision) for _ in range(500)])
    share = [(drawn == value).float().mean().item() for value in torch.linspace(0, 0.99, 4)]
    assert share == pytest.approx([0.5, 0, 0.25, 0.25], abs=0.02)
    assert policy.entropy == pytest.approx(1.5 * torch.tensor(2.0).log().item())


def test_a_shuffled_policy_makes_the_same_choices_for_other_images(tmp_path, tiny_config):
    rlmix.train(tiny_config.changed(out=tmp_path / "learned", device="cpu"), quiet=True)
    process = MixingProcess(tiny_config)
    process.reset()
    own, other = (kind(tmp_path / "learned", seed=0) for kind in (LearnedPolicy, ShuffledPolicy))
    moved = 0
    for _ in range(4):
        decision = process.observe()
        chosen, shuffled = own(decision), other(decision)
        assert torch.equal(chosen.sort().values, shuffled.sort().values)
        moved += int((chosen != shuffled).sum())
        own.load_state_dict(other.state_dict())
        process.act(shuffled)
    assert moved > 8
    result = rlmix.train(
        tiny_config.changed(method="shuffled", policy=str(tmp_path / "learned"), out=tmp_path / "run", device="cpu"), quiet=True
    )
    assert read_metrics(result.folder)[-1]["policy_entropy"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "mixture"}, "top_k_weights must be given with method mixture, and only then, got None with mixture"),
        ({"method": "rmix", "top_k_weights": (1.0,)}, "top_k_weights must be given with method mixture, and only then"),
        (
            {"method": "mixture", "top_k_weights": (1.0, 2.0)},
            r"top_k_weights must be 10 numbers with method mixture, .*\(1.0, 2.0\)",
        ),
        ({"method": "mixture", "top_k_weights": (0.0,) * 10}, "top_k_weights must be numbers of at least 0, not all 0"),
        ({"method": "shuffled"}, "policy must be given with method policy or shuffled, and only then, got None with shuffled"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        rlmix.train(rlmix.Config.flat(**DIGITS | {"out": tmp_path / "run"} | options), quiet=True)
    assert not (tmp_path / "run").exists()
