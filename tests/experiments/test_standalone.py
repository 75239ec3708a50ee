"""Exported programs: what they give is what the run's own classifier and policy do, and nothing of rlmix is needed to read them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from toys import NETWORK, write_npz
from without_rlmix import BLOCKED

import rlmix
from rlmix.agents.features import policy_features
from rlmix.agents.learned import LearnedPolicy
from rlmix.agents.standalone import StandalonePairPolicy, StandalonePolicy, example_inputs, standalone_policy
from rlmix.data.augmentation import normalize
from rlmix.envs.observations import observe
from rlmix.envs.process import MixingProcess
from rlmix.experiments.export import Export, export
from rlmix.scripts import train
from rlmix.scripts.main import main as rlmix_main

RUNS = {
    "ppo": ["--observation", "paper"],
    "joint": ["--granularity", "batch"],
    "dqn": ["--algorithm", "dqn"],
    "a2c": ["--algorithm", "a2c", "--observation", "paper"],
    "bandit": ["--algorithm", "bandit"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of each policy."""
    root = tmp_path_factory.mktemp("learned")
    recipe = ["--batch-size", "8", "--train-images", "16", "--epochs", "1", "--model", NETWORK, "--device", "cpu"]
    for name, options in RUNS.items():
        train.main(
            ["--data", write_npz(root, 8, num_classes=4), *recipe, *options, "--num-top-k", "3", "--out", str(root / name)]
        )
    return root


def inputs_of(decision):
    """What a policy's module takes, of maps at another scale."""
    pair = [decision.pairing.partner, torch.tensor(decision.pairing.lam), torch.tensor(decision.progress)]
    return [7 * decision.patches, decision.saliency.logits, *pair]


@pytest.mark.parametrize("name", RUNS)
def test_a_policys_module_decides_as_the_policy_does(folder, name, monkeypatch):
    policy = LearnedPolicy(folder / name, seed=0)
    process = MixingProcess(rlmix.Config.from_yaml(folder / name / "config.yaml"))
    process.reset()
    decision = process.observe()
    module = standalone_policy(policy)
    inputs = inputs_of(decision)[: len(example_inputs(module, 4))]
    seen = []
    monkeypatch.setattr(module, "choose", lambda features: seen.append(features) or torch.zeros(len(features)))
    module(*inputs)
    observation = {part: value.numpy() for part, value in observe(decision, policy.observation).items()}
    assert seen[0].numpy() == pytest.approx(policy_features(observation), abs=1e-5)
    assert torch.allclose(module.probabilities(seen[0]), policy.probabilities(decision), atol=1e-5)


@pytest.mark.parametrize("kind", [StandalonePolicy, StandalonePairPolicy])
def test_a_map_of_zeros_or_not_finite_is_as_an_even_one(kind):
    seen = []
    module = kind(torch.nn.Identity(), torch.zeros(1), greedy=True)
    module.choose = lambda features: seen.append(features) or torch.zeros(len(features))
    maps = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps[0], maps[1, 2, 3] = 0, float("nan")
    for given in (maps, torch.cat([torch.full((2, 8, 8), 1 / 64), maps[2:]])):
        module(*(example_inputs(module, 4, 3) | {"maps": given}).values())
    assert seen[0][:2, :64] == pytest.approx(np.full((2, 64), 0.1))
    assert torch.equal(*seen)


def test_values_are_drawn_as_likely_as_the_policy_has_them():
    """An actor that ignores what it sees, and scores log 1, log 2, log 5."""
    actor = torch.nn.Linear(74, 3)
    torch.nn.init.zeros_(actor.weight)
    actor.bias.data = torch.tensor([1.0, 2.0, 5.0]).log()
    module = StandalonePolicy(actor, torch.tensor([0.0, 0.5, 0.9]), greedy=False)
    torch.manual_seed(0)
    top_k = module(torch.ones(8000, 8, 8), torch.zeros(8000, 4))
    shares = [float((top_k == value).float().mean()) for value in module.values]
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.02)
    greedy = StandalonePolicy(actor, module.values, greedy=True)
    assert greedy(torch.ones(5, 8, 8), torch.zeros(5, 4)).tolist() == pytest.approx([0.9] * 5)


