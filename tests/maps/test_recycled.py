"""Recycled saliency: what a mixed step tells of its images, against loops over images and pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import toy_config

import rlmix
from rlmix.common.ranks import Ranks
from rlmix.common.seeding import stream
from rlmix.data.augmentation import CropFlip, ResizedCrop
from rlmix.envs.process import MixingProcess
from rlmix.maps.approximate import Evidence, Moment, Surroundings, build_source
from rlmix.maps.composition import Pairs
from rlmix.maps.recycled import RATE, learn, read_evidence, recycle
from rlmix.maps.store import MapStore, to_batch, to_images

CPU = torch.device("cpu")
SETTING = Surroundings(num_images=6, image_size=(8, 8), num_classes=3, crop_padding=2, device=CPU, ranks=Ranks(), seed=0)


def no_pass(images, labels):
    raise AssertionError("no pass of its own")


def evidence(seed=0, batch=4, finite=None):
    draw = torch.Generator().manual_seed(seed)
    return Evidence(
        torch.randn(batch, 3, 8, 8, generator=draw),
        torch.randn(batch, 3, generator=draw),
        Pairs(torch.rand(batch, 2, 2, generator=draw), torch.randperm(batch, generator=draw)),
        finite,
    )


def told_by_loop(given):
    """Sum of w G, and of w, over the mixtures that an image is in; by the definition."""
    batch = len(given.made.partner)
    maps = given.gradient.square().mean(1).sqrt()
    total, weight = torch.zeros(batch, 8, 8), torch.zeros(batch, 8, 8)
    for lead in range(batch):
        scaled = maps[lead] / maps[lead].mean()
        for row in range(8):
            for column in range(8):
                own = given.made.weights[lead, row // 4, column // 4]
                for image, share in ((lead, own), (int(given.made.partner[lead]), 1 - own)):
                    total[image, row, column] += share * scaled[row, column]
                    weight[image, row, column] += share
    return total, weight


def moved_by_loop(start, given, places, draw, rate):
    """Every map after a step: row r of the batch shows row r + top - 2 of the image, mirrored where drawn."""
    total, weight = told_by_loop(given)
    expected = start.float()
    for image, place in enumerate(places.tolist()):
        for row in range(8):
            for column in range(8):
                across = 7 - column if draw.mirror[image] else column
                down, right = row + int(draw.top[image]) - 2, across + int(draw.left[image]) - 2
                if 0 <= down < 8 and 0 <= right < 8:
                    old = float(start[place, down, right])
                    expected[place, down, right] = old + rate * (total[image, row, column] - weight[image, row, column] * old)
    return expected


def test_a_mixtures_gradient_is_shared_out_by_the_pixels():
    given = evidence()
    told = read_evidence(given)
    total, weight = told_by_loop(given)
    torch.testing.assert_close(told.total, total)
    torch.testing.assert_close(told.weight, weight)
    for image in range(4):
        host = given.made.partner.tolist().index(image)
        own, theirs = float(given.made.weights[image].mean()), 1 - float(given.made.weights[host].mean())
        assert torch.equal(told.logits[image], given.logits[image if own >= theirs else host])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_gradient_that_is_not_finite_or_nothing_tells_nothing_of_its_two_images(value):
    given = evidence()
    spoiled = given._replace(gradient=given.gradient.clone())
    spoiled.gradient[1] = value
    told, whole = read_evidence(spoiled), read_evidence(given)
    partner = int(given.made.partner[1])
    untouched = [image for image in range(4) if image not in (1, partner)]
    assert torch.equal(told.total[untouched], whole.total[untouched])
    assert torch.isfinite(told.total).all()
    own = F.interpolate(given.made.weights[None], scale_factor=4, mode="nearest")[0]
    torch.testing.assert_close(told.weight[partner], whole.weight[partner] - (1 - own[1] if partner != 1 else 1))


def test_a_step_that_was_left_out_leaves_every_map_alone():
    store = MapStore(6, (8, 8), 3, 2, CPU)
    before = store.maps.clone()
    learn(store, evidence(finite=torch.tensor(False)), torch.tensor([5, 0, 3, 1]), None)
    assert torch.equal(store.maps, before)


PLACES = torch.tensor([5, 0, 3, 1])
DRAW = CropFlip(torch.tensor([0, 1, 2, 4]), torch.tensor([2, 3, 0, 1]), torch.tensor([True, False, True, False]))
START = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(1)).half()


def test_maps_move_to_their_images_and_what_a_crop_left_out_keeps_its_value():
    """In the image's own frame, pixel by pixel."""
    source, given = build_source("recycled", SETTING), evidence()
    source.store.maps.copy_(START)
    source.learn(given, Moment(1, 1, PLACES, DRAW))
    expected = moved_by_loop(START, given, PLACES, DRAW, RATE)
    torch.testing.assert_close(source.store.maps.float(), expected, atol=2e-3, rtol=2e-3)  # float16
    unseen = expected == START.float()
    assert unseen[PLACES].any()
    assert torch.equal(source.store.maps[unseen], START[unseen])
    shown = source(no_pass, torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), Moment(2, 1, PLACES, DRAW))
    assert torch.equal(shown.logits, read_evidence(given).logits)
    torch.testing.assert_close(shown.map[1, 3, 4], source.store.maps[0, 3 + 1 - 2, 4 + 3 - 2].float())


