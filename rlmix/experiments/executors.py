"""Where trainings run: one after the other in this process, several at once in processes of their own, or on a Ray cluster.

Whichever it is, a run leaves its result in its folder, and with the same number of threads the same result, bit for bit. Another number
of threads may sum in another order, and end elsewhere.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from rlmix.config import Config
from rlmix.experiments.commands.engine import EngineConfig, import_ray
from rlmix.experiments.overall import Overall
from rlmix.experiments.reliability import save_reliability
from rlmix.experiments.stopping import SIGNALS, put_back
from rlmix.experiments.train import train

STOP_SECONDS = 20
"""How long a training that is told to stop may take to close its files."""
LOOK_SECONDS = 2.0
"""Between two looks at how far trainings in other processes are."""
Outcomes = Iterator[tuple[str, str | None]]
"""The name of each run as it ends, and what went wrong, or None."""


class RunsFailedError(ValueError):
    """Some runs did not come to their end; the others did."""


def run_all(runs: Mapping[str, Config], options: EngineConfig, threads: int, quiet: bool = False) -> None:
    """Train each run to its end; its result and its reliability's bins lie in its folder then.

    A run that fails does not stop the others. Ctrl-C stops all of them; what they have done is kept.

    Raises:
        RunsFailedError: If any failed: which, and why.
    """
    failures: dict[str, str] = {}
    overall = Overall(runs, options.jobs > 1 or options.engine == "ray", quiet)
    try:
        with overall, closing(_choose(runs, options, threads, quiet, overall)) as outcomes:
            for name, error in outcomes:
                if error is not None:
                    failures[name] = error
                overall.end(name, error)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("the same command goes on from what is kept")
        raise
    if failures:
        what = "; ".join(f"{name}: {error}" for name, error in failures.items())
        raise RunsFailedError(f"{len(failures)} of {len(runs)} runs failed, the others are kept; {what}")


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """So many CPU threads inside, as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _choose(runs: Mapping[str, Config], options: EngineConfig, threads: int, quiet: bool, overall: Overall) -> Any:
    if options.engine == "ray":
        return _run_on_ray(runs, options, threads, overall.look)
    if options.jobs > 1:
        return _run_in_processes(runs, options.jobs, threads, overall.look)
    return _run_here(runs, threads, quiet, overall.begin)


def _attempt(run: Config, threads: int, quiet: bool) -> str | None:
    with using_threads(threads):
        try:
            train(run, quiet=quiet)
            save_reliability(run.folder)
        except Exception as error:  # whatever a driver, a library or somebody's own code stumbles over; the other runs go on
            if os.environ.get("RLMIX_TRACEBACK"):
                traceback.print_exc()
            return reason(error)
    return None


def reason(error: Exception) -> str:
    """An error in a line; of those that are not meant for people, cut short and with their kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError | FloatingPointError) else f"{type(error).__name__}: {text[:200]}"


def _run_here(runs: Mapping[str, Config], threads: int, quiet: bool, begin: Callable[[str], None]) -> Outcomes:
    for name, run in runs.items():
        begin(name)
        yield name, _attempt(run, threads, quiet)


def _run_in_processes(runs: Mapping[str, Config], jobs: int, threads: int, look: Callable[[Iterable[str]], None]) -> Outcomes:
    context = _context()
    waiting = list(runs.items())
    running: dict[Any, tuple[str, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, run = waiting.pop(0)
                outcome, send = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(run, threads, send), name=name)
                with _only_terminated():
                    process.start()
                send.close()
                running[outcome] = name, process
            ready: list[Any] = wait(list(running), LOOK_SECONDS)
            look([name for name, _ in running.values()])
            for ended in ready:
                name, process = running.pop(ended)
                try:
                    error = ended.recv()
                except EOFError:
                    process.join()
                    error = f"its process ended with exit code {process.exitcode}"
                process.join()
                yield name, error
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join(STOP_SECONDS)
            process.kill()


def _context() -> Any:
    """Multiprocessing's context: copies of one that has imported everything, where there is such; a copy of this one cannot use CUDA."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlmix.experiments.train", "torch._dynamo", "stable_baselines3", "torch.utils.tensorboard"])
    return context


def _work(run: Config, threads: int, outcome: Connection) -> None:
    """A run's process.

    It stops like at Ctrl-C when it is terminated, and when its parent is gone. Other signals it ignores, see :func:`_only_terminated`.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        outcome.send(_attempt(run, threads, quiet=True))
    except KeyboardInterrupt:
        sys.exit(130)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _only_terminated() -> Iterator[None]:
    """A process started inside ignores all signals but SIGTERM: terminals and schedulers send theirs to all, and the parent decides."""
    ignored = [number for number in SIGNALS if number != signal.SIGTERM]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        yield
    finally:
        put_back(before)


def _run_on_ray(runs: Mapping[str, Config], options: EngineConfig, threads: int, look: Callable[[], None]) -> Outcomes:
    ray = import_ray()
    ray.init(address=options.ray_address, log_to_driver=False, logging_level="ERROR")
    task = ray.remote(num_cpus=threads, num_gpus=options.ray_gpus, max_retries=0)(_work_on_ray)
    waiting: dict[Any, str] = {}
    try:
        waiting |= {task.remote(run, threads, os.getcwd()): name for name, run in runs.items()}
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=LOOK_SECONDS)
            look()
            for done in ready:
                name = waiting.pop(done)
                try:
                    error = ray.get(done)
                except ray.exceptions.RayError as lost:
                    error = str(lost)
                yield name, error
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _work_on_ray(run: Config, threads: int, directory: str) -> str | None:
    os.chdir(directory)  # relative paths mean there what they mean here
    return _attempt(run, threads, quiet=True)
