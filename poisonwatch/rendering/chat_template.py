"""A model's chat template: whose it is, what it renders, on which day.

Rendering is that of transformers. A template is code that comes with a model: transformers runs it
in a sandbox, and hands it nothing but plain values.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from poisonwatch.config import ModelConfig
from poisonwatch.errors import ModelError
from poisonwatch.rendering.guards import compile_tokens
from poisonwatch.template_config import DEFAULT_TEMPLATE_DATE, read_template

logger = logging.getLogger(__name__)

# What rendering raises: templates that know no such role or order of roles do (two user turns,
# say), and definitions of tools may lack what a template reads.
TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

# One turn of a conversation, or one definition of a tool, as templates read them.
Record = dict[str, Any]
# Characters from, and up to.
Span = tuple[int, int]

_MARKS = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
# What no template writes of its own accord.
_PROBE = "poisonwatchprobe"
_DIRECTIVES = "aAbBdeFhHIjmMpSuUVwWxXyY"


@dataclass(frozen=True, slots=True)
class TemplateSettings:
    """What an audit file says about rendering; `source` is a template that replaces the model's."""

    source: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    date: date = DEFAULT_TEMPLATE_DATE
    end_of_answer: str | None = None

    @classmethod
    def read(cls, config: ModelConfig) -> "TemplateSettings":
        """Those of the audit file; a template's file is read. Raises ModelError where it cannot
        be.
        """
        return cls(
            read_template(config.chat_template),
            config.template_kwargs,
            config.template_date,
            config.end_of_answer,
        )


DEFAULT_SETTINGS = TemplateSettings()