READ = (
    BLOCKED
    + """
images, maps, logits = torch.load(sys.argv[1] + "/inputs.pt")
about = {"about.json": ""}
classifier = torch.export.load(sys.argv[1] + "/classifier.pt2", extra_files=about).module()
policy = torch.export.load(sys.argv[1] + "/policy.pt2").module()
top_k = policy(maps, logits)
print(json.dumps({"logits": classifier(images).tolist(), "one": classifier(images[:1]).tolist(), "top_k": top_k.tolist(),
    "about": json.loads(about["about.json"])}))
"""
)


def test_programs_are_read_without_rlmix_and_take_batches_of_any_size(folder, tmp_path):
    export(Export(folder / "a2c", tmp_path))
    images = torch.rand(5, 3, 8, 8)
    torch.save([images, torch.rand(5, 8, 8), torch.randn(5, 4)], tmp_path / "inputs.pt")
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    run = rlmix.load_run(folder / "a2c", device="cpu")
    data = run.training.data
    pixels = (images * 255).round().to(torch.uint8)
    expected = rlmix.load_model(folder / "a2c", device="cpu")((images - data.mean[:, None, None]) / data.std[:, None, None])
    assert np.array(found["logits"]) == pytest.approx(expected.detach().numpy(), abs=1e-5)
    assert np.array(found["one"]) == pytest.approx(expected[:1].detach().numpy(), abs=1e-5)
    own = normalize(pixels.permute(0, 2, 3, 1), data.mean, data.std)
    assert own == pytest.approx((pixels / 255 - data.mean[:, None, None]) / data.std[:, None, None], abs=1e-5)
    assert set(np.round(found["top_k"], 3)) <= {0, 0.495, 0.99}
    assert found["about"]["classes"] == [0, 1, 2, 3]
    assert found["about"]["input"] == {"images": ["batch", 3, 8, 8], "range": [0, 1]}
    assert found["about"]["normalisation, inside"]["std"] == pytest.approx(data.std.tolist())


@pytest.mark.parametrize("name", ["onnx", "safetensors"])
def test_other_formats_hold_the_same(folder, name, tmp_path):
    pytest.importorskip("onnxscript" if name == "onnx" else "safetensors")
    export(Export(folder / "a2c", tmp_path, (name,)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"classifier.{name}", f"policy.{name}"]
    model, images = rlmix.load_model(folder / "a2c", device="cpu"), torch.rand(3, 3, 8, 8)
    if name == "safetensors":
        from safetensors.torch import load_file

        weights = load_file(tmp_path / "classifier.safetensors")
        assert all(torch.equal(weights[f"model.{key}"], value) for key, value in model.state_dict().items())
        return
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "classifier.onnx")
    data = rlmix.load_run(folder / "a2c", device="cpu").training.data
    expected = model((images - data.mean[:, None, None]) / data.std[:, None, None]).detach().numpy()
    assert session.run(None, {"images": images.numpy()})[0] == pytest.approx(expected, abs=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == [0, 1, 2, 3]


def test_what_cannot_be_written_is_one_line(folder, tmp_path, capsys, monkeypatch):
    def refused(*formats):
        with pytest.raises(SystemExit, match="2"):
            rlmix_main(["export", str(folder / "ppo"), "--out", str(tmp_path / "out"), "--formats", *formats])
        (line,) = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "out").exists()
        return line

    assert "--formats must be one of pt, pt2, onnx, safetensors, got 'onx' (did you mean 'onnx'?)" in refused("onx")
    monkeypatch.setattr("rlmix.experiments.export.find_spec", lambda name: None)
    assert 'formats onnx must have onnx and onnxscript installed: pip install "rlmix[export]"' in refused("pt", "onnx")


def test_a_network_that_cannot_be_exported_says_which_format_to_leave_out(folder, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("data-dependent control flow\nand more")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(ValueError, match=r"^formats must be without pt2 for toys:network: data-dependent control flow$"):
        export(Export(folder / "ppo", tmp_path))
