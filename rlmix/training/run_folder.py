"""A run's folder: configuration, a line of metrics an epoch, TensorBoard events, checkpoints, the result."""

import contextlib
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import yaml

from rlmix.common.files import append, check_place, write_atomically, write_json
from rlmix.common.saved_config import read_config
from rlmix.training import board
from rlmix.training.background import Background
from rlmix.training.checkpoints import checkpoint_path, list_checkpoints, load_checkpoint, on_host, save_checkpoint

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

TABLES = {"epochs": "epochs.csv", "steps": "steps.csv"}
"""What a logger of tables leaves in a run's folder."""
RESULT, RELIABILITY = "result.json", "reliability.json"
"""What a run came to; one that goes on has come to nothing yet."""
EVALUATION, DIAGRAM = "evaluate.json", "reliability.png"
"""What rlmix evaluate writes beside them."""


class Run:
    """One run's folder. Make it with :meth:`create` or :meth:`reopen`.

    Attributes:
        folder: The folder.
        epochs: The lines of metrics.jsonl.
    """

    def __init__(self, folder: Path, epochs: list[dict[str, Any]]) -> None:
        self.folder, self.epochs = folder, epochs
        self.last: Path | None = None
        """The newest checkpoint."""
        self.kept = (len(epochs), 0)
        """What it holds: epochs done, and steps of the one after."""
        self._writing = Background()
        self.steps = epochs[-1]["step"] if epochs else 0
        """Of the classifier: what TensorBoard's points are over."""
        self._writer: SummaryWriter | None = None

    @classmethod
    def create(cls, folder: Path, config: dict[str, Any], overwrite: bool = False) -> Self:
        """Start a run in ``folder``.

        Raises:
            FileExistsError: If it holds a run already, without ``overwrite``.
            OSError: If it cannot be written.
        """
        check_free(folder, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*_run_files(folder), *(folder / "checkpoints").glob("*.pt")):
            old.unlink()
        run = cls(folder, [])
        run.write_config(config)
        return run

    @classmethod
    def reopen(cls, folder: Path) -> tuple[Self, dict[str, Any] | None]:
        """Go on with a run: the run, as its newest checkpoint knows it, and that checkpoint (None where there is none).

        A damaged newest checkpoint falls back to the one before, with a warning. Nothing is written before :meth:`rewrite_metrics`.

        Raises:
            FileNotFoundError: If ``folder`` holds no run.
            ValueError: If no checkpoint is readable, or the newest is none of a run.
        """
        read_config(folder)
        state, damage = None, []
        for path in reversed(list_checkpoints(folder / "checkpoints")):
            try:
                state = load_checkpoint(path)
                break
            except ValueError as error:
                damage.append(str(error))
        if damage and state is None:
            raise ValueError(f"{folder} has no readable checkpoint: {damage[0]}")
        for message in damage:
            warnings.warn(f"{message}; the one before it is used", stacklevel=2)
        if state is None:
            return cls(folder, []), None
        epoch, steps, records = (state.get(name) for name in ("epoch", "steps", "records"))
        if not (isinstance(epoch, int) and isinstance(steps, int) and isinstance(records, list) and len(records) == epoch):
            raise ValueError(f"{path} is not a checkpoint of a run: it does not say what has been done")
        run = cls(folder, records)
        run.last, run.kept = path, (epoch, steps)
        run.steps += steps
        return run, state

    def write_config(self, config: dict[str, Any]) -> None:
        """Write config.yaml."""
        text = yaml.safe_dump(config, sort_keys=False)
        write_atomically(self.folder / "config.yaml", lambda handle: handle.write(text.encode()))

    @property
    def writer(self) -> "SummaryWriter":
        """TensorBoard's writer; what came after the checkpoint that a run goes on from is purged."""
        if self._writer is None:
            from rlmix.training.events import EventWriter

            known = _names_of_today(self.folder)
            self._writer = EventWriter(self.folder, self.steps + 1)
            if not self.epochs or not known:
                self._writer.add_custom_scalars(board.LAYOUT)
                self._writer.add_text("about these charts", board.explanation())
            if not known:
                for record in self.epochs:  # begun by an earlier version, whose points keep their names beside these
                    self._draw(record)
        return self._writer

    def begin(self, config: dict[str, Any], results: list[str]) -> None:
        """Show the run in TensorBoard from its first step on.

        Args:
            config: By flat option.
            results: Names of the figures that :meth:`finish` will have.
        """
        for summary in board.session_start(config, results):
            self._events.add_summary(summary)

    def log_epoch(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl, and its numbers to TensorBoard, over the classifier's steps."""
        append(self.folder / "metrics.jsonl", json.dumps(record).encode() + b"\n")
        self._draw(record)
        self.epochs.append(record)

    def log_steps(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures of the steps up to ``step`` to TensorBoard."""
        self._draw(
            {"step": step} | {"step_learning_rate" if name == "learning_rate" else name: figures[name] for name in figures}
        )

    def log_update(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures of an agent's update after ``step`` to TensorBoard."""
        self._draw({"step": step, **figures})

    @property
    def _events(self) -> "FileWriter":
        events: FileWriter | None = self.writer.file_writer
        assert events is not None
        return events

    def _draw(self, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if name != "step" and not isinstance(value, list):
                self._events.add_summary(board.scalar(board.tag_of(name), value), record["step"])

    def describe_kept(self, epochs: int | None) -> str:
        """What the newest checkpoint holds of so many epochs, and where it lies."""
        with contextlib.suppress(OSError):  # a checkpoint that could not be written is none
            self.settle()
        done, steps = self.kept
        kept = f"{done} of {epochs} epochs" + (f" and {steps} step{'s' * (steps > 1)}" if steps else "") + " are kept"
        return f"{kept} in {self.last}" if self.last else kept

    def save_checkpoint(self, state: dict[str, Any], best: bool = False, behind: bool = False) -> Path:
        """Keep ``state``.

        Args:
            state: Its ``epoch`` is the number of epochs done, its ``steps`` that of steps after them.
            best: See :func:`rlmix.training.checkpoints.save_checkpoint`.
            behind: Return when ``state`` is copied to the host, and write it beside what comes next.

        Returns:
            Its file, which may not be there before :meth:`settle` where it is written ``behind``.

        Raises:
            OSError: If it cannot be written, or the one before could not be.
        """
        folder, epoch, steps = self.folder / "checkpoints", state["epoch"], state["steps"]
        self.settle()
        state = state | {"records": self.epochs}  # metrics.jsonl is made from them where a run goes on
        state = on_host(state) if behind else state

        def write() -> None:
            self.last, self.kept = save_checkpoint(folder, epoch, state, steps, best), (epoch, steps)

        if behind:
            self._writing.start(write)
        else:
            write()
        return checkpoint_path(folder, epoch, steps)

    def settle(self) -> None:
        """Wait until all checkpoints are written.

        Raises:
            OSError: If one could not be.
        """
        self._writing.settle()

    def finish(self, result: dict[str, Any]) -> None:
        """Write result.json, and its figures to TensorBoard, which end the run."""
        write_json(self.folder / RESULT, result)
        for name, value in result.items():
            if isinstance(value, float):
                self._events.add_summary(board.scalar(board.result_tag(name), value), self.epochs[-1]["step"])
        self._events.add_summary(board.session_end())
        self.close()

    def close(self) -> None:
        """Wait for what is still being written, and close TensorBoard's file."""
        try:
            self.settle()
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def withdraw_result(self) -> None:
        """Remove what the run came to, before it goes on: whoever finds it takes the run for finished."""
        for name in (RESULT, RELIABILITY):
            (self.folder / name).unlink(missing_ok=True)

    def rewrite_metrics(self) -> None:
        """Make metrics.jsonl what the checkpoint knows: lines after it are dropped, damaged ones mended."""
        text = "".join(json.dumps(record) + "\n" for record in self.epochs)
        write_atomically(self.folder / "metrics.jsonl", lambda handle: handle.write(text.encode()))


def writes_behind(device: torch.device) -> bool:
    """Whether checkpoints of a training on ``device`` are written beside it; on the CPU that would take from the cores that train."""
    return device.type != "cpu"


def check_free(folder: Path, overwrite: bool = False) -> None:
    """Raise FileExistsError where ``folder`` holds a run or a comparison, and OSError where it could not be made."""
    if (folder / "study.json").exists():
        raise FileExistsError(f"out must be a run's folder or a new one, and {folder} holds a comparison")
    if (folder / "config.yaml").exists() and not overwrite:
        raise FileExistsError(f"out must not hold a run already (or give --overwrite, or --resume {folder}), got {folder}")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"out must be a folder, got the file {folder}")
    check_place(folder, "out")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to the first broken one: a crash can leave a half line at the end."""
    path = folder / "metrics.jsonl"
    records: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict):
            break
        records.append(record)
    return records


def peak_memory_mb(device: torch.device) -> float | None:
    """Most memory used so far: of the GPU where there is one, else resident memory of the process; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _run_files(folder: Path) -> list[Path]:
    names = ("config.yaml", "metrics.jsonl", RESULT, RELIABILITY, EVALUATION, DIAGRAM, *TABLES.values())
    return [folder / name for name in names if (folder / name).exists()] + list(folder.glob("events.out.tfevents.*"))


def _names_of_today(folder: Path) -> bool:
    """Whether a run's events have today's tags: its custom layout, at the beginning of a file, names them."""
    wanted = board.TAGS["test_top1"].name.encode()
    for path in folder.glob("events.out.tfevents.*"):
        with open(path, "rb") as handle:
            if wanted in handle.read(2**16):
                return True
    return False
