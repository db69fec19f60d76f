"""Settings without their secrets: what a run directory keeps of an audit file, and MLflow shows.

${NAME} stays, so that a run's config.yaml repeats the run; what is written out as a secret becomes
***, and whoever uses such a file is told to put it back (`text.environment.open_variables`).
"""

from collections.abc import Mapping
from typing import Any

from poisonwatch.text.addresses import is_variable, parse_address, write_address
from poisonwatch.text.redaction import redact_url
from poisonwatch.text.secrets import Secrets, hide_message_address
from poisonwatch.text.statements import hide_literals

# Settings that name a place, by section.
SERVERS = ("state", "tracking", "mlflow_ui", "dashboard")
SOURCES = ("source", "reference")
SOURCE_PLACES = ("path", "sql", "hub")
MODEL_PLACES = ("name", "adapter")
COMPUTE_PLACES = ("address", "folder")


def make_public(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of an audit, as plain JSON, without their secrets."""
    public = dict(settings)
    for key in SERVERS:
        public[key] = _write_place(settings[key], of_server=True)
    for key in SOURCES:
        public[key] = settings[key] and _make_source_public(settings[key])
    public["model"] = _write_places(settings["model"], MODEL_PLACES)
    public["compute"] = _write_places(settings["compute"], COMPUTE_PLACES)
    public["sentinels"] = [_write_place(place) for place in settings["sentinels"]]
    public["alerts"] = []
    for alert in settings["alerts"]:
        shown = dict(alert)
        if alert["url"]:
            shown["url"] = hide_message_address(alert["url"])
        public["alerts"].append(shown)
    lineage = settings["openlineage"]
    public["openlineage"] = {"url": _write_place(lineage["url"], of_server=True)}
    public["schedule"] = dict(settings["schedule"])
    ping = settings["schedule"]["ping"]
    # A variable that is all of it stays, so that a run's config.yaml can be used again.
    if ping and not is_variable(ping):
        public["schedule"]["ping"] = hide_message_address(ping)
    return public


def find_secrets(settings: Mapping[str, Any]) -> Secrets:
    """The secrets of the settings of an audit, as plain JSON."""
    servers = [*(settings[key] for key in SERVERS), settings["openlineage"]["url"]]
    places = list(settings["sentinels"])
    places += [settings["model"][key] for key in MODEL_PLACES]
    places += [settings["compute"][key] for key in COMPUTE_PLACES]
    queries = []
    for key in SOURCES:
        source = settings[key] or {}
        places += [source.get(place) for place in SOURCE_PLACES]
        queries.append(source.get("query"))
    messages = [alert["url"] for alert in settings["alerts"]]
    messages.append(settings["schedule"]["ping"])
    signing = settings["signing"]
    places += [signing["key"], signing["command"]]
    messages += _list_arguments(signing["command"] or "")
    return Secrets(places, messages, queries, servers)


def _list_arguments(command: str) -> list[str]:
    """What a command is given beside the names of its options and of files."""
    values = []
    for word in command.split()[1:]:
        option, _, value = word.partition("=")
        values.append(value if option.startswith("-") else word)
    return [value for value in values if value and not value.startswith("/")]


def _make_source_public(source: Mapping[str, Any]) -> dict[str, Any]:
    public = _write_places(source, SOURCE_PLACES)
    if source["query"]:
        public["query"] = hide_literals(source["query"])
    return public


def _write_places(section: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {**section, **{key: _write_place(section[key]) for key in keys}}


def _write_place(place: str | None, of_server: bool = False) -> str | None:
    """A place as it can be opened again once its secrets are put back; a path as it is."""
    if not place or "://" not in place:
        return place
    address = parse_address(place, of_server)
    if address is None or "::" in place.partition("://")[0]:
        return redact_url(place)
    return write_address(address)
