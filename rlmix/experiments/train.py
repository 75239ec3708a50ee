"""A training from its first step, or its last checkpoint, to its result."""

import os
import shlex
from typing import Any

from rlmix.common.ranks import Ranks, leave, peers
from rlmix.common.saved_config import read_config
from rlmix.experiments.resuming import check_resumable
from rlmix.experiments.session import Session, Task
from rlmix.experiments.settings import Train
from rlmix.experiments.stopping import StopRequest
from rlmix.training.allocator import keep_freed_memory
from rlmix.training.run_folder import Run, check_free


def train(options: Train, *, quiet: bool = False) -> dict[str, Any]:
    """Run a training to its end and give its result.json.

    Raises:
        ValueError: If an option is out of range, or not that of the run to resume; nothing has been written then.
        OSError: If the data or the run's folder cannot be used.
        FloatingPointError: If the loss or a gradient stops being finite.
        ConnectionError: If another process of the same training is gone.
        Interrupted: If a signal or the time limit stopped it; a checkpoint holds everything up to the step.
    """
    keep_freed_memory()
    options = options.resolved()
    if options.resume is None:
        check_free(options.folder, options.overwrite)
    if (options.devices or 1) * options.nodes > 1 and "WORLD_SIZE" not in os.environ:
        raise ValueError(f"devices and nodes must be 1 but for the command rlmix train, got {options.devices}, {options.nodes}")
    with StopRequest(options.time_limit) as stop:
        result = _train(options, stop, quiet)
    leave()
    return result


def _train(options: Train, stop: StopRequest, quiet: bool) -> dict[str, Any]:
    task = Task(options)
    ranks = task.training.ranks
    run = _resume(options, task) if options.resume is not None else _start(options, ranks)
    session = Session(run, options, task, stop, quiet)
    try:
        with session.progress, peers(ranks):
            task.fit(session)
            result = session.finish()
            ranks.any(False)  # the others wait for rank 0's last measurements
        return result
    except (KeyboardInterrupt, FloatingPointError, OSError) as error:
        if not ranks.first and not isinstance(error, OSError):
            raise SystemExit(getattr(error, "code", 2)) from error  # rank 0 says it
        error.add_note(run.describe_kept(options.epochs))
        if not isinstance(error, FloatingPointError):  # which comes again, to the bit
            error.add_note(f"go on with: rlmix train --resume {shlex.quote(str(run.folder))}")
        raise
    finally:
        run.close()


def _start(options: Train, ranks: Ranks) -> Run:
    return Run.create(options.folder, options.as_dict(), options.overwrite) if ranks.first else Run(options.folder, [])


def _resume(options: Train, task: Task) -> Run:
    """Bring the task to where the run's newest checkpoint was taken."""
    run, state = Run.reopen(options.folder)
    check_resumable(options, task.training, read_config(options.folder), state)
    if state is not None:
        task.load_state_dict(state)
    if task.training.ranks.first:
        run.rewrite_metrics()
        run.write_config(options.as_dict())
    return run
