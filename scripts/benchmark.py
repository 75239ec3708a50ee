"""Time a training step of each method relative to vanilla, all methods interleaved step by step in one process.

rlmix benchmark --model preactresnet18_w16 --batch-size 100 --json FILE
"""

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.utils import obs_as_tensor

from rlmix.agents.policies import FixedRandomPolicy
from rlmix.agents.ppo import PPOAgent, PPOConfig
from rlmix.allocator import keep_freed_memory
from rlmix.checkpoints import write_atomically
from rlmix.config import TrainingConfig
from rlmix.datasets import ImageData, image_data
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.methods import METHODS
from rlmix.mixing import RMix
from rlmix.names import check_name
from rlmix.runs import peak_memory_mb
from rlmix.scripts.options import parse, read_args
from rlmix.training import Training

TIMED = ("saliency", "rmix", "rmix-p8", "rlmix", "rmix-dropin", *METHODS)
"""saliency is the bare pass of vanilla's model; rmix and rmix-p8 run in the environment, rmix-dropin in the plain trainer."""


@dataclass(frozen=True)
class Benchmark:
    """Time a training step of each method relative to vanilla, on random images."""

    methods: tuple[str, ...] = ("vanilla", "saliency", "rmix", "rlmix")
    """What to time; ratios are relative to vanilla, which is always timed."""
    model: str = "preactresnet18_w16"
    """The classifier."""
    batch_size: int = 100
    """Images a step."""
    image_size: int = 32
    """Pixels a side."""
    num_classes: int = 100
    """Classes."""
    rounds: int = 15
    """Steps timed of each method."""
    warmup: int = 3
    """Steps of each method before that."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: str = "auto"
    """auto, float32, bfloat16."""
    json: Path | None = None
    """Write the figures here too."""


@dataclass(frozen=True)
class Timed:
    """A method's step, and parts of it measured apart."""

    step: Callable[[], object]
    parts: Callable[[], dict[str, float]] = dict
    """Milliseconds a step of what does not happen in every step (the policy's update), measured when all steps are done."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    options = parse(Benchmark, "benchmark", read_args(args))
    for name in ("batch_size", "image_size", "rounds", "num_classes"):
        if getattr(options, name) < (2 if name == "num_classes" else 1):
            raise ValueError(f"{name} must be at least {2 if name == 'num_classes' else 1}, got {getattr(options, name)}")
    config = TrainingConfig(
        model=options.model,
        batch_size=options.batch_size,
        epochs=1000,
        device=options.device,
        precision=options.precision,  # type: ignore[arg-type]
    )
    figures = measure(config, options.methods, random_data(options), options.rounds, options.warmup)
    print_table(figures)
    if options.json is not None:
        text = json.dumps(figures, indent=2) + "\n"
        write_atomically(options.json, lambda handle: handle.write(text.encode()))


def random_data(options: Benchmark, num_batches: int = 20) -> ImageData:
    """Random images and labels."""
    draw = np.random.default_rng(0)
    count, size = num_batches * options.batch_size, options.image_size
    images = draw.integers(0, 256, (count, size, size, 3), np.uint8)
    labels = draw.permutation(np.arange(count) % options.num_classes)
    labels[: options.num_classes] = np.arange(options.num_classes)[:count]
    return image_data(images, labels, images[:1], labels[:1], source="random images")


def measure(
    config: TrainingConfig, methods: Sequence[str], data: ImageData | None = None, rounds: int = 15, warmup: int = 3
) -> dict[str, Any]:
    """Medians of interleaved steps: vanilla, A, B, vanilla, A, B, ...

    Returns:
        ``{"machine": ..., "methods": {name: {"step_ms", "spread_ms", "ratio", "parts_ms"}}}``. ``ratio`` is the median of a method's
        steps over that of vanilla's; what it does once an epoch (PPO's update) is spread over the epoch's steps.
    """
    keep_freed_memory()
    for name in methods:
        check_name("method", name, TIMED)
    names = list(dict.fromkeys(("vanilla", *methods)))
    timed = {name: prepare(name, config, data) for name in names}
    device = Training(config, data).device
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warmup + rounds):
        for name in names:
            _synchronize(device)
            start = time.perf_counter()
            timed[name].step()
            _synchronize(device)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    parts = {name: timed[name].parts() for name in names}
    step_ms = {name: 1000 * statistics.median(seconds[name]) + sum(parts[name].values()) for name in names}
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "torch": torch.__version__,
            "model": config.model,
            "batch_size": config.batch_size,
            "precision": config.precision,
            "peak_memory_mb": peak_memory_mb(device),
        },
        "methods": {
            name: {
                "step_ms": step_ms[name],
                "spread_ms": [1000 * quartile for quartile in _quartiles(seconds[name])],
                "ratio": step_ms[name] / step_ms["vanilla"],
                "parts_ms": parts[name],
            }
            for name in names
        },
    }


def prepare(name: str, config: TrainingConfig, data: ImageData | None) -> Timed:
    """A fresh classifier under method ``name``, ready to step."""
    if name == "saliency":
        training = Training(config, data)
        batch = training.next_batch()
        return Timed(lambda: training.saliency(batch))
    if name == "rmix-dropin":
        training, rmix = Training(config, data), RMix()
        return Timed(lambda: training.fit_step(rmix))
    if name in METHODS:
        training = Training(config, data, method=name)
        return Timed(training.fit_step)
    if name == "rlmix":
        return _prepare_agent(RLMixVectorEnv(config=config, data=data))
    process = MixingProcess(replace(config, num_patches=(2, 4) if name == "rmix" else (8,)), data)
    process.reset()
    policy = FixedRandomPolicy(process.config.num_top_k, seed=0)
    return Timed(lambda: process.act(policy(process.observe())))


def _prepare_agent(env: RLMixVectorEnv, rollout_steps: int = 20) -> Timed:
    """Stable-Baselines3's collecting step, spelled out; its update on a rollout of such steps, divided by them."""
    agent = PPOAgent(env, PPOConfig(rollout_steps=rollout_steps), seed=0)
    ppo: Any = agent.ppo
    vec_env = ppo.env
    ppo._last_obs = vec_env.reset()
    buffer, starts = ppo.rollout_buffer, np.zeros(env.num_envs, bool)

    def step() -> None:
        with torch.no_grad():
            actions, values, log_probabilities = ppo.policy(obs_as_tensor(ppo._last_obs, ppo.device))
        chosen = actions.numpy()
        observation, rewards, _, _ = vec_env.step(chosen)
        if buffer.full:
            buffer.reset()
        buffer.add(ppo._last_obs, chosen[:, None], rewards, starts, values, log_probabilities)
        ppo._last_obs = observation

    def parts() -> dict[str, float]:
        while not buffer.full:
            step()
        buffer.compute_returns_and_advantage(torch.zeros(env.num_envs), starts)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            ppo.train()
            times.append(time.perf_counter() - start)
        return {"ppo_update": 1000 * statistics.median(times) / agent.rollouts[0]}

    return Timed(step, parts)


def print_table(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    machine = figures["machine"]
    table = Table(title=f"{machine['model']}, batch {machine['batch_size']}, {machine['device']} ({machine['threads']} threads)")
    for column in ("method", "ms a step", "quartiles", "relative to vanilla", "of it once an epoch"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, row in figures["methods"].items():
        low, high = row["spread_ms"]
        amortised = ", ".join(f"{part} {value:.2f} ms" for part, value in row["parts_ms"].items())
        table.add_row(name, f"{row['step_ms']:.1f}", f"{low:.1f} to {high:.1f}", f"{row['ratio']:.3f}", amortised)
    Console().print(table)


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return low, high


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    from rlmix.scripts.main import run_command

    run_command(main)
