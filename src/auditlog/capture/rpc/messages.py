"""Messages of an RPC → what may be stored of them: protobuf's own JSON, redacted and bounded.

A tee keeps the bytes and the class of the first messages, so what is stored is what went over the
wire, whatever a handler does to its message later. `describe` turns them into metadata when the
RPC is over. Messages that are not protobuf's are `omitted`: nothing tells the names in them.
"""

from typing import Any

from auditlog.capture.redaction.redactor import Redactor

_MAX_MESSAGES = 100


class MessageTee:
    """Keeps at most `max_bytes` of an RPC's messages in one direction, whole ones from the first.

    Set `streams` where there may be more than one.
    """

    __slots__ = ("_kept", "_room", "streams", "truncated")

    def __init__(self, max_bytes: int, *, streams: bool) -> None:
        self._kept: list[tuple[type, bytes]] = []
        self._room = max_bytes
        self.streams = streams
        self.truncated = False

    def feed(self, message: object, data: bytes) -> None:
        """Take the next message, and the bytes that it is on the wire."""
        if self.truncated or len(data) > self._room or len(self._kept) == _MAX_MESSAGES:
            self.truncated = True
            return
        self._room -= len(data)
        self._kept.append((type(message), data))

    def describe(self, total_bytes: int, redactor: Redactor) -> dict[str, Any]:
        """Return what is stored: `content`, or why it is `omitted`."""
        described: dict[str, Any] = {"bytes": total_bytes, "truncated": self.truncated}
        try:
            content, omitted = self._content(redactor)
        except Exception:  # noqa: BLE001  # what cannot be judged is left out
            content, omitted = None, "error"
        described.update({"omitted": omitted} if omitted else {"content": content})
        return described

    def _content(self, redactor: Redactor) -> tuple[Any, str | None]:
        if not self._kept:
            return None, "too_large"
        if not all(_is_protobuf(kind) for kind, _ in self._kept):
            return None, "not_protobuf"
        contents = [_as_json(kind, data) for kind, data in self._kept]
        if not all(isinstance(content, dict) for content in contents):
            # A bare value, as of a wrapper, has no name by which it could be judged.
            return None, "no_names"
        redacted = [redactor.json(content) for content in contents]
        return redacted if self.streams else redacted[0], None


def _is_protobuf(kind: type) -> bool:
    return hasattr(kind, "DESCRIPTOR") and hasattr(kind, "FromString")


def _as_json(kind: Any, data: bytes) -> Any:
    # Not at the head of the file: a server may well run without protobuf.
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415  # whoever has such a message has it

    return MessageToDict(kind.FromString(data), preserving_proto_field_name=True)
