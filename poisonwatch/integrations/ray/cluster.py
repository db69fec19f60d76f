"""A Ray cluster: how it is reached, or started for one audit, and what is said where it cannot be.

Ray is imported when it is needed: it takes seconds, and few audits do.
"""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from poisonwatch.compute_config import ComputeConfig
from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.text.display import get_first_line

# Of what Ray asks the environment for: no reports to its makers, no warnings on the terminal.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

# Seconds: Ray itself asks an address that does not answer again and again, without end.
SOCKET_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 60.0

# Of a Ray that is started here: rows and records do not go through it.
OBJECT_STORE_BYTES = 100 * 2**20

# Joins a cluster and leaves it again.
JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)"


@dataclass(frozen=True, slots=True)
class Pool:
    """How many workers there are, and the CPUs and GPUs that each takes."""

    workers: int
    cpus: int
    gpus: int


def require_ray() -> None:
    """Raises ConfigError where Ray is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "compute: ray needs the extra `ray`: pip install 'poisonwatch[ray]', "
            "or write compute: local"
        ) from error


@contextmanager
def connect(compute: ComputeConfig) -> Iterator[None]:
    """Be part of a cluster while the block lasts: of the one this process is part of already, of
    the one that `compute.address` or RAY_ADDRESS names, or of one that is started now and ends with
    the block.

    Raises ConfigError where Ray is not installed, OperationError where the cluster does not answer
    within a minute, or none can be started.
    """
    require_ray()
    import ray

    _silence()
    # Whoever joined it leaves it.
    if ray.is_initialized():
        yield
        return
    address = compute.address or os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        if address:
            check_reachable(address)
            options: dict[str, Any] = {"address": address}
        else:
            options = stack.enter_context(_prepare_own_cluster(compute))
        # Ray takes the signal for itself.
        with _keep_handler(signal.SIGTERM), _mute_stderr():
            try:
                ray.init(log_to_driver=False, configure_logging=False, **options)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                ray.shutdown()
                raise OperationError(f"Ray cannot be used: {get_first_line(error)}") from error
        stack.callback(ray.shutdown)
        yield


def check_reachable(address: str, seconds: float = CONNECT_TIMEOUT_S) -> None:
    """Raises OperationError where no cluster answers at the address in this time, ConfigError where
    it is no address.
    """
    advice = f"start it, or correct compute.address (or RAY_ADDRESS), now {address}"
    if address != "auto":
        host, separator, port = address.rpartition(":")
        if not (separator and host and port.isdecimal()):
            raise ConfigError(f"compute.address is {address}: write auto, or HOST:PORT")
        try:
            socket.create_connection((host, int(port)), SOCKET_TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            raise OperationError(f"no Ray cluster answers ({error}): {advice}") from error
    # In a process of its own, since Ray's attempts cannot be ended.
    try:
        done = subprocess.run(
            [sys.executable, "-c", JOIN, address],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OperationError(
            f"no Ray cluster answers within {seconds:.0f} seconds: {advice}"
        ) from None
    if done.returncode:
        _, _, said = done.stderr.strip().rpartition("\n")
        raise OperationError(f"no Ray cluster answers ({said}): {advice}")


@contextmanager
def _prepare_own_cluster(compute: ComputeConfig) -> Iterator[dict[str, Any]]:
    """The options of a Ray on this machine alone; what it writes is gone with the block."""
    cores = None
    if compute.workers is not None:
        cores = compute.workers * compute.threads
    # It keeps other users of the machine out. Ray would leave one in the user's home; it remembers
    # what it is given here as long as the process lasts.
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="poisonwatch-ray-") as folder:
        yield {
            "address": "local",
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": folder,
        }


@contextmanager
def _keep_handler(number: signal.Signals) -> Iterator[None]:
    """Put back what the block made a signal do."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(number, before)


def _silence() -> None:
    """Keep what Ray tells of itself off the terminal; its own log files have it."""
    import ray.data

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    for handler in logging.getLogger("ray.data").handlers:
        # Its own that write to the terminal: others may have put theirs there.
        of_ray = type(handler).__module__.startswith("ray.")
        if of_ray and isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
    # It prints what befalls workers, and nothing public stops it: what comes of it is said.
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = _print_nothing
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _print_nothing(*_: object, **__: object) -> None:
    """In the place of what prints."""


@contextmanager
def _mute_stderr() -> Iterator[None]:
    """Drop what the process writes to stderr, in whatever language: Ray's C++ knows no other way
    to be quiet while it starts.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def plan_pool(compute: ComputeConfig, shards: int, device: str, may_use_gpus: bool) -> Pool:
    """The workers for so many shards, on the kind of `device` that this process has: cpu or cuda.

    Raises OperationError where the cluster has nothing for them, ConfigError where it has GPUs that
    would stay idle though the audit `may_use_gpus`, or several machines and no folder for them all.
    """
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    machines = sum(node["Alive"] for node in ray.nodes())
    if machines > 1 and compute.folder is None:
        raise ConfigError(
            f"the Ray cluster has {machines} machines: give compute.folder, "
            "a folder that all of them share"
        )
    if device == "cuda":
        if not total.get("GPU"):
            raise OperationError(
                "this process has a GPU, and the Ray cluster has none to give: "
                "add some, or set model.device: cpu"
            )
        pool = Pool(max(1, int(free.get("GPU", 0))), cpus=1, gpus=1)
    else:
        # Basis and background are measured here: on another kind of device than rows they would be
        # rounded otherwise, and take longer than all rows.
        if total.get("GPU") and may_use_gpus:
            raise ConfigError(
                "the Ray cluster has GPUs, and this process has none: start the audit with one "
                "(entrypointNumGpus of a RayJob), or set model.device: cpu"
            )
        pool = Pool(int(total.get("CPU", 0) // compute.threads), cpus=compute.threads, gpus=0)
        if not pool.workers and compute.workers is None:
            raise OperationError(
                f"the Ray cluster has {total.get('CPU', 0):.0f} CPUs, fewer than "
                f"compute.threads, {compute.threads}: add some, or lower it"
            )
    return Pool(min(compute.workers or pool.workers, shards), pool.cpus, pool.gpus)
