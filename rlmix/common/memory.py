"""How much memory a device has left."""

import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on ``device``; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo") as handle:
            rows = dict(line.split(":", 1) for line in handle)
    except OSError:
        return None
    return 1024 * int(rows["MemAvailable"].split()[0]) if "MemAvailable" in rows else None
