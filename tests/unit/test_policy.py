"""Which rule decides, and what that means."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.policy import DEFAULT_RULES, Decision, Level, Policy, Rule
from auditlog.capture.policy.explanation import Verdict, stored_at
from auditlog.errors import PolicyError
from auditlog.records import Protocol, RequestOutcome

HTTP, GRPC, GRAPHQL = Protocol.HTTP, Protocol.GRPC, Protocol.GRAPHQL


def rule(name: str = "r", level: Level = Level.NONE, **conditions: Any) -> Rule:
    return Rule(name=name, level=level, **conditions)


def decide(policy: Policy, path: str = "/", **facts: Any) -> Decision:
    known = {
        "protocol": HTTP,
        "method": "GET",
        "route": None,
        "status": 200,
        "outcome": "ok",
        "user": None,
        "tenant": "default",
        **facts,
    }
    return policy.decide(path=path, **known)


# Deciding


def test_first_match_wins() -> None:
    """Order is all that ranks rules."""
    policy = Policy([rule("a", Level.METADATA, paths=("/a/**",)), rule("b", paths=("/**",))])
    assert decide(policy, "/a/x").rule == "a"
    assert decide(policy, "/b").rule == "b"
    assert decide(policy, "/a/x") is decide(policy, "/a/y"), "answers are made once"


def test_no_match_is_the_default() -> None:
    """Which no rule has a name for."""
    policy = Policy([rule(paths=("/a",))], default=Level.METADATA)
    assert decide(policy, "/b") == Decision(Level.METADATA)
    assert decide(Policy([])) == Decision(Level.HEADERS)


@pytest.mark.parametrize(
    ("conditions", "matching", "others"),
    [
        ({"protocols": (GRPC,)}, {"protocol": 2}, {"protocol": 1}),
        ({"methods": ("GET", "HEAD")}, {"method": "HEAD"}, {"method": "get"}),
        ({"paths": ("/a/*",)}, {"path": "/a/b"}, {"path": "/b"}),
        ({"routes": ("/users/{id}",)}, {"route": "/users/{id}"}, {"route": None}),
        ({"routes": ("**",)}, {"route": "/users/{id}"}, {"route": None}),
        ({"routes": ("/**",)}, {"route": "/users/{id}"}, {"route": None}),
        ({"statuses": ("404", "5xx")}, {"status": 599}, {"status": 400}),
        ({"statuses": ("404",)}, {"status": 404}, {"status": None}),
        ({"outcomes": ("denied",)}, {"outcome": RequestOutcome.DENIED}, {"outcome": "ok"}),
        ({"users": ("svc-*",)}, {"user": "svc-1"}, {"user": "joe"}),
        ({"users": ("*",)}, {"user": "joe"}, {"user": None}),
        ({"tenants": ("acme",)}, {"tenant": "acme"}, {"tenant": "other"}),
        ({"tenants": ("*",)}, {"tenant": "acme"}, {"tenant": None}),
        ({"methods": ("GET",), "users": ("joe",)}, {"user": "joe"}, {"user": "jim"}),
    ],
)
def test_every_condition_must_hold(
    conditions: dict[str, Any], matching: dict[str, Any], others: dict[str, Any]
) -> None:
    """A fact that a request does not have matches nothing."""
    policy = Policy([rule("r", **conditions)])
    assert decide(policy, **matching).rule == "r"
    assert decide(policy, **others).rule is None


@pytest.mark.parametrize(
    "path",
    ["/health", "/health/ready", "/healthz", "/readyz/etcd", "/livez", "/ping", "/metrics",
     "/static/app.js", "/assets/a/b.css", "/favicon.ico", "/robots.txt"],
)  # fmt: skip
def test_default_rules_leave_out_what_succeeds_only(path: str) -> None:
    """A failing health check has its row, and so has whatever is not a plain read."""
    policy = Policy()
    assert decide(policy, path).level is Level.NONE
    assert decide(policy, path).rule in {"health-checks", "static-files"}
    assert decide(policy, path, method="HEAD", status=304).level is Level.NONE
    for facts in (
        {"status": 503, "outcome": "server_error"},
        {"status": 200, "outcome": "incomplete"},
        {"status": 401, "outcome": "denied"},
        {"status": 404, "outcome": "client_error"},
        {"status": None, "outcome": "client_disconnect"},
        {"method": "POST"},
        {"protocol": GRPC},
    ):
        assert decide(policy, path, **facts).level is Level.HEADERS


@pytest.mark.parametrize(
    "path", ["/", "/users/42", "/health/patients/42", "/healthy", "/static/../admin", "/x/metrics"]
)
def test_default_rules_leave_nothing_else_out(path: str) -> None:
    """The name of a health check is not a place to hide."""
    assert decide(Policy(), path) == Decision(Level.HEADERS)


# Sampling


def test_sampling_follows_the_sampler() -> None:
    """Which tests, and those who sample by trace, can replace."""
    numbers = iter([0.0, 0.0999, 0.1, 0.9])
    policy = Policy([rule("r", Level.HEADERS, sample=0.1)], sampler=lambda: next(numbers))
    decisions = [decide(policy) for _ in range(4)]
    assert [decision.level for decision in decisions] == [Level.HEADERS] * 2 + [Level.NONE] * 2
    assert [decision.sampled_out for decision in decisions] == [False, False, True, True]
    assert {decision.rule for decision in decisions} == {"r"}


@pytest.mark.parametrize(
    "facts",
    [
        {"status": 500, "outcome": "server_error"},
        {"status": 503, "outcome": "ok"},
        {"status": 401, "outcome": "denied"},
        {"status": 403, "outcome": "client_error"},
        {"status": 407},
        *({"outcome": str(outcome)} for outcome in set(RequestOutcome) - {"ok", "client_error"}),
    ],
)
def test_errors_and_denials_are_never_sampled_away(facts: dict[str, Any]) -> None:
    """They are what the trail is read for."""
    policy = Policy([rule("r", Level.METADATA, sample=0.0)], sampler=lambda: 0.999)
    assert decide(policy, **facts).level is Level.METADATA
    assert decide(policy, status=404, outcome="client_error").sampled_out


def test_rule_of_level_none_is_explicit() -> None:
    """What a rule leaves out is left out, errors too."""
    assert decide(Policy([rule()]), status=500, outcome="server_error").level is Level.NONE


def test_whole_share_asks_no_sampler() -> None:
    """A draw that cannot change anything is not made."""

    def sampler() -> float:
        raise AssertionError

    assert decide(Policy([rule("r", Level.BODY)], sampler=sampler)).level is Level.BODY


# Bodies


def test_no_body_is_wanted_without_a_rule_for_one() -> None:
    """Nothing is teed that no rule can ask for."""
    assert Policy().wants_body(HTTP, "POST", "/") is None


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([rule("b", Level.BODY, paths=("/a/**",))], "b"),
        ([rule("b", Level.BODY, paths=("/b",))], None),
        ([rule("b", Level.BODY, methods=("GET",))], None),
        ([rule("b", Level.BODY, protocols=(GRPC,))], None),
        ([rule("b", Level.BODY, protocols=(GRAPHQL,))], "b"),
        ([rule("b", Level.BODY, statuses=("5xx",), users=("*",), routes=("/x",))], "b"),
        ([rule("a", paths=("/a/**",)), rule("b", Level.BODY)], None),
        ([rule("a", paths=("/a/**",), statuses=("2xx",)), rule("b", Level.BODY)], "b"),
        ([rule("a", paths=("/x",)), rule("b", Level.BODY)], "b"),
        ([rule("b", Level.BODY, users=("joe",)), rule("c", Level.BODY)], "b"),
    ],
)
def test_body_is_wanted_if_a_rule_may_still_ask_for_it(
    rules: list[Rule], wanted: str | None
) -> None:
    """Known before the response are protocol, method and path."""
    found = Policy(rules).wants_body(HTTP, "POST", "/a/b")
    assert (found.name if found else None) == wanted


choice = st.sampled_from
rules = st.builds(
    lambda level, conditions: (level, conditions),
    choice(list(Level)),
    st.fixed_dictionaries(
        {},
        optional={
            "protocols": choice([(HTTP,), (GRPC,), (HTTP, GRAPHQL)]),
            "methods": choice([("GET",), ("POST", "PUT")]),
            "paths": choice([("/a",), ("/a/**",), ("/b", "/**")]),
            "routes": choice([("/a",), ("/**",)]),
            "statuses": choice([("200",), ("4xx", "5xx")]),
            "outcomes": choice([("ok",), ("denied", "server_error")]),
            "users": choice([("*",), ("joe",)]),
        },
    ),
)
facts = st.fixed_dictionaries(
    {
        "protocol": choice([1, 2]),
        "method": choice(["GET", "POST", "X"]),
        "path": choice(["/a", "/a/b", "/c", ""]),
        "route": choice([None, "/a", "/x"]),
        "status": choice([None, 200, 404, 500]),
        "outcome": choice(["ok", "denied", "server_error"]),
        "user": choice([None, "joe"]),
    }
)


@given(st.lists(rules, max_size=4), facts)
def test_policy_agrees_with_itself(drawn: list[tuple[Level, Any]], known: dict[str, Any]) -> None:
    """A body that is decided on was wanted before; an explanation says what is decided."""
    named = [rule(str(i), level, **conditions) for i, (level, conditions) in enumerate(drawn)]
    named = [r for i, r in enumerate(named) if not any(a.is_catch_all for a in named[:i])]
    policy = Policy(named)
    decision = decide(policy, **known)
    early = policy.wants_body(known["protocol"], known["method"], known["path"])
    if decision.level is Level.BODY and decision.matched:
        assert early is not None
    explanation = policy.explain(**known)
    applying = [report for report in explanation.rules if report.verdict is not Verdict.DIFFERS]
    if decision.rule is None:
        assert all(report.verdict is Verdict.MAY_APPLY for report in applying)
    else:
        assert decision.rule in {report.rule for report in applying}
    if explanation.certain:
        assert (explanation.rule, explanation.level) == (decision.rule, decision.level)


# Rules that cannot work


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "needs a name"),
        ({"level": "headers"}, "write Level.NONE"),
        ({"level": 2}, "write Level.NONE"),
        ({"methods": ("get",)}, "write 'GET'"),
        ({"methods": ("GET POST",)}, "no method"),
        ({"methods": "GET"}, r"write \['GET'\]"),
        ({"paths": ("static/**",)}, "write '/static/"),
        ({"paths": (1,)}, "list of text"),
        ({"routes": ("/a**",)}, "whole segments"),
        ({"statuses": ("6xx",)}, "no status"),
        ({"statuses": ("4XX",)}, "no status"),
        ({"outcomes": ("deny",)}, "did you mean 'denied'"),
        ({"users": ("",)}, "matches nothing"),
        ({"protocols": (7,)}, "no protocol"),
        ({"protocols": ("http",)}, "list of protocols"),
        ({"sample": 1.1}, "from 0 to 1"),
        ({"sample": -0.1}, "from 0 to 1"),
        ({"sample": float("nan")}, "from 0 to 1"),
        ({"sample": True}, "from 0 to 1"),
        ({"low_priority": 1}, "true or false"),
        ({"body_types": ("json",)}, "no content type"),
        ({"body_types": ("multipart/form-data",)}, "cannot be redacted"),
        ({"body_types": ("text/xml",)}, "cannot be redacted"),
    ],
)
def test_rule_that_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    """Here, and not by silence at the first request."""
    with pytest.raises(PolicyError, match=message):
        Rule(**{"name": "r", "level": Level.NONE, **fields})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([rule("a", paths=("/a",)), rule("a", paths=("/b",))], "'a' is taken"),
        ([rule("all", Level.METADATA), rule("a", paths=("/a",))], "never reached: rule 'all'"),
    ],
)
def test_rules_that_cannot_stand_together_are_refused(rules: list[Rule], message: str) -> None:
    """A rule after one that matches everything is a mistake, never a wish."""
    with pytest.raises(PolicyError, match=message):
        Policy(rules)


def test_default_that_is_no_level_is_refused() -> None:
    """The names of levels are for files."""
    default: Any = "headers"
    with pytest.raises(PolicyError, match="is no level"):
        Policy(default=default)


def test_lists_become_tuples() -> None:
    """A rule cannot be changed behind the policy's back."""
    paths: Any = ["/a"]
    made = rule(paths=paths)
    paths.append("/b")
    assert made.paths == ("/a",)