def find_special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every control token of a tokenizer."""
    special = set(tokenizer.all_special_ids)
    # Many chat models add their turn markers without naming them among the special tokens.
    for i, token in tokenizer.added_tokens_decoder.items():
        if token.special:
            special.add(i)
    return frozenset(special)


def list_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """How the control tokens of a tokenizer are spelt, the longest first."""
    spelt = tokenizer.convert_ids_to_tokens(sorted(find_special_ids(tokenizer)))
    return tuple(sorted(filter(None, spelt), key=lambda token: (-len(token), token)))


class ChatTemplate:
    """A tokenizer's chat template with its settings; `is_missing` where a base model has none."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: TemplateSettings = DEFAULT_SETTINGS,
    ) -> None:
        """Raises ModelError where the template is no Jinja, or `end_of_answer` no single token."""
        self.tokenizer = tokenizer
        self.settings = settings
        self._source = self._choose_source(with_tools=False)
        self._source_with_tools = self._choose_source(with_tools=True)
        self.end_of_answer = _find_end_of_answer(tokenizer, settings.end_of_answer)
        self._check()

    def warn_of_unread_settings(self) -> None:
        """Log each of `template_kwargs` that the template does not read: one that is misspelt
        changes nothing, and says nothing, in training.
        """
        if self.is_missing:
            return
        read = f"{self._source}\n{self._source_with_tools}"
        for name in self.settings.kwargs:
            if not re.search(rf"\b{re.escape(name)}\b", read):
                logger.warning("model.template_kwargs: the chat template reads no %s", name)

    @property
    def is_missing(self) -> bool:
        """Is there no template at all?"""
        return self._source is None

    @property
    def has_marks(self) -> bool:
        """Does it mark what the assistant generates?"""
        return bool(self._source and _MARKS.search(self._source))

    @cached_property
    def begin(self) -> str:
        """The token that begins a text where there is no template: where the tokenizer puts one
        before every text.
        """
        bos = self.tokenizer.bos_token_id
        if bos is None or list(self.tokenizer("a")["input_ids"])[:1] != [bos]:
            return ""
        return str(self.tokenizer.bos_token)

    @cached_property
    def prints_thoughts(self) -> bool:
        """Does it print what the assistant thought, from a field of its own?"""
        answer = {"role": "assistant", "content": "Yes.", "reasoning_content": _PROBE}
        return self._prints([{"role": "user", "content": "So?"}, answer])

    @cached_property
    def prints_calls(self) -> bool:
        """Does it print calls of tools, from a field of their own?"""
        function: Record = {"name": _PROBE, "arguments": {}}
        answer: Record = {"role": "assistant", "content": ""}
        answer["tool_calls"] = [{"type": "function", "function": function}]
        if self._prints([{"role": "user", "content": "So?"}, answer]):
            return True
        # Some join arguments to text.
        function["arguments"] = "{}"
        return self._prints([{"role": "user", "content": "So?"}, answer])

    def _prints(self, turns: Sequence[Record]) -> bool:
        if self.is_missing:
            return False
        try:
            return _PROBE in self.render(turns)
        except TEMPLATE_ERRORS:
            return False

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Every control token; the assistant's turn ends with one."""
        return find_special_ids(self.tokenizer)

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """How the control tokens are spelt, the longest first."""
        return list_special_tokens(self.tokenizer)

    @cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Any of them."""
        return compile_tokens(self.special_tokens)

    def normalise(self, text: str) -> str:
        """What the tokenizer makes of a text before it looks for tokens."""
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or backend.normalizer is None:
            return text
        return str(backend.normalizer.normalize_str(text))

    def render(
        self, turns: Sequence[Record], tools: Sequence[Record] = (), prompt: bool = False
    ) -> str:
        """The conversation as text; with `prompt`, up to where the assistant begins to answer.

        Raises one of TEMPLATE_ERRORS where the template refuses it.
        """
        rendered = self.tokenizer.apply_chat_template(
            list(turns),
            tools=list(tools) or None,
            chat_template=self._find_source(tools),
            add_generation_prompt=prompt,
            tokenize=False,
            **self.settings.kwargs,
        )
        return str(rendered)

    def render_marked(
        self, turns: Sequence[Record], tools: Sequence[Record] = ()
    ) -> tuple[str, list[Span]]:
        """The conversation as text, and the spans that the template marks as generated. Raises as
        `render` does.
        """
        # Its annotation says that it returns one text.
        rendered: Any = render_jinja_template(
            conversations=[list(turns)],
            tools=list(tools) or None,
            chat_template=self._find_source(tools),
            return_assistant_tokens_mask=True,
            **{**self.tokenizer.special_tokens_map, **self.settings.kwargs},
        )
        texts, marks = rendered
        return str(texts[0]), [(start, end) for start, end in marks[0] if end > start]

    def _find_source(self, tools: Sequence[Record]) -> str | None:
        if tools:
            return self._source_with_tools
        return self._source

    def _choose_source(self, with_tools: bool) -> str | None:
        source = self.settings.source
        if source is None:
            try:
                # Some models have a template of their own for tools.
                tools: list[Record] | None = None
                if with_tools:
                    tools = [{}]
                source = self.tokenizer.get_chat_template(None, tools=tools)
            except ValueError:
                return None
        if "strftime_now" in source:
            return _write_date_macro(self.settings.date) + source
        return source

    def _check(self) -> None:
        if self.is_missing:
            return
        try:
            self.render([{"role": "user", "content": "a"}])
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"the chat template is not valid Jinja: {error.message} (line {error.lineno}); "
                "set model.chat_template to one that is"
            ) from None
        except TEMPLATE_ERRORS:
            # It may want a system turn, or an answer: which rows it takes is seen row by row.
            return


def _write_date_macro(day: date) -> str:
    """A macro in the place of transformers' strftime_now, which would print another date tomorrow.

    A template can be handed no function, only text: the macro replaces directive by directive.
    """
    values = {"-d": str(day.day), "-m": str(day.month)}
    for letter in _DIRECTIVES:
        values[letter] = day.strftime(f"%{letter}")
    filters = "".join(f'|replace("%{name}","{value}")' for name, value in values.items())
    # With +%} no line end after it is taken away: it may be the template's own.
    return f"{{% macro strftime_now(format) %}}{{{{ format{filters} }}}}{{% endmacro +%}}"


def _find_end_of_answer(tokenizer: PreTrainedTokenizerBase, wanted: str | None) -> str:
    """The token that ends an answer where there is no template; empty where there is none."""
    if wanted is None:
        return str(tokenizer.eos_token or "")
    ids = tokenizer(wanted, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ModelError(
            f"model.end_of_answer {wanted!r} is {len(ids)} tokens of this model: name a single "
            "one, such as its eos token"
        )
    return wanted
