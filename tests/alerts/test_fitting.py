"""What a service is sent fits it, whatever the message, and nothing is lost on the way."""

import re

import pytest
from clusters import settings

from poisonwatch.alerts.fitting import MEASURES, Message, fit, shorten
from poisonwatch.alerts.services import SERVICES, Service
from poisonwatch.alerts.trial import make_trial_message

LINK = "https://audits.example.org/audits/20260101-000000-abcdef"
LONG = Message(
    "0123456789abcdef",
    "high",
    "Poisonwatch: 300 rows push panel ＜＆＞ in tiny (severity high)",
    "\n".join(['＜full＞ width \\ " é words ' * 40] * 60 + ["one-long-word" * 4000]),
    LINK,
)


def measure(service: Service, part: tuple[str, str]) -> int:
    return MEASURES[service.unit]("\n".join(filter(None, part)))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
@pytest.mark.parametrize("message", [LONG, make_trial_message(settings("json://x"))])
def test_no_part_takes_more_than_the_service_allows(service: Service, message: Message) -> None:
    """Title and body together, in the service's own unit."""
    parts = fit(message, service)
    assert all(0 < measure(service, part) <= service.most for part in parts)


@pytest.mark.parametrize(
    "service", [s for s in SERVICES if not s.brief and not s.incidents], ids=lambda s: s.name
)
def test_parts_hold_every_word_in_order(service: Service) -> None:
    """They are numbered, and cut between lines or words where there are any."""
    parts = fit(LONG, service)
    assert "".join("".join(body for _, body in parts).split()) == "".join(LONG.body.split())
    assert [title for title, _ in parts] == [
        f"{LONG.title} ({i}/{len(parts)})" for i in range(1, len(parts) + 1)
    ]


def test_a_message_that_fits_is_sent_as_it_is() -> None:
    """No number in its title."""
    small = Message("0" * 16, "low", "title", "a\n\n  b\n")
    for service in SERVICES:
        if not service.brief:
            assert fit(small, service) == [("title", "a\n\n  b\n")]


def test_a_service_with_incidents_gets_one_message() -> None:
    """A second part would be another event of the same incident."""
    for service in SERVICES:
        if service.incidents:
            assert len(fit(LONG, service)) == 1


def test_the_short_form_keeps_key_and_link_where_there_is_room() -> None:
    """The title is cut for them; a link that leaves no room for it is left out."""
    assert shorten(LONG, 1024) == f"{LONG.title} Alert {LONG.key} {LINK}"
    short = shorten(LONG, 160)
    assert short.endswith(f" Alert {LONG.key} {LINK}")
    assert len(short) <= 160
    assert re.fullmatch(r"Poisonwatch: .+ Alert 0123456789abcdef", shorten(LONG, 80))
