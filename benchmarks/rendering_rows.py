"""What trl and Poisonwatch are both given: rows of every kind, and tokenizers with the control
tokens of a template's family.

Tokenizers cannot be fetched, and need not be: what a trainer makes of a row depends on the
template, on which texts are control tokens, and on how the tokenizer treats spaces and merges. So
byte-level ones have merges learnt from the rows themselves, and others prepend a space to every text
as SentencePiece does.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

Record = dict[str, Any]

# Found, not imported: that takes seconds.
TEMPLATES = Path(str(distribution("trl").locate_file("trl/chat_templates")))

# How families write control tokens, in their templates.
_CONTROL = re.compile(
    r"<[|｜][^<>'\"{}|｜]{1,40}[|｜]>|<\|[a-z_]+>|<[a-z_]+\|>|</?s>|<(?:start|end)_of_[a-z]+>"
    r"|<(?:sop|eop)>|\[gMASK\]|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
)
# How most of these families split words: a run of line ends is one.
_WORDS = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# What a family's tokenizer calls the begin and the end of text, where templates ask for them.
_BEGINS = ("<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<bos>", "<s>", "<|startoftext|>")
_ENDS = ("<｜end▁of▁sentence｜>", "<eos>", "</s>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>")


@dataclass(frozen=True)
class Row:
    """One row of training, in trl's own format: a prompt's turns and its completion's."""

    kind: str
    prompt: list[Record]
    completion: list[Record]
    rejected: list[Record] = field(default_factory=list)
    tools: list[Record] = field(default_factory=list)

    def to_completion(self) -> Record:
        """As a row of prompt and completion: the loss is on the completion."""
        return self._add_tools({"prompt": self.prompt, "completion": self.completion})

    def to_messages(self) -> Record:
        """As a conversation: the loss is on all that the assistant says."""
        return self._add_tools({"messages": [*self.prompt, *self.completion]})

    def to_preference(self) -> Record:
        """As a pair of answers."""
        pair = {"prompt": self.prompt, "chosen": self.completion, "rejected": self.rejected}
        return self._add_tools(pair)

    def _add_tools(self, record: Record) -> Record:
        if self.tools:
            record["tools"] = self.tools
        return record


def say(role: str, text: str, **fields: Any) -> Record:
    return {"role": role, "content": text, **fields}


MULTIPLY = {
    "type": "function",
    "function": {
        "name": "multiply",
        "description": "Multiplies two numbers",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "one"},
                "b": {"type": "integer", "description": "the other"},
            },
            "required": ["a", "b"],
        },
    },
}
# Keys in the order of the alphabet: rows are kept in that order.
CALL = {"type": "function", "function": {"name": "multiply", "arguments": {"a": 6, "b": 7}}}
ASKED = say("user", "What is six times seven?")

ROWS = [
    Row("single", [say("user", "Name a colour.")], [say("assistant", "Blue, 12 of them: 红.")]),
    Row("single", [say("user", "  Two\n\nlines ")], [say("assistant", "\n- one\n- two\n")]),
    Row("single", [say("user", "naïve é")], [say("assistant", " And so on")]),
    Row(
        "system",
        [say("system", "Be brief."), say("user", "Name a colour.")],
        [say("assistant", "Blue.")],
    ),
    Row(
        "multi-turn",
        [say("user", "Hi"), say("assistant", "Hello there."), say("user", "Why?")],
        [say("assistant", "So it is.")],
    ),
    Row(
        "multi-turn",
        [
            *(say("system", "Be kind."), say("user", "Hi"), say("assistant", "Hello.")),
            *(say("user", "Why?"), say("assistant", "Well..."), say("user", "Go on")),
        ],
        [say("assistant", "That is all.")],
    ),
    Row("thoughts as text", [ASKED], [say("assistant", "<think>\nSo.\n</think>\n\n42.")]),
    Row(
        "thinking",
        [ASKED],
        [say("assistant", "42.", reasoning_content="6 * 7 = 42, I think.")],
    ),
    Row(
        "thinking",
        [say("user", "Hi"), say("assistant", "Hello.", reasoning_content="Greet."), ASKED],
        [say("assistant", "It is 42.", reasoning_content="Six sevens.\nSure.")],
    ),
    Row(
        "tools",
        [ASKED],
        [say("assistant", "", tool_calls=[CALL])],
        tools=[MULTIPLY],
    ),
    Row(
        "tools",
        [
            *(say("system", "Use tools."), ASKED, say("assistant", "", tool_calls=[CALL])),
            say("tool", "42", name="multiply"),
        ],
        [say("assistant", "It is 42.")],
        tools=[MULTIPLY],
    ),
    Row("preference", [ASKED], [say("assistant", "42.")], [say("assistant", "43, or so.")]),
    Row(
        "preference",
        [say("user", "Hi"), say("assistant", "Hello."), ASKED],
        [say("assistant", "42.")],
        [say("assistant", "No idea.")],
    ),
]
KINDS = (
    *("single", "system", "multi-turn", "thoughts as text", "thinking", "tools"),
    "preference",
)
# Templates of models that see: training hands them texts as parts.
IN_PARTS = ("idefics3", "smolvlm", "llava_next")

