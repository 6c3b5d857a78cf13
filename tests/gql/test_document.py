"""A document's form and operations, read from its text."""

import hashlib
import time

import pytest
from graphql import GraphQLError, OperationDefinitionNode, parse
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.graphql import document
from auditlog.capture.graphql.document import Document, OperationFacts, read

MEGABYTE = 1_000_000


def operations(text: str) -> list[tuple[str, str | None]]:
    return [(each.type, each.name) for each in read(text).operations]


def test_hash_is_that_of_the_form() -> None:
    """Anyone can compute it: tokens with one space between, no values, no comments."""
    form = 'mutation M ( $ a : Int ) { login ( user : "" , pin : 0 ) { ok } }'.replace(" ,", "")
    text = 'mutation M($a: Int) { login(user: "bob", pin: 1234) { ok } } # now'
    assert read(text).hash == hashlib.sha256(form.encode()).hexdigest()


@pytest.mark.parametrize(
    "same",
    [
        'query Q($a:Int){a(b:"x",c:1){d}}',
        'query Q ( $a : Int ) {\n a(b: "y" c: 2.5e-3) { d } # hunter2\n}',
        'query Q($a: Int) { a(b: """a "quoted" \\""" block""", c: -7) { d } }',
        '\ufeffquery Q($a: Int), { a(b: "esc\\"aped{", c: 0) { d, } }',
    ],
)
def test_values_comments_and_spacing_leave_no_trace(same: str) -> None:
    """So that nothing can be guessed from a hash, and one operation has one."""
    assert read(same).hash == read('query Q($a: Int) { a(b: "", c: 0) { d } }').hash


def test_other_documents_have_other_hashes() -> None:
    """By field, name, alias or argument."""
    texts = ["{ a }", "{ b }", "query A { a }", "{ x: a }", "{ a(b: 1) }", "{ a(c: 1) }", "{ a a }"]
    assert len({read(text).hash for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{ a }", [("query", None)]),
        ("query { a }", [("query", None)]),
        ("query query { query }", [("query", "query")]),
        ('mutation M($a: In = {x: "{"}) @d(r: "}") { a }', [("mutation", "M")]),
        ("subscription @live { a }", [("subscription", None)]),
        ("query A { a } fragment F on T { b } query B { ...F }", [("query", "A"), ("query", "B")]),
        ("query Foo { a", [("query", "Foo")]),
        ('query Foo { a(b: "', [("query", "Foo")]),
        ("persisted:4711", []),
        ("", []),
        ('"', []),
    ],
)
def test_operations_are_found(text: str, expected: list[tuple[str, str | None]]) -> None:
    """In what a parser accepts, and in what none does."""
    assert operations(text) == expected


@pytest.mark.parametrize(
    ("text", "introspects"),
    [
        ("query IntrospectionQuery { __schema { types { name } } }", True),
        ('{ __type(name: "A") { name } }', True),
        ("{ __typename }", True),
        ("{ s: __schema @include(if: true) { types { name } } __typename }", True),
        ("{ __schema { types { name } } a }", False),
        ("{ __schema: secrets }", False),
        ("{ ...F __typename } fragment F on Query { secrets }", False),
        ("{ ... on Query { secrets } __typename }", False),
        ("mutation { __typename }", False),
        ("{ }", False),
    ],
)
def test_introspection_is_told_from_all_else(text: str, introspects: bool) -> None:
    """A rule may leave it out, so nothing else may look like it."""
    assert [each.introspects for each in read(text).operations] == [introspects]


@pytest.mark.parametrize(
    ("name", "expected"), [("A", "A"), ("B", "B"), ("C", None), (None, None), ("", None)]
)
def test_name_selects_the_operation(name: str | None, expected: str | None) -> None:
    """Without one, the only one there is."""
    found = read("query A { a } query B { b }").select(name)
    assert (found.name if found else None) == expected
    only = read("query A { a }").select(None)
    assert only == OperationFacts("query", "A", False)


@given(st.text(alphabet='{}()[]:@!$|&="\\#,.ab_1-\n\r \ufeffé\ud800', max_size=60))
def test_any_text_is_read(text: str) -> None:
    """Nothing raises; where the parser agrees that it is a document, so do the operations."""
    found = read(text)
    try:
        parsed = parse(text)
    except (GraphQLError, UnicodeError):
        return
    definitions = [each for each in parsed.definitions if isinstance(each, OperationDefinitionNode)]
    assert [(each.type, each.name) for each in found.operations] == [
        (each.operation.value, each.name.value if each.name else None) for each in definitions
    ]


@pytest.mark.parametrize(
    "unit", ['"', "\\", '"' + "\\" * 500, "{(", "-", "1", "#", '"\n', '""""', "a:"]
)
def test_hostile_documents_cost_no_more_than_their_length(unit: str) -> None:
    """A megabyte takes a fraction of what the parser would take."""
    text = unit * (MEGABYTE // len(unit))
    began = time.thread_time()
    document._read(text)
    assert time.thread_time() - began < 5


def test_memory_for_documents_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many are forgotten, long ones are not kept."""
    remembered: dict[str, Document] = {}
    monkeypatch.setattr(document, "_remembered", remembered)
    for number in range(document.MAX_REMEMBERED + 10):
        read(f"{{ field{number} }}")
    read("{ a }" + " " * document.MAX_REMEMBERED_CHARS)
    assert len(remembered) == 10
    assert read("{ field512 }") is read("{ field512 }")
