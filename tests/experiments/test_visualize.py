"""rlmix visualize: who gives each patch, what is written, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import NETWORK, picture_size, write_npz

from rlmix.data.picture_folder import read_pictures
from rlmix.mixing.actions import Action
from rlmix.mixing.core import Pairing, mix, patch_weights
from rlmix.models import build_model
from rlmix.reporting.mixing_figures import BLEND, OWN, PARTNER, draw_pairs, draw_steps, label_weights, mix_batch, regions
from rlmix.scripts import policies, train, visualize
from rlmix.scripts.main import main as rlmix_main

RULES = ("cut_top", "cut_top_least", "mix_top", "mix_least")


@pytest.mark.parametrize("rule", RULES)
def test_regions_are_those_of_the_mixed_pixels(rule):
    """Mix images that are 1 with partners that are 0: a pixel shows the weight that its patch gave the image."""
    draw = torch.Generator().manual_seed(0)
    mask = torch.rand(2, 4, 4, generator=draw) < 0.5
    images = torch.stack([torch.ones(3, 4, 4), torch.zeros(3, 4, 4)])
    mixed = mix(images, torch.tensor([0, 1]), mask, torch.tensor([1, 0]), 0.25, rule, num_classes=2).images
    weight = torch.tensor([1.0, 0.0, 0.25])
    givers = regions(patch_weights(mask, mask[[1, 0]], 0.25, rule))
    assert torch.equal(mixed[0, 0], weight[givers[0]])
    assert set(givers.unique().tolist()) <= {OWN, PARTNER, BLEND}


def test_regions_of_literal_masks():
    own, partner = torch.tensor([[[True, True], [False, False]]]), torch.tensor([[[True, False], [True, False]]])

    def givers(rule):
        return regions(patch_weights(own, partner, 0.5, rule)).tolist()

    assert givers("cut_top") == [[[OWN, OWN], [PARTNER, PARTNER]]]
    assert givers("cut_top_least") == [[[OWN, PARTNER], [PARTNER, OWN]]]
    assert givers("mix_top") == [[[BLEND, OWN], [PARTNER, BLEND]]]
    assert givers("mix_least") == [[[BLEND, PARTNER], [OWN, BLEND]]]


def test_label_weights_largest_first():
    assert label_weights(torch.tensor([0.25, 0.0, 0.75]), ["cat", "dog", "owl"]) == "owl 0.75\ncat 0.25"


def test_figures_show_what_was_decided():
    images, labels = torch.rand(3, 3, 8, 8), torch.arange(3)
    top_k = torch.tensor([0.11, 0.5, 0.99])
    batch = mix_batch(images, labels, torch.rand(3, 8, 8), Pairing(torch.tensor([1, 2, 0]), 0.3, 4), Action(top_k), "mix_top", 3)
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    names = ["cat", "dog", "owl"]
    figure = draw_pairs(batch, pixels, pixels[:2], names)
    assert len(figure.axes) == 2 * 8
    assert [axes.get_xlabel() for axes in figure.axes[4:6]] == ["top-k 0.11", "top-k 0.50"]  # the image's, and its partner's
    assert figure.axes[7].get_xlabel() == label_weights(batch.targets[0], names)
    assert "4x4 patches" in [axes.get_title() for axes in draw_steps(batch, pixels, pixels[:2], names).axes]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with an agent and one without, of one epoch of four steps; the agent has three values to choose from."""
    folder = tmp_path_factory.mktemp("visualize")
    args = ["--data", write_npz(folder, 16), "--model", NETWORK, "--device", "cpu"]
    args += ["--learning-rate", "0.05", "--batch-size", "16", "--epochs", "1", "--picture-every", "0"]
    train.main([*args, "--method", "rlmix", "--num-top-k", "3", "--out", str(folder / "rlmix")])
    train.main([*args, "--method", "vanilla", "--out", str(folder / "vanilla")])
    return folder


@pytest.fixture(params=["rlmix", "vanilla"])
def run(request, runs):
    return runs / request.param


def test_an_agents_run_shows_its_choices_and_another_has_none(run, tmp_path):
    visualize.main([str(run), "--num-images", "2", "--batches", "2", "--out", str(tmp_path)])
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    choices = {"top_k.png", "policy/report.md", "policy/policies.json", "policy/choices-rlmix.png"}
    assert files == {"figure2.png", "figure4.png"} | (choices if run.name == "rlmix" else set())


@pytest.mark.parametrize(
    "options",
    [["--freeze-backbone"], ["--weights", "{vanilla}", "--layer-decay", "0.9"], ["--reward", "difficulty_gap", "--ema", "0.9"]],
    ids=lambda options: options[0],
)
def test_how_a_classifier_was_trained_does_not_keep_its_policy_from_being_measured(options, runs, tmp_path, capsys):
    args = ["--data", f"npz:{runs / 'toy16.npz'}", "--model", NETWORK, "--device", "cpu", "--learning-rate", "0.05"]
    args += ["--batch-size", "16", "--epochs", "1", "--picture-every", "0", "--num-top-k", "3", "--out", str(tmp_path / "run")]
    train.main([*args, "--method", "rlmix", *(word.format(vanilla=runs / "vanilla") for word in options)])
    capsys.readouterr()
    visualize.main([str(tmp_path / "run"), "--num-images", "2", "--batches", "2"])
    assert f"written to {tmp_path / 'run' / 'policy'}" in capsys.readouterr().out.splitlines()


