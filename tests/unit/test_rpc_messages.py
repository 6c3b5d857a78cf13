"""What of an RPC's messages may be stored."""

from typing import Any

from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value

from auditlog.capture.redaction.redactor import Redactor
from auditlog.capture.rpc.messages import MessageTee

REDACTOR = Redactor(headers=())


def described(*messages: Any, streams: bool = False, max_bytes: int = 1000) -> dict[str, Any]:
    tee = MessageTee(max_bytes, streams=streams)
    total = 0
    for message in messages:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        total += len(data)
        tee.feed(message, data)
    return tee.describe(total, REDACTOR)


def struct(**fields: Any) -> Struct:
    message = Struct()
    message.update(fields)
    return message


def test_message_is_json_without_its_secrets() -> None:
    """By protobuf's own rules, under the names of the fields."""
    message = struct(name="x", password="hunter2", nested={"api_key": "k", "items": [1.0]})
    assert described(message)["content"] == {
        "name": "x",
        "password": "[REDACTED]",
        "nested": {"api_key": "[REDACTED]", "items": [1.0]},
    }


def test_stream_is_a_list() -> None:
    """Also of a single message."""
    assert described(struct(a=1), streams=True)["content"] == [{"a": 1.0}]
    assert described(struct(a=1), struct(b=2), streams=True)["content"] == [{"a": 1.0}, {"b": 2.0}]


def test_only_whole_messages_are_kept() -> None:
    """The first ones that fit; one that does not fit ends it."""
    small, large = struct(a=1), struct(a="x" * 100)
    size = len(small.SerializeToString())
    found = described(small, small, large, small, streams=True, max_bytes=3 * size)
    assert found["content"] == [{"a": 1.0}, {"a": 1.0}]
    assert found["truncated"]
    assert found["bytes"] == 3 * size + len(large.SerializeToString())


def test_message_that_does_not_fit_is_omitted() -> None:
    """Half a message says nothing that can be trusted."""
    found = described(struct(a="x" * 100), max_bytes=50)
    assert (found["omitted"], found["truncated"]) == ("too_large", True)


def test_number_of_messages_is_bounded() -> None:
    """Empty messages have no bytes to be bounded by."""
    found = described(*[Struct()] * 1000, streams=True)
    assert found["truncated"]
    assert len(found["content"]) == 100


def test_other_messages_are_omitted() -> None:
    """In bytes no field has a name by which it could be judged."""
    assert described(b"password=hunter2")["omitted"] == "not_protobuf"


def test_what_went_over_the_wire_is_stored() -> None:
    """Not what a handler has made of its message since."""
    message = struct(a=1)
    tee = MessageTee(1000, streams=False)
    tee.feed(message, message.SerializeToString())
    message["a"] = 2
    assert tee.describe(1, REDACTOR)["content"] == {"a": 1.0}


def test_message_that_is_no_json_object_is_omitted() -> None:
    """A well-known type may be a bare value, that has no name."""
    assert described(BytesValue(value=b"secret"))["omitted"] == "no_names"
    numbers = Int64Value(value=5), Int64Value(value=6)
    assert described(*numbers, streams=True)["omitted"] == "no_names"


def test_message_that_cannot_be_read_back_is_omitted() -> None:
    """The class of the application's may do anything."""

    class Broken:
        DESCRIPTOR = None

        @staticmethod
        def FromString(_: bytes) -> Any:  # noqa: N802  # protobuf's name
            raise RuntimeError("no")

    tee = MessageTee(100, streams=False)
    tee.feed(Broken(), b"x")
    assert tee.describe(1, REDACTOR)["omitted"] == "error"
