"""Options that a run does not read are refused by the name they were typed under."""

import re

import pytest

from rlmix.experiments.reading import read_options
from rlmix.scripts import compare
from rlmix.scripts.main import main as rlmix_main

UNREAD = {
    "--method vanilla --algorithm dqn": "--algorithm must be left out with --method vanilla, in which no agent learns",
    "--method vanilla --agent.gamma 0.9": "--agent.gamma must be left out with --method vanilla, in which no agent learns",
    "--method rmix --observation pair": "--observation must be left out with --method rmix, in which no agent learns",
    "--method rmix --credit own": "--credit must be left out with --method rmix, in which no agent learns",
    "--algorithm a2c --agent.passes 8": "--agent.passes must be left out with --algorithm a2c",
    "--algorithm bandit --agent.gamma 0": "--agent.gamma must be left out with --algorithm bandit",
    "--method cutmix --num-patches 8": "--num-patches must be left out with --method cutmix, which is no policy of the environment",
    "--method cutmix --reward cosine": "--reward must be left out with --method cutmix, which is no policy of the environment",
    "--method cutmix --saliency-mode recycled": "--saliency-mode must be left out with --method cutmix, "
    "which mixes by no map of the classifier's",
    "--method rlmix.mixing.cutmix:CutMix --saliency-mode half": "--saliency-mode must be left out with "
    "--method rlmix.mixing.cutmix:CutMix, which mixes by no map of the classifier's",
    "--method saliencymix --saliency-mode exact": "--saliency-mode must be left out with --method saliencymix, "
    "which mixes by no map of the classifier's",
    "--method comixup --saliency-mode recycled": "--saliency-mode must be left out with --method comixup, "
    "whose clean loss has its pass, and the maps with it, unless --mixing.clean-lam is 0",
    "--method vanilla --mixing-seed 1": "--mixing-seed must be left out with --method vanilla, which draws nothing",
    "--milestones 0.5": "--milestones must be left out with --schedule onecycle",
    "--schedule multistep --pct-start=0.3": "--pct-start must be left out with --schedule multistep",
    "--data digits --workers 2": "--workers must be left out with --data digits",
    "--data digits --download": "--download must be left out with --data digits",
    "--no-skip-corrupt": "--skip-corrupt must be left out with --data auto",
}
"""Some of them at their default: it was typed."""


@pytest.mark.parametrize("line", UNREAD)
def test_what_is_not_read_is_refused(line, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        rlmix_main(["train", *line.split(), "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"rlmix: error: {UNREAD[line]}: it would do nothing\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--method vanila --algorithm dqn", "--method must be one of .*, got 'vanila' .did you mean 'vanilla'"),
        (
            "--algorithm ppoo --agent.gamma 1",
            "--algorithm must be one of ppo, a2c, dqn, bandit, epochs, got 'ppoo' .did you mean 'ppo'",
        ),
        ("--data imagefoldr:x --workers 2", "--data must be one of .*imagefolder:PATH.*, got 'imagefoldr:x'"),
    ],
)
def test_an_unknown_name_is_told_before_what_it_would_not_read(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["train", *line.split()])
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(f"rlmix: error: {message}", said), said


@pytest.mark.parametrize(
    "line",
    [
        "--algorithm dqn --agent.passes 2 --agent.policy-layers 8",
        "--schedule multistep --milestones 0.5 0.75",
        "--method rmix --num-patches 8 --reward cosine_batch --rule mix_least",
        "--method cutmix --mixing-seed 3 --alpha 0.2",
        "--method puzzlemix --saliency-mode recycled_8x8",
        "--method rlmix.mixing.puzzlemix:PuzzleMix --saliency-mode recycled",
        "--method comixup --saliency-mode previous --mixing.clean-lam 0",
        "--data imagefolder:x --workers 2 --no-skip-corrupt",
        "--data cifar10 --download",
    ],
)
def test_what_is_read_is_taken(line):
    read_options(line.split())


@pytest.mark.parametrize(
    ("line", "flip"),
    [
        ("", None),
        ("--flip", True),
        ("--no-flip", False),
        ("--flip --epochs 3", True),
        ("--flip True", True),
        ("--flip False", False),
        ("--flip=False", False),
    ],
)
def test_what_is_true_false_or_the_recipes_is_a_flag_too(line, flip):
    assert read_options(line.split()).data.flip is flip


def test_a_frozen_classifier_takes_no_recipe(tmp_path):
    (tmp_path / "config.yaml").write_text("model: preactresnet18_w16\ndata: digits\n")
    with pytest.raises(
        ValueError, match=r"^--learning-rate must be left out with --freeze-from, whose classifier is not updated"
    ):
        read_options(["--freeze-from", str(tmp_path), "--learning-rate", "7"])


def test_a_comparison_takes_what_one_of_its_methods_reads(tmp_path):
    options = ["--seeds", "0", "--epochs", "1", "--train-images", "8", "--out", str(tmp_path / "out")]
    for unread in (["--agent.gamma", "0.5"], ["--num-patches", "8"], ["--credit", "own"]):
        with pytest.raises(ValueError, match=rf"^{unread[0]} must be left out with --method vanilla"):
            compare.main([*options, "--methods", "vanilla", "cutmix", *unread])
    with pytest.raises(ValueError, match=r"^2 of 2 runs failed"):  # for want of images; --num-patches is taken, it is rmix's
        compare.main([*options, "--methods", "vanilla", "rmix", "--num-patches", "4", "--batch-size", "9", "--no-timing"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN --model resnet50 --epochs 77", "--epochs must be left out with a run's folder"),
        ("RUN --model resnet50", "--model must be left out with a run's folder"),
        ("RUN --methods vanilla", "--methods must be left out with a run's folder"),
        ("--weights W --images I --model resnet50 --learning-rate 7", "--learning-rate must be left out with --weights"),
        ("--methods vanilla --size 8", "--size must be left out without a run's folder or --weights"),
    ],
)
def test_a_picture_takes_what_it_is_made_of(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(["visualize", *line.split()])
    assert capsys.readouterr().err == f"rlmix: error: {message}: it would do nothing\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --top-k 1.5 --method constant", "--top-k must be in [0, 1), got 1.5"),
        ("train --train-images=0", "--train-images must be at least 1, got 0"),
        ("train --agent.policy-layers 0", "--agent.policy-layers must be one or more numbers of at least 1, got (0,)"),
        ("train --method constant", "top_k must be given with method constant, and only then, got None with constant"),
    ],
)
def test_an_option_is_named_as_it_was_typed(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        rlmix_main(line.split())
    assert capsys.readouterr().err == f"rlmix: error: {message}\n"