def test_a_loop_of_ones_own_may_name_rate_and_crops():
    maps, given = rlmix.RecycledMaps(6, (8, 8), padding=2, rate=0.1), evidence()
    maps.store.maps.copy_(START)
    maps.expect(PLACES, DRAW, given.made.weights, given.made.partner)
    maps.learn(given.gradient)
    expected = moved_by_loop(START, given, PLACES, DRAW, 0.1)
    torch.testing.assert_close(maps.store.maps.float(), expected, atol=2e-3, rtol=2e-3)
    plain = rlmix.RecycledMaps(6, (8, 8), rate=0.5)  # the largest rate
    assert (plain.store.padding, plain.rate, rlmix.RecycledMaps(6, (8, 8)).rate) == (0, 0.5, RATE)
    assert (plain.store.maps == 1).all()
    assert rlmix.RecycledMaps(6, (32, 16), pooled=8).store.maps.shape == (6, 8, 8)


def test_logits_that_are_not_finite_leave_their_image_what_it_had():
    store, given = MapStore(6, (8, 8), 3, 2, CPU), evidence()
    store.logits.copy_(torch.arange(18.0).view(6, 3))
    given.logits[2, 1] = float("nan")
    told = read_evidence(given).logits
    learn(store, given, PLACES, None)
    for image, place in enumerate(PLACES.tolist()):
        spoiled = bool(told[image].isnan().any())
        assert torch.equal(store.logits[place], torch.arange(18.0).view(6, 3)[place] if spoiled else told[image])
    assert told.isnan().any(1).tolist().count(True) in (1, 2)


def test_of_two_alike_the_logits_are_those_of_the_mixture_that_an_image_leads():
    rows, partner = torch.arange(4.0)[:, None], torch.tensor([1, 2, 3, 0])
    assert torch.equal(Pairs(torch.full((4, 2, 2), 0.5), partner).of_largest(rows, (8, 8)), rows)


def test_evidence_that_repeats_is_what_the_map_becomes():
    truth = torch.rand(2, 8, 8) + 0.5
    map = torch.ones(2, 8, 8)
    for _ in range(80):
        map = recycle(map, 1.2 * truth, torch.full((2, 8, 8), 1.2))
    torch.testing.assert_close(map, truth)


def test_patches_are_the_means_of_what_is_kept_of_every_pixel():
    setting = SETTING._replace(image_size=(16, 16), crop_padding=0)
    draw = CropFlip(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.bool))
    given = evidence()._replace(gradient=torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2)))
    moment = Moment(1, 1, torch.tensor([5, 0, 3, 1]), draw)
    whole, small = (build_source(mode, setting) for mode in ("recycled", "recycled_8x8"))
    for source in (whole, small):
        source.learn(given, moment)
    assert small.store.maps.shape == (6, 8, 8)
    torch.testing.assert_close(small.store.maps.float(), F.avg_pool2d(whole.store.maps.float(), 2), atol=2e-3, rtol=2e-3)
    shown = small(no_pass, torch.zeros(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64), moment).map
    assert torch.equal(F.avg_pool2d(shown, 2), small.store.maps[moment.places].float())


