"""What is trained in a run: a classifier, and who decides how its images are mixed."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from rlmix.agents.algorithms import Agent
from rlmix.agents.policies import POLICIES, Policy, own_policy
from rlmix.common.ranks import Ranks
from rlmix.common.seeding import derive
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.experiments.settings import is_policy, learns
from rlmix.training.trainer import Training


class Watcher(Protocol):
    """Who is told how far a task has come."""

    def step(self) -> None:
        """After each step within an epoch, when no batch waits."""

    def update(self, figures: dict[str, float]) -> None:
        """After an agent's update within an epoch, before :meth:`step`."""

    def close_epoch(self, training: Training) -> None:
        """After an epoch's last step, before anything else is drawn."""

    def end_epoch(self, update: dict[str, float]) -> None:
        """After the agent's update on the epoch, whose figures these are."""


class Task:
    """What is trained: a classifier, and where the method is a policy, the environment's process and who decides in it."""

    def __init__(self, options: Config, data: Dataset | None = None) -> None:
        self.options = options
        self.process: MixingProcess | None = None
        self.policy: Policy | None = None
        self.agent: Agent | None = None
        self.env: RLMixEnv | RLMixVectorEnv | None = None
        self.seconds = 0.0
        """Of training in the epoch in progress, before this process."""
        torch.manual_seed(
            derive(options.run.seed, "network")
        )  # what a network's dropout draws from; the agent seeds its own draws
        method = options.run.method
        if not is_policy(method):
            self.training = Training(options, data, method=method)
            return
        if learns(method):
            env = (
                RLMixEnv(options, data=data)
                if options.agent.granularity == "batch"
                else RLMixVectorEnv(config=options, data=data)
            )
            self.env, self.process = env, env.process
            if self.process.reset().ranks.first:
                self.agent = POLICIES[method](env, options)
        else:
            self.process = MixingProcess(options, data)
            self.policy = fixed_policy(options, self.process.reset().ranks)
            self.process.offer(getattr(self.policy, "actions", None))
        self.training = self.process.require_training()

    def fit(self, watcher: Watcher) -> None:
        """Train what is left of the budget."""
        training, process = self.training, self.process
        if self.env is not None and process is not None:
            process.on_epoch_end = watcher.close_epoch
            if not training.mixing_finished and self.agent is not None:
                if hasattr(self.agent, "on_update"):
                    self.agent.on_update = watcher.update
                self.agent.learn(watcher.step, watcher.end_epoch)
            elif not training.mixing_finished:
                self._follow(watcher)
            process.go_back_to(training)  # the environment has reset to another classifier
        while not training.finished:
            if process is not None and self.policy is not None and not training.mixing_finished:
                process.run_epoch(self.policy, on_step=lambda action, rewards: self._tell(watcher))
            else:
                for _ in range(training.steps_left):
                    training.fit_step()
                    self._tell(watcher)
            watcher.close_epoch(training)
            watcher.end_epoch({} if self.policy is None else {"policy_entropy": self.policy.entropy})

    def _follow(self, watcher: Watcher) -> None:
        """Step this rank's share of the slots as rank 0's agent says, and reset where its adapter does."""
        assert self.env is not None
        self.env.reset()
        while not self.training.mixing_finished:
            _, _, terminated, truncated, _ = self.env.step(None)  # type: ignore[arg-type]  # rank 0 knows the action
            if not np.any(terminated) and not np.any(truncated):
                watcher.step()
                continue
            if isinstance(self.env, RLMixEnv):
                self.env.reset()
            watcher.end_epoch({})

    def _tell(self, watcher: Watcher) -> None:
        if not self.training.at_epoch_end:
            watcher.step()

    @property
    def deciding(self) -> MixingProcess | None:
        """The process, in epochs in which images are mixed as somebody decides."""
        return self.process if self.training.epoch <= self.training.mixed_epochs else None

    def trained(self) -> dict[str, Any]:
        """The state of the classifier's training."""
        return (self.process or self.training).state_dict()

    def deciders(self) -> dict[str, Any]:
        """The state of who decides, and of the global generators."""
        decider = self.agent or self.policy
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        random = {"torch_random": torch.get_rng_state(), "cuda_random": cuda}
        return random if decider is None else random | {"decider": decider.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; ValueError where it does not fit."""
        try:
            (self.process or self.training).load_state_dict(state["training"])
            decider = self.agent or self.policy
            if decider is not None:
                decider.load_state_dict(state["decider"])
            torch.set_rng_state(state["torch_random"])
            if state["cuda_random"]:
                torch.cuda.set_rng_state_all(state["cuda_random"])
            self.seconds = float(state["seconds"])
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
            reason = f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}"
            raise ValueError(f"the checkpoint is not one of a run with these options: {reason}") from error


def fixed_policy(options: Config, ranks: Ranks | None = None) -> Policy:
    """Who decides where nobody learns."""
    named = options.run.policy or ""
    if ":" in named and not Path(named).exists():
        return own_policy(named, options, ranks)
    policy: Policy = POLICIES[options.run.method].from_config(options, ranks)
    return policy
