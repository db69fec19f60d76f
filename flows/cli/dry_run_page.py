"""What `poisonwatch audit --dry-run` prints: a forecast, as a page of 80 columns or as JSON."""

import json as json_format
from dataclasses import asdict
from typing import Any

from rich.text import Text

from poisonwatch.config import AuditConfig
from poisonwatch.detection.confirmer import MOST_CONFIRMED
from poisonwatch.flows.cli.check_page import CheckPage
from poisonwatch.flows.cli.dry_run import forecast_audit
from poisonwatch.flows.forecast import Forecast
from poisonwatch.stride.capacity import describe_shortage
from poisonwatch.stride.costs import format_bytes, format_count, render_costs
from poisonwatch.text.display import make_visible
from poisonwatch.text.durations import describe_seconds
from poisonwatch.text.words import plural

# Parameters of the model that detection was measured with (benchmarks/RESULTS.md), and of twice
# such a model: a larger one sees more, and nobody measured how much.
MEASURED_PARAMETERS = 135_000_000
SMALL_PARAMETERS = 2 * MEASURED_PARAMETERS


def print_dry_run(config: AuditConfig, as_json: bool = False, quiet: bool = False) -> None:
    """Print what an audit of all rows of the source would take. Raises what reading rows and
    loading the model raise.
    """
    page = DryRunPage(quiet=quiet or as_json)
    forecast = forecast_audit(config, page)
    if as_json:
        print(json_format.dumps(describe_forecast(forecast)))
    else:
        page.show_forecast(config, forecast)


def describe_forecast(forecast: Forecast) -> dict[str, Any]:
    """A forecast as plain JSON; sizes in bytes."""
    costs, memory = forecast.costs, asdict(forecast.costs.memory)
    memory["peak"] = forecast.peak
    return {
        "rows": {"new": forecast.new, "trusted": forecast.trusted},
        "tokens": asdict(forecast.tokens),
        "sentinels": forecast.sentinels,
        "framed": forecast.framed,
        "settings": asdict(forecast.settings),
        "model": asdict(costs.model) | {"parameters": costs.model.parameters},
        "audit": asdict(costs.audit),
        "memory": memory,
        "flops": asdict(costs.flops) | {"total": costs.flops.total},
        "timed": asdict(forecast.timed),
        "seconds": forecast.seconds,
        "idle_seconds": forecast.idle_seconds,
        "seconds_a_group": forecast.seconds_a_group,
        "free": {
            "memory": forecast.room.model,
            "main_memory": forecast.room.main,
            "disk": forecast.free_disk,
        },
        "records_folder": str(forecast.records_folder),
    }


class DryRunPage(CheckPage):
    """Prints a forecast: what was found, the table of costs, and what becomes of them here."""

    def show_forecast(self, config: AuditConfig, forecast: Forecast) -> None:
        """All of it."""
        self._print(Text(make_visible(config.source.address), style="bold"))
        for label, text in (
            ("rows", _describe_rows(forecast)),
            ("tokens", _describe_tokens(forecast)),
            ("model", _describe_model(config, forecast)),
            ("sees", describe_reach(forecast.costs.model.parameters)),
            ("sentinels", _describe_sentinels(config, forecast)),
        ):
            self._entry(label, text)
        self._print(Text(""))
        for line in render_costs(forecast.costs):
            self._print(Text(f"  {line}"))
        self._print(Text(""))
        for label, text in (
            ("memory", _describe_memory(forecast)),
            ("disk", _describe_disk(forecast)),
            ("time", _describe_time(forecast)),
        ):
            self._entry(label, text)
        for warning in list_warnings(forecast):
            self._entry("warning", warning, style="yellow")


def _describe_rows(forecast: Forecast) -> str:
    text = f"{forecast.new:,} different ones"
    if forecast.trusted:
        text += f", and {forecast.trusted:,} trusted ones to compare with"
    return f"{text}; those that an audit has covered are counted, too"


