"""What is told while policies are tried and what is shown of a batch: every part where it belongs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import toy_config

from rlmix.agents.analysis import Choices
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.policies import CoinPolicy, ConstantPolicy
from rlmix.agents.search import Choice, best_joint, reward_table
from rlmix.agents.trials import CEILINGS, try_policies
from rlmix.agents.watch import Watch
from rlmix.envs.process import MixingProcess
from rlmix.envs.rlmix_env import RLMixEnv
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.pictures import mixing_picture
from rlmix.scripts import train as command


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Two epochs of three steps of four 8x8 images, on the classifier of a short run; three values to choose from."""
    folder = tmp_path_factory.mktemp("watching")
    config = toy_config(folder, 8, num_train=12, num_classes=3, batch_size=4)
    options = ["--model", config.model, "--batch-size", "4", "--epochs", "1", "--device", "cpu", "--learning-rate", "0.05"]
    command.main(["--method", "vanilla", "--data", config.data, *options, "--out", str(folder / "run")])
    return replace(config, freeze_from=str(folder / "run"), num_top_k=3)


class Known(LearnedPolicy):
    """Has chosen already."""

    def __init__(self, probabilities, values):
        self.known, self.values = probabilities, torch.tensor(values)

    def probabilities(self, decision):
        return self.known


def test_a_search_is_told_with_the_batch_its_table_and_the_best_choices(frozen):
    process, batches, searches = MixingProcess(frozen), [], []
    process.reset()
    rewards = try_policies(process, {"zero": ConstantPolicy(0.0)}, 8, 2, batches.append, lambda *found: searches.append(found))
    assert len(batches) == len({id(decision) for decision in batches}) == 8, "more than the six of a training"
    assert [id(decision) for decision, _, _ in searches] == [id(decision) for decision in batches[:2]]
    again = MixingProcess(frozen)
    again.reset()
    for batch, (decision, table, joint) in enumerate(searches):
        partner = again.observe().pairing.partner
        assert torch.equal(decision.pairing.partner, partner)
        torch.testing.assert_close(table, reward_table(again))
        expected = best_joint(table, partner)
        assert torch.equal(joint.indices, expected.indices)
        tried = again.try_out(again.values[joint.indices]).mean()
        assert rewards[CEILINGS[1]][batch] == pytest.approx(float(tried), rel=1e-5)
        each = [again.try_out(value.expand(4)) for value in again.values]
        assert rewards[CEILINGS[0]][batch] == pytest.approx(float(torch.stack(each).amax(0).mean()), rel=1e-5)
        assert rewards["zero"][batch] == pytest.approx(float(each[0].mean()), rel=1e-5)
        again.act(torch.zeros(4))
    assert np.isnan(rewards[CEILINGS[1]][2:]).all()


def test_agreements_are_with_the_best_joint_choice_over_all_batches():
    """Of two batches in which a policy chooses as the best choice does for three and for one of four images; another has other values."""
    sure = torch.eye(3)[[0, 1, 2, 0]]
    watch = Watch({"runs/sure": Known(sure, [0.0, 0.5, 0.99]), "runs/other": Known(torch.ones(4, 2) / 2, [0.0, 0.99])})
    tables = [torch.zeros(4, 3, 3), torch.ones(4, 3, 3)]
    watch.search(None, tables[0], Choice(torch.tensor([0, 1, 2, 1]), 0.5))
    watch.search(None, tables[1], Choice(torch.tensor([0, 0, 0, 1]), 0.5))
    assert all(torch.equal(*pair) for pair in zip(watch.tables, tables, strict=True))
    by_chance = [(2 * 1 + 1 * 2 + 1 * 1) / 16, (2 * 3 + 1 * 1) / 16]
    assert watch.lines() == [f"sure chooses as the best joint choice does in 50% (by chance {np.mean(by_chance):.0%})"]
    assert Watch({"constant": ConstantPolicy(0.0)}).lines() == []


def test_one_batch_can_be_joined():
    choices = Choices.join([torch.eye(2)], [{"lam": torch.tensor([0.25, 0.75])}])
    assert choices.probabilities.tolist() == [[1, 0], [0, 1]]
    assert {name: numbers.tolist() for name, numbers in choices.quantities.items()} == {"lam": [0.25, 0.75]}


def test_a_coins_entropy_is_that_of_two_equally_likely_sides():
    assert CoinPolicy(10, seed=0).entropy == pytest.approx(-2 * 0.5 * np.log(0.5))


@pytest.mark.parametrize("form", [RLMixEnv, RLMixVectorEnv])
def test_pictures_show_eight_images_their_maps_masks_and_mixtures(tmp_path, form):
    """Of the last batch that was mixed; of the one that waits where none was."""
    env = form(config=toy_config(tmp_path, 16, num_train=20, batch_size=10), render_mode="rgb_array")
    env.reset(seed=0)
    for steps in range(2):
        if steps:
            env.step(np.arange(10))
        process = env.process
        outcome, training = process.outcome, process.require_training()
        decision = process.observe() if outcome is None else outcome.decision
        clean = training.to_pixels(decision.batch.images)[:8]
        mixed = clean if outcome is None else training.to_pixels(outcome.mixed.images)[:8]
        mask = torch.ones(8, 8, 8, dtype=torch.bool) if outcome is None else outcome.mask[:8]
        expected = mixing_picture(clean, decision.saliency.map[:8], mask, mixed)
        assert (outcome is None) == (steps == 0)
        picture = env.render() if form is RLMixEnv else env.render()[0]
        np.testing.assert_array_equal(picture, expected)
    assert not torch.equal(clean, mixed)
