"""A training from its first step, or its last checkpoint, to its result."""

import contextlib
import os
import shlex
from collections.abc import Sequence
from typing import Any

from torch import nn

from rlmix.common.ranks import Ranks, leave, peers
from rlmix.common.saved_config import read_config
from rlmix.config import Config
from rlmix.data.dataset import Dataset
from rlmix.data.own import settle_given
from rlmix.experiments.callbacks import CallbackError, Callbacks
from rlmix.experiments.loggers import build_logger
from rlmix.experiments.patience import Patience
from rlmix.experiments.result import Result
from rlmix.experiments.resuming import check_resumable
from rlmix.experiments.session import Session
from rlmix.experiments.settings import settled
from rlmix.experiments.stopping import StopRequest
from rlmix.experiments.summary import summary
from rlmix.experiments.task import Task
from rlmix.models.given import Make, giving, name_of
from rlmix.reporting.output import make_console
from rlmix.training.allocator import keep_freed_memory
from rlmix.training.checkpoints import list_checkpoints
from rlmix.training.run_folder import Run, check_free


def train(
    options: Config,
    data: Dataset | tuple[Any, Any] | None = None,
    callbacks: Sequence[Any] = (),
    *,
    model: nn.Module | Make | None = None,
    quiet: bool = False,
) -> Result:
    """Run a training to its end.

    Args:
        options: What is trained, on what, how, who decides, and where the run lies. With ``run.resume`` a run goes on.
        data: The data set, where it is loaded already; or ``(train, test)``, two torch data sets of (image, label) or pairs of images and
            labels, see :func:`rlmix.data.own.settle_given`; what ``options`` name otherwise.
        callbacks: Each a :class:`~rlmix.experiments.callbacks.Callback`. One that raises stops the run, as SIGTERM does.
        model: The classifier, a module, of which a copy is trained from the weights that it has, or a function that makes one, called as
            ``--model module:function`` is; what ``options`` name otherwise. A function that other processes can import is known by its
            name from then on; anything else must be given again to go on with the run, or to open it.
        quiet: Print nothing.

    Returns:
        What result.json holds, and nothing of it under ``run.dry_run``; the run's folder, its configuration, and its epochs.

    Raises:
        ValueError: If an option is out of range, or not that of the run to resume; nothing has been written then.
        OSError: If the data or the run's folder cannot be used.
        FloatingPointError: If the loss or a gradient stops being finite.
        CallbackError: If a callback raised.
        ConnectionError: If another process of the same training is gone.
        Interrupted: If a signal or the time limit stopped it; a checkpoint holds everything up to the step.
    """
    keep_freed_memory()
    data, options = settle_given(data, options)
    options = settled(settle_model(model, options))
    if options.run.resume is None:
        check_free(options.folder, options.run.overwrite)
    if (options.device.devices or 1) * options.device.nodes > 1 and "WORLD_SIZE" not in os.environ:
        counts = f"{options.device.devices}, {options.device.nodes}"
        raise ValueError(f"devices and nodes must be 1 but for the command rlmix train, got {counts}")
    with StopRequest(options.run.time_limit) as stop, giving(model):
        own = [build_logger(name, options) for name in options.run.loggers]
        figures, epochs = _train(options, data, stop, quiet, Callbacks([*callbacks, *own]))
    leave()
    return Result(options.folder, options, figures, epochs)


def settle_model(model: nn.Module | Make | None, options: Config) -> Config:
    """The configuration with the name of a network that is given.

    Raises:
        ValueError: If it names another one, or ``model`` is none.
    """
    if model is None:
        return options
    name = name_of(model)
    if options.model.name not in (None, name):
        raise ValueError(f"model of the configuration must be left out where one is given, got {options.model.name}")
    return options.changed(model=name)


def _train(
    options: Config, data: Dataset | None, stop: StopRequest, quiet: bool, callbacks: Callbacks
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    resumed = options.run.resume is not None and bool(list_checkpoints(options.folder / "checkpoints"))
    task = Task(options.changed(weights=None) if resumed else options, data)  # the checkpoint has them
    ranks = task.training.ranks
    if options.run.patience is not None and "val" not in task.training.data.measured:
        raise ValueError(
            f"patience must go with a validation split (--val-fraction keeps one of the training images), got {options.run.patience}"
        )
    if options.run.dry_run:
        if options.run.resume is not None:
            _open(options, task)
        say(task, options, quiet)
        return {}, []
    run = _resume(options, task) if options.run.resume is not None else _start(options, ranks)
    say(task, options, quiet)
    session: Session | None = None
    try:
        session = Session(run, options, task, stop, quiet, callbacks)
        with session.progress, peers(ranks):
            with contextlib.suppress(Patience):
                if task.training.at_epoch_end:
                    session.check_patience()  # a run that goes on may have stopped before
                task.fit(session)
            result = session.finish()
            ranks.any(False)  # the others wait for rank 0's last measurements
        return result, run.epochs
    except (KeyboardInterrupt, FloatingPointError, OSError, CallbackError) as error:
        if not ranks.first and not isinstance(error, OSError):
            raise SystemExit(getattr(error, "code", 2)) from error  # rank 0 says it
        error.add_note(run.describe_kept(options.optim.epochs))
        if not isinstance(error, FloatingPointError):  # which comes again, to the bit
            error.add_note(f"go on with: rlmix train --resume {shlex.quote(str(run.folder))}")
        raise
    finally:
        run.close()


def say(task: Task, options: Config, quiet: bool) -> None:
    """Say what is about to be trained."""
    console = make_console(quiet=quiet or not task.training.ranks.first)
    loaded = [task.training.loaded] if task.training.loaded is not None else []
    for line in [*summary(options, task), *loaded]:
        console.print(line, soft_wrap=True)
    console.file.flush()


def _start(options: Config, ranks: Ranks) -> Run:
    return Run.create(options.folder, options.as_dict(), options.run.overwrite) if ranks.first else Run(options.folder, [])


def _open(options: Config, task: Task) -> Run:
    """Bring the task to where the run's newest checkpoint was taken; nothing is written."""
    run, state = Run.reopen(options.folder)
    check_resumable(options, task.training, read_config(options.folder), state)
    if state is not None:
        task.load_state_dict(state)
    return run


def _resume(options: Config, task: Task) -> Run:
    """Go on with the run."""
    run = _open(options, task)
    if task.training.ranks.first:
        if not task.training.finished:
            run.withdraw_result()
        run.rewrite_metrics()
        run.write_config(options.as_dict())
    return run