# Explaining


def test_explanation_says_why_for_every_rule() -> None:
    """The one that applies, those before it and those after it."""
    policy = Policy(
        [
            rule("posts", Level.BODY, methods=("POST",)),
            rule("errors", Level.HEADERS, statuses=("5xx",), users=("*",)),
            rule("users", Level.METADATA, protocols=(HTTP,), paths=("/users/**",), sample=0.25),
            rule("rest", paths=("/**",)),
        ]
    )
    explanation = policy.explain(HTTP, "GET", "/users/42")
    assert [(report.rule, report.verdict.value, report.reason) for report in explanation.rules] == [
        ("posts", "does not match", "method GET is not POST"),
        ("errors", "may apply", "if status is 5xx and user is *"),
        (
            "users",
            "applies",
            "every condition holds; 0.25 of them are recorded, 5xx, denied and broken ones always",
        ),
        ("rest", "not reached", "'users' has decided"),
    ]
    assert (explanation.rule, explanation.level) == ("users", Level.METADATA)
    assert not explanation.certain
    assert explanation.stored == stored_at(Level.METADATA)


def test_explanation_of_the_default() -> None:
    """No rule is an answer, too."""
    explanation = Policy().explain(GRPC, "Get", "/pkg.Service/Get")
    assert (explanation.rule, explanation.level) == (None, Level.HEADERS)
    assert explanation.certain
    assert explanation.rules[0].reason == "protocol grpc is not http"


