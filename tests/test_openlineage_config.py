"""Which OpenLineage server is told: the audit file's, else the environment's."""

import pytest
from pydantic import ValidationError

from poisonwatch.openlineage_config import DISABLED_VARIABLE, URL_VARIABLE, OpenLineageConfig


def test_the_audit_file_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And OpenLineage's own switch before both."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    assert OpenLineageConfig().find_url() is None
    monkeypatch.setenv(URL_VARIABLE, "http://one")
    assert OpenLineageConfig().find_url() == "http://one"
    assert OpenLineageConfig(url="https://two").find_url() == "https://two"
    monkeypatch.setenv(DISABLED_VARIABLE, "True")
    assert OpenLineageConfig(url="https://two").find_url() is None


@pytest.mark.parametrize("url", ["nowhere", "ftp://one", "http://", "https://[x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """A variable may hold one."""
    with pytest.raises(ValidationError, match=r"http\(s\) URL"):
        OpenLineageConfig(url=url)
    assert OpenLineageConfig(url="${LINEAGE}").url == "${LINEAGE}"
