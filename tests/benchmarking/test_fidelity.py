"""rlmix fidelity: masks of cheaper saliency against exact ones."""

import json

import pytest
import torch
from scipy import stats
from toys import DIGITS, arguments

from rlmix.benchmarking.fidelity import agreement, rank_correlation
from rlmix.maps.approximate import SALIENCY_MODES
from rlmix.scripts import fidelity

TINY = arguments(DIGITS | {"train_images": 32})


def test_agreement_of_literal_masks():
    exact = torch.tensor([[[1, 1], [0, 0]], [[1, 0], [0, 0]]]).bool()
    other = torch.tensor([[[1, 0], [1, 0]], [[1, 0], [0, 0]]]).bool()
    same, overlap = agreement(exact, other)
    assert float(same) == pytest.approx((2 / 4 + 4 / 4) / 2)
    assert float(overlap) == pytest.approx((1 / 3 + 1) / 2)


def test_every_mode_has_its_figures_and_they_repeat(tmp_path, capsys):
    found = []
    for run in ("first", "second"):
        fidelity.main([*TINY, "--json", str(tmp_path / run)])
        found.append(json.loads((tmp_path / run).read_text()))
    assert found[0] == found[1]
    modes = found[0]["modes"]
    assert list(modes) == [*(mode for mode in SALIENCY_MODES if mode != "exact"), "uniform", "chance"]
    assert found[0]["steps"] == 4
    assert modes["bfloat16"]["same"] > modes["chance"]["same"]
    assert modes["previous"]["cosine"] > 0.5, "exact in the first of two epochs"
    assert modes["uniform"]["rank"] == 0, "an even map says nothing"
    assert modes["recycled"]["rank"] > modes["random"]["rank"] + 0.1
    assert all(0 <= row[name] <= 1 for row in modes.values() for name in row if name != "rank")
    assert "patches alike" in capsys.readouterr().out


def test_the_rank_correlation_is_spearmans_ties_and_all():
    draw = torch.Generator().manual_seed(0)
    first = torch.rand(5, 64, generator=draw)
    second = (first + torch.rand(5, 64, generator=draw)).mul(5).round()  # ties
    expected = [stats.spearmanr(*(part.numpy() for part in pair)).statistic for pair in zip(first, second, strict=True)]
    assert rank_correlation(first, second).tolist() == pytest.approx(expected, abs=1e-6)


def test_every_must_be_positive():
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        fidelity.main([*TINY, "--every", "0"])
