"""The family of loggers: callbacks that write a run's figures somewhere else than into its folder and TensorBoard."""

import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlmix.common.files import append, write_atomically
from rlmix.common.registry import Registry
from rlmix.config import Config
from rlmix.experiments.callbacks import Callback
from rlmix.training.run_folder import TABLES
from rlmix.training.trainer import Training

LOGGERS: Registry[Callable[[Path], Any]] = Registry("loggers")
"""Called with the run's folder; they give a :class:`~rlmix.experiments.callbacks.Callback`, or an object with some of its methods."""


def build_logger(name: str, config: Config) -> Any:
    """The logger called so, of a run.

    Raises:
        ValueError: If there is none, it cannot be called, or needs a package that is not installed.
    """
    make: Any = LOGGERS[name]
    if not callable(make):
        raise ValueError(f"loggers {name} must be a class or a function of the run's folder, got {type(make).__name__}")
    try:
        return make(config.folder)
    except ValueError:
        raise
    except Exception as error:  # whatever somebody's logger does
        cause = f"{type(error).__name__}: {error}"
        raise ValueError(f"loggers {name} must be made of the run's folder alone, and raised {cause}") from error


@LOGGERS.register("csv")
class CSVLogger(Callback):
    """Tables for spreadsheets: epochs.csv, and steps.csv with a line every ``log_every`` steps.

    Lines after the checkpoint that a run goes on from are dropped.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}

    def on_start(self, config: Mapping[str, Any], training: Training) -> None:
        for name in self.rows:
            path = self.folder / TABLES[name]
            if path.exists() and training.global_step:
                with open(path, newline="") as handle:
                    rows = [row for row in csv.DictReader(handle) if None not in row.values()]  # a crash can leave half a line
                self.rows[name] = [row for row in rows if int(row["step"]) <= training.global_step]
                self._write_all(name)
            else:
                path.unlink(missing_ok=True)

    def on_log(self, figures: Mapping[str, Any]) -> None:
        self._write("steps", dict(figures))

    def on_epoch(self, record: Mapping[str, Any], training: Training) -> None:
        self._write("epochs", {name: value for name, value in record.items() if not isinstance(value, list)})

    def _write(self, name: str, row: dict[str, Any]) -> None:
        rows = self.rows[name]
        rows.append(row)
        if len(rows) == 1 or not row.keys() <= rows[0].keys():  # a new file, or a new column
            rows[0] = dict.fromkeys([*rows[0], *row], "") | rows[0]
            self._write_all(name)
            return
        line = io.StringIO()
        csv.DictWriter(line, list(rows[0]), restval="", lineterminator="\n").writerow(row)
        append(self.folder / TABLES[name], line.getvalue().encode())

    def _write_all(self, name: str) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[name][0]) if self.rows[name] else [], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[name])
        write_atomically(self.folder / TABLES[name], lambda handle: handle.write(text.getvalue().encode()))


@LOGGERS.register("wandb")
class WandbLogger(Callback):
    """Weights & Biases: steps, epochs, the agent's updates and the result of a run.

    The run is called after its folder, and goes on where the training does. Set WANDB_MODE=offline, WANDB_PROJECT and the like as ever.

    Args:
        folder: The run's.
        options: For ``wandb.init``.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ValueError('loggers wandb must have wandb installed: pip install "rlmix[wandb]"') from error
        self.wandb, self.folder, self.options = wandb, Path(folder), options
        self.run: Any = None

    def on_start(self, config: Mapping[str, Any], training: Training) -> None:
        name = str(self.folder.resolve())[-100:].replace(os.sep, "-").strip("-")
        project = os.environ.get("WANDB_PROJECT", "rlmix")
        defaults = {"project": project, "name": self.folder.name, "id": name, "resume": "allow", "dir": str(self.folder)}
        self.run = self.wandb.init(config=dict(config), **(defaults | self.options))

    def on_log(self, figures: Mapping[str, Any]) -> None:
        self.run.log({f"steps/{name}": value for name, value in figures.items() if name != "step"}, step=figures["step"])

    def on_rollout(self, figures: Mapping[str, Any], training: Training) -> None:
        self.run.log({f"agent/{name}": value for name, value in figures.items()}, step=training.global_step)

    def on_epoch(self, record: Mapping[str, Any], training: Training) -> None:
        figures = {f"epochs/{name}": value for name, value in record.items() if not isinstance(value, list)}
        self.run.log(figures, step=record["step"])

    def on_end(self, result: Mapping[str, Any]) -> None:
        self.run.summary.update({f"result/{name}": value for name, value in result.items()})
        self.run.finish()


@LOGGERS.register("mlflow")
class MLflowLogger(Callback):
    """MLflow: parameters, steps, epochs and the result of a run, where MLFLOW_TRACKING_URI says, or in ./mlruns.

    Args:
        folder: The run's, after which it is called.
        experiment: Under which experiment.
    """

    def __init__(self, folder: Path, experiment: str = "rlmix") -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ValueError('loggers mlflow must have mlflow installed: pip install "rlmix[mlflow]"') from error
        self.mlflow, self.folder, self.experiment = mlflow, Path(folder), experiment
        self.run_id = ""

    def on_start(self, config: Mapping[str, Any], training: Training) -> None:
        client = self.client = self.mlflow.MlflowClient()
        known = client.get_experiment_by_name(self.experiment)
        place = client.create_experiment(self.experiment) if known is None else known.experiment_id
        mark = str(self.folder.resolve())
        found = client.search_runs([place], f"tags.`rlmix.folder` = '{mark}'") if training.global_step else []
        run = found[0] if found else client.create_run(place, run_name=self.folder.name, tags={"rlmix.folder": mark})
        self.run_id = run.info.run_id
        if not found:
            for name, value in config.items():
                client.log_param(self.run_id, name, str(value)[:500])

    def on_log(self, figures: Mapping[str, Any]) -> None:
        self._log("steps", figures, figures["step"])

    def on_rollout(self, figures: Mapping[str, Any], training: Training) -> None:
        self._log("agent", figures, training.global_step)

    def on_epoch(self, record: Mapping[str, Any], training: Training) -> None:
        self._log("epochs", record, record["step"])

    def on_end(self, result: Mapping[str, Any]) -> None:
        self._log("result", result, 0)
        self.client.set_terminated(self.run_id)

    def _log(self, group: str, figures: Mapping[str, Any], step: int) -> None:
        for name, value in figures.items():
            if isinstance(value, int | float):
                self.client.log_metric(self.run_id, f"{group}/{name}", float(value), step=step)
