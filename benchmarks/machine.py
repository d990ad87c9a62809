"""What a measurement's machine is, and whether others were using it meanwhile (Linux; elsewhere nothing is known)."""

import os
import time
from pathlib import Path
from typing import NamedTuple

SYSTEM = Path("/sys/devices/system/cpu/cpu0/cache")


def describe_cpu(system: Path = SYSTEM, information: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return the CPU's "model", with family and number where the name says little, and its "caches", a core's first."""
    if not information.exists():
        return {}
    pairs = (line.partition(":") for line in information.read_text().split("\n\n")[0].splitlines())
    known = {key.strip(): value.strip() for key, _, value in pairs}
    model = known.get("model name", "unknown")
    if "cpu family" in known:
        model += f" (family {known['cpu family']}, model {known['model']})"
    caches = []
    for index in sorted(system.glob("index*")):
        level, size, kind = ((index / name).read_text().strip() for name in ("level", "size", "type"))
        if kind != "Instruction":
            caches.append(f"L{level} {size.removesuffix('K')} KiB")
    return {"model": model, "caches": ", ".join(caches)}


class Usage(NamedTuple):
    """Seconds since some start."""

    elapsed: float
    busy: float | None  # of all cores, whoever used them, those taken away by other machines included; None: unknown
    own: float  # of this process, all threads

    def others_since(self, before: "Usage") -> float:
        """Return the share of the machine that others used between two times; 0 where it is not known."""
        if self.busy is None or before.busy is None:
            return 0.0
        taken = (self.busy - before.busy) - (self.own - before.own)
        return max(taken, 0.0) / max((self.elapsed - before.elapsed) * (os.cpu_count() or 1), 1e-9)


def usage(statistics: Path = Path("/proc/stat")) -> Usage:
    """Return what was used until now."""
    busy = None
    if statistics.exists():
        ticks = [int(value) for value in statistics.read_text().split("\n", 1)[0].split()[1:9]]
        idle, waiting = ticks[3:5]
        busy = (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")
    return Usage(time.perf_counter(), busy, time.process_time())
