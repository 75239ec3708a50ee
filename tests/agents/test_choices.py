"""What is told while policies are tried and what is shown of a batch: every part where it belongs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import toy_config

from rlmix.agents.analysis import Choices
from rlmix.agents.choices import Recorder
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.measurement import CEILINGS, try_policies
from rlmix.agents.policies import CoinPolicy, ConstantPolicy, FixedRandomPolicy
from rlmix.agents.search import Choice, best_joint, reward_table
from rlmix.common.ranks import Ranks
from rlmix.common.seeding import stream
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.envs.render import mixing_picture
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.mixing.actions import Action
from rlmix.scripts import train as command


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Two epochs of three steps of four 8x8 images, on the classifier of a short run; three values to choose from."""
    folder = tmp_path_factory.mktemp("watching")
    config = toy_config(folder, 8, num_train=12, num_classes=3, batch_size=4)
    options = ["--model", config.model.name, "--batch-size", "4", "--epochs", "1", "--device", "cpu", "--learning-rate", "0.05"]
    command.main(["--method", "vanilla", "--data", config.data.name, *options, "--out", str(folder / "run")])
    return config.changed(freeze_from=str(folder / "run"), num_top_k=3)


class Known(LearnedPolicy):
    """Has chosen already."""

    def __init__(self, probabilities, values):
        self.known, self.actions = probabilities, Action(torch.tensor(values))

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
    recorder = Recorder({"runs/sure": Known(sure, [0.0, 0.5, 0.99]), "runs/other": Known(torch.ones(4, 2) / 2, [0.0, 0.99])})
    tables = [torch.zeros(4, 3, 3), torch.ones(4, 3, 3)]
    recorder.search(None, tables[0], Choice(torch.tensor([0, 1, 2, 1]), 0.5))
    recorder.search(None, tables[1], Choice(torch.tensor([0, 0, 0, 1]), 0.5))
    assert all(torch.equal(*pair) for pair in zip(recorder.tables, tables, strict=True))
    by_chance = [(2 * 1 + 1 * 2 + 1 * 1) / 16, (2 * 3 + 1 * 1) / 16]
    assert recorder.lines() == [f"sure chooses as the best joint choice does in 50% (by chance {np.mean(by_chance):.0%})"]
    assert Recorder({"constant": ConstantPolicy(0.0)}).lines() == []


def test_one_batch_can_be_joined():
    choices = Choices.join([torch.eye(2)], [{"lam": torch.tensor([0.25, 0.75])}])
    assert choices.probabilities.tolist() == [[1, 0], [0, 1]]
    assert {name: numbers.tolist() for name, numbers in choices.quantities.items()} == {"lam": [0.25, 0.75]}


def test_a_coins_entropy_is_that_of_two_equally_likely_sides():
    assert CoinPolicy(10, seed=0).entropy == pytest.approx(-2 * 0.5 * np.log(0.5))
    assert CoinPolicy(1, seed=0).entropy == 0


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
        picture = env.render() if form is RLMixEnv else np.concatenate(env.render()[:8], axis=1)
        np.testing.assert_array_equal(picture, expected)
    assert not torch.equal(clean, mixed)


# -- what a choice of one's own and of one's partner brings


def test_table_is_that_of_mixtures_of_ones_own_mask_and_the_partners(frozen):
    """Each entry with two different choices, too: patches by quantiles, the mixture in a loop, its gradient's pooled map by autograd."""
    process = MixingProcess(frozen.changed(num_patches=(8,)))
    process.reset()
    decision, model = process.observe(), process.require_training().model
    table = reward_table(process)
    patches, partner, labels = decision.patches, decision.pairing.partner.tolist(), torch.eye(3)[decision.batch.labels]
    assert partner != list(range(4))
    for own, theirs in ((0, 2), (2, 0), (1, 2), (1, 1)):
        images, targets = [], []
        for image in range(4):
            masks = [
                patches[which] >= torch.quantile(patches[which].flatten(), process.values[choice])
                for which, choice in ((image, own), (partner[image], theirs))
            ]
            weight = torch.where(masks[0] == masks[1], decision.pairing.lam, masks[0].float())
            images.append(weight * decision.batch.images[image] + (1 - weight) * decision.batch.images[partner[image]])
            targets.append(weight.mean() * labels[image] + (1 - weight.mean()) * labels[partner[image]])
        inputs = torch.stack(images).requires_grad_()
        (gradient,) = torch.autograd.grad(-(torch.stack(targets) * model(inputs).log_softmax(1)).sum(1).mean(), inputs)
        maps = gradient.double().square().mean(1).sqrt().flatten(1).numpy()  # 8x8 images: a patch is a pixel
        clean = patches.double().flatten(1).numpy()
        expected = (maps * clean).sum(1) / np.sqrt((maps**2).sum(1) * (clean**2).sum(1))
        np.testing.assert_allclose(table[:, own, theirs].numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("reward", ["cosine", "cosine_label", "last_layer"])
def test_trying_out_gives_the_rewards_of_acting_whatever_the_reward(frozen, reward):
    process = MixingProcess(frozen.changed(reward=reward))
    process.reset()
    for top_k in (torch.tensor([0.0, 0.99, 0.495, 0.0]), torch.zeros(4)):
        tried = process.try_out(top_k)
        torch.testing.assert_close(tried, process.act(top_k))


@pytest.mark.parametrize("reward", ["parameters", "held_out_loss"])
def test_rewards_that_need_a_change_cannot_be_tried_out(frozen, reward):
    process = MixingProcess(frozen.changed(reward=reward, freeze_from=None))
    process.reset()
    with pytest.raises(ValueError, match=f"must be one that needs no change of the classifier to try choices out, got {reward}"):
        process.try_out(torch.zeros(4))


class Two(Ranks):
    """The second of two processes, whose other one sees the same images; nothing is sent."""

    def __init__(self):
        self.size, self.rank, self._group = 2, 1, None

    def gather(self, tensor):
        return torch.stack([tensor, tensor])


def test_policies_decide_for_all_ranks_and_take_their_share(tmp_path, frozen):
    process = MixingProcess(frozen)
    process.reset()
    decision = process.observe()
    options = ["--model", frozen.model.name, "--batch-size", "4", "--epochs", "1", "--device", "cpu", "--learning-rate", "0.05"]
    options += ["--agent.learning-rate", "0.1", "--agent.minibatch-size", "4"]
    command.main(["--data", frozen.data.name, *options, "--out", str(tmp_path / "agent")])
    alone, shared = LearnedPolicy(tmp_path / "agent", 0), LearnedPolicy(tmp_path / "agent", 0, Two())
    probabilities = alone.probabilities(decision)
    torch.testing.assert_close(shared.probabilities(decision), torch.cat([probabilities, probabilities]))
    every = torch.multinomial(torch.cat([probabilities] * 2), 1, generator=stream(0, "policy"))[:, 0]
    assert torch.equal(shared(decision), torch.linspace(0, 0.99, 10)[every[4:]])
    entropy = -(probabilities * probabilities.log()).sum(1).mean()
    assert shared.entropy == pytest.approx(float(entropy), rel=1e-5)
    for kind in (FixedRandomPolicy, CoinPolicy):
        whole, half = (kind(10, 3, ranks) for ranks in (None, Two()))
        eight = SimpleNamespace(patches=torch.zeros(8, 8, 8))
        assert torch.equal(half(decision), whole(eight)[4:])
