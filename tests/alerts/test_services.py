"""The table of services says of each where its limit is written, and knows those it speaks of."""

import re

import pytest
from apprise import Apprise
from paths import ROOT
from prefect.blocks import notifications

from poisonwatch.alerts.services import BY_SCHEME, SERVICES, Service, find_service
from poisonwatch.ledger.resolves import RESOLVING_KINDS


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_limit_has_its_source(service: Service) -> None:
    """An address, and no number without a use."""
    assert service.source.startswith("https://")
    assert service.most >= 160


def test_docs_say_what_the_table_says() -> None:
    """Every service has its line, with its limit, its source and its form."""
    docs = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    for service in SERVICES:
        (line,) = re.findall(rf"^\| \[{re.escape(service.name)}\]\(.*$", docs, re.MULTILINE)
        assert f"]({service.source})" in line
        assert f"| {service.most:,} {service.unit} |" in line
        assert ("short" in line, "incident" in line) == (service.brief, service.incidents)


def test_every_scheme_is_one_that_apprise_or_prefect_knows() -> None:
    """And none stands in the table twice."""
    plugins = set()
    for plugin in Apprise().details()["schemas"]:
        plugins |= set(plugin["protocols"] or ()) | set(plugin["secure_protocols"] or ())
    blocks = {
        block.get_block_type_slug()
        for block in vars(notifications).values()
        if isinstance(block, type) and issubclass(block, notifications.NotificationBlock)
    }
    assert set(BY_SCHEME) <= plugins | blocks | {"slack blocks"}
    assert len(BY_SCHEME) == sum(len(service.schemes) for service in SERVICES)


def test_those_that_keep_incidents_are_told_of_decisions() -> None:
    """The ledger knows them by their targets' kinds; "url" is an address in a variable."""
    kinds = {s.schemes[0] for s in SERVICES if s.incidents}
    assert kinds | {"url"} == set(RESOLVING_KINDS)


def test_a_service_that_is_not_listed_takes_what_apprise_says() -> None:
    """A short one is a telephone's."""
    assert find_service("voipms", 160).brief
    assert not find_service("json", 32_768).brief
    assert find_service("anything").most == 32_768
