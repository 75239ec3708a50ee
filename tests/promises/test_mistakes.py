"""A hundred mistakes at the command line: each is told in one line with the option as it was typed, the value and what is allowed.

Exit code 2, and nothing is written. Of what has a line here, nothing is silent.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import write_npz

from rlmix.common import files
from rlmix.scripts.main import main as rlmix_main
from rlmix.training.checkpoints import newest_state

TINY = "--data {npz} --model preactresnet18_w16 --batch-size 16 --epochs 1 --device cpu"

MISSPELT = {
    "trian": "command must be one of train, .*, got 'trian' .did you mean 'train'",
    "train --epohcs 3": "--epohcs, 3 .did you mean --epochs",
    "train --lr 0.1": "--lr, 0.1 .did you mean --learning-rate",
    "train --agent.gama 0.5": "--agent.gama, 0.5 .did you mean --agent.gamma",
    "train --method vanila": "--method must be one of rlmix, .*, got 'vanila' .did you mean 'vanilla'",
    "train --method nosuchmodule:thing": "nosuchmodule:thing must name a module that can be imported, .* .--method nosuchmodule:thing.",
    "train --method rlmix.config:Nothing": "must be one of the .* of dir.rlmix.config., got 'Nothing'.*--method rlmix.config:Nothing",
    "train --model preactresnet": "--model must be one of the .* of rlmix list models, got 'preactresnet' .*'preactresnet18', ",
    "train --model torchvision:resnet5": "--model must be one of the .* of rlmix list models, got 'resnet5' .*'resnet50'",
    "train --data digit": "--data must be one of digits, .*, got 'digit' .did you mean 'digits'",
    "train --data npz": "--data must be one of .*npz:PATH.*, got 'npz'",
    "train --data npz:": "--data must be one of .*npz:PATH.*, got 'npz:'",
    "train --optimizer sdg": "--optimizer must be one of sgd, adamw, adam, got 'sdg' .did you mean 'sgd'",
    "train --schedule onecyle": "--schedule must be one of onecycle, .*, got 'onecyle' .did you mean 'onecycle'",
    "train --reward cosin": "--reward must be one of none, cosine, .*, got 'cosin' .did you mean 'cosine'",
    "train --rule mix_tops": "--rule must be one of .*, got 'mix_tops' .did you mean 'mix_top'",
    "train --saliency-mode exakt": "--saliency-mode must be one of exact, .*, got 'exakt' .did you mean 'exact'",
    "train --method rmix --action top_k_mix": "--action must be left out with --method rmix, which chooses .*: it would do nothing",
    "train --action top_k_lan": "--action must be one of .*, got 'top_k_lan' .did you mean 'top_k_lam'",
    "train --action top_k_lam --alpha 0.2": "--alpha must be left out with --action top_k_lam, which chooses lam: it would do nothing",
    "train --action top_k_patches --num-patches 2": "--num-patches must be left out with --action top_k_patches, .*: it would do nothing",
    "train --action top_k_cut --num-patches 3": r"--num-patches must be of 1, 2, 4, 8 where a box may be chosen, got \(3,\)",
    "train --mix-until 1.5": r"--mix-until must be in \(0, 1\], got 1.5",
    "train --method vanilla --mix-until 0.5": "--mix-until must be left out with --method vanilla: it would do nothing",
    "train --algorithm a2c --agent.target-entropy 0.5": "--agent.target-entropy must be left out with --algorithm a2c: it would do nothing",
    "train --algorithm epochs": r"algorithm epochs must go with a validation split \(--val-fraction, such as 0.1, or data with one\)",
    "train --algorithm ppoo": "--algorithm must be one of ppo, a2c, dqn, bandit, epochs, got 'ppoo' .did you mean 'ppo'",
    "train --observation pairs": "--observation must be one of paper, pair, got 'pairs' .did you mean 'pair'",
    "train --credit mine": "--credit must be one of own, pair, batch, got 'mine'",
    "train --metrics eec": "--metrics must be one of ece, fgsm_error, got 'eec' .did you mean 'ece'",
    "train --loggers wand": "--loggers must be one of csv, wandb, mlflow, got 'wand' .did you mean 'wandb'",
    f"train {TINY} --device cud": "--device must be auto, cpu, cuda, cuda:N or mps, got 'cud'",
    "train --precision float16": "--precision must be one of auto, float32, bfloat16, got 'float16'",
    "train --granularity images": "--granularity must be one of image, batch, got 'images' .did you mean 'image'",
    "train --method augmix --mixing.severety 3": "--mixing.severety must be left out with --method augmix, which has .*severity",
    "compare --methods rlmix nothing": "--methods must be one of rlmix, .*, got 'nothing'",
    "compare --models resnt18": "--models must be one of the .* of rlmix list models, got 'resnt18' .did you mean 'resnet18'",
    "compare --engine spark": "--engine must be one of local, ray, got 'spark'",
    "evaluate {run} --attacks fgms": "--attacks must be one of fgsm, pgd, got 'fgms' .did you mean 'fgsm'",
    "visualize --methods nothing": "--methods must be one of vanilla, .*, got 'nothing'",
    "reproduce table13": "table must be one of table1, .*, got 'table13' .did you mean 'table",
    "benchmark --methods rmx": "--methods must be one of .*, got 'rmx' .did you mean 'rmix'",
    "export {run} --formats onx": "--formats must be one of pt, pt2, onnx, safetensors, got 'onx' .did you mean 'onnx'",
    "list methodes": "family must be one of methods, .*, got 'methodes' .did you mean 'methods'",
}
WRONG_FILES = {
    "train --data npz:{none}": "{none} must name a file, and there is none.*--data npz:{none}",
    "train --data npz:{text}": "{text} must be an .npz archive .*--data npz:{text}",
    "train --data npz:{damaged}": "{damaged} must be an .npz archive of plain arrays: it is damaged.*--data npz:{damaged}",
    "train --data npz:{picture}": "{picture} must be an .npz archive .*--data npz:{picture}",
    "train --data npz:{names}": "{names} must hold x_train, .*--keys; it lacks .* .it has foo, bar. .--data npz:{names}",
    "train --data npz:{fractions}": "y_train of npz:{fractions} must be integers .*, got float64 .*--data",
    "train --data npz:{short}": "y_train of npz:{short} must be integers of shape .64,., got int64 of shape .5,. .--data",
    "train --data {npz} --keys a b": "must hold a, b; it lacks a, b .it has x_train",
    "train --data imagefolder:{none}": "must hold train/ and val/, and there is no {none}/train .--data imagefolder:{none}",
    "train --data imagefolder:{empty}": "must hold train/ and val/, and there is no {empty}/train .--data imagefolder:{empty}",
    f"train {TINY} --weights {{none}}": "{none}.* .--weights {none}",
    f"train {TINY} --weights {{text}}": "{text} must be a state_dict.* .--weights {text}",
    f"train {TINY} --weights {{empty}}": "{empty} must be the folder of a run with a checkpoint.* .--weights {empty}",
    "train --method rmix --freeze-from {none}": "{none} must be a run's folder, .* .--freeze-from {none}",
    "train --method rmix --freeze-from {text}": "{text} must be a run's folder, .* .--freeze-from {text}",
    f"train {TINY} --method policy --policy {{none}}": "{none} must be a run's folder, .* .--policy {none}",
    f"train {TINY} --method policy --policy {{run}}": "--policy must be the folder of a run in which an agent learned, got {run}",
    "train --resume {empty}": "{empty} must be a run's folder, and holds no config.yaml .--resume {empty}",
    "train --config {none}": "{none} must be a YAML file of options, and there is none .--config {none}",
    "evaluate {none}": "source must be a run's folder or a file with a state_dict, and there is no {none}",
    "evaluate {text} --model resnet18 --data {npz}": "{text} must be a state_dict",
    "evaluate {checkpoint} --model preactresnet18_w16 --data {npz}": "{checkpoint} .* is a run's checkpoint: name the run's folder, {run}",
    "evaluate {state} --model wideresnet16_8 --data {npz}": "{state} must hold the weights of wideresnet16_8, .* preactresnet18_w16",
    "evaluate {run} --boxes {none}": "--boxes must be given with an imagefolder only",
    "policies --freeze-from {run} --policies {none}": "{none} must be a run's folder.* .--policies {none}",
    "policies --freeze-from {run} --policies {run}": "in which an agent learned, got {run} of vanilla",
    "visualize {none}": "{none} must be a run's folder",
    "visualize {run} --images {empty}": "--images must be a folder with at least 2 pictures .*, got 0 in {empty}",
    "visualize {run} --images {none}": "--images must be a folder, and there is no {none}",
    "export {empty}": "{empty} must be a run's folder",
}
WRONG_VALUES = {
    "train --epochs 0": "--epochs must be at least 1, got 0",
    "train --epochs -1": "--epochs must be at least 1, got -1",
    "train --epochs three": "--epochs must be a whole number, got three",
    "train --epochs 1.5": "--epochs must be a whole number, got 1.5",
    "train --epochs": "--epochs must be followed by a value, got none",
    f"train {TINY} --batch-size 1000": "--batch-size must be at most the 64 training images, got 1000",
    "train --learning-rate 0": "--learning-rate must be above 0, got 0.0",
    "train --learning-rate nan": "--learning-rate must be finite and above 0, got nan",
    "train --learning-rate inf": "--learning-rate must be finite and above 0, got inf",
    "train --learning-rate fast": "--learning-rate must be a number, got fast",
    "train --weight-decay -1": "--weight-decay must be at least 0, got -1",
    "train --momentum 1": "--momentum must be between 0 and 1, got 1",
    "train --label-smoothing 1": "--label-smoothing must be in .0, 1., got 1",
    "train --ema 1": "--ema must be between 0 and 1, got 1",
    "train --val-fraction 1": "--val-fraction must be in .0, 1., got 1",
    "train --data {npz} --val-fraction 0.001": "--val-fraction must leave every class an image on both sides, got 0.001",
    "train --seed -1": "--seed must be at least 0, got -1",
    "train --alpha 0": "--alpha must be above 0, got 0",
    "train --num-patches 0": "--num-patches must be one or more numbers of at least 1, got .0,.",
    "train --schedule multistep --milestones 2": "--milestones must be one or more numbers between 0 and 1, got .2.0,.",
    "train --method constant --top-k 1": "--top-k must be in .0, 1., got 1",
    "train --time-limit 0": "--time-limit must be above 0, got 0",
    "train --eval-every 0": "--eval-every must be at least 1, got 0",
    "train --patience 0": "--patience must be at least 1, got 0",
    "train --log-every -1": "--log-every must be at least 0, got -1",
    "train --agent.clip-range 0": "--agent.clip-range must be above 0, got 0",
    "train --agent.n-steps 0": "--agent.n-steps must be above 0, got 0",
    "train --data {npz} --value-range 1 0": "--value-range must be two numbers, the lower one first, got .1.0, 0.0.",
    "train --data {npz} --image-size 4": "--image-size must be at least 8, got 4",
    "train --devices 0": "--devices must be at least 1, got 0",
    "train --method augmix --mixing.severity x": "--mixing.severity must be float, got 'x'",
    "compare --methods": "--methods must name at least one, got none",
    "compare --seeds": "--seeds must name at least one, got none",
    "compare --seeds 0 0": "--seeds must differ, got .0, 0.",
    "compare --seeds a": "--seeds must be one or more, each a whole number, got a",
    "compare --jobs 0": "--jobs must be at least 1, got 0",
    "evaluate {run} --epsilon 300": "--epsilon must be in .0, 255., got 300",
    "evaluate {run} --boxes x.csv --threshold 0.5": "--threshold must be in .0.15, 0.25., got 0.5",
    "evaluate {run} --split train": "--split must be one of test, val, got 'train'",
    "policies --freeze-from {run} --batches 1": "--batches must be at least 2, got 1",
    "policies --freeze-from {run} --searched 200": "--searched must be at most batches, which are 100, got 200",
    "policies --freeze-from {run} --constants 2": "--constants must be in .0, 1., got 2",
    "visualize {run} --num-images 0": "--num-images must be at least 1, got 0",
    "fidelity --every 0": "--every must be at least 1, got 0",
    "reproduce table4 --scale 2": "--scale must be in .0, 1., got 2",
    "benchmark --rounds 0": "--rounds must be at least 1, got 0",
}
CONTRADICTIONS = {
    "compare --methods mixture rmix": "--methods must be of rlmix, .*, got mixture, which needs top_k_weights",
    "train --method constant": "top_k must be given with method constant, and only then, got None",
    "train --method rmix --top-k 0.5": "--top-k must be given with method constant, and only then, got 0.5 with rmix",
    "train --on-nonfinite skip --accumulation 2": "--accumulation must be 1 with on_nonfinite skip, .*, got 2",
    "train --freeze-backbone --layer-decay 0.5": "--layer-decay must be left out with freeze_backbone, .*, got 0.5",
    "train --data imagefolder:{empty} --relabel": "--relabel must be left out with an imagefolder",
    "train --freeze-from {run} --method vanilla": "--freeze-from must go with a policy .rlmix, .*, got method vanilla",
    "train --freeze-from {run} --method rmix --model resnet18": "--model must be that of freeze_from {run}, .*, got resnet18",
    "train --freeze-from {run} --method rmix --data digits": "--data must be those of freeze_from {run}, which are {npz}, .*, got digits",
    "policies --freeze-from {run} --data digits": "--data must be those of freeze_from {run}, which are {npz}, .*, got digits",
    f"train {TINY} --method vanilla --patience 3": "--patience must go with a validation split .--val-fraction .*, got 3",
    "train --resume {run} --out {new}": "--resume goes on with a run where it is, and takes no --out",
    "train --resume {run} --data digits": "must be resumed with its own options .data differ.: data is '{npz}' .* 'digits'",
    "train --resume {run} --learning-rate 0.5": "must be resumed with its own options .*learning_rate is 0.05 .* 0.5 is another training",
    "compare --methods rlmix vanilla --baseline rmix": "--baseline must be one of the methods rlmix, vanilla, got 'rmix'",
    "evaluate {run} --split val": "--split must be one of those measured .test., got 'val'; a run trained with --val-fraction keeps",
    "evaluate {run} --data digits": "--data must be left out with a run's folder, which has its own",
    "evaluate {run} --ema": "--ema must be left out with {run}, which was trained without it",
    "evaluate {state} --data {npz}": "model and data must be given with a state_dict, got {state} without",
    "evaluate {state} --model preactresnet18_w16 --data {npz} --mean 0.5": "--mean must have a number for each of 3 channels, got 1",
    "visualize --weights {state}": "--weights must come with --model and --images",
    "visualize --policy {run}": "--policy must come with a run's folder, .*, got {run}",
    "reproduce table11": "data must be given with table11, such as --data imagefolder:PATH",
    "reproduce table12 --rule mix_top": "--rule must be left out with table12, which varies it itself",
    "reproduce table3 --epochs 3": "--epochs must be left out with table3, for which nothing is trained",
}
NOT_READ = {
    "train --method vanilla --credit own": "--credit must be left out with --method vanilla, in which no agent learns",
    "train --method cutmix --num-patches 4": "--num-patches must be left out with --method cutmix, which is no policy",
    "train --method rmix-p8 --num-patches 4": "--num-patches must be left out with method rmix-p8, .*, got .4,.",
    "train --method cutout --alpha 1": "--alpha must be left out with method cutout, which has none, got 1",
    "train --schedule constant --pct-start 0.5": "--pct-start must be left out with --schedule constant",
    "train --optimizer adamw --momentum 0.5": "--momentum must be left out with --optimizer adamw",
    "train --freeze-from {run} --method rmix --patience 2": "--patience must be left out with --freeze-from",
    "train --data digits --workers 2": "--workers must be left out with --data digits",
    "train --data digits --image-size 16": "--image-size must be left out with --data digits",
    "train --algorithm a2c --agent.n-epochs 2": "--agent.n-epochs must be left out with --algorithm a2c",
    "train --freeze-from {run} --method rmix --learning-rate 1": "--learning-rate must be left out with --freeze-from",
    "compare --methods vanilla --credit own": "--credit must be left out with --method vanilla",
    "evaluate {run} --threshold 0.2": "--threshold must be left out without --boxes",
    "visualize {run} --epochs 3": "--epochs must be left out with a run's folder",
    "fidelity --method rmix": "Unrecognized options: --method, rmix",
    "visualize --run {run}": "RUN must be given by itself, without --run",
    "evaluate --source={run}": "SOURCE must be given: A run's folder, or a file with a state_dict",
    "export": "RUN must be given: The run's folder",
}
WRONG_FOLDERS = {
    f"train {TINY} --out {{run}}": "--out must not hold a run already .*--overwrite, .*, got {run}",
    f"train {TINY} --out {{text}}": "--out must be a folder, got the file {text}",
    f"train {TINY} --out {{text}}/deeper": "--out must be a folder, .*, got {text}/deeper: {text} is a file",
    f"train {TINY} --out {{readonly}}/run": "--out must be a folder that can be written, got {readonly}/run: {readonly} is read-only",
    "compare --out {run}": "--out must be a comparison's folder or a new one, and {run} holds a run",
    "compare --out {readonly}/compared": "--out must be a folder that can be written, got {readonly}/compared",
    "policies --freeze-from {run} --out {readonly}/out": "--out must be a folder that can be written, got {readonly}/out",
    "visualize --out {text}/x.png": "--out must be a folder, .*, got {text}: {text} is a file",
    "visualize {run} --out {readonly}/x": "--out must be a folder that can be written, got {readonly}/x",
    "reproduce table12 --out {run}": "--out must be a comparison's folder or a new one, and {run} holds a run",
}
DAMAGED_YAML = {
    "seed: 1\nepochs: [3\nmodel: x\n": "{yaml} must be YAML: .*, line 2, key epochs .--config {yaml}.",
    "seed: 1\nepoch: 3\n": "option must be one of the .* of rlmix list options, got 'epoch' .*'epochs'.*; in {yaml}, line 2",
    "epochs: many\n": "epochs must be int or None, got 'many'; in {yaml}, line 1",
    "seed: 1\n\nepochs: 0\n": "epochs must be at least 1, got 0; in {yaml}, line 3",
    "- 1\n": "{yaml} must hold a mapping of options, got list .--config {yaml}.",
    "agent:\n  gama: 1\n": "option must be one of .*, got 'gama' .did you mean 'gamma'.*; in {yaml}, line 2",
    "agent: 3\n": "option agent must be a mapping, got 3; in {yaml}, line 1",
    "method: vanila\n": "method must be one of .*, got 'vanila' .did you mean 'vanilla'.*; in {yaml}, line 1",
}
ALL = MISSPELT | WRONG_FILES | WRONG_VALUES | CONTRADICTIONS | NOT_READ | WRONG_FOLDERS


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What the lines name."""
    root = tmp_path_factory.mktemp("mistakes")
    npz = write_npz(root, 8)
    content = dict(np.load(npz.removeprefix("npz:")))
    named = {name: root / name for name in ("none", "empty", "text", "damaged", "picture", "names", "fractions", "short", "new")}
    named["empty"].mkdir()
    named["text"].write_text("hello\n")
    whole = Path(npz.removeprefix("npz:")).read_bytes()
    named["damaged"].write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (8, 8)).save(named["picture"], format="png")
    for name, arrays in {
        "names": {"foo": content["x_train"], "bar": content["y_train"]},
        "fractions": content | {"y_train": content["y_train"] + 0.5},
        "short": content | {"y_train": content["y_train"][:5]},
    }.items():
        with open(named[name], "wb") as handle:
            np.savez(handle, **arrays)
    rlmix_main(["train", *TINY.format(npz=npz).split(), "--method", "vanilla", "--out", str(root / "run")])
    named |= {"run": root / "run", "state": root / "state.pt", "readonly": root / "readonly"}
    named["readonly"].mkdir()
    named["checkpoint"] = root / "run" / "checkpoints" / "epoch-0001.pt"
    torch.save(newest_state(root / "run")["training"]["model"], named["state"])
    return {"npz": npz} | {name: str(path) for name, path in named.items()}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, places):
    """A folder of its own to stand in, and one that cannot be written, also by root."""
    monkeypatch.chdir(tmp_path)
    access = files.os.access
    monkeypatch.setattr(files.os, "access", lambda path, mode: str(path) != places["readonly"] and access(path, mode))


def refused(line, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        rlmix_main(shlex.split(line))
    said = capsys.readouterr()
    assert stop.value.code == 2
    (error,) = said.err.splitlines()
    assert error.startswith("rlmix: error: "), error
    assert len(error) < 900
    return error


@pytest.mark.parametrize("line", ALL)
def test_a_mistake_is_told_in_one_line(line, places, tmp_path, capsys):
    before = sorted(Path(places["run"]).parent.rglob("*"))
    error = refused(line.format(**places), capsys)
    expected = ALL[line]
    for name, place in places.items():
        expected = expected.replace(f"{{{name}}}", re.escape(place))
    assert re.search(expected, error), error
    assert list(tmp_path.iterdir()) == []
    assert sorted(Path(places["run"]).parent.rglob("*")) == before


@pytest.mark.parametrize("text", DAMAGED_YAML)
def test_a_damaged_file_of_options_is_told_by_its_line(text, tmp_path, capsys):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    error = refused(f"train --config {path}", capsys)
    assert re.search(DAMAGED_YAML[text].replace("{yaml}", re.escape(str(path))), error), error


def test_there_are_a_hundred():
    assert len(ALL) + len(DAMAGED_YAML) >= 150
