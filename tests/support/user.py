"""A user's file, which mypy --strict must accept: the public names with the types that they promise."""

from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

import rlmix


def configure(folder: Path) -> rlmix.Config:
    config = rlmix.Config(
        data=rlmix.DataConfig(name="digits", train_images=48, test_images=40),
        model=rlmix.ModelConfig(name="preactresnet18_w16"),
        optim=rlmix.OptimConfig(epochs=1, batch_size=16),
        mixing=rlmix.MixingConfig(num_patches=(2, 4)),
        env=rlmix.EnvConfig(reward="cosine"),
        agent=rlmix.AgentConfig(algorithm="ppo", ppo=rlmix.PPOConfig(passes=2)),
        device=rlmix.DeviceConfig(name="cpu"),
        run=rlmix.RunConfig(method="rlmix", seed=3, out=folder / "run"),
    )
    assert config == rlmix.Config.from_yaml(write(config, folder / "config.yaml")).changed(out=folder / "run")
    return config


def write(config: rlmix.Config, path: Path) -> Path:
    path.write_text(yaml.safe_dump(config.as_dict()))
    return path


def train(folder: Path) -> float:
    result: rlmix.Result = rlmix.train(configure(folder), quiet=True)
    assert result.folder == folder / "run"
    assert len(result.epochs) == 1
    top1: float = result["top1"]
    model: nn.Module = rlmix.load_model(result.folder)
    logits: Tensor = model(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    assert rlmix.load_run(result.folder).options.run.seed == 3
    policy = rlmix.load_policy(result.folder)
    assert policy.values.shape == (10,)
    figures = rlmix.evaluate(rlmix.Evaluate(source=result.folder, attacks=()))
    assert figures["top1"] == top1
    return top1


def mix(model: nn.Module, images: Tensor, labels: Tensor) -> list[rlmix.Mixed]:
    seen: rlmix.Saliency = rlmix.saliency(model, images, labels)
    mask: Tensor = rlmix.salient_mask(rlmix.patch_saliency(seen.map, 4), torch.zeros(len(images)))
    by_hand = rlmix.mix(images, labels, mask, torch.arange(len(images)), 0.5, num_classes=10)
    return [by_hand, rlmix.RMix()(model, images, labels, num_classes=10), rlmix.RLMix(learn=True)(model, images, labels)]


def environments() -> tuple[int, int]:
    config = rlmix.Config.flat(data="digits", train_images=48, test_images=40, batch_size=16, epochs=1)
    env, slots = rlmix.make_env(config), rlmix.make_vec_env(config, num_envs=16)
    env.reset(seed=0)
    slots.reset(seed=0)
    return env.process.config.recipe.batch_size, slots.num_envs


def compare(folder: Path) -> list[str]:
    options = rlmix.Compare(
        methods=("rmix", "vanilla"),
        seeds=(0,),
        timing=False,
        control=False,
        out=folder / "compared",
        data=rlmix.DataConfig(name="digits", train_images=48, test_images=40),
        optim=rlmix.OptimConfig(epochs=1, batch_size=16),
    )
    report = rlmix.compare(options, quiet=True)
    return list(report["methods"])
