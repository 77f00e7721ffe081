"""How the benchmarks measure: times alternating in one run, memory in a process of its own."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

import torch


def alternate(calls, repeats=7):
    """Median seconds of each call, after a warm-up, in turns: what slows the machine slows all.

    Arguments
    ---------
    calls : dict
        Functions without arguments, by name.
    repeats : int
        Timings of each.

    Returns
    -------
    seconds : dict
        Median by name.
    """
    synchronise = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    timings = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            synchronise()
            time.sleep(0.02)  # OpenMP threads of the call before spin for a while
            began = time.perf_counter()
            call()
            synchronise()
            if repeat > 0:
                timings[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in timings.items()}


def extra_mb(call):
    """Megabytes that a call adds to this process at its peak; Linux only."""

    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")  # the peak starts again from what is resident now
    before = _status_mb("VmRSS")
    call()
    return peak_mb() - before


def peak_mb():
    """Megabytes of this process at its peak; Linux only."""
    return _status_mb("VmHWM")


def _status_mb(key):
    with open("/proc/self/status", encoding="utf-8") as file:
        return int(re.search(rf"{key}:\s+(\d+)", file.read())[1]) / 1024


def in_process(program, *arguments):
    """Runs a program of this folder with other arguments, and reads the JSON that it prints."""
    command = [sys.executable, program, *map(str, arguments)]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def busy_process():
    """A second process that keeps one core busy."""
    spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spin.kill()
        spin.wait()


def machine():
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = re.search(r"model name\s*: (.*)", file.read())[1]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    vector = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {os.cpu_count()} cores, {vector}; {gpu}; torch {torch.__version__}"


def print_table(title, rows):
    """Rows (dicts with the same keys) as a table."""
    print(f"\n{title}")
    cells = [list(rows[0]), *([format_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for row in cells:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths))
        print("  " + "  ".join([row[0].ljust(widths[0]), *rest]), flush=True)


def format_cell(value):
    """Three digits of a number, and a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
