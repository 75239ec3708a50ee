"""Several processes of one training, through torchrun."""

import os
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from rlmix.experiments.stopping import SIGNALS


def launch(args: Sequence[str], devices: int, nodes: int) -> None:
    """Run ``rlmix train`` once a device; exits as the first process that fails.

    Raises:
        ValueError: If several nodes are asked for and the environment does not say which is which.
    """
    where = ["--standalone"]
    if nodes > 1:
        missing = [name for name in ("MASTER_ADDR", "NODE_RANK") if name not in os.environ]
        if missing:
            raise ValueError(f"nodes must be 1 unless {' and '.join(missing)} is set, got {nodes}")
        address, port, rank = os.environ["MASTER_ADDR"], os.environ.get("MASTER_PORT", "29500"), os.environ["NODE_RANK"]
        where = ["--nnodes", str(nodes), "--node-rank", rank, "--master-addr", address, "--master-port", port]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    heard = [number.name for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    os.environ["PET_SIGNALS_TO_HANDLE"] = ",".join(heard)  # torchrun's own list, to hand on, lacks SIGUSR1 among others
    try:
        torchrun([*where, "--nproc-per-node", str(devices), "-m", "rlmix.scripts.main", "train", *args])
    except SignalException as stop:
        sys.exit(128 + stop.sigval)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        code = failure.exitcode
        sys.exit(code if code >= 0 else 128 - code)  # the process itself has said why
