"""A cluster of Ray: found, or started on this machine and ended again. Needs the extra ``ray``."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from converter.cores import available_cores
from converter.errors import ExecutionError, UsageError
from converter.signals import Stopped, held_back

LOCAL = "local"
ADDRESS_VARIABLE = "RAY_ADDRESS"

# Ray reads these when it is imported. Nothing is reported to its makers, and it prints nothing
# between the lines of an answer: what matches is skipped of what it has to say about workers.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
_LOCAL_ENVIRONMENT = {
    # Its name is of other platforms; on all it has the processes of a cluster listen to their own
    # machine alone. Source: Ray 2.60, _private/services.py, get_node_ip_address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # As urgent as this process, whose work they do; Ray's own choice is 15.
    "RAY_worker_niceness": "0",
}

# What tasks are told and answer is small. Ray takes no less than 75 MiB.
_STORE_BYTES = 128 << 20

_CONNECT_SECONDS = 10.0

# Ray makes sockets some 70 characters below its directory; a socket's path has at most 103.
_LONGEST_PARENT = 16


def require_ray() -> None:
    """Raise ExecutionError unless Ray is installed."""
    if importlib.util.find_spec("ray") is None:
        raise ExecutionError(
            "--executor ray needs the package ray, which is not installed",
            code="extra",
            hint="pip install 'checkpoint-converter[ray]'",
        )


@contextmanager
def connected(address: str | None, *, cores: int) -> Iterator[Any]:
    """Yield the package, connected to the cluster at ``address``, by default that of RAY_ADDRESS.

    ``auto`` is the one that runs on this machine, ``local`` a new one of its own, which has all
    cores of this machine, at least ``cores``, and is ended with all its processes. Where neither
    an address nor the variable is given, ``local`` is meant. A program that is connected already
    stays so, to the cluster that it has. Raises UsageError for an address that cannot be one, and
    ExecutionError.
    """
    address = address or os.environ.get(ADDRESS_VARIABLE) or LOCAL
    if "://" in address:
        raise UsageError(
            "not an address of Ray that a conversion can be spread from",
            expected="HOST:PORT, auto or local",
            got=address,
            hint="run it on a machine of the cluster; --ray-address counts before RAY_ADDRESS",
        )
    with ExitStack() as stack:
        stack.enter_context(_environment(_ENVIRONMENT))
        if address == LOCAL:
            stack.enter_context(_environment(_LOCAL_ENVIRONMENT))
        ray = _import()
        if not ray.is_initialized():
            stack.enter_context(_silenced())
            stack.enter_context(_session(ray, address, max(cores, available_cores())))
        yield ray


def _import() -> Any:
    require_ray()
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ExecutionError("Ray cannot be imported", code="extra", got=str(error)) from error


@contextmanager
def _session(ray: Any, address: str, cores: int) -> Iterator[None]:
    options: dict[str, Any] = {}
    with ExitStack() as stack:
        if address == LOCAL:
            folder = _short_folder()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            options = {
                "num_cpus": cores,
                "num_gpus": 0,
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_temp_dir": folder,
            }
        stack.callback(_quietly, ray.shutdown)
        # What is half started is not known yet to what ends it.
        with held_back() if address == LOCAL else nullcontext():
            _start(ray, address, options)
        yield


def _start(ray: Any, address: str, options: Mapping[str, Any]) -> None:
    try:
        with _own_signals():
            if address != LOCAL:
                _require_listener(address)
            ray.init(address=address, configure_logging=False, log_to_driver=False, **options)
    except SystemExit as error:  # of its handler, which _own_signals takes away again
        raise Stopped(signal.SIGTERM) from error
    except Exception as error:  # Ray promises no kind of its own
        local = address == LOCAL
        raise ExecutionError(
            "a local cluster of Ray cannot be started" if local else "no cluster of Ray is there",
            code="ray",
            where=None if local else address,
            got=" ".join(str(error).split()),
            hint=None if local else "ray status shows what is there; --ray-address names another",
        ) from error


def _require_listener(address: str) -> None:
    """Raise OSError unless someone listens where Ray would connect to: it would try for minutes."""
    services = importlib.import_module("ray._private.services")
    host, _, port = services.canonicalize_bootstrap_address(address).rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def _quietly(shutdown: Any) -> None:
    with held_back(), _own_signals():
        shutdown()


def _short_folder() -> str:
    """Make a directory for the files of a cluster, by a path that leaves room for its sockets."""
    parent = tempfile.gettempdir()
    if os.name == "posix" and len(parent) > _LONGEST_PARENT:
        parent = "/tmp"
    return tempfile.mkdtemp(prefix="convert-ray-", dir=parent)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables; afterwards all of Ray's, those that it sets too, are what they were."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            if name not in before:
                del os.environ[name]
        os.environ.update(before)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep Ray's log to itself: what matters is told by errors of our own."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Let SIGTERM mean what it meant before: Ray gives it a meaning of its own."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
