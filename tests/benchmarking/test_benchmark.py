"""rlmix benchmark: what it writes. How long things take is the benchmark's own business and no test's."""

import json
import time

import pytest
import torch
from toys import NETWORK

from rlmix.benchmarking import measure as measure_module
from rlmix.benchmarking import reference_loop as handwritten
from rlmix.benchmarking.measure import Timed, _figures, measure_memory, random_data
from rlmix.benchmarking.options import Benchmark
from rlmix.benchmarking.stopwatch import Span, time_parts
from rlmix.scripts import benchmark
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.trainer import Training

SMALL = ["--model", NETWORK, "--batch-size", "8", "--image-size", "16", "--num-classes", "4", "--rounds", "2", "--warmup", "1"]
SMALL += ["--device", "cpu"]
METHODS = ["saliency", "rmix", "rmix-reward", "rmix-dropin", "rlmix", "rlmix-device", "rlmix-recycled", "cutmix", "handwritten"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Figures, and the text of the profile."""
    folder = tmp_path_factory.mktemp("benchmark")
    handwritten.WORKERS, workers = (0, 1), handwritten.WORKERS
    outputs = ["--json", str(folder / "figures.json"), "--profile", str(folder / "profile.txt")]
    benchmark.main([*SMALL, "--methods", *METHODS, *outputs])
    handwritten.WORKERS = workers
    return json.loads((folder / "figures.json").read_text()), (folder / "profile.txt").read_text()


def test_figures_of_each_method(written):
    figures, _ = written
    assert list(figures["methods"]) == ["vanilla", *METHODS]
    assert figures["methods"]["vanilla"]["ratio"] == 1
    for row in figures["methods"].values():
        assert row["ratio"] > 0
        assert 0 < row["spread_ms"][0] <= row["spread_ms"][1]
    assert {"model", "batch_size", "threads", "device", "torch"} <= set(figures["machine"])


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("vanilla", ["data", "method", "train", "logging"]),
        ("saliency", ["saliency"]),
        ("rmix", ["data", "saliency", "mix", "train", "policy", "logging"]),
        ("rmix-reward", ["data", "saliency", "mix", "train", "policy", "logging"]),
        ("rmix-dropin", ["data", "method", "train", "logging"]),
        ("rlmix", ["data", "saliency", "mix", "train", "policy", "ppo_update", "logging"]),
        ("rlmix-recycled", ["data", "saliency", "mix", "train", "policy", "ppo_update", "logging"]),
        ("rlmix-device", ["data", "saliency", "mix", "train", "policy", "ppo_update", "logging"]),
        ("handwritten", ["data", "train"]),
    ],
)
def test_parts_of_each_method(written, method, parts):
    parts_ms = written[0]["methods"][method]["parts_ms"]
    assert list(parts_ms) == parts
    assert min(parts_ms.values()) > 0


def test_the_hand_written_loop_is_at_its_best_setting(written):
    row = written[0]["methods"]["handwritten"]
    assert len(row["settings_ms"]) == 4
    assert list(row["settings_ms"].values()) == sorted(row["settings_ms"].values())
    assert row["vanilla_ratio"] > 0


def test_the_profile_lists_each_methods_operators(written):
    figures, text = written
    sections = text.strip().split("\n\n")
    assert [section.splitlines()[0] for section in sections] == list(figures["methods"])
    for section in sections:
        assert "convolution_backward" in section
        shares = [float(line.split()[1].rstrip("%")) for line in section.splitlines()[2:]]
        assert sum(shares) == pytest.approx(100, abs=1)


def test_a_ratio_is_of_steps_in_the_same_round_with_the_update_spread_over_them():
    timed = Timed(lambda: None, CPU, "train")
    row = _figures(timed, [0.004, 0.004, 0.012], [0.002, 0.001, 0.004], {"ppo_update": 2.0}, {"train": 4.0})
    assert row["step_ms"] == pytest.approx(6)
    assert row["ratio"] == pytest.approx(3.5)  # of 3, 6 and 3.5


def test_parts_add_up_to_the_step_and_none_counts_what_another_takes():
    class Steps:
        def outer(self):
            time.sleep(0.001)
            self.inner()

        def inner(self):
            time.sleep(0.004)

    steps = Steps()

    def step():
        time.sleep(0.002)
        steps.outer()

    start = time.perf_counter()
    seconds = time_parts(step, [Span(steps, "outer", "mix"), Span(steps, "inner", "train")], "rest", CPU)
    whole = time.perf_counter() - start
    assert seconds["rest"] >= 0.002
    assert seconds["mix"] >= 0.001
    assert seconds["train"] >= 0.004
    assert sum(seconds.values()) <= whole
    assert not vars(steps)  # watched no longer


def test_the_hand_written_loop_does_the_work_of_vanilla():
    """Without crop and flip, and with a batch that is the whole data set, it counts the same and ends with the same weights."""
    options = Benchmark(batch_size=8, image_size=16, num_classes=4, device="cpu")
    data = random_data(options, num_batches=1)
    config = options.training.changed(crop_padding=0, flip=False, learning_rate=0.05, div_factor=25.0)
    training = Training(config, data)
    loop = handwritten.HandwrittenLoop(config, data, CPU, num_workers=0, channels_last=True)
    training.fit_step()
    loop.step()
    assert int(loop.correct) == int(training._tally.top1)
    training.fit_step()
    loop.step()
    for own, theirs in zip(training.model.parameters(), loop.model.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-5)  # the order within the batch differs


def test_memory_of_each_method_is_in_the_table(tmp_path, capsys):
    benchmark.main([*SMALL, "--methods", "rmix", "--memory", "--json", str(tmp_path / "figures.json")])
    methods = json.loads((tmp_path / "figures.json").read_text())["methods"]
    peaks = {name: row["peak_memory_mb"] for name, row in methods.items()}
    options = Benchmark(("rmix",), model=NETWORK, batch_size=8, image_size=16, num_classes=4, device="cpu")
    assert peaks == measure_memory(options, random_data(options))
    assert 0 < peaks["vanilla"] < peaks["rmix"] < 20
    assert "peak MB" in capsys.readouterr().out


def test_bad_input_is_one_line(capsys):
    for args, words in (
        (["--methods", "rmixx"], "(did you mean 'rmix'?)"),
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
        (["--profile"], "--profile"),
    ):
        with pytest.raises(SystemExit) as stop:
            rlmix_main(["benchmark", *args])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_a_methods_hyperparameters_are_timed_with_it(monkeypatch):
    """Vanilla and the others are timed without; what one alone reads is no other's."""
    built = {}
    prepare = measure_module.prepare

    def noted(name, config, data):
        built[name] = dict(config.mixing.hyperparameters)
        return prepare(name, config, data)

    monkeypatch.setattr(measure_module, "prepare", noted)
    options = Benchmark(model="preactresnet18_w16", batch_size=4, image_size=16, num_classes=3, device="cpu")
    names = ["augmix", "coin", "saliency"]
    given = {"augmix": {"num_chains": 1}}
    figures = measure_module.measure(options.training, names, random_data(options), 1, 0, parts=False, hyperparameters=given)
    assert list(figures["methods"]) == ["vanilla", *names]
    assert built == {"vanilla": {}, "augmix": {"num_chains": 1}, "coin": {}, "saliency": {}}
