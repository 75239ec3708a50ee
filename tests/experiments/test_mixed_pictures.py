"""What the pictures of a finished study are made by."""

import pytest
import torch
from toys import toy_config

from rlmix.experiments.mixed_pictures import mixing
from rlmix.experiments.saved_run import load_run
from rlmix.experiments.train import train
from rlmix.mixing.core import Arranged


@pytest.mark.parametrize("mode", ["recycled", "exact"])
def test_a_method_is_shown_by_the_maps_that_its_run_has(mode, tmp_path):
    run = train(toy_config(tmp_path, 16, method="puzzlemix", saliency_mode=mode, out=tmp_path / "run"), quiet=True)
    training = load_run(run.folder, maps=True).training
    batch = training.next_batch()
    partner = torch.arange(len(batch.labels)).roll(1)
    shown = mixing(training, training)(batch, Arranged(partner, 0.6, 0))
    own = training.method(training.model, *batch, num_classes=10, generator=Arranged(partner, 0.6, 0))
    if mode == "exact":
        torch.testing.assert_close(shown, own)
        return
    moment = training.order.moment
    kept = training.saliency_source.store.seen(moment.places, moment.draw)
    by_kept = training.method.mix_by(*batch, kept, num_classes=10, generator=Arranged(partner, 0.6, 0)).mixed
    assert torch.equal(shown.images, by_kept.images)
    assert not torch.equal(shown.images, own.images)
