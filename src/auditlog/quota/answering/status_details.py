"""A used-up quota → what `grpc-status-details-bin` carries of it: a `google.rpc.Status`. Pure.

The messages are those of https://github.com/googleapis/googleapis, google/rpc/status.proto and
error_details.proto: a `RetryInfo`, which tells a program when to come again, and a `QuotaFailure`,
which names the quota and its limit. They are five messages of texts and whole numbers, written down
as https://protobuf.dev/programming-guides/encoding tells, so that no server has to install the
generated ones. Whose usage it was is not in there: whoever is refused knows that.
"""

from typing import Final

_TYPES: Final = "type.googleapis.com/google.rpc."
_VARINT, _LENGTH_DELIMITED = 0, 2
_BITS: Final = 7
_MORE: Final = 1 << _BITS


def encode_status(code: int, message: str, *details: bytes) -> bytes:
    """Return a `google.rpc.Status`.

    Args:
        code: The number of the status that the client gets.
        message: Its text; both must be the same here and there.
        details: As `retry_info` and `quota_failure` return them.
    """
    return _number(1, code) + _text(2, message) + b"".join(_bytes(3, each) for each in details)


def retry_info(delay_ms: int) -> bytes:
    """Return a `RetryInfo` in its `Any`: after how many milliseconds it is worth trying again."""
    seconds, milliseconds = divmod(delay_ms, 1000)
    delay = _number(1, seconds) + _number(2, milliseconds * 1_000_000)
    return _any("RetryInfo", _bytes(1, delay))


def quota_failure(quota_id: str, limit: int, description: str) -> bytes:
    """Return a `QuotaFailure` in its `Any`, with one violation.

    Args:
        quota_id: Which quota.
        limit: In its units.
        description: A sentence for people.
    """
    violation = _text(2, description) + _text(5, quota_id) + _number(7, limit)
    return _any("QuotaFailure", _bytes(1, violation))


def _any(name: str, message: bytes) -> bytes:
    return _text(1, _TYPES + name) + _bytes(2, message)


def _text(field: int, text: str) -> bytes:
    # Nothing stands for an empty one, and for 0, as every generated encoder has it.
    return _bytes(field, text.encode()) if text else b""


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(len(data)) + data


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(number) if number else b""


def _varint(number: int) -> bytes:
    """Write a whole number, not below 0: seven bits a byte, the lowest first."""
    groups = bytearray()
    while number >= _MORE:
        groups.append(number % _MORE | _MORE)
        number >>= _BITS
    groups.append(number)
    return bytes(groups)
