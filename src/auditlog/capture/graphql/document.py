"""A GraphQL document, read without a parser: a hash of its form, and the operations in it.

Takes the text as a client sent it, also one that no parser accepts. The hash is taken after every
string and number, every comment and all spacing is gone: documents that differ in nothing else
share it, and a password that somebody wrote into one cannot be guessed from it. One pass over the
text, in linear time (GraphQL specification, October 2021, section 2.1); the answer is remembered.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

MAX_REMEMBERED: Final = 512
MAX_REMEMBERED_CHARS: Final = 16 * 1024
"""Of one document. Both are small, for the documents come from clients: at most 8 Mi characters."""

QUERY, MUTATION, SUBSCRIPTION = "query", "mutation", "subscription"
_TYPES = frozenset({QUERY, MUTATION, SUBSCRIPTION})
_TOKEN = re.compile(
    r"""
    [\s,\ufeff]++ | \#[^\n\r]*+
    | (?P<text> \"""(?: [^"\\] | \\\""" | \\ | "(?!"") )*+ (?:\""")?
        | "(?: [^"\\\n\r] | \\. )*+ "? )
    | (?P<number> -?\d [\w.+-]*+ )
    | (?P<token> [A-Za-z_]\w*+ | \.\.\. | . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
# Longer names are no names of a schema, and would fill the trail.
_MAX_NAME_CHARS = 255


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
        if len(text) <= MAX_REMEMBERED_CHARS:
            if len(_remembered) >= MAX_REMEMBERED:
                _remembered.clear()
            _remembered[text] = document
    return document


_remembered: dict[str, Document] = {}


def _read(text: str) -> Document:
    tokens = list(_tokens(text))
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
            yield '""' if kind == "text" else "0"


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
            depth = max(0, depth - 1)
            if not depth:
                yield head, body
                head, body = [], []
        elif depth <= 1:
            (body if depth else head).append(word)
    if head or body:
        yield head, body


def _operation(head: Sequence[str], body: Sequence[str]) -> OperationFacts | None:
    """Tell the operation that a definition is; None for fragments, and for what is none."""
    kind = head[0] if head else QUERY
    if kind not in _TYPES:
        return None
    named = len(head) > 1 and head[1].isidentifier()
    name = head[1][:_MAX_NAME_CHARS] if named else None
    return OperationFacts(kind, name, kind == QUERY and _introspects(body))


def _introspects(body: Sequence[str]) -> bool:
    fields = [
        token
        for before, token, after in zip(["", *body], body, [*body[1:], ""], strict=False)
        # The name of a directive, and an alias, are not asked for.
        if token.isidentifier() and before != "@" and after != ":"
    ]
    return bool(fields) and "..." not in body and all(name.startswith("__") for name in fields)