def test_a_resized_crop_shows_its_part_of_the_picture_and_gives_it_back():
    ramp = torch.linspace(1 / 16, 15 / 16, 8)
    maps = torch.stack([ramp[:, None].expand(8, 8), ramp[None].expand(8, 8)])
    part = [torch.tensor([value, value]) for value in (0.25, 0.125, 0.5, 0.75)]
    for mirrored in (False, True):
        draw = ResizedCrop(*part, torch.tensor([mirrored, mirrored]))
        shown = to_batch(maps, draw, 0, (32, 32))
        centres = (torch.arange(32) + 0.5) / 32
        down, across = 0.25 + 0.5 * centres, 0.125 + 0.75 * (1 - centres if mirrored else centres)
        torch.testing.assert_close(shown[0], down[:, None].expand(32, 32))
        torch.testing.assert_close(shown[1], across[None].expand(32, 32))
        back = to_images(shown, draw, 0, (8, 8))
        weight = to_images(torch.ones(2, 32, 32), draw, 0, (8, 8))
        inner = weight > 0.999
        assert inner[0].sum() >= 4 * 4
        assert not weight[0, :2].gt(0.1).any(), "above the crop"
        torch.testing.assert_close(back[inner], maps[inner], atol=0.02, rtol=0)


def test_the_whole_picture_reaches_its_edges_and_a_large_map_is_averaged():
    whole = ResizedCrop(*(torch.full((2,), value) for value in (0.0, 0.0, 1.0, 1.0)), torch.tensor([False, True]))
    assert torch.equal(to_batch(torch.ones(2, 4, 4), whole, 0, (32, 32)), torch.ones(2, 32, 32))
    assert torch.equal(to_images(torch.ones(2, 64, 32), whole, 0, (8, 4)), torch.ones(2, 8, 4))
    stripes = 3.0 * (torch.arange(96) % 3 == 1)  # of mean 1, three a point that is looked up
    torch.testing.assert_close(to_images(stripes.expand(2, 96, 96), whole, 0, (8, 8)), torch.ones(2, 8, 8))


def test_a_small_crop_is_looked_up_between_its_pixels():
    """A ramp stays a ramp, wherever the crop lay."""
    part = ResizedCrop(*(torch.tensor([value]) for value in (0.1, 0.1, 0.8, 0.8)), torch.tensor([False]))
    ramp = ((torch.arange(8) + 0.5) / 8)[None, :, None].expand(1, 8, 8)
    centres = (torch.arange(8) + 0.5) / 8
    expected = ((centres - 0.1) / 0.8)[2:6, None].expand(4, 4)
    torch.testing.assert_close(to_images(ramp, part, 0, (8, 8))[0, 2:6, 2:6], expected)


def test_no_pass_but_the_steps_own(tmp_path, monkeypatch):
    process = MixingProcess(toy_config(tmp_path, 16, saliency_mode="recycled", flip=True, crop_padding=0, epochs=2))
    training = process.reset()
    monkeypatch.setattr(training, "saliency_pass", no_pass)
    first = process.observe()
    assert (rlmix.patch_saliency(first.saliency.map, 2) == 1 / 4).all()
    for _ in range(2):
        process.run_epoch(lambda decision: torch.full((16,), 0.5))
    maps = training.saliency_source.store.maps.float()
    assert maps.std((1, 2)).min() > 0.01, "of every image something is known"
    torch.testing.assert_close(maps.mean(), torch.tensor(1.0), atol=0.05, rtol=0)


def test_processes_exchange_what_each_has_put():
    class Pair(Ranks):
        size, told = 2, None

        def __init__(self, rank):
            self.rank = rank

        def gather(self, tensor):
            said = [next(told) for told in self.told]
            assert torch.equal(said[self.rank], tensor)
            return torch.stack(said)

    stores = [MapStore(6, (8, 8), 3, 2, CPU, ranks=Pair(rank)) for rank in range(2)]
    alone = MapStore(6, (8, 8), 3, 2, CPU)
    maps, logits = torch.rand(4, 8, 8), torch.rand(4, 3)
    for rows, store in ((slice(0, 2), stores[0]), (slice(2, 4), stores[1])):
        places = torch.tensor([5, 0, 3, 1])[rows]
        for each in (store, alone):
            each.put(places, maps[rows], logits[rows])
    twice = torch.rand(2, 8, 8).half().float()
    for own, store in zip(twice, stores, strict=True):  # as where DistributedSampler fills up with images that were dealt already
        store.put(torch.tensor([2]), own[None], own[None, 0, :3])
    alone.put(torch.tensor([2]), twice.mean(0)[None], twice.mean(0)[None, 0, :3])
    said = [
        [
            torch.where(store._new[:, None, None], store.maps, 0),
            store._new,
            torch.where(store._new[:, None], store.logits, 0),
            store._new,
        ]
        for store in stores
    ]
    said = [[part.clone() for part in parts] for parts in said]
    for store in stores:
        store.ranks.told = [iter(parts) for parts in said]
        store.exchange()
        assert torch.equal(store.maps, alone.maps)
        assert torch.equal(store.logits, alone.logits)


