"""Rows that are durable before the answer change nothing of it, however odd it is."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from test_transparency import (
    _ENDS,
    _MESSAGES,
    _STEPS,
    NO_MESSAGES,
    RECEIVED,
    REFUSALS,
    Step,
    Trace,
    assert_same,
    record,
)

from asgi_driver import audited, http_scope, websocket_scope
from auditlog import Settings
from auditlog.testing import MemorySink
from durable_trail import stage_of

SPOOL = Settings(durability="spool", spool_dir="/nowhere")
ALWAYS = Settings(durability="spool", spool_dir="/nowhere", spool_fsync="always")
COMMIT = Settings(durability="commit")
_SCOPES = st.sampled_from(
    [
        http_scope(),
        http_scope(method="HEAD"),
        http_scope(extensions={"http.response.trailers": {}}),
        http_scope(extensions=5),
        websocket_scope(),
        http_scope(type="webtransport"),
    ]
)
_INCOMING = st.lists(st.sampled_from([*RECEIVED, *NO_MESSAGES]), max_size=6)


@given(
    steps=_STEPS,
    end=_ENDS,
    scope=_SCOPES,
    incoming=_INCOMING,
    refusals=st.dictionaries(st.integers(0, 8), st.sampled_from(REFUSALS), max_size=3),
    settings=st.sampled_from([SPOOL, ALWAYS]),
)
def test_spool_passes_any_sequence_unchanged(
    *,
    steps: list[Step],
    end: list[Step],
    scope: dict[str, Any],
    incoming: list[Any],
    refusals: dict[int, Exception],
    settings: Settings,
) -> None:
    """The same objects in the same order, both ways, and each at the same moment."""
    sink = assert_same([*steps, *end], scope, incoming, refusals, settings)

    assert sink.errors == []
    assert [stage_of(each) for each in sink.records] in (
        ([],) if scope["type"] == "webtransport" else (["row"], ["row", "late"])
    )


@given(
    steps=st.lists(
        st.one_of(st.tuples(st.just("receive"), st.none()), st.tuples(st.just("send"), _MESSAGES)),
        max_size=8,
    ),
    end=_ENDS,
    scope=_SCOPES,
    incoming=_INCOMING,
)
def test_commit_passes_any_sequence_in_its_order(
    steps: list[Step], end: list[Step], scope: dict[str, Any], incoming: list[Any]
) -> None:
    """The head of an answer goes a little later; all that goes, and all that comes, is the same."""
    sink = MemorySink(COMMIT)

    def run(wrap: Any) -> Trace:
        return asyncio.run(record([*steps, *end], dict(scope), incoming, {}, wrap))

    bare, with_middleware = run(lambda app: app), run(lambda app: audited(app, sink)[0])
    # A head without a body does not go to a client that has left, nor where all is cancelled.
    given_up = any(
        (kind == "received" and _type_of(value).endswith(".disconnect"))
        or (kind == "raised" and value is not None and not isinstance(value, Exception))
        for kind, value in bare.events
    )

    for kind in ("scope", "received", "returned", "caught", "raised"):
        assert _of(bare, kind) == _of(with_middleware, kind)
    sent, expected = _of(with_middleware, "send"), _of(bare, "send")
    assert sent == expected or (given_up and sent == expected[: len(sent)])
    assert sink.errors == []
    assert [stage_of(each) for each in sink.records] in (
        ([],)
        if scope["type"] == "webtransport"
        else (["received", "complete"], ["received", "complete", "late"])
    )


def _of(trace: Trace, kind: str) -> list[Any]:
    return [(repr(value), id(value)) for each, value in trace.events if each == kind]


def _type_of(message: Any) -> str:
    kind = message.get("type") if isinstance(message, dict) else None
    return kind if isinstance(kind, str) else ""
