"""Cheaper saliency: what each stand-in gives, against the exact pass and loops."""

import pytest
import torch
import torch.nn.functional as F
from toys import toy_config

import rlmix
from rlmix.common.ranks import Ranks
from rlmix.data.augmentation import CropFlip, crop_flip, inverse
from rlmix.envs.process import MixingProcess
from rlmix.maps.approximate import SALIENCY_MODES, Moment, PreviousEpoch, Surroundings, build_source
from rlmix.training.trainer import Training

SETTING = Surroundings(
    num_images=6, image_size=(8, 8), num_classes=3, crop_padding=2, device=torch.device("cpu"), ranks=Ranks(), seed=0
)


class Recorder:
    """A look that gives what it saw."""

    def __init__(self):
        self.calls = []

    def __call__(self, images, labels):
        self.calls.append(images)
        return rlmix.Saliency(images.mean(1), F.one_hot(labels, 3).float())


def batch(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(4, 3, 8, 8, generator=draw), torch.randint(3, (4,), generator=draw)


def test_inverse_undoes_crop_and_flip_pixel_by_pixel():
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(50, 6, 8, 2, generator=draw) + 1
    move = CropFlip(torch.randint(5, (50,), generator=draw), torch.randint(5, (50,), generator=draw), torch.rand(50) < 0.5)
    back = crop_flip(crop_flip(images, move, 2), inverse(move, 2), 2)
    for index in range(50):
        top, left = int(move.top[index]) - 2, int(move.left[index]) - 2
        for row in range(6):
            for column in range(8):
                kept = 0 <= row - top < 6 and 0 <= column - left < 8
                expected = images[index, row, column] if kept else torch.zeros(2)
                assert torch.equal(back[index, row, column], expected)


def test_half_resolution_spreads_each_value_over_four_pixels():
    look, (images, labels) = Recorder(), batch()
    map, logits = build_source("half", SETTING)(look, images, labels, Moment(1, 1))
    assert look.calls[0].shape == (4, 3, 4, 4)
    for row in range(8):
        for column in range(8):
            top, left = row // 2 * 2, column // 2 * 2
            torch.testing.assert_close(map[:, row, column], images[:, :, top : top + 2, left : left + 2].mean((1, 2, 3)))
    assert torch.equal(logits, F.one_hot(labels, 3).float())


def test_half_resolution_of_odd_sides_leaves_the_last_row_alone():
    look, (images, labels) = Recorder(), batch()
    images = images[:, :, :7, :5]
    map, _ = build_source("half", SETTING._replace(image_size=(7, 5)))(look, images, labels, Moment(1, 1))
    assert map.shape == (4, 7, 5)
    for row in range(7):
        for column in range(5):
            top, left = row // 2 * 2, column // 2 * 2
            torch.testing.assert_close(map[:, row, column], images[:, :, top : top + 2, left : left + 2].mean((1, 2, 3)))


def test_every_other_step_knows_nothing_between():
    look, source, (images, labels) = Recorder(), build_source("alternate", SETTING), batch()
    found = [source(look, images, labels, Moment(1, step)) for step in (1, 2, 3, 4)]
    assert len(look.calls) == 2
    for saliency in (found[1], found[3]):
        patches = rlmix.patch_saliency(saliency.map, 4)
        assert (patches == 1 / 16).all()
        assert rlmix.salient_mask(patches, torch.full((4,), 0.99)).all(), "all salient: Input Mix-up"
        assert saliency.logits.shape == (4, 3)
        assert not saliency.logits.any()


def test_the_previous_epochs_map_moves_with_crop_and_flip():
    source, (images, labels) = PreviousEpoch(SETTING), batch()
    index = torch.tensor([5, 0, 3, 1])
    still = CropFlip(torch.full((4,), 2), torch.full((4,), 2), torch.zeros(4, dtype=torch.bool))
    look = Recorder()
    first = source(look, images, labels, Moment(1, 1, index, still))
    assert torch.equal(first.map, images.mean(1)), "odd epochs are exact"
    moved = CropFlip(torch.tensor([0, 1, 2, 4]), torch.tensor([2, 3, 0, 1]), torch.tensor([True, False, True, False]))
    order = torch.tensor([2, 0, 3, 1])
    second = source(look, images, labels, Moment(2, 1, index[order], CropFlip(*(part[order] for part in moved))))
    assert len(look.calls) == 1, "no pass in even epochs"
    expected = crop_flip(first.map[..., None], moved, 2)[order, ..., 0]
    scale = first.map.mean((1, 2))[order, None, None]
    torch.testing.assert_close(second.map * scale, expected, atol=2e-3, rtol=2e-3)  # float16
    assert torch.equal(second.logits, first.logits[order])
    unseen = source(look, images[:1], labels[:1], Moment(2, 2, torch.tensor([4]), CropFlip(*(part[:1] for part in moved))))
    assert (rlmix.patch_saliency(unseen.map, 4) == 1 / 16).all()
    source(look, images, labels, Moment(3, 1, index, moved))
    kept = source.store.maps[index].float()
    back = crop_flip(first.map[..., None], inverse(moved, 2), 2)[..., 0] / first.map.mean((1, 2), keepdim=True)
    torch.testing.assert_close(kept, back, atol=2e-3, rtol=2e-3, msg="not in the images' own frame")


def test_maps_survive_gradients_too_small_for_float16():
    source, (images, labels) = PreviousEpoch(SETTING), batch()
    still = CropFlip(torch.full((4,), 2), torch.full((4,), 2), torch.zeros(4, dtype=torch.bool))
    moment = Moment(1, 1, torch.arange(4), still)
    exact = source(lambda images, labels: rlmix.Saliency(1e-12 * images.mean(1), torch.zeros(4, 3)), images, labels, moment)
    kept = source(Recorder(), images, labels, moment._replace(epoch=2))
    torch.testing.assert_close(rlmix.patch_saliency(kept.map, 4), rlmix.patch_saliency(exact.map, 4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("mode", SALIENCY_MODES)
def test_every_mode_trains_and_its_state_continues_bit_for_bit(mode, tmp_path):
    config = toy_config(tmp_path, 16, saliency_mode=mode, flip=True)

    def run(process, epochs):
        for _ in range(epochs):
            process.run_epoch(lambda decision: torch.full((16,), 0.5))

    whole, first, second = (MixingProcess(config) for _ in range(3))
    for process in (whole, first, second):
        process.reset()
    run(whole, 2)
    run(first, 1)
    second.load_state_dict(first.state_dict())
    run(second, 1)
    assert whole.epoch_metrics() == second.epoch_metrics()
    for name, weight in whole.training.model.state_dict().items():
        assert torch.equal(weight, second.training.model.state_dict()[name]), name
    assert torch.isfinite(torch.tensor(list(whole.training.epoch_metrics().values()))).all()


def test_modes_differ_and_exact_is_the_default(tmp_path):
    config = toy_config(tmp_path, 16)
    maps = {}
    for mode in SALIENCY_MODES:
        training = Training(config.changed(saliency_mode=mode))
        maps[mode] = training.saliency(training.next_batch()).map
    exact = Training(config)
    drawn = exact.next_batch()
    assert torch.equal(maps["exact"], rlmix.saliency(exact.model, *drawn).map)
    assert torch.equal(maps["exact"], maps["previous"])
    assert torch.equal(maps["exact"], maps["alternate"]), "the first step is exact"
    assert not torch.equal(maps["exact"], maps["half"])
    similar = F.cosine_similarity(maps["exact"].flatten(1), maps["bfloat16"].flatten(1))
    assert not torch.equal(maps["exact"], maps["bfloat16"])
    assert similar.min() > 0.95


def test_unknown_mode_names_what_is_allowed():
    known = "exact, bfloat16, half, alternate, previous, recycled, recycled_8x8, random, position, other"
    with pytest.raises(ValueError, match=f"saliency_mode must be one of {known}, got 'hlaf'"):
        rlmix.Config.flat(saliency_mode="hlaf").resolved()
