"""What an audit says of itself before it measures anything, and the pace that its bars go
by from then on.
"""

from collections.abc import Callable, Sequence

from poisonwatch.config import AuditConfig
from poisonwatch.errors import ModelError
from poisonwatch.examples import AuditRows
from poisonwatch.flows.forecast import Forecast, forecast_rows
from poisonwatch.flows.pace import Pace
from poisonwatch.flows.reporter import Reporter
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.costs import format_bytes, format_count
from poisonwatch.text.durations import describe_seconds
from poisonwatch.text.words import plural


def announce_audit(
    config: AuditConfig,
    pretrained: Pretrained,
    sentinels: Sequence[Sentinel],
    rows: AuditRows,
    reporter: Reporter,
    note: Callable[[str], None],
) -> None:
    """Say what the audit takes, by one batch of its rows, and let bars show the time it has left.

    Rows that the model cannot take are left to the audit, which says more of them.
    """
    try:
        forecast = forecast_rows(config, pretrained, sentinels, rows)
    except ModelError:
        return
    # a batch that is timed here tells neither how fast other machines are, nor a training
    is_known = config.compute.engine == "local" and forecast.measured_alone
    if is_known:
        reporter.pace = Pace(forecast.passes)
    for line in describe_announcement(config, forecast, is_known):
        note(line)


def describe_announcement(
    config: AuditConfig, forecast: Forecast, time_is_known: bool
) -> list[str]:
    """Rows, tokens and model in a line; memory and time in another; what is asked beside the
    sentinels, if it is known already.
    """
    n = forecast.new + forecast.trusted
    rows = "1 row" if forecast.new == 1 else f"{forecast.new:,} rows"
    if forecast.trusted:
        rows += f" and {forecast.trusted:,} trusted"
    name = config.model.name.rstrip("/").rpartition("/")[2]
    parameters = format_count(forecast.costs.model.parameters).strip()
    model = f"{name}, {parameters} parameters"
    where = "GPU memory" if forecast.room.on_gpu else "memory"
    tokens = format_count(forecast.tokens.mean * n).strip()
    takes = (
        f"{format_bytes(forecast.peak)} of {where}, {format_bytes(forecast.room.model)} are free"
    )
    if time_is_known:
        seconds = forecast.measuring_seconds
        group = describe_seconds(forecast.seconds_a_group)
        batch = plural(forecast.timed.rows, "row")
        takes += f"; about {describe_seconds(seconds)}"
        if forecast.is_busy:
            idle = seconds * forecast.timed.idle_seconds / forecast.timed.seconds
            takes += f" ({describe_seconds(idle)} if nothing else ran)"
        takes += f", by one batch of {batch}; {group} more for each group of flagged rows"
    lines = [f"{rows}, about {tokens} tokens; {model}", takes]
    if forecast.framed:
        lines.append("sentinels are asked in the system prompt that most rows have, too")
    return lines
