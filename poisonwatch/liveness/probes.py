"""Whether trained checkpoints are probed as they come."""

from datetime import datetime

from poisonwatch.config import AuditConfig
from poisonwatch.errors import ConfigError

LATE_AFTER = 2  # times as long as `probe.every`: to be found, and to be probed


def count_waiting_checkpoints(
    config: AuditConfig, last_probe: datetime | None, now: datetime
) -> int | None:
    """How many checkpoints of the audit file's `probe` came after the last probe, and wait for
    longer than whoever looks for them takes; None where it names no place, or one that cannot be
    looked at.

    Only the times of their files are looked at: to tell a copy from a checkpoint that is new, all
    of its weights would have to be read.
    """
    if config.probe.checkpoints is None:
        return None
    # with what finds models, which takes longer to import than all else that is asked
    from poisonwatch.probing.new_checkpoints import SETTLED_AFTER_S, date_checkpoints

    try:
        dated = date_checkpoints(config.probe.checkpoints)
    except (ConfigError, OSError):
        return None
    late_from = (now - LATE_AFTER * config.probe.every).timestamp()
    # One that a probe asked had settled by then.
    known_until = 0.0 if last_probe is None else last_probe.timestamp() - SETTLED_AFTER_S
    return sum(known_until < changed < late_from for changed, _ in dated)
