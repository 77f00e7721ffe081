"""The memory that a machine has for a run, and what a process needs of it."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

GIB = 2**30
UNLIMITED = 2**60  # version 1 of cgroups says a number above it for "no limit"
# The usage and the limit of a control group, of version 2 and version 1; both are often seen at
# the root of the mount, since a container sees its own group there.
CGROUP_FILES = (
    ("memory.current", "memory.max", "memory.stat", "inactive_file"),
    ("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.stat", "total_inactive_file"),
)


class Capacity(NamedTuple):
    """Memory for a run.

    Attributes
    ----------
    total : int
        Bytes of the machine, of its container's limit, or of the GPU.
    available : int
        Bytes that are free now.
    name : str
        What they belong to: ``this machine``, ``this container``, a GPU's name.
    """

    total: int
    available: int
    name: str


def machine_capacity(root: str | os.PathLike[str] = "/") -> Capacity | None:
    """The main memory, within the limit of the control group that this process is in.

    What this process holds counts as free: a plan ends before its run begins.

    Arguments
    ---------
    root : str
        Holds ``proc`` and ``sys``.

    Returns
    -------
    capacity : Capacity or None
        None where the system has no ``/proc/meminfo``.

    Example
    -------
    >>> root = getfixture("tmp_path")
    >>> (root / "proc").mkdir()
    >>> _ = (root / "proc/meminfo").write_text("MemTotal: 2048 kB\\nMemAvailable: 1024 kB\\n")
    >>> machine_capacity(root)
    Capacity(total=2097152, available=1048576, name='this machine')
    """
    found = _kilobytes(Path(root, "proc/meminfo"))
    if "MemTotal" not in found:
        return None
    own = _kilobytes(Path(root, "proc/self/status")).get("RssAnon", 0)
    total = found["MemTotal"]
    free = found.get("MemAvailable", found.get("MemFree", total))
    capacity = Capacity(total, min(free + own, total), "this machine")
    for used, limit in _cgroup_limits(Path(root)):
        left = max(min(limit - used + own, limit), 0)
        if left < capacity.available or limit < capacity.total:
            capacity = Capacity(
                min(limit, capacity.total), min(left, capacity.available), "this container"
            )
    return capacity


def device_capacity(device: torch.device | str) -> Capacity | None:
    """The memory of a GPU; None for a CPU."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    # What torch has reserved here is free for the run, which is another process.
    return Capacity(
        total, free + torch.cuda.memory_reserved(device), torch.cuda.get_device_name(device)
    )


def _cgroup_limits(root: Path):
    """Usage and limit in bytes of each control group around this process that has a limit."""
    folders = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/memory"]
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory") or "memory" in controllers.split(","):
                base = folders[1 if controllers else 0]
                parts = Path(path.lstrip("/")).parts
                folders += [base.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
    for folder in folders:
        for names in CGROUP_FILES:
            with suppress(OSError, ValueError):  # the root group has no limit
                used, limit = (int((folder / name).read_text("utf-8")) for name in names[:2])
                # Pages of files that are not in use are given back before a process is killed.
                stat = (folder / names[2]).read_text("utf-8")
                cached = re.search(rf"^{names[3]} (\d+)$", stat, re.MULTILINE)
                if limit < UNLIMITED:
                    yield max(used - (int(cached[1]) if cached else 0), 0), limit


def data_bytes() -> int | None:
    """What this process has mapped for data, resident or not; None if the system does not say."""
    return _kilobytes(Path("/proc/self/status")).get("VmData")


def _kilobytes(path: Path) -> dict[str, int]:
    """The lines ``Name:  123 kB`` of a file of /proc, in bytes."""
    try:
        text = path.read_text("utf-8")
    except OSError:
        return {}
    return {name: 1024 * int(kb) for name, kb in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def in_gib(size: float) -> str:
    """Bytes for a reader.

    Example
    -------
    >>> in_gib(1.5 * GIB), in_gib(200 * 2**20)
    ('1.50 GiB', '0.20 GiB')
    """
    return f"{size / GIB:.2f} GiB" if size < 100 * GIB else f"{size / GIB:.0f} GiB"


class PeakMemory:
    """The most memory of this process, or of its GPU, since ``start``.

    On a CPU it is what the system counts as resident, libraries included: what the process is
    killed for. On a GPU it is what torch's allocator has reserved: another process cannot have it.

    Arguments
    ---------
    device : torch.device or str
        Where the modules are.

    Example
    -------
    >>> memory = PeakMemory("cpu")
    >>> memory.start()
    >>> _ = torch.ones(2**24)  # 64 MiB
    >>> memory.peak() > 2**26
    True
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"

    def start(self) -> None:
        """Forgets the peak so far, where the system can do that (Linux and CUDA)."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            # Elsewhere the peak is that of the process so far: batches that grow make it right.
            with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
                file.write("5")

    def peak(self) -> int:
        """The most bytes since ``start``."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_reserved(self.device)
        found = _kilobytes(Path("/proc/self/status"))
        if "VmHWM" in found:
            return found["VmHWM"]
        import resource  # Windows has none

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def now(self) -> int:
        """The bytes that are in use, or the peak where the system does not say."""
        if self.on_gpu:
            return torch.cuda.memory_reserved(self.device)
        return _kilobytes(Path("/proc/self/status")).get("VmRSS") or self.peak()

    def give_back(self) -> None:
        """Gives the system what the allocator only keeps for later."""
        if self.on_gpu:
            torch.cuda.empty_cache()
        elif sys.platform == "linux":
            import ctypes

            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
            if trim is not None:
                trim(0)
