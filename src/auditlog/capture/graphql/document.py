"""A GraphQL document, read without a parser: a hash of its form, and the operations in it.

Takes the text as a client sent it, also one that no parser accepts. The hash is taken after every
string and number, every comment and all spacing is gone: documents that differ in nothing else
share it, and a password that somebody wrote into one cannot be guessed from it. One pass over the
text, in linear time (GraphQL specification, September 2025, section 2.1), and no further than
`MAX_TOKENS`; the answer is remembered.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

MAX_REMEMBERED: Final = 512
MAX_REMEMBERED_CHARS: Final = 16 * 1024
"""Of one document. Both are small, for the documents come from clients: at most 8 Mi characters."""
MAX_REMEMBERED_OPERATIONS: Final = 100
"""Of one document: they take more room than the text that makes them, `{a}{a}{a}`."""
MAX_TOKENS: Final = 50_000
"""Of one document, the rest is not read: a parser may refuse five megabytes at the first token.
That many take 0.1 s at worst, and a parser that accepts them four times as long (2026-11-25)."""

QUERY, MUTATION, SUBSCRIPTION = "query", "mutation", "subscription"
_TYPES = frozenset({QUERY, MUTATION, SUBSCRIPTION})
_TEXT = '""'
_TOKEN = re.compile(
    r"""
    (?: [\s,\ufeff]++ | \#[^\n\r]*+ )++
    | (?P<text> \"""(?: [^"\\] | \\\""" | \\ | "(?!"") )*+ (?:\""")?
        | "(?: [^"\\\n\r] | \\. )*+ "? )
    | (?P<number> -?\d [\w.+-]*+ )
    | (?P<token> [A-Za-z_]\w*+ | \.\.\. | . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


class OperationFacts(NamedTuple):
    """One operation of a document."""

    type: str
    name: str | None
    introspects: bool
    """Does it ask for nothing but the schema itself?"""


class Document(NamedTuple):
    """What is known of a text."""

    hash: str
    """SHA-256 of its form, in hexadecimal digits."""
    operations: tuple[OperationFacts, ...]

    def select(self, name: str | None) -> OperationFacts | None:
        """Return the operation that a request for this name runs; None if it is not certain."""
        if name:
            return next((each for each in self.operations if each.name == name), None)
        return self.operations[0] if len(self.operations) == 1 else None


def read(text: str) -> Document:
    """Read a document; one that is known costs a dictionary's look-up."""
    document = _remembered.get(text)
    if document is None:
        document = _read(text)
        is_small = len(document.operations) <= MAX_REMEMBERED_OPERATIONS
        if is_small and len(text) <= MAX_REMEMBERED_CHARS:
            if len(_remembered) >= MAX_REMEMBERED:
                _remembered.clear()
            _remembered[text] = document
    return document


_remembered: dict[str, Document] = {}


def _read(text: str) -> Document:
    tokens = list(islice(_tokens(text), MAX_TOKENS))
    form = " ".join(tokens).encode("utf-8", "replace")
    operations = (_operation(head, body) for head, body in _definitions(tokens))
    return Document(
        hashlib.sha256(form).hexdigest(), tuple(each for each in operations if each is not None)
    )


def _tokens(text: str) -> Iterator[str]:
    """Yield what carries the form; of a string or a number, that there is one."""
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind == "token":
            yield found[0]
        elif kind is not None:
            yield _TEXT if kind == "text" else "0"


def _definitions(tokens: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield what stands before each outermost selection, and what is selected in it directly."""
    depth = parentheses = 0
    head: list[str] = []
    body: list[str] = []
    for word in tokens:
        if word == "(":
            parentheses += 1
        elif word == ")":
            parentheses = max(0, parentheses - 1)
        elif parentheses:
            continue
        elif word == "{":
            depth += 1
        elif word == "}":
            if depth == 1:
                yield head, body
                head, body = [], []
            depth = max(0, depth - 1)
        elif depth <= 1:
            (body if depth else head).append(word)
    if head or body:
        yield head, body


def _operation(head: Sequence[str], body: Sequence[str]) -> OperationFacts | None:
    """Tell the operation that a definition is; None for fragments, and for what is none."""
    if len(head) > 1 and head[0] == _TEXT:  # its description
        head = head[1:]
    kind = head[0] if head else QUERY
    if kind not in _TYPES:
        return None
    named = len(head) > 1 and head[1].isidentifier()
    return OperationFacts(kind, head[1] if named else None, kind == QUERY and _introspects(body))


def _introspects(body: Sequence[str]) -> bool:
    fields = [
        token
        for before, token, after in zip(["", *body], body, [*body[1:], ""], strict=False)
        # The name of a directive, and an alias, are not asked for.
        if token.isidentifier() and before != "@" and after != ":"
    ]
    return bool(fields) and "..." not in body and all(name.startswith("__") for name in fields)
