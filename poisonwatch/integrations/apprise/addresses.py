"""Whether alerts could be sent to the addresses of an audit file, asked before the audit starts."""

from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AuditConfig
from poisonwatch.errors import ConfigError
from poisonwatch.integrations.log_capture import capture_logs
from poisonwatch.text.environment import open_variables


def check_targets(config: AuditConfig) -> None:
    """Raises ConfigError where an address is of no kind that messages can be sent to."""
    for target in list_targets(config):
        if target.setting.url is None:
            # Whether a Prefect block exists is known to the server alone, which may not be up yet.
            continue
        # Every command asks: Apprise is loaded only where somebody is to be notified by it.
        import apprise

        url = open_variables(target.setting.url, "alerts")
        # What cannot be read may hold a token all the same: its log would show it.
        with capture_logs():
            known = apprise.Apprise.instantiate(url) is not None
        if not known:
            raise ConfigError(
                f"{target} is no Apprise URL: "
                "give one such as slack://, mailto:// or json://, or a Prefect block"
            )
