"""Whose RPC it is: by what interceptors in front have found out, and by the API key."""

import threading
from typing import Any

import pytest
from rpc_client import Client
from rpc_handlers import SHAPES, handler
from rpc_quota_scene import OK, USED_UP, limited
from rpc_scene import METHOD, echo, every_shape
from rpc_steps import drain, send
from rpc_trail import Trail, metadata

from auditlog import Settings, annotate
from auditlog.capture.rpc.metadata import raw_pairs
from auditlog.errors import SettingsError
from auditlog.quota.model import Quota

SECRET = "key-of-a-client"


def said(name: str) -> Any:
    """A callable that reads the client's metadata."""

    def read(context: Any) -> str | None:
        value = dict(raw_pairs(context.invocation_metadata())).get(name.encode())
        return None if value is None else value.decode()

    return read


def codes_of(ours: Any, *names_and_values: tuple[str, str]) -> list[int]:
    return [ours.call(metadata=[pair]).code for pair in names_and_values]


def test_quota_per_user_is_that_of_the_callables(rpc_server: str) -> None:
    quota = Quota("calls", 1, "day", per="user")
    options = {"user_id": said("x-user"), "instance_id": said("x-tenant")}
    with limited(rpc_server, echo(rpc_server), quota, interceptor_options=options) as ours:
        users = [("x-user", name) for name in ("ada", "bob", "ada")]
        assert codes_of(ours, *users) == [OK, OK, USED_UP]
        other_tenant = ours.call(metadata=[("x-user", "ada"), ("x-tenant", "acme")])
        assert other_tenant.code == OK
        # Nobody is nobody's user.
        assert ours.codes(2) == [OK, OK]


def test_quota_per_address_is_that_of_the_client(rpc_server: str) -> None:
    """Behind a trusted proxy, the one that the proxy tells of."""
    trail = Trail(Settings(trusted_proxies=("127.0.0.1",)))
    quota = Quota("calls", 1, "day", per="address")
    with limited(rpc_server, echo(rpc_server), quota, trail=trail) as ours:
        clients = [("x-forwarded-for", f"203.0.113.{host}") for host in (1, 2, 1)]
        assert codes_of(ours, *clients) == [OK, OK, USED_UP]
        assert ours.codes(2) == [OK, USED_UP]


def test_quota_per_method_is_each_methods_own(rpc_server: str) -> None:
    shape = SHAPES[rpc_server]["uu"][0]
    methods = {f"/rpc.Scene/{name}": handler("uu", shape, (send("a"),)) for name in "AB"}
    quota = Quota("calls", 1, "day", per="route", routes="**")
    with limited(rpc_server, methods, quota) as ours:
        assert ours.codes(2, "/rpc.Scene/A") == [OK, USED_UP]
        assert ours.codes(2, "/rpc.Scene/B") == [OK, USED_UP]


def test_quota_per_key_keeps_no_key(rpc_server: str) -> None:
    quota = Quota("calls", 1, "day", per="key")
    key = said("x-custom")
    with limited(rpc_server, echo(rpc_server), quota, key=key) as ours:
        keys = [("x-custom", each) for each in (SECRET, "another", SECRET)]
        assert codes_of(ours, *keys) == [OK, OK, USED_UP]
        assert ours.codes(2) == [OK, OK]
        assert SECRET not in repr(ours.trail.records)


def test_key_that_raises_is_told_of_and_the_rpc_is_served(
    rpc_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> str:
        raise RuntimeError(SECRET)

    quota = Quota("calls", 0, "day", per="key")
    with limited(rpc_server, echo(rpc_server), quota, key=broken) as ours:
        assert ours.codes(1) == [OK]
    assert "auditlog.identify_failed" in caplog.text
    assert SECRET not in caplog.text


def test_key_that_would_have_to_be_awaited_is_refused(rpc_server: str) -> None:
    async def key(_: Any) -> str:
        return "a"

    with (
        pytest.raises(SettingsError, match="plain function"),
        limited(rpc_server, {}, key=key),
    ):
        pass


def test_decision_keeps_nobody_waiting_but_its_own_handler(rpc_server: str) -> None:
    """Neither the threaded server's only thread, nor an event loop where a handler has a thread."""
    entered, go_on = threading.Event(), threading.Event()
    threads: list[str] = []

    def key(context: Any) -> str:
        threads.append(threading.current_thread().name)
        if said("x-wait")(context):
            entered.set()
            assert go_on.wait(10)
        return "a"

    methods = {METHOD: handler("uu", "sync", (send("a"),))}
    quota = Quota("calls", 9, "day", per="key")
    with limited(rpc_server, methods, quota, key=key) as ours:
        call = Client(ours.scene.channel).begin(METHOD, "uu", metadata=[("x-wait", "1")])
        assert entered.wait(10)
        assert ours.codes(2) == [OK, OK]
        go_on.set()
        assert call.result()
    assert all(name.startswith("handler") for name in threads)


def test_context_of_a_stream_in_a_thread_is_the_rpcs_own(rpc_server: str) -> None:
    """What the interceptor says of an RPC while it decides is in that RPC's row."""

    def key(context: Any) -> str:
        annotate(key_was_asked=dict(context.invocation_metadata())["x-request-id"])
        return "a"

    methods = every_shape(rpc_server, drain, send("a"))
    handlers = {method: each for method, (_, each) in methods.items()}
    quota = Quota("calls", 99, "day", per="key")
    with limited(rpc_server, handlers, quota, key=key) as ours:
        for method, (kind, _) in methods.items():
            client = Client(ours.scene.channel)
            client.call(method, kind)
            row = ours.trail.one(client.request_id)
            assert metadata(row)["key_was_asked"] == client.request_id, method
