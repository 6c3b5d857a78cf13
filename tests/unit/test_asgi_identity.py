import logging
from collections.abc import Callable
from typing import Any

import pytest

from asgi_driver import (
    END,
    START,
    audited,
    http_scope,
    row_of,
    script,
)
from auditlog import annotate
from auditlog.errors import SettingsError
from tuples import encoded

OK_ANSWER = script(START, END)


async def test_identities_are_asked_after_the_application_ran() -> None:
    """With the scope as authentication left it, and only for what no handler has said."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["tenant"] = "acme"
        annotate(resource_owner="from the handler")
        await send(START)
        await send(END)

    record = await row_of(
        app,
        user_id=lambda scope: scope["path"],
        instance_id=lambda scope: scope["tenant"],
        resource_owner=lambda _scope: "not asked",
    )

    assert (record.user_id, record.instance_id, record.resource_owner) == (
        "/orders/42",
        "acme",
        "from the handler",
    )


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("hunter2")

    __repr__ = __str__


def refuse_to_tell(_scope: Any) -> str:
    raise LookupError("hunter2")


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        (lambda _scope: 7, "7"),
        (lambda _scope: b"ab", "b'ab'"),
        (lambda _scope: "", ""),
        (lambda _scope: "x" * 10_000_000, "x" * 255),
        (lambda _scope: "\udcff\0", "\ufffd\ufffd"),
        (lambda _scope: None, None),
        (lambda _scope: Unprintable(), None),
        (refuse_to_tell, None),
        (Unprintable(), None),
        (lambda: "wrong signature", None),
    ],
)
async def test_hostile_identity_costs_its_value_and_nothing_else(
    answer: Any, stored: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the callables do, the row is there, and no log line shows a value."""
    record = await row_of(OK_ANSWER, user_id=answer, resource_owner=answer)
    row = encoded(record)

    assert (row["user_id"], row["resource_owner"]) == (stored, stored)
    assert "audit.capture_error" not in row["metadata"]
    assert "hunter2" not in caplog.text


async def test_failing_identity_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """By the function's name and the class of its error."""
    with caplog.at_level(logging.WARNING, "auditlog"):
        await row_of(OK_ANSWER, user_id=refuse_to_tell)

    assert "identify_failed: refuse_to_tell raised LookupError" in caplog.text


async def test_hostile_tenant_falls_back_to_the_setting() -> None:
    """The primary key begins with it."""
    row = encoded(await row_of(OK_ANSWER, instance_id=refuse_to_tell))

    assert row["instance_id"] == "default"


async def ask_a_database(_scope: Any) -> str:
    return "7"


class AskADatabase:
    async def __call__(self, _scope: Any) -> str:
        return "7"


@pytest.mark.parametrize("name", ["user_id", "instance_id", "resource_owner"])
@pytest.mark.parametrize("identify", [ask_a_database, AskADatabase()])
def test_identity_that_must_be_awaited_is_refused(name: str, identify: Any) -> None:
    """At the start, with the remedy: what it returns would be no identity."""
    with pytest.raises(SettingsError, match=rf"^{name} must be a plain function.*annotate"):
        audited(OK_ANSWER, **{name: identify})


class User:
    """Like the users of Starlette, Django and others, as the keywords say."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class HalfMade(User):
    """Starlette's BaseUser raises for what a subclass leaves out."""

    @property
    def identity(self) -> str:
        raise NotImplementedError

    @property
    def display_name(self) -> str:
        return "half"


class Lazy:
    """Touched outside of a request, it raises, as Channels' user does."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("not resolved")


# Made in the test: pytest looks closely at its parameters.
USERS: dict[str, tuple[Callable[[], Any], str | None]] = {
    "nobody": (lambda: None, None),
    "not authenticated": (lambda: User(is_authenticated=False, identity="1"), None),
    "does not say whether": (lambda: User(identity="1"), None),
    "identity": (lambda: User(is_authenticated=True, identity="1", username="u"), "1"),
    "username": (lambda: User(is_authenticated=True, username="u"), "u"),
    "number": (lambda: User(is_authenticated=True, identity=42), "42"),
    "empty identity": (lambda: User(is_authenticated=True, identity="", display_name="d"), "d"),
    "nameless": (lambda: User(is_authenticated=True), None),
    "half made": (lambda: HalfMade(is_authenticated=True), "half"),
    "lazy": (Lazy, None),
    "object": (object, None),
    "str": (lambda: "alice", None),
    "dict": (lambda: {"id": 1}, None),
    "unprintable": (Unprintable, None),
    "unprintable identity": (
        lambda: User(is_authenticated=True, identity=Unprintable()),
        None,
    ),
}


@pytest.mark.parametrize(("make", "expected"), USERS.values(), ids=USERS)
async def test_user_of_an_authentication_middleware_is_named(
    make: Callable[[], Any], expected: str | None
) -> None:
    """Whatever kind of object it is, and only when it is authenticated."""
    assert (await row_of(OK_ANSWER, http_scope(user=make()))).user_id == expected