@pytest.mark.parametrize("mode", ["recycled", "previous"])
def test_processes_exchange_once_an_epoch_before_any_image_is_put(mode, monkeypatch):
    source, epochs = build_source(mode, SETTING), []
    assert source.store.ranks is SETTING.ranks
    monkeypatch.setattr(source.store, "exchange", lambda: epochs.append((moment.epoch, moment.batch)))
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4) % 3
    for moment in (Moment(epoch, batch, PLACES, DRAW) for epoch in (1, 2) for batch in (1, 2, 3)):
        source(lambda images, labels: rlmix.Saliency(images.mean(1), torch.zeros(4, 3)), images, labels, moment)
    assert epochs == [(1, 1), (2, 1)]
    for places, draw in ((None, DRAW), (PLACES, None)):
        with pytest.raises(ValueError, match=f"^saliency_mode {mode} needs data that say which images a batch holds"):
            source(no_pass, images, labels, Moment(1, 2, places, draw))


def test_one_mean_map_is_of_one_device():
    class Two(Ranks):
        def __init__(self):
            self.size, self.rank = 2, 0

    with pytest.raises(ValueError, match="saliency_mode position must be used on one device"):
        build_source("position", SETTING._replace(ranks=Two()))


def test_controls_are_no_saliency_of_the_image():
    """Exact logits beside a mean over images, somebody else's map, or noise that repeats."""
    images, labels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 3

    def look(images, labels):
        return rlmix.Saliency(images.mean(1), F.one_hot(labels, 3).float())

    exact = look(images, labels)
    found = {mode: build_source(mode, SETTING)(look, images, labels, Moment(1, 1)) for mode in ("random", "position", "other")}
    for saliency in found.values():
        assert torch.equal(saliency.logits, exact.logits)
    mean = (exact.map / exact.map.mean((1, 2), keepdim=True)).mean(0)
    torch.testing.assert_close(rlmix.patch_saliency(found["position"].map, 8), (mean / mean.sum()).expand(4, 8, 8))
    for image in range(4):
        assert torch.equal(found["other"].map[image], exact.map[image - 1])
    position = build_source("position", SETTING)
    position(look, images, labels, Moment(1, 1))
    spoiled = images.clone()
    spoiled[0], spoiled[1, 0, 0, 0], spoiled[2, 0, 0, 0] = 0, float("nan"), float("inf")  # these three say nothing
    so_far = position(look, spoiled, labels, Moment(1, 2)).map[0]
    both = (exact.map / exact.map.mean((1, 2), keepdim=True)).sum(0) + exact.map[3] / exact.map[3].mean()
    torch.testing.assert_close(so_far, both)
    tiny = torch.zeros(4, 3, 8, 8)
    tiny[:, :, 0, 0] = 1e-44  # whose mean is 0 in float32
    torch.testing.assert_close(position(look, tiny, labels, Moment(1, 3)).map[0], both)
    again, later = (build_source("random", SETTING)(look, images, labels, Moment(1, step)).map for step in (1, 2))
    assert torch.equal(found["random"].map, again)
    assert not torch.equal(again, later)


def test_noise_is_smooth_between_points_that_reach_the_corners():
    """Of 4x4 points, on images of 7x7 pixels every other pixel; by the draw of the moment."""
    setting = SETTING._replace(image_size=(7, 7))
    map = build_source("random", setting)(
        lambda images, labels: rlmix.Saliency(images.mean(1), torch.zeros(4, 3)),
        torch.rand(4, 3, 7, 7),
        torch.arange(4),
        Moment(3, 2),
    ).map
    points = torch.rand(4, 1, 4, 4, generator=stream(0, "maps 3 2 0"))[:, 0]
    torch.testing.assert_close(map[:, ::2, ::2], points)
    torch.testing.assert_close(map[:, ::2, 1::2], (points[..., 1:] + points[..., :-1]) / 2)