def _describe_tokens(forecast: Forecast) -> str:
    tokens = forecast.tokens
    total = tokens.mean * (forecast.new + forecast.trusted)
    text = f"about {format_count(total).strip()}, {tokens.answer_share:.0%} of them answers"
    if tokens.rows < forecast.new:
        return f"{text}; from {tokens.rows:,} rows that were tokenised, and all rows' characters"
    return f"{text}; longest row {tokens.longest:,}"


def _describe_model(config: AuditConfig, forecast: Forecast) -> str:
    shape = forecast.costs.model
    name = config.model.name.rpartition("/")[2]
    size = f"{format_count(shape.parameters)} parameters".replace("  ", " ")
    if config.model.adapter is not None:
        name += f" with adapter {config.model.adapter.rpartition('/')[2]}"
    blocks = ", ".join(map(str, (shape.layer, *shape.further)))
    return f"{name}, {size}, width {shape.D}, split at block {blocks} of {shape.depth}"


def describe_reach(parameters: int) -> str:
    """What an audit with a model of so many parameters can see, as far as that was measured, and
    which model sees more.
    """
    base = "audit with the base model that will be trained"
    if parameters > SMALL_PARAMETERS:
        return (
            f"what this model itself learns from rows. So {base}: another one learns other things. "
            "Measured was a model of 135M parameters alone; a larger one learns more"
        )
    return (
        "what a model of this size learns from rows. Of fourteen attacks one of 135M parameters "
        "learnt ten (triggers, refusals, insults, compliance, brands), two faintly and two not: "
        "insecure code and slanted opinions stay unseen, and may still work on a larger model. "
        f"So {base}"
    )


def _describe_sentinels(config: AuditConfig, forecast: Forecast) -> str:
    text = f"{forecast.sentinels:,}"
    if forecast.framed:
        text += f", {forecast.framed:,} copies in the system prompt that most rows have"
    if config.probes:
        text += f", and up to {config.probes * forecast.sentinels:,} probes"
    return f"{text}; {plural(forecast.costs.audit.Q, 'query', 'queries')} at most"


def _describe_memory(forecast: Forecast) -> str:
    memory, room = forecast.costs.memory, forecast.room
    if not room.on_gpu:
        return f"{format_bytes(memory.peak)} at once; {format_bytes(room.model)} are free"
    on_gpu = f"{format_bytes(memory.model_peak)} on the GPU at once"
    on_gpu += f"; {format_bytes(room.model)} are free there"
    beside = f"{format_bytes(memory.main_peak)} in main memory"
    return f"{on_gpu}; {beside}, {format_bytes(room.main)} of it free"


def _describe_disk(forecast: Forecast) -> str:
    size, free = format_bytes(forecast.costs.memory.records), format_bytes(forecast.free_disk)
    return f"{size} of records in {forecast.records_folder}; {free} are free there"


def _describe_time(forecast: Forecast) -> str:
    text = f"about {describe_seconds(forecast.seconds)} on this machine"
    text += f", from one batch of {plural(forecast.timed.rows, 'row')}"
    if forecast.is_busy:
        text += f", busy as it is ({describe_seconds(forecast.idle_seconds)} if it were idle)"
    group = describe_seconds(forecast.seconds_a_group)
    return f"{text}; about {group} more for each group of flagged rows, of {MOST_CONFIRMED} at most"


def list_warnings(forecast: Forecast) -> list[str]:
    """Why the audit might not come to its end here, or the estimate be wrong, a sentence each."""
    memory, warnings = forecast.costs.memory, []
    shortage = describe_shortage(forecast.costs.model, forecast.costs.audit, forecast.room)
    if shortage is not None:
        warnings.append(f"the audit would not begin: {shortage}")
    if memory.records > forecast.free_disk:
        warnings.append(
            "the disk has less room: set POISONWATCH_CACHE to a folder on a larger one, or a "
            "smaller stride.memory_gb, so that gradients are not kept"
        )
    if not forecast.measured_alone:
        settings = forecast.settings
        warnings.append(
            f"`stride` asks for operators of {settings.K:,} subsets: it takes longer than is said "
            "here (fit: sgd much longer), which is the time of rows measured alone"
        )
    return warnings
