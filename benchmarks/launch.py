"""Run one command and say what it took, as one line of JSON.

A program of its own, without imports from here: on Linux the peak memory that the system reports
for a process is never below that of the one that started it, so a small one must start it.

    python -I -S launch.py <<< '{"command": ["true"], …}'      what launch() takes, by name
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import signal
import subprocess
import sys
import threading
import time

# Often enough to see a process that works for a second, seldom enough to cost nothing.
_SAMPLE_SECONDS = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
# Linux counts ru_maxrss in KiB, macOS in bytes.
_MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def resident_bytes(pid: int) -> int:
    """Return the memory of one process, mapped pages included; 0 when it is gone or unknown."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for process in found:  # it grows while it is read
        for path in glob.glob(f"/proc/{process}/task/*/children"):
            try:
                with open(path) as file:
                    found += map(int, file.read().split())
            except OSError:
                continue
    return found


def watch(pid: int, limit_seconds: float, ended: threading.Event, peaks: list[int]) -> None:
    """Append the memory of the tree at every sample of several processes; end it at the limit."""
    last = time.monotonic() + limit_seconds
    while not ended.wait(_SAMPLE_SECONDS):
        processes = tree(pid)
        if len(processes) > 1:
            peaks.append(sum(map(resident_bytes, processes)))
        if time.monotonic() > last:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def launch(
    command: list[str],
    *,
    folder: str,
    environment: dict[str, str],
    output: str,
    errors: str,
    limit_seconds: float,
) -> dict[str, float]:
    """Run a command to its end in a folder, its output to files, and return what it took."""
    ended, peaks = threading.Event(), [0]
    with open(output, "wb") as stdout, open(errors, "wb") as stderr:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
        watcher = threading.Thread(target=watch, args=(process.pid, limit_seconds, ended, peaks))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    ended.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "exit_code": process.returncode,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": max(usage.ru_maxrss * _MAXRSS_UNIT_BYTES, *peaks),
    }


if __name__ == "__main__":
    print(json.dumps(launch(**json.load(sys.stdin))))
