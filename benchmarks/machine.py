"""Facts of the machine that figures hang on; nothing that says whose it is."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import gives_memory_back
from benchmarks.result import Fact
from converter import __version__
from converter.cores import available_cores

_PACKAGES = ("torch", "numpy", "safetensors")


def facts(scratch: Path) -> dict[str, Fact]:
    """Return cores, memory, versions, and the file system of the scratch directory."""
    return {
        "converter": __version__,
        "cores": available_cores(),
        "cpu": _cpu(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "file_system": _file_system(scratch),
        "freed_memory": "goes back to the host" if gives_memory_back() else "stays",
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "openssl": _openssl(),
    }


def _cpu() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _memory_gib() -> int:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError, OSError):
        return 0


def _file_system(scratch: Path) -> str:
    """Return the type of the file system that holds a directory: the longest mount that fits."""
    found, kind = -1, "unknown"
    place = scratch.resolve()
    for line in _lines(Path("/proc/mounts")):
        _, mount, fstype, *_ = line.split()
        if place.is_relative_to(mount) and len(mount) > found:
            found, kind = len(mount), fstype
    return kind


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _openssl() -> str:
    try:
        said = subprocess.run(["openssl", "version"], capture_output=True, text=True).stdout
    except OSError:
        return "not installed"
    return " ".join(said.split()[1:2]) or "unknown"
