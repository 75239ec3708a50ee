"""How many trainings run at once, and where."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rlmix.common.groups import check_values
from rlmix.common.ranges import at_least


@dataclass(frozen=True)
class EngineConfig:
    """How many trainings run at once, and where."""

    jobs: Annotated[int, at_least(1)] = 1
    """Trainings at once, each in a process of its own."""
    threads: Annotated[int | None, at_least(1)] = None
    """CPU threads of each training. This process's, divided among the jobs, where not given. A comparison that goes on keeps its number:
    results are the same to the bit for the same number, whatever --jobs and --engine."""
    engine: Literal["local", "ray"] = "local"
    """local, or ray (pip install "rlmix[ray]"). With Ray every run is a task of a cluster; the folder and the data must lie on storage that
    all its nodes share, under the same path."""
    ray_address: str | None = None
    """Of a running cluster, such as auto or ray://HOST:10001. Ray is started on this machine where not given."""
    ray_gpus: Annotated[float, at_least(0)] = 0
    """GPUs that Ray sets aside for a run."""

    def check_engine(self) -> None:
        """Raise ValueError where a value is out of range."""
        check_values(self)
        if self.engine == "ray":
            import_ray()


def import_ray() -> Any:
    """Give the package, or raise ValueError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise ValueError('engine ray must have Ray installed: pip install "rlmix[ray]"') from error
    return ray
