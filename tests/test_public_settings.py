"""Settings without their secrets, whatever these hold and wherever they stand."""

from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planted_secrets import CHARACTERS, find_forms, plant_in_settings

from poisonwatch.config_file import resolve_config
from poisonwatch.errors import ConfigError, PoisonwatchError
from poisonwatch.failures import describe_error
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.reports.links import find_mlflow_ui, make_dashboard_url
from poisonwatch.sources.open import open_source

SECRETS = st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=24).map(
    lambda text: f"Zq7{text}9xW"
)


@settings(max_examples=60)
@given(SECRETS, st.booleans())
def test_no_secret_of_any_setting_is_told(secret: str, quoted: bool) -> None:
    """Public settings, addresses, links, errors of hosts, of libraries and of ours: written as it
    is, or quoted as it should be.
    """
    planted = plant_in_settings(quote(secret, safe="") if quoted else secret)
    try:
        config = resolve_config(planted, Path("/nowhere"))
    except PoisonwatchError as error:
        told = [str(error)]
    else:
        secrets = config.find_secrets()
        everything = yaml.safe_dump(planted, allow_unicode=True, width=10**6)
        told = [
            yaml.safe_dump(config.to_public_dict(), allow_unicode=True, width=10**6),
            repr(config.to_public_dict()),
            config.source.address,
            str(find_mlflow_ui(config)),
            str(make_dashboard_url(config, "today-1")),
            secrets.conceal(everything),
            secrets.conceal(f"no such host: {secret}, {quote(secret, safe='')}"),
            describe_error(RuntimeError(f"got {secret} from host"), secrets),
            secrets.conceal_error(ValueError(f"{config.state} and {config.source.sql}")),
        ]
    for form in find_forms(secret):
        assert not [text for text in told if form in text]


@settings(max_examples=25)
@given(SECRETS)
@example("Zq7@a..b/9xW")
def test_no_place_that_cannot_be_opened_tells_its_secret(secret: str) -> None:
    """A ledger, a query, a file: whatever the database or file system makes of the address."""
    planted = plant_in_settings(secret)
    said = []
    for source in (planted["source"], planted["reference"], f"odd://ann:{secret}@host/x.jsonl"):
        config = {"source": source, "sentinels": ["s.yaml"], "state": planted["state"]}
        try:
            resolved = resolve_config(config, Path("/nowhere"))
            open_source(resolved.source)
        except PoisonwatchError as error:
            said.append(str(error))
        try:
            with Ledger.at(resolved.state):
                pass
        except PoisonwatchError as error:
            said.append(str(error))
    assert len(said) == 6
    for form in find_forms(secret):
        assert not [text for text in said if form in text]


def test_a_run_s_settings_replay_with_variables_and_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """${NAME} is all that is needed; what was written out is to be put back."""
    monkeypatch.setenv("PW", "hunter2")
    source = {
        "sql": "postgresql://ann:${PW}@db/x?sslmode=require",
        "query": "SELECT * FROM rows WHERE key = '${PW}'",
    }
    given = {"source": source, "sentinels": ["s.yaml"], "state": f"sqlite:///{tmp_path}/a.db"}
    config = resolve_config(given, tmp_path)
    assert resolve_config(config.to_public_dict(), tmp_path / "elsewhere") == config
    source |= {"sql": f"sqlite:///{tmp_path}/rows.db", "query": "SELECT 'hunter2' AS prompt"}
    kept = resolve_config(given, tmp_path).to_public_dict()
    assert kept["source"]["query"] == "SELECT '***' AS prompt"
    (tmp_path / "rows.db").touch()
    with pytest.raises(ConfigError, match=r"source\.query holds \*\*\* where a secret stood"):
        open_source(resolve_config(kept, tmp_path).source)
