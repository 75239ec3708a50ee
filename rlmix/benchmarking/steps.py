"""What the benchmark times: every method's step ready to be taken, and what its parts are."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import obs_as_tensor

from rlmix.agents.policies import CoinPolicy, FixedRandomPolicy
from rlmix.agents.sb3.on_device import DeviceAgent
from rlmix.agents.sb3.ppo import PPOAgent
from rlmix.benchmarking.peers import PEERS, check_installed
from rlmix.benchmarking.reference_loop import best_loop
from rlmix.benchmarking.stopwatch import Span, time_parts, time_steps
from rlmix.common.names import check_name
from rlmix.config import Config
from rlmix.data.memory import ImageData
from rlmix.data.registry import load_data
from rlmix.envs.conversion import render_process
from rlmix.envs.process import MixingProcess
from rlmix.envs.rewards import AGENT_PATCHES, UNMEASURED
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.mixing.registry import METHODS
from rlmix.mixing.rmix import RMix
from rlmix.option_groups import PPOConfig
from rlmix.training.board import TAGS
from rlmix.training.run_folder import Run, writes_behind
from rlmix.training.trainer import Training

CHEAPER = {f"rmix-{mode}": mode for mode in ("recycled", "bfloat16", "half", "alternate")}
"""R-Mix under cheaper saliency; previous has two kinds of epochs, and its cost is half of their difference."""
GUIDED = {"puzzlemix-recycled": ("puzzlemix", "recycled")}
"""Methods without environment under cheaper saliency."""
TIMED = (
    "saliency",
    "rmix",
    "rmix-p8",
    "rmix-reward",
    "rlmix",
    "rlmix-device",
    "rlmix-recycled",
    "rmix-dropin",
    *CHEAPER,
    "handwritten",
    "coin",
    *METHODS,
    *GUIDED,
    *PEERS,
)
"""saliency is the bare pass of vanilla's model. R-Mix runs in the environment without a reward, rmix-reward with the agent's, as rlmix
train and compare measure it, rmix-dropin in the plain trainer. rlmix-device has the agent where the classifier lives, rlmix-recycled the
maps that cost nothing. handwritten is
vanilla as a tutorial writes it. The last ones are other people's."""
AGENTS = ("rlmix", "rlmix-device", "rlmix-recycled")
"""Those with an agent that learns."""
PARTS = ("data", "saliency", "mix", "method", "train", "policy", "ppo_update", "logging")
"""data: a batch, cropped and flipped. mix: masks, mixing, reward. method: what a method without environment does to a batch, its own
saliency pass included. train: the optimizer step. policy: who decides, and the way there and back. ppo_update and logging happen once
an epoch."""
EPOCH_IMAGES = 50_000
"""CIFAR's; logging is spread over the steps that so many images take."""
PICTURE_EVERY = 5
"""Epochs; ``rlmix train``'s default."""


@dataclass(frozen=True)
class Timed:
    """A method's step, ready to be taken."""

    step: Callable[[], object]
    device: torch.device
    rest: str
    """The part that the time outside of all ``spans`` belongs to."""
    spans: tuple[Span, ...] = ()
    once_an_epoch: Callable[[], dict[str, float]] = dict
    """Milliseconds a step, by part, of what belongs to the method but not to every step (the policy's update); after the last step."""
    logging: Callable[[], dict[str, float]] = dict
    """The same of what ``rlmix train`` writes."""
    lead: int = 0
    """Untimed steps before every timed one."""
    run: int = 1
    """Consecutive steps timed as one."""
    settings_ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds a step of the settings that were tried for this method, the fastest first."""

    def seconds(self) -> float:
        """Take the next steps; seconds a step."""
        return time_steps(self.step, self.device, self.lead, self.run)

    def seconds_by_part(self) -> dict[str, float]:
        """Take the next steps; seconds a step by part. Watching slows a step down a little."""
        return time_parts(self.step, self.spans, self.rest, self.device, self.lead, self.run)


def check_timed(name: str) -> None:
    """Raise ValueError where ``name`` is nothing that can be timed here; ``module:attribute`` is a method of one's own."""
    if ":" in name:
        METHODS.entry(name)
    else:
        check_name("methods", name, TIMED)
    if name in PEERS:
        check_installed(name)


def is_method(name: str) -> bool:
    """Whether a method without environment is called so, shipped or ``module:attribute``."""
    return name in METHODS or ":" in name


def prepare(name: str, config: Config, data: ImageData | None) -> Timed:
    """A fresh classifier under method ``name``, ready to step."""
    if name == "handwritten":
        return _prepare_handwritten(config, data)
    if name in GUIDED:
        name, mode = GUIDED[name]
        config = config.changed(saliency_mode=mode)
    if is_method(name) or name in PEERS or name in ("saliency", "rmix-dropin"):
        training = Training(config, data, method=name if is_method(name) else "vanilla")
        if name == "saliency":
            batch = training.next_batch()
            return Timed(lambda: training.saliency(batch), training.device, "saliency")
        given = PEERS[name](training.data.num_classes) if name in PEERS else RMix() if name == "rmix-dropin" else None
        spans = (Span(training, "next_batch", "data"), Span(training, "step", "train"))
        return Timed(lambda: training.fit_step(given), training.device, "method", spans, logging=lambda: time_logging(training))
    if name in AGENTS:
        config = config.changed(observation="pair", credit="pair")  # the defaults of rlmix train
        if name == "rlmix-recycled":
            config = config.changed(saliency_mode="recycled")
        env = RLMixVectorEnv(config=config, data=data)
        return _prepare_device_agent(env) if name == "rlmix-device" else _prepare_agent(env)
    config = config.changed(num_patches=(AGENT_PATCHES,) if name == "rmix-p8" else config.mixing.num_patches)
    if name != "rmix-reward":
        config = config.changed(reward=UNMEASURED)
    if name in CHEAPER:
        config = config.changed(saliency_mode=CHEAPER[name])
    process = MixingProcess(config, data)
    training = process.reset()
    kind = CoinPolicy if name == "coin" else FixedRandomPolicy
    policy = kind(process.config.mixing.num_top_k, seed=0)
    return Timed(
        lambda: process.act(policy(process.observe())),
        training.device,
        "policy",
        _process_spans(process),
        logging=lambda: time_logging(training, process, policy),
        run=2 if name == "rmix-alternate" else 1,
    )


