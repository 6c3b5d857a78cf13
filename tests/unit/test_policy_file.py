"""Policies from files: what is read, and how mistakes are told."""

import re
from pathlib import Path

import pytest

from auditlog.capture.policy import Level, Policy
from auditlog.capture.policy.explanation import Verdict
from auditlog.capture.policy.file import load_policy
from auditlog.errors import PolicyError
from auditlog.records import Protocol, RequestOutcome

DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"


def load(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text, "utf-8")
    return load_policy(path)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def test_every_key_is_read(tmp_path: Path) -> None:
    """As a rule in Python would have it."""
    policy = load(
        tmp_path,
        """
        default = "metadata"

        [[rules]]
        name = "orders"
        level = "body"
        protocols = ["http", "graphql"]
        methods = ["POST"]
        paths = ["/orders/**"]
        routes = ["/orders/{id}"]
        statuses = [404, "5xx"]
        outcomes = ["denied"]
        users = ["svc-*"]
        tenants = ["acme"]
        sample = 1
        low_priority = true
        body_types = ["application/json"]

        [[rules]]
        name = "rest"
        level = "none"
        """,
    )
    orders, rest = policy.rules
    assert policy.default is Level.METADATA
    assert (orders.name, orders.level, orders.sample) == ("orders", Level.BODY, 1)
    assert orders.protocols == (Protocol.HTTP, Protocol.GRAPHQL)
    assert (orders.statuses, orders.users) == (("404", "5xx"), ("svc-*",))
    assert (orders.low_priority, orders.body_types) == (True, ("application/json",))
    assert rest.is_catch_all
    assert rest.level is Level.NONE


def test_default_is_headers(tmp_path: Path) -> None:
    """As in Python."""
    assert load(tmp_path, '[[rules]]\nname="a"\nlevel="none"\n').default is Level.HEADERS


def test_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    """Some editors write them."""
    path = tmp_path / "policy.toml"
    path.write_bytes(b'\xef\xbb\xbf[[rules]]\r\nname = "a"\r\nlevel = "none"\r\n')
    assert load_policy(str(path)).rules[0].name == "a"


