"""What the machine did while an audit ran, in the System metrics tab of its MLflow run.

MLflow's own monitor gives up at the first request that fails, and says so on the terminal; this one
measures with the same instruments, under the same names, and keeps what a server that is down does
not take.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.utils.time import get_current_time_millis

from poisonwatch.config import AuditConfig
from poisonwatch.integrations.mlflow.client import UNAVAILABLE, make_mlflow_client

logger = logging.getLogger(__name__)

INTERVAL_S = 10.0
MOST_POINTS_WAITING = 1000  # points that wait for a server, as many as one request may hold


@contextmanager
def sample_system_metrics(config: AuditConfig, run_id: str | None) -> Iterator[None]:
    """Sample the machine every 10 s (or MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL) into a run, and
    once more at the end; None: nowhere.

    Nothing that goes wrong with it reaches the audit.
    """
    if run_id is None:
        yield
        return
    done = threading.Event()
    sampler = threading.Thread(
        target=_sample, args=(config, run_id, done), name="system metrics", daemon=True
    )
    sampler.start()
    try:
        yield
    finally:
        done.set()
        sampler.join()


def _sample(config: AuditConfig, run_id: str, done: threading.Event) -> None:
    try:
        _sample_until(done, make_mlflow_client(config), run_id)
    except Exception as error:
        # Instruments read the kernel's tables, which containers may hide.
        logger.debug("system metrics ended: %s", error)


def _sample_until(done: threading.Event, client: MlflowClient, run_id: str) -> None:
    """Measure and send at every interval, and once more when `done` is set."""
    instruments = _start_instruments()
    waiting: list[Metric] = []
    step, up, last = 0, True, False
    while not last:
        last = done.wait(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or INTERVAL_S)
        # Where a server stays away the oldest points go.
        waiting = [*waiting, *_measure(instruments, step)][-MOST_POINTS_WAITING:]
        step += 1
        # A server that was down a moment ago is not waited for at the end.
        if last and not up:
            return
        up = _try_to_send(client, run_id, waiting)
        if up:
            waiting = []


def _start_instruments() -> list[BaseMetricsMonitor]:
    """Those that this machine has: without an NVIDIA GPU, or in a container that hides its network,
    there are fewer.
    """
    found: list[BaseMetricsMonitor] = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        with suppress(Exception):
            instrument: BaseMetricsMonitor = kind()
            # The first look at the processor sees nothing: it counts from the one before.
            instrument.collect_metrics()
            instrument.clear_metrics()
            found.append(instrument)
    return found


def _measure(instruments: list[BaseMetricsMonitor], step: int) -> Iterator[Metric]:
    now = get_current_time_millis()
    for instrument in instruments:
        instrument.collect_metrics()
        for name, value in instrument.aggregate_metrics().items():
            yield Metric(f"system/{name}", float(value), now, step)
        instrument.clear_metrics()


def _try_to_send(client: MlflowClient, run_id: str, points: list[Metric]) -> bool:
    try:
        client.log_batch(run_id, metrics=points)
    except UNAVAILABLE:
        return False
    return True
