"""One of two processes of ``rlmix train``, for test_ranks.py: ``exit_driver.py FOLDER OPTIONS``, under torchrun."""

import atexit
import os
import sys
from pathlib import Path

from rlmix.scripts.main import main


def gloo_threads() -> list[str]:
    """Names of this process's threads of gloo: there while a process group has an owner."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return sorted(name for name in names if "gloo" in name)


def tell(folder: Path) -> None:
    (folder / f"rank{os.environ['RANK']}.txt").write_text(" ".join(gloo_threads()))


if __name__ == "__main__":
    atexit.register(tell, Path(sys.argv[1]))  # what is registered first is called last
    main(["train", *sys.argv[2:]])
