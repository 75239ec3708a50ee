"""Every part of what is seen of a batch, computed image by image from what the classifier says of it; and how it comes to the host."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from toys import toy_config

from rlmix.envs.conversion import to_host
from rlmix.envs.observations import CLASSES, OBSERVATIONS, PAPER, Part, observation_space, observe
from rlmix.envs.process import Decision, MixingProcess
from rlmix.maps.gradient import Saliency
from rlmix.mixing.core import Pairing
from rlmix.training.trainer import Batch

PARTNER = [2, 0, 3, 1, 4]
"""No inverse of itself: image 0 is mixed with image 2, and image 1 is mixed with image 0, which makes it image 0's host."""


@pytest.fixture
def decision():
    """Five 16x16 images of three classes; all maps and logits differ."""
    draw = torch.Generator().manual_seed(0)
    batch = Batch(torch.zeros(5, 1, 16, 16), torch.tensor([0, 1, 2, 0, 1]))
    said = Saliency(torch.rand(5, 16, 16, generator=draw), torch.randn(5, 3, generator=draw))
    return Decision(batch, said, Pairing(torch.tensor(PARTNER), 0.3, 4), progress=0.625, sound=torch.tensor(True))


def pooled(map):
    """8x8 means of blocks of four pixels, in float64, that sum to 1."""
    blocks = map.double().numpy().reshape(8, 2, 8, 2).mean((1, 3))
    return blocks / blocks.sum()


def expected(decision, image):
    """What the image's chooser sees."""
    partner, (host,) = PARTNER[image], [other for other in range(5) if PARTNER[other] == image]
    map, logits = decision.saliency
    seen = {"saliency": pooled(map[image]), "logits": logits[image].numpy()}
    seen |= {"partner_saliency": pooled(map[partner]), "partner_logits": logits[partner].numpy()}
    seen |= {"host_saliency": pooled(map[host]), "host_logits": logits[host].numpy()}
    return seen | {"lam": [0.3], "progress": [0.625]}


@pytest.mark.parametrize("name", ["paper", "pair"])
def test_every_part_is_that_of_the_image_its_partner_and_its_host(decision, name):
    seen, (host, rest) = observe(decision, name), to_host(decision, name)
    parts = {"saliency", "logits"} if name == "paper" else expected(decision, 0).keys()
    assert seen.keys() == host.keys() == set(observation_space(name, (), 3)) == parts
    assert rest.size == 0
    for part in seen:
        for image in range(5):
            np.testing.assert_allclose(seen[part][image].numpy(), expected(decision, image)[part], rtol=1e-5, err_msg=part)
        np.testing.assert_array_equal(host[part], seen[part].numpy(), strict=True)


@pytest.fixture
def seeing(monkeypatch):
    """Observes by a part of one's own."""
    monkeypatch.setattr(OBSERVATIONS, "_entries", {**OBSERVATIONS._entries})

    def see(decision, part):
        OBSERVATIONS._entries.pop("mine", None)
        OBSERVATIONS.add("mine", {**PAPER, "own": part}, doc="Mine.")
        return observe(decision, "mine"), to_host(decision, "mine")[0]

    return see


def test_a_part_of_ones_own_is_seen_as_float32(decision, seeing):
    given = torch.linspace(0, 1, 30, dtype=torch.float64).view(5, 2, 3)
    late = torch.tensor([[False], [False], [False], [True], [True]])
    for part, values in ((Part(lambda decision: given, (2, CLASSES)), given), (Part(lambda decision: late), late)):
        seen, host = seeing(decision, part)
        assert seen["own"].dtype == torch.float32
        assert host in observation_space("mine", (5,), 3)
        np.testing.assert_array_equal(host["own"], values.numpy().astype(np.float32), strict=True)


@pytest.mark.parametrize(
    ("given", "found"), [(torch.zeros(5), r"\(5,\)"), (torch.zeros(4, 1), r"\(4, 1\)"), ([[0.5]] * 5, "list")], ids=str
)
def test_a_part_of_another_shape_than_it_says_is_named(decision, seeing, given, found):
    with pytest.raises(ValueError, match=rf"^observation mine must give own of shape \(5, 1\), got {found}$"):
        seeing(decision, Part(lambda decision: given))


def test_the_partners_and_the_hosts_parts_differ(decision):
    """Else one could stand for the other; an image that is its own partner is its own host."""
    seen = observe(decision, "pair")
    for part in ("saliency", "logits"):
        for image in range(5):
            numbers = {seen[f"{who}{part}"][image].flatten()[0].item() for who in ("", "partner_", "host_")}
            assert len(numbers) == (1 if PARTNER[image] == image else 3)


def test_the_rewards_come_along_image_by_image(decision):
    rewards = torch.tensor([0.5, -1.0, 2.0, 0.25, 7.0])
    for name in ("paper", "pair"):
        seen, found = to_host(decision, name, rewards)
        assert found.tolist() == rewards.tolist()
        np.testing.assert_array_equal(seen["logits"], decision.saliency.logits.numpy())


@pytest.mark.parametrize("shape", [(), (6,)])
def test_the_space_of_the_pairs_observation(shape):
    map, unit = spaces.Box(0, 1, (*shape, 8, 8), np.float32), spaces.Box(0, 1, (*shape, 1), np.float32)
    limit = float(np.finfo(np.float32).max)
    logits = spaces.Box(-limit, limit, (*shape, 3), np.float32)
    parts = {"saliency": map, "logits": logits}
    assert observation_space("paper", shape, 3) == spaces.Dict(parts)
    for who in ("partner", "host"):
        parts |= {f"{who}_saliency": map, f"{who}_logits": logits}
    assert observation_space("pair", shape, 3) == spaces.Dict(parts | {"lam": unit, "progress": unit})


def test_progress_is_the_part_of_the_training_that_is_over(tmp_path):
    config = toy_config(tmp_path, 8, num_train=12, num_classes=3, batch_size=4, observation="pair")
    process = MixingProcess(config)
    process.reset()
    for step in range(6):
        decision = process.observe()
        seen = observe(decision, "pair")
        assert seen["progress"].flatten().tolist() == pytest.approx([step / 6] * 4)
        assert seen["lam"].flatten().tolist() == pytest.approx([decision.pairing.lam] * 4)
        process.act(torch.zeros(4))
