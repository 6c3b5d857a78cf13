"""Which rules ask for a row when a request begins, and how that is told."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.policy import Level, Policy, Rule
from auditlog.capture.policy.file import load_policy
from auditlog.errors import PolicyError
from auditlog.records import Protocol

HTTP, GRPC, GRAPHQL = Protocol.HTTP, Protocol.GRPC, Protocol.GRAPHQL


def rule(name: str = "r", level: Level = Level.HEADERS, **fields: Any) -> Rule:
    return Rule(name=name, level=level, **fields)


def asking(policy: Policy, path: str = "/", *, protocol: int = HTTP, method: str = "GET") -> Any:
    """The name of the rule that asks for a row when such a request begins."""
    found = policy.wants_received(protocol, method, path)
    return found and found.name


def test_no_rule_asks_unless_it_says_so() -> None:
    """Two rows are for those who want them."""
    assert not Policy().announces
    assert asking(Policy()) is None
    assert not Policy([rule(paths=("/**",))]).announces


def test_first_rule_that_may_match_and_asks() -> None:
    """What depends on the response may still come true, and nothing else can be waited for."""
    policy = Policy(
        [
            rule("errors", statuses=("5xx",)),
            rule("streams", paths=("/events/**",), users=("*",), received=True),
            rule("writes", Level.METADATA, methods=("POST",), received=True),
        ]
    )
    assert policy.announces
    assert asking(policy, "/events/1") == "streams"
    assert asking(policy, "/events/1", method="POST") == "streams"
    assert asking(policy, "/orders", method="POST") == "writes"
    assert asking(policy, "/orders") is None


def test_rule_that_matches_for_certain_ends_the_search() -> None:
    """It will decide, so what stands below it has nothing to ask."""
    policy = Policy(
        [
            rule("probes", Level.NONE, paths=("/healthz",)),
            rule("quiet", Level.NONE, paths=("/live",), outcomes=("ok",)),
            rule("all", received=True),
        ]
    )
    assert asking(policy, "/healthz") is None
    assert asking(policy, "/live") == "all"
    assert asking(policy, "/orders") == "all"


@pytest.mark.parametrize(
    ("protocols", "protocol", "expected"),
    [
        ((GRPC,), GRPC, None),
        ((GRPC,), HTTP, "all"),
        ((HTTP,), HTTP, "all"),
        ((GRAPHQL,), HTTP, "all"),
        ((HTTP, GRAPHQL), HTTP, None),
        ((HTTP, GRPC), GRPC, "all"),
    ],
)
def test_protocol_is_certain_unless_http_may_become_graphql(
    protocols: tuple[int, ...], protocol: int, expected: str | None
) -> None:
    """A health check of gRPC that is left out has no received row of the rule for everything."""
    policy = Policy([rule("none", Level.NONE, protocols=protocols), rule("all", received=True)])
    assert asking(policy, protocol=protocol) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"received": 1}, "received: must be true or false"),
        ({"received": True, "level": Level.NONE}, "level none writes no row"),
        ({"received": True, "sample": 0.5}, "cannot be sampled"),
        ({"received": True, "sample": 0}, "cannot be sampled"),
    ],
)
def test_rule_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    """A received row is written before anything can leave the request out."""
    with pytest.raises(PolicyError, match=message):
        Rule(**{"name": "r", "level": Level.HEADERS, **fields})


def test_file_says_it_with_a_key_of_the_same_name(tmp_path: Path) -> None:
    """And is refused for the same reasons, with the line."""
    path = tmp_path / "policy.toml"
    path.write_text('[[rules]]\nname = "a"\nlevel = "metadata"\nreceived = true\n')
    assert load_policy(path).announces
    path.write_text(
        '[[rules]]\nname = "a"\nlevel = "metadata"\nsample = 0.1\nreceived = true\n'
        '[[rules]]\nname = "b"\nlevel = "nonsense"\nsample = "x"\nreceived = true\n'
    )
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    lines = [line.partition("policy.toml:")[2] for line in str(caught.value).splitlines()]
    assert lines[0].startswith("5: rule 'a': received: a row at the beginning cannot be sampled")
    assert {line.split(": ")[2] for line in lines[1:]} == {"level", "sample", "received"}


def test_explanation_names_the_rule_that_asks() -> None:
    """Which may be another than the one that decides."""
    policy = Policy([rule("errors", statuses=("5xx",)), rule("all", Level.METADATA, received=True)])
    explanation = policy.explain(HTTP, "GET", "/", status=500)
    assert (explanation.rule, explanation.received) == ("errors", "all")
    assert Policy().explain(HTTP, "GET", "/").received is None


@given(
    rules=st.lists(
        st.fixed_dictionaries(
            {
                "level": st.sampled_from([Level.METADATA, Level.BODY]),
                "received": st.booleans(),
            },
            optional={
                "protocols": st.sampled_from([(HTTP,), (GRPC,), (GRAPHQL,), (HTTP, GRAPHQL)]),
                "methods": st.just(("GET",)),
                "paths": st.sampled_from([("/a",), ("/**",)]),
                "statuses": st.just(("2xx",)),
                "users": st.just(("*",)),
            },
        ),
        max_size=4,
    ),
    protocol=st.sampled_from([HTTP, GRPC]),
    becomes_graphql=st.booleans(),
    method=st.sampled_from(["GET", "POST"]),
    path=st.sampled_from(["/a", "/b"]),
    status=st.sampled_from([200, 500]),
    user=st.sampled_from([None, "joe"]),
)
def test_what_a_deciding_rule_asks_for_early_is_never_missed(  # noqa: PLR0917  # hypothesis's
    rules: list[dict[str, Any]],
    protocol: int,
    becomes_graphql: bool,
    method: str,
    path: str,
    status: int,
    user: str | None,
) -> None:
    """Whatever decides in the end, its wish was known at the beginning."""
    made = [rule(f"r{number}", **fields) for number, fields in enumerate(rules)]
    try:
        policy = Policy(made)
    except PolicyError:  # one that matches everything above another
        return
    late = GRAPHQL if becomes_graphql and protocol == HTTP else protocol
    decision = policy.decide(late, method, path, None, status, "ok", user, None)
    if decision.matched is not None and decision.matched.received:
        assert policy.wants_received(protocol, method, path) is not None
    if decision.matched is not None and decision.matched.level is Level.BODY:
        assert policy.wants_body(protocol, method, path) is not None