def _process_spans(process: MixingProcess) -> tuple[Span, ...]:
    training = process.require_training()
    return (
        Span(training, "next_batch", "data"),
        Span(training, "saliency", "saliency"),
        Span(training, "step", "train"),
        Span(process, "observe", "mix"),
        Span(process, "act", "mix"),
    )


def _prepare_handwritten(config: Config, data: ImageData | None) -> Timed:
    """Its workers load ahead while other methods step: that is used up first, and as many steps are timed as they load at a time."""
    source = load_data(config) if data is None else data
    if not isinstance(source, ImageData):
        raise ValueError(f"handwritten needs a data set in memory, got {config.data.name}")
    loop, settings_ms = best_loop(config, source, Training(config, source).device)
    return Timed(
        loop.step,
        loop.device,
        "train",
        (Span(loop, "next_batch", "data"),),
        lead=loop.prefetched,
        run=max(1, loop.prefetched),
        settings_ms=settings_ms,
    )


def _prepare_agent(env: RLMixVectorEnv) -> Timed:
    """Stable-Baselines3's collecting step, spelled out; its update on a rollout of such steps, divided by them."""
    agent = PPOAgent(env, PPOConfig(), seed=0)
    ppo: Any = agent.ppo
    vec_env = ppo.env
    ppo._last_obs = vec_env.reset()
    buffer, starts = ppo.rollout_buffer, np.zeros(env.num_envs, bool)

    def step() -> None:
        with torch.no_grad():
            actions, values, log_probabilities = ppo.policy(obs_as_tensor(ppo._last_obs, ppo.device))
        chosen = actions.cpu().numpy()
        observation, rewards, _, _ = vec_env.step(chosen)
        if buffer.full:
            buffer.reset()
        buffer.add(ppo._last_obs, chosen[:, None], rewards, starts, values, log_probabilities)
        ppo._last_obs = observation

    def update() -> dict[str, float]:
        while not buffer.full:
            step()
        buffer.compute_returns_and_advantage(torch.zeros(env.num_envs), starts)
        return {"ppo_update": _median_ms(ppo.train) / agent.rollouts[0]}

    process = env.process
    training = process.require_training()
    return Timed(step, training.device, "policy", _process_spans(process), update, lambda: time_logging(training, process, agent))


def _prepare_device_agent(env: RLMixVectorEnv) -> Timed:
    """A step of the agent on the device, and its update as of :func:`_prepare_agent`."""
    agent = DeviceAgent(env, PPOConfig(), seed=0)
    length, process = agent.rollouts[0], env.process

    def step() -> None:
        agent.step()
        del agent.kept[:-length]

    def update() -> dict[str, float]:
        while len(agent.kept) < length:
            step()
        rollout, following = list(agent.kept), process.observe()

        def learn() -> None:
            agent.kept = list(rollout)
            agent.update(following)

        return {"ppo_update": _median_ms(learn) / length}

    training = process.require_training()
    return Timed(step, training.device, "policy", _process_spans(process), update, lambda: time_logging(training, process, agent))


def time_logging(
    training: Training, process: MixingProcess | None = None, decider: FixedRandomPolicy | PPOAgent | None = None
) -> dict[str, float]:
    """What ``rlmix train`` writes once an epoch (a line of metrics, TensorBoard, a checkpoint), in milliseconds a step."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", training.config.as_dict())

        def log() -> None:
            epoch = len(run.epochs) + 1
            record: dict[str, Any] = {"epoch": epoch, "step": training.global_step, **training.epoch_metrics()}
            if process is not None:
                record |= {**process.epoch_metrics(), "top_k_counts": process.epoch_top_k_counts()}
                run.writer.add_histogram(TAGS["top_k_values"].name, process.epoch_top_k(), epoch)
            run.log_epoch(record)
            deciders = {} if decider is None else {"decider": decider.state_dict()}
            state = {"epoch": epoch, "steps": 0, "training": training.state_dict(), **deciders}
            run.save_checkpoint(state, behind=writes_behind(training.device))

        def draw() -> None:
            if process is not None:
                run.writer.add_image(TAGS["picture"].name, render_process(process), len(run.epochs), dataformats="HWC")

        log()  # opens TensorBoard's file
        epoch_ms = _median_ms(log, run.settle) + _median_ms(draw) / PICTURE_EVERY
        run.close()
    return {"logging": epoch_ms * training.recipe.batch_size / EPOCH_IMAGES}


def _median_ms(call: Callable[[], object], before: Callable[[], object] = lambda: None, times: int = 3) -> float:
    """Milliseconds of a call that ends on the host, each after an untimed call of ``before``."""
    seconds = []
    for _ in range(times):
        before()
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)
