"""Poisonwatch audits language-model fine-tuning data for planted rows."""

import os
from importlib import import_module
from typing import Any

# Nothing here phones home. MLflow accepts only "true" for DO_NOT_TRACK; set before the libraries
# that read them are imported.
for _name, _value in {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_name, _value)

# Threads that wait for each other sleep: where others need the cores, threads that spin take four
# times the processor seconds. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

# The public names, by the module that each is of; their types are in `__init__.pyi`.
_HOMES = {
    "AuditConfig": "poisonwatch.config",
    "PoisonwatchError": "poisonwatch.errors",
    "Sentinel": "poisonwatch.sentinels.sentinel",
    "audit": "poisonwatch.flows.notebook.audit",
    "check": "poisonwatch.flows.notebook.check",
    "drill": "poisonwatch.flows.notebook.drill",
    "gate": "poisonwatch.gate",
    "load_config": "poisonwatch.config_file",
    "load_sentinels": "poisonwatch.sentinels.sentinel",
}
__all__ = [
    "AuditConfig",
    "PoisonwatchError",
    "Sentinel",
    "__version__",
    "audit",
    "check",
    "drill",
    "gate",
    "load_config",
    "load_sentinels",
]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `poisonwatch --help` does not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'poisonwatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What a shell completes."""
    return list(__all__)