GOOD = '[[rules]]\nname = "good"\nlevel = "none"\npaths = ["/x"]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "policy.toml:1: no rules; write at least one [[rules]] table"),
        ("rules = []", "policy.toml:1: no rules; write at least one [[rules]] table"),
        ('x = 1\nrules = "a"', "policy.toml:2: no rules"),
        (f"\ndefautl = 1\n{GOOD}", "policy.toml:2: unknown key 'defautl'; did you mean 'default'?"),
        (f'default = "header"\n{GOOD}', "policy.toml:1: default: 'header' is no level; did you"),
        (f"default = 2\n{GOOD}", "policy.toml:1: default: 2 is no level; write one of none, meta"),
        (
            f'{GOOD}\n[[rules]]\nname = "a"\nlevel = "none"\npath = ["/y"]\n',
            "policy.toml:9: rule 'a': path: unknown key; did you mean 'paths'?",
        ),
        (
            f'{GOOD}# note\n[[rules]]  # another\nlevel = "none"\n',
            "policy.toml:6: rule 2: name: missing; write name",
        ),
        (f'{GOOD}[[rules]]\nname = "a"\n', "policy.toml:5: rule 'a': level: missing; write level"),
        (
            f'{GOOD}[[rules]]\nname = "a"\nlevel = "bodies"\n',
            "policy.toml:7: rule 'a': level: 'bodies' is no level; did you mean 'body'?",
        ),
        (
            f'{GOOD}[[rules]]\nname = "a"\nlevel = 1\n',
            "policy.toml:7: rule 'a': level: 1 is no level; write one of none, metadata",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "a"\nmethods = ["get"]\n',
            "policy.toml:8: rule 'a': methods: 'get': methods are upper case, write 'GET'",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "a"\nmethods = "GET"\n',
            "policy.toml:8: rule 'a': methods: must be a list of text, not 'GET'; write ['GET']",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "a"\npaths = [\n  "/a",\n  ["b"],\n]\n',
            "policy.toml:8: rule 'a': paths: must be a list of text; ['b'] is none",
        ),
        (
            f'{GOOD}[[rules]]\nlevel="none"\nname="a"\npaths=[\n["x"]\n]\nsample = 2\n',
            "policy.toml:11: rule 'a': sample: 2 is no share; write a number from 0 to 1",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "a"\npaths = ["/a/**b"]\n',
            "policy.toml:8: rule 'a': paths: '/a/**b': '**' stands for whole segments; write '*b'",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "a"\nprotocols = ["htpp"]\n',
            "policy.toml:8: rule 'a': protocols: 'htpp' is no protocol; did you mean 'http'?",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "a"\nprotocols = [1]\n',
            "policy.toml:8: rule 'a': protocols: 1 is no protocol; write one of http, grpc",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "a"\nstatuses = [600]\n',
            "policy.toml:8: rule 'a': statuses: '600' is no status; write a number like '404'",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "a"\nstatuses = [true]\n',
            "policy.toml:8: rule 'a': statuses: must be a list of text; True is none",
        ),
        (
            f'{GOOD}[[rules]]\n"level" = "none"\nname = "a"\n"sample" = "all"\n',
            "policy.toml:8: rule 'a': sample: 'all' is no share",
        ),
        (
            f'{GOOD}[[rules]]\nlevel = "none"\nname = "good"\n',
            "policy.toml:7: rule 'good': name: 'good' is taken",
        ),
        (
            f'[[rules]]\nlevel = "none"\nname = "all"\n{GOOD}',
            "policy.toml:5: rule 'good': name: never reached: rule 'all' matches every request",
        ),
        ('rules = [\n{name = "a", level = "x"}]', "policy.toml:1: rule 'a': level: 'x' is no"),
        ("rules = [1]", "policy.toml:1: rule 1: rules: must be a table"),
        (f'{GOOD}[rules.x]\ny = 1\n', "policy.toml:5: rule 'good': x: unknown key"),
        (f"{GOOD}name = \n", "policy.toml:5: not TOML: Invalid value"),
        ('[[rules]]\nname = "', "policy.toml:2: not TOML:"),
        (f"{GOOD}[[rules]\n", "policy.toml:5: not TOML:"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_line_rule_and_remedy(
    tmp_path: Path, text: str, expected: str
) -> None:
    """One line a mistake, as compilers do it."""
    (first, *_) = [line for line in problems(tmp_path, text) if expected[:14] in line] or [""]
    assert first.startswith(expected)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Nobody likes to mend a file one error at a time."""
    text = 'extra = 1\n[[rules]]\nname = "a"\nlevel = "x"\n[[rules]]\nname = "b"\nsample = 7\n'
    assert [re.sub(": .*", "", line) for line in problems(tmp_path, text)] == [
        "policy.toml:1",
        "policy.toml:4",
        "policy.toml:5",
        "policy.toml:7",
    ]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, a directory, or not UTF-8."""
    path = tmp_path / "policy.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PolicyError, match=re.escape(str(path))):
        load_policy(path)
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path)


def test_documented_examples_are_policies(tmp_path: Path) -> None:
    """What docs/policy.md shows can be copied."""
    examples = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    policy, *others = [load(tmp_path, example) for example in examples]
    assert [rule.name for other in others for rule in other.rules if rule.received] == ["streams"]
    assert len(policy.rules) > 3
    explanation = policy.explain(Protocol.HTTP, "GET", "/users/42")
    assert Verdict.NOT_REACHED not in {report.verdict for report in explanation.rules[:1]}


@pytest.mark.parametrize(
    "words",
    [
        [level.name.lower() for level in Level],
        ["protocols", "methods", "paths", "routes", "statuses", "outcomes", "users", "tenants"],
        ["sample", "received", "low_priority", "body_types", "default", "name", "level"],
        ["compressed", "content_type", "charset", "malformed", "no_names", "cut_off", "binary"],
        ["health-checks", "static-files", "grpc-health-checks", "grpc-streams-of-tools"],
        [verdict.value for verdict in Verdict],
        ["bytes", "truncated", "incomplete", "content", "omitted", "sha256", "hmac", "error"],
        [outcome.value for outcome in RequestOutcome],
    ],
)
def test_every_word_is_documented(words: list[str]) -> None:
    """docs/policy.md is complete."""
    text = DOCUMENT.read_text()
    assert [word for word in words if f"`{word}`" not in text] == []
