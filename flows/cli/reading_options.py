"""Options of commands that read rows: how they are understood where field names do not tell."""

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from poisonwatch.errors import InputError
from poisonwatch.source_config import FormatName, TrainedTurns

HubOption = Annotated[
    bool,
    Parameter(
        negative="",
        show_default=False,
        help="SOURCE is a data set on the Hugging Face hub, such as tatsu-lab/alpaca.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """What the section `source` of an audit file says of reading, as options of a command."""

    format: Annotated[
        FormatName | None, Parameter(help="Row format. Default: read off the field names.")
    ] = None
    fields: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="What fields are called here, as in prompt=question response=answer.",
        ),
    ] = None
    template: Annotated[
        str | None,
        Parameter(help="How prompt and response stand in a text, as in 'Q: {prompt}\\nA: ...'."),
    ] = None
    roles: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="What roles are called here, as in bing=assistant.",
        ),
    ] = None
    train_on: Annotated[
        TrainedTurns | None,
        Parameter(help="Turns that the trainer's loss is on. Default: marked."),
    ] = None

    def to_settings(self) -> dict[str, Any]:
        """Those that were given, as in an audit file. Raises InputError."""
        given = {
            "format": self.format,
            "fields": _parse_pairs("--fields", self.fields),
            "template": self.template,
            "roles": _parse_pairs("--roles", self.roles),
            "train_on": self.train_on,
        }
        return {name: value for name, value in given.items() if value}


def _parse_pairs(option: str, pairs: list[str] | None) -> dict[str, str]:
    """NAME=VALUE pairs of an option. Raises InputError where one is none."""
    parsed = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise InputError(f"{option} got {pair}: write NAME=VALUE, as in prompt=question")
        parsed[name] = value
    return parsed
