"""TensorBoard's event files, written by who adds to them and at once.

The library's own writer has a thread, which meets a full disk alone: what it says is a traceback, and a record may stay half written.
"""

import io
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from rlmix.common.files import append

_numbers = itertools.count()


class EventFile:
    """A file of events, in place of tensorboard's EventFileWriter.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # files are read in the order of their names: with as many digits, the tenth of a second is after the ninth
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):06d}"
        self.path = folder / name
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def get_logdir(self) -> str:
        return str(self.path.parent)

    def add_event(self, event: Event) -> None:
        """Write an event, whole or not at all; OSError where it cannot be."""
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        append(self.path, record.getvalue())

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


class _Writer(FileWriter):
    def __init__(self, folder: Path) -> None:
        self.event_writer = EventFile(folder)


class EventWriter(SummaryWriter):
    """torch's SummaryWriter over an :class:`EventFile`.

    Args:
        folder: Where the file lies.
        purge_step: TensorBoard shows nothing of earlier files from this step on.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        super().__init__(str(folder), purge_step=purge_step)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            writer: Any = _Writer(Path(self.log_dir))
            every: Any = {writer.get_logdir(): writer}
            self.file_writer, self.all_writers = writer, every
            if self.purge_step is not None:
                writer.add_event(Event(step=self.purge_step, session_log=SessionLog(status=SessionLog.START)))
        return self.file_writer
