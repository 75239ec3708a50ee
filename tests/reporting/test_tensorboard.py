"""A real TensorBoard server on a run's folder serves what a reader wants to see."""

import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import browsing
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.writer import SummaryWriter
from toys import NETWORK, picture_size, write_npz

from rlmix.reporting.strips import Strip, Strips, Tile, paste_strips
from rlmix.scripts import train as command
from rlmix.training.board import TAGS
from rlmix.training.run_folder import Run, read_metrics

LIMIT = 60
"""Seconds for the server to start and to have read the events."""


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """A folder above two runs: what ``tensorboard --logdir runs`` is given."""
    root = tmp_path_factory.mktemp("tensorboard")
    shape = ["--data", write_npz(root, 16), "--model", NETWORK, "--learning-rate", "0.05", "--device", "cpu"]
    shape += ["--batch-size", "16", "--epochs", "2"]
    for method in ("rlmix", "rmix"):
        command.main([*shape, "--method", method, "--out", str(root / "runs" / method)])
    return root / "runs"


@pytest.fixture(scope="module")
def fetch(logdir):
    """Fetches JSON from the server, or bytes; None where there is nothing yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = ["--logdir", str(logdir), "--port", str(port), "--host", "127.0.0.1", "--load_fast", "false", "--reload_interval", "1"]
    log = open(logdir.parent / "server.log", "wb")  # noqa: SIM115
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *args], stdout=log, stderr=log, env=os.environ | {"NO_PROXY": "*"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(path, raw=False, **query):
        url = f"http://127.0.0.1:{port}/data/{path}" + ("?" + urllib.parse.urlencode(query) if query else "")
        with opener.open(url, timeout=10) as answer:
            body = answer.read()
        return body if raw else json.loads(body)

    deadline = time.monotonic() + LIMIT
    try:
        while True:
            try:
                hparams = get("plugin/hparams/experiment", request="{}")
                if get("plugin/scalars/tags").keys() >= {"rlmix", "rmix"} and hparams.get("hparamInfos"):
                    break
            except (urllib.error.URLError, OSError):
                pass
            assert server.poll() is None, (logdir.parent / "server.log").read_text()[-500:]
            assert time.monotonic() < deadline, (logdir.parent / "server.log").read_text()[-500:]
            time.sleep(0.3)
        get.address = f"http://127.0.0.1:{port}"
        yield get
    finally:
        server.kill()
        server.wait()
        log.close()


def test_scalars_are_served_in_the_order_in_which_they_are_read(fetch):
    tags = fetch("plugin/scalars/tags")
    everywhere = {"test_top1", "test_top5", "test_loss", "loss", "step_learning_rate", "train_loss", "train_top1", "train_top5"}
    everywhere |= {"learning_rate", "epoch", "epoch_seconds"}
    policies = everywhere | {"reward_mean", "reward", "reward_std", "top_k", "top_k_mean", "policy_entropy"}
    learns = policies | {"approx_kl", "value_loss", "policy_loss", "explained_variance", "clip_fraction"}
    for run, names in (("rmix", policies), ("rlmix", learns)):
        shown = [tag for tag in tags[run] if not tag.startswith("result/")]
        assert set(shown) >= {TAGS[name].name for name in names}
        groups = list(dict.fromkeys(tag.partition("/")[0] for tag in sorted(shown)))
        assert groups[:3] == ["1 test", "2 reward", "3 within the epoch"]
        for name in names:
            shown = tags[run][TAGS[name].name]
            assert (shown["displayName"], TAGS[name].text in shown["description"]) == (TAGS[name].name, True)


@pytest.mark.parametrize("name", ["train_loss", "test_top1", "reward_mean", "policy_entropy", "epoch"])
def test_served_numbers_are_those_of_the_metrics_file(fetch, logdir, name):
    points = fetch("plugin/scalars/scalars", run="rlmix", tag=TAGS[name].name)
    records = read_metrics(logdir / "rlmix")
    assert [step for _, step, _ in points] == [record["step"] for record in records]
    assert [value for *_, value in points] == pytest.approx([record[name] for record in records], rel=1e-6)


def test_the_first_steps_point_is_there(fetch):
    (first, *_) = fetch("plugin/scalars/scalars", run="rlmix", tag=TAGS["loss"].name)
    assert first[1] == 1


def test_histogram_of_top_k_is_served(fetch):
    assert TAGS["top_k_values"].name in fetch("plugin/histograms/tags")["rlmix"]
    points = fetch("plugin/histograms/histograms", run="rlmix", tag=TAGS["top_k_values"].name)
    assert [point[1] for point in points] == [4, 8]  # four steps an epoch
    for point in points:
        assert sum(count for *_, count in point[2]) == pytest.approx(64)  # an epoch's images


def test_picture_of_a_batch_is_served(fetch):
    assert TAGS["picture"].name in fetch("plugin/images/tags")["rlmix"]
    first, *_ = fetch("plugin/images/images", run="rlmix", tag=TAGS["picture"].name, sample=0)
    picture = fetch(f"plugin/images/individualImage?{first['query']}", raw=True)
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width >= 8 * 72
    assert height >= 5 * 72  # image, partner, saliency, salient, mixed


def test_a_text_says_what_each_tag_is(fetch):
    assert any("about these charts" in tag for tag in fetch("plugin/text/tags")["rlmix"])
    ((_, text),) = [
        ("", entry["text"]) for entry in fetch("plugin/text/text", run="rlmix", tag="about these charts/text_summary")
    ]
    assert all(TAGS[name].name in text for name in ("test_top1", "reward_mean", "approx_kl"))


def test_layout_of_the_custom_scalars_is_served(fetch):
    layout = fetch("plugin/custom_scalars/layout")
    charts = {chart["title"]: chart["multiline"]["tag"] for category in layout["category"] for chart in category["chart"]}
    assert charts[TAGS["test_top1"].name] == [TAGS["test_top1"].name]
    tags = fetch("plugin/scalars/tags")["rlmix"]
    assert {tag for chart in charts.values() for tag in chart} <= tags.keys()


def test_hparams_are_served(fetch):
    experiment = fetch("plugin/hparams/experiment", request="{}")
    names = [info["name"] for info in experiment["hparamInfos"]]
    assert set(names[:4]) == {"method", "model", "data", "seed"}
    assert {"learning_rate", "reward", "credit", "agent.passes", "agent.clip_range"} <= set(names)
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert metrics[:2] == [TAGS["test_top1"].name, TAGS["reward_mean"].name]
    assert {"result/top-1, %", "result/ece", "result/fgsm_error"} <= set(metrics)


def test_a_running_run_has_its_hyperparameters_and_no_end(tmp_path):
    run = Run.create(tmp_path / "run", {})
    run.begin({"data": "digits", "seed": 0, "method": "rmix", "agent": {"passes": 8, "layers": [64, 64]}, "ema": None}, ["top1"])
    events = EventAccumulator(str(run.folder)).Reload()
    content = events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    start = HParamsPluginData.FromString(content).session_start_info.hparams
    assert {name: value.string_value or value.number_value for name, value in start.items()} == {
        "data": "digits",
        "seed": 0,
        "method": "rmix",
        "agent.passes": 8,
        "agent.layers": "64, 64",
    }
    assert SESSION_END_INFO_TAG not in events.Tags()["tensors"]
    run.close()


@pytest.mark.parametrize("number", [9, 99])
def test_a_run_that_goes_on_within_the_second_keeps_its_points(number, tmp_path, monkeypatch):
    """Files are read in the order of their names, and a later one takes back what an earlier one said of its steps."""
    monkeypatch.setattr("rlmix.training.events._numbers", itertools.count(number))
    monkeypatch.setattr("time.time", lambda: 1.8e9)
    records = [{"epoch": epoch, "step": 4 * epoch, "test_top1": 10.0 * epoch} for epoch in (1, 2)]
    for before in (records[:0], records[:1]):
        run = Run(tmp_path, before)
        run.log_epoch(records[len(before)])
        run.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert [(point.step, point.value) for point in events.Scalars(TAGS["test_top1"].name)] == [(4, 10.0), (8, 20.0)]


def test_a_run_of_an_earlier_version_gets_todays_charts_and_keeps_its_own(tmp_path):
    records = [{"epoch": epoch, "step": 4 * epoch, "test_top1": 10.0 * epoch} for epoch in (1, 2, 3)]
    with SummaryWriter(str(tmp_path)) as old:
        for record in records[:2]:
            old.add_scalar("test/top1", record["test_top1"], record["step"])
    run = Run(tmp_path, records[:2])
    run.log_epoch(records[2])
    run.close()
    again = Run(tmp_path, list(records))
    again.log_epoch({"epoch": 4, "step": 16, "test_top1": 40.0})
    again.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    points = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in ("test/top1", TAGS["test_top1"].name)}
    assert points == {
        "test/top1": [(4, 10.0), (8, 20.0)],
        TAGS["test_top1"].name: [(4, 10.0), (8, 20.0), (12, 30.0), (16, 40.0)],
    }


def test_a_pasted_picture_has_its_tiles_and_text():
    red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    page = paste_strips(Strips([Strip("image", [Tile(red, ["class 3"]), Tile(None)])], "2x2 patches"), side=40)
    where = np.argwhere((page == (255, 0, 0)).all(2))
    assert np.ptp(where, 0).tolist() == [39, 39]
    assert len(where) == 40 * 40
    bottom, left = where.max(0)[0], where.min(0)[1]
    for part in (page[: bottom + 1, :left], page[bottom + 1 : bottom + 16, left:], page[bottom + 17 :]):  # title, line, caption
        assert (part < 128).any()


@pytest.mark.slow
def test_a_browser_shows_the_charts_in_order(fetch, tmp_path):
    """KEEP_SCREENSHOT=docs/pictures/tensorboard.png keeps what it shows."""
    with browsing() as browser:
        browser.open(fetch.address, 1400, 1000)
        cards = "return [...document.querySelectorAll('.card-group-toolbar .group-title, .group-title')].map(e => e.textContent.trim())"
        groups = browser.until(cards)
        assert browser.run("return document.querySelector('card-view').textContent.trim()").startswith(TAGS["test_top1"].name)
        assert [group for group in groups if group != "Pinned"][:3] == ["1 test", "2 reward", "3 within the epoch"]
        path = Path(os.environ.get("KEEP_SCREENSHOT", tmp_path / "tensorboard.png"))
        browser.until("return document.querySelectorAll('line-chart svg path, line-chart canvas').length > 1")
        time.sleep(2)  # its charts fade in
        browser.screenshot(path)
        assert min(picture_size(path)) >= 900