def test_a_policy_meets_the_classifier_of_another_run(runs, tmp_path, capsys):
    args = [str(runs / "vanilla"), "--policy", str(runs / "rlmix"), "--num-images", "2", "--batches", "3", "--searched", "1"]
    visualize.main([*args, "--out", str(tmp_path / "seen")])
    said = capsys.readouterr().out
    assert "rlmix chooses as the best joint choice does in" in said  # so both had the same three values to choose from
    options = ["--freeze-from", str(runs / "vanilla"), "--data", f"npz:{runs / 'toy16.npz'}", "--model", NETWORK]
    options += ["--batch-size", "16", "--epochs", "1", "--device", "cpu", "--num-top-k", "3"]
    options += ["--policies", str(runs / "rlmix"), "--constants", "--batches", "3", "--searched", "1"]
    policies.main([*options, "--out", str(tmp_path / "measured")])
    table = [line for line in said.splitlines() if not line.startswith("written to ")]
    *again, written = capsys.readouterr().out.splitlines()
    assert again == table
    assert written == f"written to {tmp_path / 'measured' / 'report.md'}, policies.json and pictures"
    assert f"written to {tmp_path / 'seen' / 'figure2.png'}" in said.splitlines()
    for name in ("choices-rlmix.png", "dilemma.png"):
        assert (tmp_path / "seen" / "policy" / name).read_bytes() == (tmp_path / "measured" / name).read_bytes()


def write_pictures(folder, count):
    folder.mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(256, size=(20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_a_run_on_its_own_data_and_on_pictures(run, tmp_path):
    state = [path.read_bytes() for path in sorted((run / "checkpoints").iterdir())]
    visualize.main([str(run), "--num-images", "3", "--batches", "2"])
    first = (run / "figure4.png").read_bytes()
    visualize.main([str(run), "--num-images", "3", "--batches", "2"])
    assert (run / "figure4.png").read_bytes() == first  # from the same seed
    assert [path.read_bytes() for path in sorted((run / "checkpoints").iterdir())] == state
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    assert {"visualize/figure2", "visualize/figure4"} <= set(events.Tags()["images"])
    pictures = write_pictures(tmp_path / "pictures", 4)
    visualize.main([str(run), "--images", str(pictures), "--out", str(tmp_path / "out")])
    for name in ("figure2", "figure4"):
        assert min(picture_size(tmp_path / "out" / f"{name}.png")) > 300


def test_a_bare_classifier_on_pictures(tmp_path):
    torch.save(build_model("preactresnet18_w16", 7).state_dict(), tmp_path / "state.pt")
    pictures = write_pictures(tmp_path / "pictures", 3)
    args = ["--weights", str(tmp_path / "state.pt"), "--images", str(pictures), "--out", str(tmp_path), "--num-patches", "2", "4"]
    visualize.main([*args, "--model", "preactresnet18_w16"])
    assert (tmp_path / "figure2.png").exists()
    assert "the weights of preactresnet18, and holds those of preactresnet18_w16" in refused_line(
        [*args, "--model", "preactresnet18"]
    )


def test_pictures_are_read_as_a_training_reads_them(tmp_path):
    """Of 16 bits, on its side, and a GIF; what is none is counted."""
    exif = Image.Exif()
    exif[274] = 6  # the stored first row is on the right
    stored = np.arange(0, 65536, 257).reshape(16, 16)
    Image.fromarray(stored.astype(np.uint16)).save(tmp_path / "a.png", exif=exif)
    Image.new("L", (16, 16), 40).save(tmp_path / "b.gif")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "more").mkdir()
    with pytest.warns(UserWarning, match=r"that no image is read from are left out: 1 folder, 1 \.txt"):
        pictures = read_pictures(tmp_path, (16, 16), 8)
    expected = np.rot90(np.arange(256).reshape(16, 16), -1)  # clockwise
    assert np.array_equal(pictures["a.png"], expected[..., None].repeat(3, 2))
    assert (pictures["b.gif"] == 40).all()
    Image.fromarray(np.zeros((16, 16), np.float32)).save(tmp_path / "c.tif")
    with pytest.raises(ValueError, match=r"got c.tif in .*c.tif must be an image: .* got mode F from 0 to 0; save it scaled"):
        read_pictures(tmp_path, (16, 16), 8)


def refused_line(args):
    import contextlib
    import io

    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as stop:
        rlmix_main(["visualize", *args])
    assert stop.value.code == 2
    (line,) = stderr.getvalue().splitlines()
    return line


def test_bad_input_is_one_line(run, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", 2)
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (pictures / "half.png").write_bytes((pictures / "0.png").read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    assert "must be a run's folder, and holds no config.yaml" in refused_line([str(tmp_path)])
    assert "at least 2 pictures" in refused_line([str(run), "--images", str(tmp_path / "empty")])
    assert f"there is no {tmp_path / 'none'}" in refused_line([str(run), "--images", str(tmp_path / "none")])
    assert "got broken.png, half.png in" in refused_line([str(run), "--images", str(pictures)])
    visualize.main([str(run), "--images", str(pictures), "--skip-corrupt", "--out", str(tmp_path)])
    assert "images must come with a run's folder" in refused_line(["--images", str(pictures)])
    assert "--num-images must be at least 1, got 0" in refused_line([str(run), "--num-images", "0"])


def test_bad_policies_are_one_line(runs, tmp_path):
    vanilla, rlmix = str(runs / "vanilla"), str(runs / "rlmix")
    assert "policy must be the folder of a run in which an agent learned" in refused_line([rlmix, "--policy", vanilla])
    assert "must be a run's folder, and holds no config.yaml" in refused_line([rlmix, "--policy", str(tmp_path)])
    assert f"policy must come with a run's folder, whose classifier it meets, got {rlmix}" in refused_line(["--policy", rlmix])
    assert "--batches must be at least 2, got 1" in refused_line(
        [vanilla, "--policy", rlmix, "--batches", "1", "--out", str(tmp_path / "out")]
    )
    assert not (tmp_path / "out").exists()
