"""What the passes of an audit take, by one batch of its rows."""

import pytest
from attributions import ROWS, SENTINELS, benign
from running_out import room_for

from poisonwatch.config import AuditConfig
from poisonwatch.errors import ModelError
from poisonwatch.examples import AuditRows, Example, Message
from poisonwatch.flows import forecast
from poisonwatch.flows.announcement import announce_audit
from poisonwatch.flows.forecast import forecast_rows, time_batch
from poisonwatch.flows.reporter import Reporter
from poisonwatch.model.encoding import ChatEncoder
from poisonwatch.model.frozen import FrozenModel
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.stride.cost_shapes import ModelShape


def make_config(**settings: object) -> AuditConfig:
    given = {"name": "a", "source": "rows.jsonl", "sentinels": ["pack:insult"], **settings}
    return AuditConfig.model_validate(given)


def test_the_passes_are_those_of_all_rows_and_add_up(tiny_pretrained: Pretrained) -> None:
    """Rows are passed once each, trusted ones where they stand alone, and seconds are the whole's."""
    rows = AuditRows(tuple(ROWS), tuple(benign(100, seed=1)))
    found = forecast_rows(make_config(), tiny_pretrained, SENTINELS, rows)
    items = {each.label: each.items for each in found.passes}
    assert items["trusted"] == 100
    assert items["trusted"] + items["sample"] + items["fit"] == len(ROWS) + 100
    scale = found.timed.seconds / found.timed.flops
    whole = found.costs.flops.total * scale
    assert found.measuring_seconds == pytest.approx(whole)
    evidence = found.passes[-1]
    assert (evidence.label, evidence.items) == ("evidence", len({each.panel for each in SENTINELS}))
    assert evidence.seconds == pytest.approx(evidence.items * found.seconds_a_group)


def test_an_audit_says_what_it_takes_and_bars_go_by_it(tiny_pretrained: Pretrained) -> None:
    """Rows, tokens, model, memory, time; no time where one batch here does not tell it."""
    rows = AuditRows(tuple(ROWS))
    for settings, known in (({}, True), ({"compute": "ray"}, False), ({"stride": {"K": 9}}, False)):
        reporter, said = Reporter(quiet=True), list[str]()
        config = make_config(**settings)
        announce_audit(config, tiny_pretrained, SENTINELS, rows, reporter, said.append)
        first, second = said
        assert first.startswith(f"{len(ROWS)} rows, about ")
        assert first.endswith("tokens; SmolLM2-135M-Instruct, 47 k parameters")
        assert "of memory" in second
        assert ("by one batch of" in second) is known
        assert (reporter.pace is not None) is known


def test_copies_in_the_frame_of_the_rows_are_counted_and_said(tiny_pretrained: Pretrained) -> None:
    """One of each sentinel, beside as many probes as there may be; on no panel of its own."""
    shop = Message("system", "You serve a shop.")
    framed = tuple(Example.from_messages((shop, *row.messages)) for row in ROWS)
    config = make_config(probes=2)
    plain = forecast_rows(config, tiny_pretrained, SENTINELS, AuditRows(tuple(ROWS)))
    found = forecast_rows(config, tiny_pretrained, SENTINELS, AuditRows(framed))
    assert (plain.framed, found.framed) == (0, len(SENTINELS))
    of_plain, of_framed = plain.costs.audit, found.costs.audit
    assert (3 * of_framed.Q, 3 * of_framed.answers) == (4 * of_plain.Q, 4 * of_plain.answers)
    assert of_framed.panels == of_plain.panels
    said: list[str] = []
    rows = AuditRows(framed)
    announce_audit(config, tiny_pretrained, SENTINELS, rows, Reporter(quiet=True), said.append)
    assert said[2:] == ["sentinels are asked in the system prompt that most rows have, too"]


def test_a_busy_machine_is_said_to_be_busy(
    tiny_pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By how long the batch would take if nothing else ran."""
    for idle, busy in ((90.0, False), (20.0, True)):
        monkeypatch.setattr(forecast, "_time", lambda *_, idle=idle: (100.0, idle))
        said: list[str] = []
        rows = AuditRows(tuple(ROWS))
        config = make_config()
        announce_audit(config, tiny_pretrained, SENTINELS, rows, Reporter(quiet=True), said.append)
        assert ("if nothing else ran" in said[1]) is busy


def test_rows_without_answers_are_left_to_the_audit(tiny_pretrained: Pretrained) -> None:
    """It says nothing of what comes to nothing."""
    said: list[str] = []
    rows = AuditRows((Example.from_messages([Message("user", "Why?")]),))
    announce_audit(
        make_config(), tiny_pretrained, SENTINELS, rows, Reporter(quiet=True), said.append
    )
    assert said == []


def test_a_batch_that_memory_does_not_hold_is_timed_in_parts(
    tiny_pretrained: Pretrained,
) -> None:
    """The same rows and operations; one line where not even a row fits."""
    model = FrozenModel(tiny_pretrained.model, 1)
    encoded = [ChatEncoder(tiny_pretrained.tokenizer).encode_example(row) for row in ROWS[:8]]
    shape = ModelShape.of_model(model)
    whole = time_batch(model, shape, 8, encoded, 2048)
    with room_for(tiny_pretrained.model, 2) as failed:
        parts = time_batch(model, shape, 8, encoded, 2048)
    assert failed == [8, 4]
    assert (parts.rows, parts.flops) == (whole.rows, whole.flops) == (8, whole.flops)
    with (
        room_for(tiny_pretrained.model, 0),
        pytest.raises(ModelError, match="does not hold the pass of a single row"),
    ):
        time_batch(model, shape, 8, encoded, 2048)