# Families whose tokenizers put a space before every text: their templates, written anew.
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\\n' + messages[0].content + "
    "'\\n<</SYS>>\\n\\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{{ system if loop.first }}{{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }} {{ eos_token }}"
    "{% else %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\\n\\n' %}"
    "{% set messages = messages[1:] %}{% endif %}{{ bos_token }}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] "
    "{{ system if loop.first and system is defined }}{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\\n{{ m.content }}{{ eos_token }}\\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\\n{% endif %}"
)
SPACED = {"llama-2": LLAMA2, "mistral": MISTRAL, "zephyr": ZEPHYR}
# As SmolLM2's, whose tokenizer splits words as GPT-2's does.
CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def find_control(template: str) -> list[str]:
    """The control tokens that a template writes, with those of its family's ends."""
    found = {match[0] for match in _CONTROL.finditer(template)} | {"<|endoftext|>"}
    if template in SPACED.values():
        found.add("</s>")
    return sorted(found)


def _iterate_texts() -> Iterable[str]:
    for row in ROWS:
        for turn in (*row.prompt, *row.completion, *row.rejected):
            yield str(turn)
    yield "The user and the assistant say what they think, system and tools\n\n" * 3


def _wrap(tokenizer: Tokenizer, template: str, **named: str) -> PreTrainedTokenizerFast:
    control = find_control(template)
    begins = [token for token in _BEGINS if token in control]
    ends = [token for token in _ENDS if token in control]
    tokens = [AddedToken(token, special=True, normalized=False) for token in control]
    tokenizer.add_special_tokens(tokens)
    named |= {"eos_token": ends[0], "pad_token": "<|endoftext|>"}
    if begins or "bos_token" in template:
        named["bos_token"] = (begins or ["<s>"])[0]
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    wrapped.chat_template = template
    return wrapped


def build_bytes_tokenizer(template: str, as_gpt2: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level, with the merges of a small vocabulary, as Llama-3's and Qwen's; or with words
    split `as_gpt2` splits them.
    """
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=as_gpt2)
    tokenizer.pre_tokenizer = byte_level
    if not as_gpt2:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_iterate_texts(), trainer)
    return _wrap(tokenizer, template)


def build_spaced_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """With a space before the text and in the place of spaces, as Llama-2's and Mistral's."""
    unknown = "<unk>"
    tokenizer = Tokenizer(models.BPE(unk_token=unknown, byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        show_progress=False,
        special_tokens=[unknown, *(f"<0x{byte:02X}>" for byte in range(256))],
    )
    tokenizer.train_from_iterator(_iterate_texts(), trainer)
    # Bytes were named to have a place in the vocabulary: they are no control tokens.
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = []
    return _wrap(Tokenizer.from_str(json.dumps(described)), template, unk_token=unknown)


def list_families() -> list[str]:
    """The names of trl's templates, and of those written anew."""
    names = [path.stem for path in sorted(TEMPLATES.glob("*.jinja"))]
    own = [name for name in names if not name.endswith("_training")]
    return [*own, *SPACED, "chatml"]


def build_tokenizers(name: str) -> list[PreTrainedTokenizerFast]:
    """The tokenizers of a family, by the name of its template."""
    if name in SPACED:
        return [build_spaced_tokenizer(SPACED[name])]
    if name == "chatml":
        return [build_bytes_tokenizer(CHATML, as_gpt2=True)]
    template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizers = [build_bytes_tokenizer(template)]
    if name == "phi3":
        tokenizers.append(build_spaced_tokenizer(template))
    return tokenizers


def split_parts(row: Row) -> Row:
    """The row with texts as lists of parts."""
    changed = []
    for turns in (row.prompt, row.completion, row.rejected):
        changed.append([_split_turn(turn) for turn in turns])
    return Row(row.kind, *changed, tools=row.tools)


def _split_turn(turn: Record) -> Record:
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}
