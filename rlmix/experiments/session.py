"""A run in progress: what is trained, and who watches it."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlmix.agents.algorithms import Agent
from rlmix.agents.policies import POLICIES, Policy, own_policy
from rlmix.common.ranks import Ranks
from rlmix.common.seeding import derive
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.envs.env import RLMixEnv
from rlmix.envs.process import MixingProcess
from rlmix.envs.vector_env import RLMixVectorEnv
from rlmix.evaluation.metrics import METRICS, measure_metric
from rlmix.experiments.batch_picture import batch_strips
from rlmix.experiments.callbacks import Callbacks
from rlmix.experiments.settings import is_policy, learns
from rlmix.experiments.stopping import Interrupted, StopRequest
from rlmix.reporting.bar import Watched
from rlmix.reporting.progress import TrainingProgress
from rlmix.reporting.strips import paste_strips
from rlmix.training.board import TAGS
from rlmix.training.run_folder import Run, peak_memory_mb, writes_behind
from rlmix.training.trainer import Training


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

    def fit(self, session: "Session") -> None:
        """Train what is left of the budget."""
        training, process = self.training, self.process
        if self.env is not None and process is not None:
            process.on_epoch_end = session.close_epoch
            if not training.mixing_finished and self.agent is not None:
                if hasattr(self.agent, "on_update"):
                    self.agent.on_update = session.update
                self.agent.learn(session.step, session.end_epoch)
            elif not training.mixing_finished:
                self._follow(session)
            process.go_back_to(training)  # the environment has reset to another classifier
        while not training.finished:
            if process is not None and self.policy is not None and not training.mixing_finished:
                process.run_epoch(self.policy, on_step=lambda action, rewards: self._tell(session))
            else:
                for _ in range(training.steps_left):
                    training.fit_step()
                    self._tell(session)
            session.close_epoch(training)
            session.end_epoch({} if self.policy is None else {"policy_entropy": self.policy.entropy})

    def _follow(self, session: "Session") -> None:
        """Step this rank's share of the slots as rank 0's agent says, and reset where its adapter does."""
        assert self.env is not None
        self.env.reset()
        while not self.training.mixing_finished:
            _, _, terminated, truncated, _ = self.env.step(None)  # type: ignore[arg-type]  # rank 0 knows the action
            if not np.any(terminated) and not np.any(truncated):
                session.step()
                continue
            if isinstance(self.env, RLMixEnv):
                self.env.reset()
            session.end_epoch({})

    def _tell(self, session: "Session") -> None:
        if not self.training.at_epoch_end:
            session.step()

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


class Patience(Exception):  # noqa: N818  (it is no error)
    """The validation top-1 has not risen for as long as was asked for."""


def exhausted(epochs: Sequence[Mapping[str, Any]], patience: int | None) -> bool:
    """Whether the last ``patience`` measurements of the validation top-1 are no better than one before.

    Args:
        epochs: Lines of metrics.jsonl; those that were not measured count for nothing.
        patience: None for any.
    """
    top1 = [record["val_top1"] for record in epochs if "val_top1" in record]
    return patience is not None and len(top1) > patience and max(top1[-patience:]) <= max(top1[:-patience])


class Session:
    """Watches a task: measures it, logs it, keeps checkpoints."""

    def __init__(
        self,
        run: Run,
        options: Config,
        task: Task,
        stop: StopRequest,
        quiet: bool = False,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.run, self.options, self.task, self.stop = run, options, task, stop
        training, self.ranks = task.training, task.training.ranks
        quiet = quiet or not self.ranks.first
        self.progress = TrainingProgress(training.num_steps, training.global_step, training.config.recipe.epochs, quiet=quiet)
        self.callbacks = callbacks if callbacks is not None and self.ranks.first else Callbacks()
        if self.ranks.first:
            run.begin(options.as_dict(), ["top1", "top1_median10", *options.run.metrics, "seconds", "seconds_per_epoch"])
        self.callbacks.call("on_start", options.as_dict(), training)
        self._resumed_at = time.perf_counter()
        self._training_seconds = task.seconds
        self._data = training.data.checksum()
        self._record: dict[str, Any] = {}
        self._state: dict[str, Any] = {}

    def step(self) -> None:
        """After each step within an epoch, when no batch waits: show it, and keep a checkpoint where one is due."""
        every = self.options.run.checkpoint_every
        self._log_steps()
        self.progress.pace(self.task.training.global_step)
        self.callbacks.call("on_step", self.task.training, before_raising=lambda: self._save(self.task.trained()))
        stop = self._stop_reason()
        if stop is not None or (every and self.task.training.global_step % every == 0):
            self._save(self.task.trained(), behind=stop is None)
        if stop is not None:
            raise stop
        if self.progress.due() and self.ranks.size == 1:  # these metrics are all ranks' business, and only rank 0 has a bar
            training, process = self.task.training, self.task.deciding
            metrics = training.epoch_metrics() | ({} if process is None else process.epoch_metrics())
            self.progress.step(training.epoch, training.global_step, metrics["train_loss"], metrics.get("reward_mean"))

    def update(self, figures: dict[str, float]) -> None:
        """After an agent's update within an epoch, before :meth:`step`."""
        if self.ranks.first:
            self.run.log_update(self.task.training.global_step, figures)
        self.callbacks.call("on_rollout", figures, self.task.training, before_raising=lambda: self._save(self.task.trained()))

    def close_epoch(self, training: Training) -> None:
        """After an epoch's last step, before anything else is drawn: evaluate, and take the classifier's state."""
        self._log_steps()
        self._pause()
        process = self.task.deciding
        measured = self.ranks.first and self._is_measured(training)
        if measured:
            self.progress.stage(f"epoch {training.epoch}/{training.recipe.epochs}  measuring accuracy")
        self._record = {
            "epoch": training.epoch,
            "step": training.global_step,
            **training.epoch_metrics(),
            **(training.evaluate() if measured else {}),
            "learning_rate": training.learning_rate,
            **({} if process is None else process.epoch_metrics() | {"top_k_counts": process.epoch_top_k_counts()}),
        }
        self._state = self.task.trained()
        if process is not None:
            self._log_mixing(process, process.epoch_top_k())
        self._resumed_at = time.perf_counter()

    def end_epoch(self, update: dict[str, float]) -> None:
        """After the agent's update on the epoch: log it and keep a checkpoint."""
        self._pause()
        record = self._record | update | {"epoch_seconds": self._training_seconds}
        if self.ranks.first:
            self.run.log_epoch(record)
        self._training_seconds = 0.0
        self._resumed_at = time.perf_counter()
        known = [other["val_top1"] for other in self.run.epochs if "val_top1" in other]
        best = "val_top1" in record and record["val_top1"] >= max(known)
        training = self.task.training
        due = best or training.finished or record["epoch"] % self.options.run.checkpoint_epochs == 0

        def keep() -> None:
            if due:
                self.run.settle()
            else:
                self._save(self._state)

        if due:
            self._save(self._state, best, behind=not training.finished)
        if self.ranks.first:
            self.progress.epoch(record)
        if self.task.agent is not None:
            self.callbacks.call("on_rollout", update, training, before_raising=keep)
        self.callbacks.call("on_step", training, before_raising=keep)
        self.callbacks.call("on_epoch", record, training, before_raising=keep)
        self._resumed_at = time.perf_counter()
        stop = self._stop_reason()
        if stop is not None and not training.finished:
            keep()
            raise stop
        self.check_patience(keep)

    def check_patience(self, keep: Callable[[], None] = lambda: None) -> None:
        """Raise Patience where it is exhausted, after a call of ``keep``; all ranks come to the same answer."""
        patience = self.options.run.patience
        if patience is None or self.task.training.finished:
            return
        if self.ranks.any(self.ranks.first and exhausted(self.run.epochs, patience)):
            self.progress.say(
                f"validation top-1 has not risen for {patience} measurements: stopped after epoch {len(self.run.epochs)}"
            )
            keep()
            raise Patience

    def _is_measured(self, training: Training) -> bool:
        return training.epoch % self.options.run.eval_every == 0 or training.finished

    def finish(self) -> dict[str, Any]:
        """Measure the trained classifier, and write result.json; rank 0 does.

        With a validation split ``top1_best`` is the test top-1 of the first epoch of the best validation top-1, and ``val_top1`` the last
        epoch's; without one there is no ``top1_best``, for nothing is chosen on the test split.
        """
        if not self.ranks.first:
            return {}
        training, epochs = self.task.training, self.run.epochs
        measured = [record for record in epochs if "test_top1" in record]
        top1 = [record["test_top1"] for record in measured]
        validated = "val_top1" in measured[-1]
        chosen = max(measured, key=lambda record: record["val_top1"]) if validated else None
        seconds = sum(record["epoch_seconds"] for record in epochs)
        more: dict[str, Any] = {name: epochs[-1][name] for name in ("val_top1", "top1_ema", "val_top1_ema") if name in epochs[-1]}
        more |= {"epochs": len(epochs)} if self.options.run.patience is not None else {}
        known: dict[str, Any] = {"logits": training.predict(), "labels": training.data.labels("test")}
        known |= {"model": training.model, "data": training.data}
        figures = {}
        for name in self.options.run.metrics:
            part = self.progress.part(f"measuring {name}", len(known["labels"]))
            seen = {"data": Watched(training.data, part)} if METRICS.entry(name).traits.get("attacks") else {}
            figures[name] = measure_metric(name, frozen=training.frozen, **known | seen)
        result: dict[str, Any] = {
            "method": self.options.run.method,
            "seed": self.options.run.seed,
            "top1": top1[-1],
            "top1_median10": statistics.median(top1[-10:]),
            "top1_best": None if chosen is None else chosen["test_top1"],
            **more,
            **figures,
            "seconds": seconds,
            "seconds_per_epoch": seconds / len(epochs),
            "peak_memory_mb": peak_memory_mb(training.device),
            "reward_mean": epochs[min(training.mixed_epochs, len(epochs)) - 1].get("reward_mean"),
        }
        self.run.finish(result)
        self.callbacks.call("on_end", result)
        calibration = f", calibration error {result['ece']:.2f} %" if "ece" in result else ""
        averaged = f", averaged {result['top1_ema']:.2f} %" if "top1_ema" in result else ""
        self.progress.say(f"test top-1 {result['top1']:.2f} %{averaged}{calibration}, {seconds:.0f} s: {self.run.folder}")
        return result

    def _save(self, trained: dict[str, Any], best: bool = False, behind: bool = False) -> None:
        if not self.ranks.first:
            return
        self._pause()
        over = trained["trained"] == self.task.training.steps_per_epoch
        state = {
            "epoch": trained["epoch"] if over else trained["epoch"] - 1,
            "steps": 0 if over else trained["trained"],
            "config": self.options.as_dict(),
            "data": self._data,
            "seconds": self._training_seconds,
            "training": trained,
        }
        behind = behind and writes_behind(self.task.training.device) and not self.callbacks.hear("on_checkpoint")
        self.callbacks.call("on_checkpoint", self.run.save_checkpoint(state | self.task.deciders(), best, behind))
        self._resumed_at = time.perf_counter()

    def _stop_reason(self) -> Interrupted | None:
        """Why to stop, where any rank was asked to."""
        own = self.stop.reason
        code = self.ranks.largest(0 if own is None else own.code)
        return own or (Interrupted("another rank was asked to stop", code) if code else None)

    def _log_steps(self) -> None:
        """Where that many steps are over, what they were like; TensorBoard shows the first one too, so that nobody waits for a point."""
        training, process, every = self.task.training, self.task.deciding, self.options.run.log_every
        first, due = training.global_step == 1, every and training.global_step % every == 0
        if not every or not (first or due):
            return
        steps = min(every, training.trained)
        figures = training.step_metrics(steps) | ({} if process is None else process.step_metrics(steps))
        if self.ranks.first:
            self.run.log_steps(training.global_step, figures)
        if self.ranks.first and due:
            line = {"step": training.global_step, "epoch": training.epoch, **figures}
            self.callbacks.call("on_log", line, before_raising=lambda: self._save(self.task.trained()))

    def _log_mixing(self, process: MixingProcess, top_k: Tensor) -> None:
        if not self.ranks.first:
            return
        epoch, step, every = self._record["epoch"], self._record["step"], self.options.run.picture_every
        self.run.writer.add_histogram(TAGS["top_k_values"].name, top_k, step)
        if every and (epoch % every == 0 or epoch in (1, self.options.optim.epochs)):
            picture = paste_strips(batch_strips(process))
            self.run.writer.add_image(TAGS["picture"].name, picture, step, dataformats="HWC")

    def _pause(self) -> None:
        if self.task.training.device.type == "cuda":
            _synchronize(self.task.training.data.mean)
        self._training_seconds += time.perf_counter() - self._resumed_at


def _synchronize(tensor: Tensor) -> None:
    tensor.sum().item()
