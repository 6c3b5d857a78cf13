"""Fields that are hidden in JSON, and values that do not play along."""

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from auditlog.capture.redaction.keyed_hash import REDACTED
from auditlog.capture.redaction.redactor import Redactor
from naming import without_address

ALL = Redactor(headers=["*"])


class Credentials(NamedTuple):
    user: str
    password: str


@dataclasses.dataclass
class Login:
    user: str
    api_key: str


class Word(enum.Enum):
    SECRET = "https://u:s3cr3t@h/"


class Text(str):
    __slots__ = ()

    def replace(self, *_: Any) -> str:
        raise AssertionError("foreign code")


class Endless(list[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(int, 1)


class Hostile(Mapping[str, int]):
    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("s3cr3t")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: str) -> int:
        raise RuntimeError(key)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"password": "s3cr3t", "user": "joe"}, {"password": REDACTED, "user": "joe"}),
        ({"a": [{"b": ({"apiKey": 1},)}]}, {"a": [{"b": [{"apiKey": REDACTED}]}]}),
        ({"secret": {"a": "s3cr3t"}, "token": None}, {"secret": REDACTED, "token": REDACTED}),
        ({"password": ""}, {"password": ""}),
        ({"code": 42, "key": "k", "state": "s"}, {"code": 42, "key": "k", "state": "s"}),
        ({"u": "https://u:s3cr3t@h/"}, {"u": "https://h/"}),
        ({"j": '{"pin":"s3cr3t"}'}, {"j": '{"pin":"[REDACTED]"}'}),
        ({"j": '["{\\"pin\\":\\"s3cr3t\\"}"]'}, {"j": '["{\\"pin\\":\\"[REDACTED]\\"}"]'}),
        ({b"password": "s3cr3t", ("password",): "s3cr3t", 7: "ok"},
         {b"password": REDACTED, ("password",): REDACTED, 7: "ok"}),
        ({"b": b"token=s3cr3t", "c": b"\xfftoken=s3cr3t", "d": b"\xff"},
         {"b": "token=[REDACTED]", "c": "\xfftoken=[REDACTED]", "d": b"\xff"}),
        (Credentials("joe", "s3cr3t"), {"user": "joe", "password": REDACTED}),
        ([Login("joe", "s3cr3t")], [{"user": "joe", "api_key": REDACTED}]),
        (Word.SECRET, "https://h/"),
        (Text("token=s3cr3t"), "token=[REDACTED]"),
        ({"x": Hostile()}, {"x": REDACTED}),
        ("a\0b", "a\ufffdb"),
        ({"s": {"a"}}, {"s": ["a"]}),
        ([{"name": "DB_PASSWORD", "value": "s3cr3t"}, {"Key": "a", "Value": "b"}],
         [{"name": "DB_PASSWORD", "value": REDACTED}, {"Key": "a", "Value": "b"}]),
        (1.5, 1.5),
        (None, None),
    ],
    ids=without_address,
)  # fmt: skip
def test_json_hides_named_fields_at_any_depth(value: object, expected: object) -> None:
    """Whatever the sink would turn into JSON is looked into."""
    assert ALL.json(value) == expected


def test_json_never_changes_its_input() -> None:
    """The value is the application's."""
    inner = {"password": "s3cr3t"}
    value = {"a": [inner], "b": inner}
    ALL.json(value)
    assert value == {"a": [{"password": "s3cr3t"}], "b": {"password": "s3cr3t"}}


def test_json_ends_on_circles_depth_and_endless_sequences() -> None:
    """What lies beyond the bounds is hidden, not shown."""
    circle: list[Any] = []
    circle.extend([circle, circle])
    deep: Any = "s3cr3t"
    for _ in range(100_000):
        deep = [deep]
    assert REDACTED in str(ALL.json(circle))
    assert "s3cr3t" not in str(ALL.json(deep))
    for long in (Endless(), list(range(100_000))):
        redacted = ALL.json(long)
        assert len(redacted) <= 20_001
        assert redacted[-1] == REDACTED


def test_json_does_not_consume_iterators() -> None:
    """A generator belongs to the application; so do objects of unknown kind."""
    generator = iter([1])
    thing = object()
    assert ALL.json({"g": generator, "t": thing}) == {"g": generator, "t": thing}
    assert next(generator) == 1