class Loop:
    """A loop of somebody's own over 24 images."""

    def __init__(self, recycle):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
        self.images, self.labels = torch.randn(24, 3, 16, 16), torch.arange(24) % 5
        self.mixer = rlmix.RMix(recycle=recycle, num_classes=5)
        self.generator = torch.Generator().manual_seed(1)

    def epoch(self):
        for indices in torch.randperm(24, generator=self.generator).split(8):
            mixed = self.mixer(self.model, self.images[indices], self.labels[indices], indices=indices, generator=self.generator)
            self.model.zero_grad()
            F.cross_entropy(self.model(mixed.images), mixed.targets).backward()
            self.mixer.recycle.learn(mixed.images.grad)
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter -= 0.1 * parameter.grad


def test_a_loop_of_ones_own_keeps_maps_that_agree_with_exact_ones():
    maps = rlmix.RecycledMaps(24, (16, 16))
    loop = Loop(maps)
    for _ in range(12):
        loop.epoch()
    exact = rlmix.saliency(loop.model, loop.images, loop.labels).map
    kept = maps.store.maps.float()
    near = F.cosine_similarity(
        F.avg_pool2d(exact, 2).flatten(1) - exact.mean((1, 2))[:, None],
        F.avg_pool2d(kept, 2).flatten(1) - kept.mean((1, 2))[:, None],
    )
    assert near.mean() > 0.25
    again = rlmix.RecycledMaps(24, (16, 16))
    again.load_state_dict(maps.state_dict())
    assert torch.equal(again.store.maps, maps.store.maps)


def test_what_does_not_fit_is_said_in_one_line(monkeypatch):
    maps = rlmix.RecycledMaps(24, (16, 16))
    loop, images, labels = Loop(maps), torch.rand(4, 3, 16, 16), torch.arange(4)
    mixer = loop.mixer
    with pytest.raises(ValueError, match=r"indices must be integers of shape \(4,\) under recycle, one an image, got None"):
        mixer(loop.model, images, labels)
    with pytest.raises(ValueError, match=r"indices must be in \[0, 24\), got 1 to 24"):
        mixer(loop.model, images, labels, indices=torch.tensor([1, 2, 3, 24]))
    with pytest.raises(ValueError, match=r"images must have the recycled maps' size \(16, 16\), got \(12, 12\)"):
        mixer(loop.model, images[..., :12, :12], labels, indices=labels)
    with pytest.raises(ValueError, match="indices and draw must be left out without recycle"):
        rlmix.RMix()(loop.model, images, labels, indices=labels)
    with pytest.raises(ValueError, match="num_classes must be given under recycle"):
        rlmix.RMix(recycle=maps)(loop.model, images, labels, indices=labels)
    with pytest.raises(RuntimeError, match=r"learn\(\) must follow a call of RMix"):
        maps.learn(images)
    mixer(loop.model, images, labels, indices=labels)
    with pytest.raises(RuntimeError, match=r"learn\(\) must follow loss.backward\(\)"):
        maps.learn(None)
    for rate in (1.0, 0.0):
        with pytest.raises(ValueError, match=rf"rate must be in \(0, 1/2\], got {rate}"):
            rlmix.RecycledMaps(24, (16, 16), rate=rate)
    mixer(loop.model, images, labels, indices=labels)
    maps.load_state_dict(maps.state_dict())
    with pytest.raises(RuntimeError, match=r"learn\(\) must follow a call of RMix"):  # that batch was before
        maps.learn(images)
    with pytest.raises(ValueError, match=r"maps must have shape \(24, 16, 16\), as the images here, got \(23, 16, 16\)"):
        maps.load_state_dict(rlmix.RecycledMaps(23, (16, 16)).state_dict())
    monkeypatch.setattr("rlmix.maps.store.free_memory", lambda device: 10**9)
    with pytest.raises(
        ValueError, match=r"must fit into memory: 133.7 GB in 224x224 pixels, 1.0 GB are free.*recycled_8x8 takes 5.3 GB"
    ):
        MapStore(1_281_167, (224, 224), 1000, 0, CPU)
    monkeypatch.setattr("rlmix.maps.store.free_memory", lambda device: 6 * (2 * 8 * 8 + 4 * 3))
    MapStore(6, (8, 8), 3, 2, CPU)  # which is just enough
    with pytest.raises(ValueError, match="must fit into memory"):
        MapStore(7, (8, 8), 3, 2, CPU)
