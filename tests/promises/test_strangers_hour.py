"""The first hour of somebody who has installed rlmix and knows nothing of it, command by command, in an empty folder.

Times are printed, and none is asserted: to the first line, the longest time in which a terminal showed nothing new, to the end.
"""

import json
import os
import re
import subprocess
import sys
import time
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import browsing, check_page
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import photographs
from watched import Watched, watch
from without_rlmix import BLOCKED

import rlmix
from rlmix.training.board import TAGS

pytestmark = pytest.mark.slow
OWN = os.environ.get("RLMIX_STRANGER_NPZ")
"""An npz of colour images with x_train, y_train, x_test, y_test; 400 crops of two photographs where it is not set."""
LOOP = """
import sys
import numpy as np
import rlmix
import torch
import torch.nn.functional as F
from torch import nn

with np.load(sys.argv[1]) as file:
    images = torch.from_numpy(file["x_train"]).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(file["y_train"]).long().flatten()
mixer = rlmix.RLMix(sys.argv[2])
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, int(labels.max()) + 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for batch in torch.arange(len(images)).split(32)[:5]:
    mixed = mixer(model, images[batch], labels[batch])
    loss = F.cross_entropy(model(mixed.images), mixed.targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item():.3f}", flush=True)
"""
READ = (
    BLOCKED
    + """
about = {"about.json": ""}
classifier = torch.export.load("exported/classifier.pt2", extra_files=about).module()
policy = torch.export.load("exported/policy.pt2").module()
images = torch.load("images.pt")
logits = classifier(images)
batch = len(images)
top_k = policy(torch.rand(batch, 8, 8), logits, torch.arange(batch).flip(0), torch.tensor(0.5), torch.tensor(1.0))
print(json.dumps({"logits": logits.tolist(), "top_k": top_k.tolist(), "classes": json.loads(about["about.json"])["classes"]}))
"""
)


class FirstPoint:
    """Looks whether TensorBoard could draw a point of a run, and when, after its step."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step, self.seconds = folder, None, None

    def __call__(self) -> None:
        if self.seconds is not None or not list(self.folder.glob("events.out.*")):
            return
        events = EventAccumulator(str(self.folder)).Reload()
        if TAGS["loss"].name in events.Tags()["scalars"]:
            point = events.Scalars(TAGS["loss"].name)[0]
            self.step, self.seconds = point.step, time.time() - point.wall_time


class Hour:
    """What was done, and what was seen of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, {}
        own = Path(OWN).resolve() if OWN else folder / "own.npz"
        if not OWN:
            (images, labels), (test_images, test_labels) = photographs(400, 32, 0), photographs(80, 32, 1)
            np.savez(own, x_train=images, y_train=labels, x_test=test_images, y_test=test_labels)
        (folder / "loop.py").write_text(LOOP)
        self.point = FirstPoint(folder / "runs" / "first")
        data = ["--data", f"npz:{own}", "--model", "preactresnet18_w16", "--batch-size", "20", "--epochs", "1"]
        self.rlmix("train", "--data", "digits", "--epochs", "1", "--out", "runs/first", meanwhile=self.point)
        self.rlmix("train", *data, "--method", "rmix", "--out", "runs/own")
        self.rlmix("compare", *data, "--methods", "rlmix", "vanilla", "--seeds", "0", "1", "--out", "compared")
        self.seen["own loop"] = watch(["loop.py", str(own), "runs/first"], folder)
        self.rlmix("export", "runs/first", "--out", "exported")

    def rlmix(self, command: str, *args: str, **options) -> None:
        name = f"{command} {len([name for name in self.seen if name.startswith(command)]) + 1}"
        self.seen[name] = watch(["-m", "rlmix.scripts.main", command, *args], self.folder, **options)

    def lines(self, name: str) -> list[str]:
        return self.seen[name].lines


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    return Hour(tmp_path_factory.mktemp("stranger"))


def test_the_times(hour, capsys):
    assert all(isinstance(seen, Watched) for seen in hour.seen.values())
    rows = [f"{name:<21}{seen.first:>15.1f}{seen.silence:>21.1f}{seen.seconds:>16.1f}" for name, seen in hour.seen.items()]
    rows.append(f"TensorBoard could draw the first point {hour.point.seconds:.1f} s after its step")
    with capsys.disabled():
        sys.stdout.write("\n".join(["\nin a pseudo-terminal   first line, s   longest silence, s   to its end, s", *rows, ""]))


def test_a_run_says_what_it_does_and_how_long_it_takes(hour):
    for name, data, run in (("train 1", "digits: ", "runs/first"), ("train 2", "npz:", "runs/own")):
        lines = hour.lines(name)
        begins = [line.split()[0] for line in lines[:6]]
        assert begins == ["data", "model", "training", "method", "device", "folder"]
        assert lines[0].split(maxsplit=1)[1].startswith(data)
        assert any(line.startswith("estimate ") for line in lines)
        assert any(re.fullmatch(rf"test top-1 .* %, .* s: {run}", line) for line in lines)
        assert json.loads((hour.folder / run / "result.json").read_text())["top1"] > 0


def test_tensorboard_has_a_point_of_the_first_step_while_the_run_goes_on(hour):
    assert hour.point.step == 1
    events = EventAccumulator(str(hour.folder / "runs" / "first")).Reload()
    first, test = (events.Scalars(TAGS[name].name)[0] for name in ("loss", "test_top1"))
    assert (first.step, test.step > first.step, test.wall_time > first.wall_time) == (1, True, True)


def test_a_comparison_counts_its_trainings_and_ends_with_its_verdict(hour):
    lines = hour.lines("compare 1")
    names = ["rlmix-s0", "vanilla-s0", "rlmix-s1", "vanilla-s1"]
    begun = [line.partition(",")[0] for line in lines if re.match("[1-4]/4 ", line)]
    assert begun == [f"{number}/4 {name}" for number, name in enumerate(names, start=1)]
    verdict, written = lines[-2:]
    page = unescape((hour.folder / "compared" / "report.html").read_text())
    assert re.search(r'<p class="verdict">(.*?)</p>', page)[1] == verdict
    assert written == "written to compared/report.html, report.md, compare.json, compare.csv and plots"


@pytest.mark.parametrize("width", [1400, 390])
def test_the_report_is_legible_in_a_browser(hour, width):
    with browsing() as browser:
        check_page(browser, hour.folder / "compared" / "report.html", width)
        assert browser.violations() == []


def test_the_learned_policy_mixes_in_a_loop_of_ones_own(hour):
    losses = [float(line.split()[1]) for line in hour.lines("own loop") if line.startswith("loss ")]
    assert len(losses) == 5
    assert np.isfinite(losses).all()


def test_what_was_exported_needs_no_rlmix(hour):
    run, data = hour.folder / "runs" / "first", rlmix.load_run(hour.folder / "runs" / "first", device="cpu").training.data
    images = torch.rand(5, data.num_channels, *data.image_size)
    torch.save(images, hour.folder / "images.pt")
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=False, cwd=hour.folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = rlmix.load_model(run, device="cpu")((images - data.mean[:, None, None]) / data.std[:, None, None])
    assert np.array(found["logits"]) == pytest.approx(expected.detach().numpy(), abs=1e-4)
    assert set(np.round(found["top_k"], 2)) <= set(np.round(np.linspace(0, 0.99, 10), 2))
    assert found["classes"] == list(range(10))