def test_explanation_tells_nobody_from_not_known() -> None:
    """An empty text is known to be none."""
    policy = Policy([rule("r", users=("*",))])
    assert policy.explain(HTTP, "GET", "/").rules[0].verdict is Verdict.MAY_APPLY
    report = policy.explain(HTTP, "GET", "/", user="").rules[0]
    assert (report.verdict, report.reason) == (Verdict.DIFFERS, "user (none) is not *")


def test_levels_include_the_ones_before() -> None:
    """Nothing is stored at NONE, and each level adds to the one before."""
    lines = [stored_at(level) for level in Level]
    assert lines[0] == ()
    assert all(more[: len(less)] == less for less, more in pairwise(lines))


def test_default_rules_are_named_and_visible() -> None:
    """What is left out can be looked up."""
    assert [(r.name, r.level) for r in DEFAULT_RULES] == [
        ("health-checks", Level.NONE),
        ("static-files", Level.NONE),
        ("grpc-health-checks", Level.NONE),
        ("grpc-streams-of-tools", Level.NONE),
    ]


# gRPC


@pytest.mark.parametrize(
    ("path", "outcome", "level"),
    [
        ("/grpc.health.v1.Health/Check", "ok", Level.NONE),
        ("/grpc.health.v1.Health/Check", "client_error", Level.HEADERS),
        ("/grpc.health.v1.Health/Check", "deadline", Level.HEADERS),
        ("/grpc.health.v1.Health/Watch", "cancelled", Level.NONE),
        ("/grpc.health.v1.Health/Watch", "deadline", Level.NONE),
        ("/grpc.health.v1.Health/Watch", "server_error", Level.HEADERS),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "ok", Level.NONE),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "cancelled", Level.NONE),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "denied", Level.HEADERS),
        ("/shop.v1.Health/Check", "ok", Level.HEADERS),
    ],
)
def test_tools_of_grpc_are_left_out_by_default(path: str, outcome: str, level: Level) -> None:
    """While they work; streams of theirs end when their client has seen enough."""
    facts = {"protocol": GRPC, "method": path.rpartition("/")[2], "status": 0, "outcome": outcome}
    assert decide(Policy(), path, **facts).level is level
