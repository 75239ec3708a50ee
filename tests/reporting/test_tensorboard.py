"""A real TensorBoard server on a run's folder serves what a reader wants to see."""

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

import pytest
from toys import write_npz

from rlmix.scripts import train as command
from rlmix.training.run_folder import read_metrics

LIMIT = 60
"""Seconds for the server to start and to have read the events."""


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """A folder above two runs: what ``tensorboard --logdir runs`` is given."""
    root = tmp_path_factory.mktemp("tensorboard")
    shape = ["--data", write_npz(root, 16), "--model", "preactresnet18_w16", "--learning-rate", "0.05", "--device", "cpu"]
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
        yield get
    finally:
        server.kill()
        server.wait()
        log.close()


def test_scalars_are_served_under_the_names_of_the_layout(fetch):
    tags = fetch("plugin/scalars/tags")
    everywhere = {"train/loss", "train/top1", "test/loss", "test/top1", "test/top5", "train/learning_rate", "train/epoch_seconds"}
    policies = {"mixing/reward_mean", "mixing/reward_std", "mixing/top_k_mean", "agent/policy_entropy"}
    assert tags["rmix"].keys() >= everywhere | policies
    assert tags["rlmix"].keys() >= everywhere | policies | {"agent/approx_kl", "agent/value_loss", "agent/explained_variance"}


@pytest.mark.parametrize(
    ("tag", "name"),
    [("train/loss", "train_loss"), ("mixing/reward_mean", "reward_mean"), ("agent/policy_entropy", "policy_entropy")],
)
def test_served_numbers_are_those_of_the_metrics_file(fetch, logdir, tag, name):
    points = fetch("plugin/scalars/scalars", run="rlmix", tag=tag)
    records = read_metrics(logdir / "rlmix")
    assert [step for _, step, _ in points] == [record["step"] for record in records]
    assert [value for *_, value in points] == pytest.approx([record[name] for record in records], rel=1e-6)


def test_histogram_of_top_k_is_served(fetch):
    assert "mixing/top_k" in fetch("plugin/histograms/tags")["rlmix"]
    points = fetch("plugin/histograms/histograms", run="rlmix", tag="mixing/top_k")
    assert [point[1] for point in points] == [4, 8]  # four steps an epoch
    for point in points:
        assert sum(count for *_, count in point[2]) == pytest.approx(64)  # an epoch's images


def test_picture_of_a_batch_is_served(fetch):
    assert "mixing/batch" in fetch("plugin/images/tags")["rlmix"]
    first, *_ = fetch("plugin/images/images", run="rlmix", tag="mixing/batch", sample=0)
    picture = fetch(f"plugin/images/individualImage?{first['query']}", raw=True)
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width >= 8 * 2 * 16  # eight images of 16 pixels, twice as large
    assert height >= 4 * 2 * 16  # clean, saliency, mask, mixed


def test_layout_of_the_custom_scalars_is_served(fetch):
    layout = fetch("plugin/custom_scalars/layout")
    charts = {chart["title"]: chart["multiline"]["tag"] for category in layout["category"] for chart in category["chart"]}
    assert charts["test top-1"] == ["test/top1"]
    assert charts["reward"] == ["mixing/reward_mean"]
    tags = fetch("plugin/scalars/tags")["rlmix"]
    assert {tag for chart in charts.values() for tag in chart} <= tags.keys()


def test_hparams_are_served(fetch):
    experiment = fetch("plugin/hparams/experiment", request="{}")
    assert {info["name"] for info in experiment["hparamInfos"]} >= {"method", "seed", "learning_rate", "reward", "credit"}
    assert {info["name"]["tag"] for info in experiment["metricInfos"]} >= {"result/top1", "result/ece", "result/fgsm_error"}
