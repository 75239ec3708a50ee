"""What somebody else may do while a training runs: log elsewhere, look, or stop it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlmix.training.trainer import Training


class CallbackError(ValueError):
    """A callback has raised; the run is stopped, and its newest checkpoint holds everything up to there."""


class Callback:
    """Override what you need; everything else does nothing. Of several processes of one training the first calls them.

    They are no part of the run's configuration: hand them over again where it is resumed.
    """

    def on_start(self, config: Mapping[str, Any], training: Training) -> None:
        """Before the first step; ``config`` is what config.yaml holds."""

    def on_step(self, training: Training) -> None:
        """After each step of the classifier; ``training.global_step`` counts them."""

    def on_log(self, figures: Mapping[str, Any]) -> None:
        """Every ``log_every`` steps; ``figures`` are ``step``, ``epoch``, and means over these steps: ``loss``, ``reward``, ``top_k``."""

    def on_rollout(self, figures: Mapping[str, Any], training: Training) -> None:
        """After each of an agent's updates, before that step's :meth:`on_step`; ``figures`` are the update's."""

    def on_epoch(self, record: Mapping[str, Any], training: Training) -> None:
        """After an epoch and the agent's update on it; ``record`` is the line of metrics.jsonl."""

    def on_checkpoint(self, path: Path) -> None:
        """After a checkpoint was written; on a GPU, where nobody has this method, training goes on meanwhile."""

    def on_end(self, result: Mapping[str, Any]) -> None:
        """After the last epoch; ``result`` is what result.json holds."""


class Callbacks:
    """Several, called in order.

    Args:
        callbacks: Each a :class:`Callback`, or any object with some of its methods.
    """

    def __init__(self, callbacks: Sequence[Any] = ()) -> None:
        self.callbacks = tuple(callbacks)
        for callback in self.callbacks:
            if not any(callable(getattr(callback, name, None)) for name in vars(Callback) if name.startswith("on_")):
                raise ValueError(f"callbacks must have methods such as on_epoch, got {type(callback).__name__}")

    def hear(self, name: str) -> bool:
        """Whether anyone has a method ``name`` of its own."""
        methods = [getattr(callback, name, None) for callback in self.callbacks]
        return any(getattr(method, "__func__", method) not in (None, getattr(Callback, name)) for method in methods)

    def call(self, name: str, *args: Any, before_raising: Callable[[], None] = lambda: None) -> None:
        """Call every one's method ``name``.

        Args:
            name: Of the method.
            args: What it takes.
            before_raising: Called where one raises, before that is passed on.

        Raises:
            CallbackError: If one raises an exception.
        """
        for callback in self.callbacks:
            method = getattr(callback, name, None)
            if method is None:
                continue
            try:
                method(*args)
            except Exception as error:  # whatever somebody's callback does
                before_raising()
                cause = f"{type(error).__name__}: {error}"
                raise CallbackError(f"callback {type(callback).__name__}.{name} must not raise, and raised {cause}") from error
