"""YAML from anybody, read within bounds: of bytes, of depth, of values with aliases written out.

A few lines of aliases can stand for more values than any memory holds, a kilobyte of brackets for
more depth than any stack, and a number for minutes of arithmetic. A key that comes twice is
refused: YAML forbids it, and of the two one would be lost unseen.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.error import Mark
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner
from yaml.tokens import ScalarToken

from poisonwatch.text.display import excerpt
from poisonwatch.text.words import unify_line_ends

MAX_BYTES = 2**20  # of a file
MAX_DEPTH = 50  # lists and mappings within each other
MAX_VALUES = 100_000  # aliases written out
MAX_NUMBER_CHARS = 100
SHOWN_KEY_CHARS = 40


class YamlError(ValueError):
    """A text is no YAML, or no bounded one. Its words are one line, and repeat nothing of the text
    but keys: a line of an audit file may hold a password.
    """


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file, its line ends as \\n. Raises OSError where it cannot be opened,
    YamlError where it is no file, too large, or not UTF-8.
    """
    if path.is_dir():
        raise YamlError("it is a folder, and no file")
    try:
        # A pipe without a writer would be waited for, for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError:
        raise YamlError("a file's name holds no null character") from None
    with os.fdopen(descriptor, "rb") as file:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            raise YamlError("it is a device or a pipe, and no file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise YamlError(f"it is larger than {MAX_BYTES:,} bytes: split it into several files")
    try:
        return unify_line_ends(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlError(f"it is not UTF-8 (line {line}): save it as UTF-8") from None


def parse_yaml(text: str) -> Any:
    """What a YAML text of one document says. Raises YamlError."""
    loader = None
    try:
        loader = _LOADER(text)
        return loader.get_single_data()
    except _BoundsError as error:
        raise YamlError(f"{error.problem} ({_describe_place(error.problem_mark)})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(
            f"see {_describe_place(mark)} (texts with special characters need quotes)"
        ) from None
    except yaml.YAMLError:
        raise YamlError("it holds control characters") from None
    # What PyYAML lets through of Python: what is no number, date or character, and half characters.
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError):
        raise YamlError("it holds a number, date or character that cannot be read") from None
    finally:
        if loader is not None:
            loader.dispose()


def locate_yaml_value(text: str, key: str) -> Node | None:
    """The value of a key of the mapping that a YAML text is, with the places in the text where it
    begins and ends; None where there is none such, or the text is none that `parse_yaml` reads.
    """
    try:
        # Places of libyaml's parser are in bytes of its own making.
        document = _PlainLoader(text).get_single_node()
    except yaml.YAMLError:
        return None
    pairs = document.value if isinstance(document, MappingNode) else []
    for name, value in pairs:
        if isinstance(name, ScalarNode) and name.value == key:
            return value if isinstance(value, Node) else None
    return None


def locate_scalar_text(text: str, node: ScalarNode) -> int:
    """Where in a text the scalar of a node that was located in it begins, behind its anchor and its
    tag.
    """
    # types-PyYAML knows its own loaders alone
    tokens = yaml.scan(text, Loader=_PlainLoader)  # type: ignore[arg-type]
    starts = (token.start_mark.index for token in tokens if isinstance(token, ScalarToken))
    return next(int(start) for start in starts if start >= node.start_mark.index)


def _describe_place(mark: Mark | None) -> str:
    if mark is None:
        return "somewhere in it"
    return f"line {mark.line + 1}, column {mark.column + 1}"


class _BoundsError(ConstructorError):
    """YAML that is refused here, in words that may be shown."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(None, None, problem, mark)


class _BoundedComposer(Composer):
    """Nodes as PyYAML makes them of a parser's events, as long as they are few and not too deep. To
    be mixed with a parser.
    """

    peek_event: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.values = 0
        # By anchor, what an alias stands for; None while it is still open.
        self.sizes: dict[str, int | None] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """The next node, aliases counted as what they stand for."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            size = self.sizes.get(str(event.anchor), 0)
            if size is None:
                raise _BoundsError("an alias (*) stands for itself", event.start_mark)
            self._count(size, event.start_mark)
            return super().compose_node(parent, index)
        before = self.values
        self._count(1, event.start_mark)
        deeper = int(isinstance(event, yaml.CollectionStartEvent))
        self.depth += deeper
        if self.depth > MAX_DEPTH:
            raise _BoundsError(f"it is nested more than {MAX_DEPTH} deep", event.start_mark)
        if event.anchor is not None:
            self.sizes[event.anchor] = None
        node = super().compose_node(parent, index)
        if event.anchor is not None:
            self.sizes[event.anchor] = self.values - before
        self.depth -= deeper
        return node

    def _count(self, values: int, mark: Any) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise _BoundsError(
                f"it stands for more than {MAX_VALUES:,} values, with its aliases (*) written out",
                mark,
            )


class _StrictConstructor(SafeConstructor):
    """Values as PyYAML's safe constructor makes them, of keys that come once."""

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        """A mapping. Raises _BoundsError where a key comes twice."""
        seen: dict[str, int] = {}
        pairs = node.value if isinstance(node, MappingNode) else []
        for key, _ in pairs:
            if not isinstance(key, ScalarNode):
                continue
            if key.value in seen:
                raise _BoundsError(
                    f"the key {excerpt(key.value, SHOWN_KEY_CHARS)} comes twice, the first time in "
                    f"line {seen[key.value]}",
                    key.start_mark,
                )
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)  # type: ignore[arg-type]

    def construct_number(self, node: ScalarNode) -> int | float:
        """A number. Raises _BoundsError where it is longer than any that is meant."""
        if len(node.value) > MAX_NUMBER_CHARS:
            raise _BoundsError(
                f"a number has more than {MAX_NUMBER_CHARS} characters", node.start_mark
            )
        if node.tag.endswith(":int"):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


for _tag in ("int", "float"):
    # types-PyYAML knows constructors of the class itself alone
    _StrictConstructor.add_constructor(  # type: ignore[type-var]
        f"tag:yaml.org,2002:{_tag}", _StrictConstructor.construct_number
    )


class _PlainLoader(Reader, Scanner, Parser, _BoundedComposer, _StrictConstructor, Resolver):
    """PyYAML's own parser, for installations without libyaml."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        _BoundedComposer.__init__(self)
        _StrictConstructor.__init__(self)
        Resolver.__init__(self)


_LOADER: Any = _PlainLoader
if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _QuickLoader(_BoundedComposer, CParser, _StrictConstructor, Resolver):
        """libyaml's parser, ten times as fast."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _BoundedComposer.__init__(self)
            _StrictConstructor.__init__(self)
            Resolver.__init__(self)

        def dispose(self) -> None:
            """Nothing to let go of."""

    _LOADER = _QuickLoader
