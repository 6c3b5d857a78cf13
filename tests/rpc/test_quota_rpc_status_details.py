"""What is written by hand is what generated code reads, and would have written."""

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as some

from auditlog.quota.answering.status_details import encode_status, quota_failure, retry_info
from auditlog.quota.model import MAX_UNITS

texts = some.text(some.characters(exclude_categories=["Cs"]), max_size=300)


def packed(message: Message) -> Any:
    wrapped = Any()
    wrapped.Pack(message)
    return wrapped


@given(
    message=texts,
    quota_id=texts,
    description=texts,
    code=some.integers(0, 16),
    limit=some.integers(0, MAX_UNITS),
    delay_ms=some.integers(0, 400 * 86_400_000),
)
def test_every_status_is_written_as_generated_code_writes_it(
    *, message: str, quota_id: str, description: str, code: int, limit: int, delay_ms: int
) -> None:
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(delay_ms)
    failure = QuotaFailure()
    failure.violations.add(quota_id=quota_id, quota_value=limit, description=description)
    status = Status(code=code, message=message, details=[packed(retry), packed(failure)])

    ours = encode_status(
        code, message, retry_info(delay_ms), quota_failure(quota_id, limit, description)
    )

    assert ours == status.SerializeToString(deterministic=True)


@pytest.mark.parametrize("delay_ms", [0, 1, 999, 1000, 1001, 2_678_400_000])
def test_delay_is_read_to_the_millisecond(delay_ms: int) -> None:
    status = Status.FromString(encode_status(8, "used up", retry_info(delay_ms)))
    retry = RetryInfo()

    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == delay_ms
