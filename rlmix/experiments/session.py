"""A run in progress: who watches what is trained."""

import statistics
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from rlmix.config import Config
from rlmix.envs.process import MixingProcess
from rlmix.evaluation.metrics import METRICS, measure_metric
from rlmix.experiments.batch_picture import batch_strips
from rlmix.experiments.callbacks import Callbacks
from rlmix.experiments.patience import Patience, exhausted
from rlmix.experiments.result import finite
from rlmix.experiments.stopping import Interrupted, StopRequest
from rlmix.experiments.task import Task
from rlmix.reporting.bar import Watched
from rlmix.reporting.progress import TrainingProgress
from rlmix.reporting.strips import paste_strips
from rlmix.training.board import TAGS
from rlmix.training.run_folder import Run, peak_memory_mb, writes_behind
from rlmix.training.trainer import Training


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
        known = [other["val_top1"] for other in self.run.epochs[:-1] if "val_top1" in other]
        best = "val_top1" in record and all(record["val_top1"] > other for other in known)
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
        result = finite(result)
        self.run.finish(result)
        self.callbacks.call("on_end", result)
        calibration = f", calibration error {result['ece']:.2f} %" if result.get("ece") is not None else ""
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
