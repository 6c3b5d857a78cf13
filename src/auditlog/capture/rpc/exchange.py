"""An RPC in flight: what both doors know of it, and how it becomes a row.

A door makes one per RPC, gives its methods to the server in place of (de)serializers, tells how
it ended, and calls `finish` once. Messages pass by identity; they are counted, never kept, unless
the policy asks for bodies. Knows nothing of grpcio: contexts, codes and metadata are given to it.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from auditlog.capture.exchange import Exchange, Identity
from auditlog.capture.policy import Decision, Level
from auditlog.capture.rpc.identity import principal_of
from auditlog.capture.rpc.messages import MessageTee
from auditlog.capture.rpc.metadata import raw_pairs
from auditlog.capture.rpc.names import NAMES, Names, names_of
from auditlog.capture.rpc.peer import ADDRESSES
from auditlog.capture.rpc.status import SUCCESS, outcome_of
from auditlog.capture.shared import Capture
from auditlog.records import Protocol
from auditlog.reporting import describe as describe_error

GRPC: Final = int(Protocol.GRPC)
UNARY, CLIENT_STREAM, SERVER_STREAM, BIDI_STREAM = (
    "unary",
    "client_stream",
    "server_stream",
    "bidi_stream",
)
_KINDS: Final = {
    (False, False): UNARY,
    (True, False): CLIENT_STREAM,
    (False, True): SERVER_STREAM,
    (True, True): BIDI_STREAM,
}
_HEADERS, _BODY = Level.HEADERS, Level.BODY
_NOBODY: Final[Identity] = (None, None, None)
_MAX_DETAILS_CHARS = 2048
_RICH_STATUS = b"grpc-status-details-bin"


class GrpcExchange(Exchange):
    """One RPC. The door fills in what is not underscored."""

    __slots__ = (
        "_answers",
        "_deserializer",
        "_names",
        "_peer",
        "_principal",
        "_requests",
        "_responses",
        "_serializer",
        "broken",
        "deadline_ms",
        "details",
        "failed",
        "kind",
        "messages_in",
        "messages_out",
        "trailing_metadata",
    )

    protocol = GRPC

    _answers: Identity | None
    """What the application's callables have answered."""
    _deserializer: Callable[[bytes], Any] | None
    _names: Names
    _peer: str | None
    _principal: str | None
    _requests: MessageTee | None
    _responses: MessageTee | None
    _serializer: Callable[[Any], bytes] | None
    broken: bool
    """Could the request not be deserialized?"""
    failed: bool
    """Did something raise, so that the server answers UNKNOWN or INTERNAL?"""
    kind: str | None
    deadline_ms: int | None
    """How long the client was ready to wait, from the beginning."""
    details: str | bytes | None
    """The text beside the status."""
    trailing_metadata: Iterable[Any] | None

    def __init__(self, capture: Capture, full_method: str, metadata: Iterable[Any] | None) -> None:
        self._names = names = NAMES[full_method]
        Exchange.__init__(self, capture, None, names.method, full_method, raw_pairs(metadata))
        if not names.plain:
            # A client may have written anything, so also what is to be hidden.
            self._names = names_of(self.target())
            self.method = self._names.method
        self.messages_in = self.messages_out = 0
        self.kind = self.deadline_ms = self.details = self.trailing_metadata = None
        self.broken = self.failed = False
        self._deserializer = self._serializer = self._requests = self._responses = None
        self._peer = self._principal = self._answers = None

    # What the server tells.

    def serves(
        self,
        request_streaming: bool,
        response_streaming: bool,
        deserializer: Callable[[bytes], Any] | None,
        serializer: Callable[[Any], bytes] | None,
    ) -> None:
        """Take over what the handler says of itself."""
        self.kind = _KINDS[bool(request_streaming), bool(response_streaming)]
        self._deserializer = deserializer
        self._serializer = serializer
        capture = self.capture
        try:
            if capture.policy.wants_body(GRPC, self.method, self.path) is None:
                return
        except Exception as failure:  # noqa: BLE001  # a policy of the application's own
            self.note_unreadable(failure)
            return
        self._requests = MessageTee(capture.max_body_bytes, streams=bool(request_streaming))
        self._responses = MessageTee(capture.max_body_bytes, streams=bool(response_streaming))

    def begin(self, context: Any) -> None:
        """Read what only a living call tells, before the handler runs; never raises.

        The application's callables are asked here and once more by `release`: a call that was cut
        off forgets where it came from.
        """
        try:
            self.source = context
            self._peer = context.peer()
            identities = context.peer_identities()
            if identities is not None:
                self._principal = principal_of(identities, context.peer_identity_key())
            remaining_s = context.time_remaining()
            if remaining_s is not None:
                elapsed_ns = time.perf_counter_ns() - self.started_ns
                self.deadline_ms = int(remaining_s * 1e3 + elapsed_ns * 1e-6 + 0.5)
            if self.capture.asks:
                self._answers = Exchange.identity(self)
            if self.capture.policy.announces:
                self.announce()
        except Exception as failure:  # noqa: BLE001  # not the server's own context, perhaps
            self.note_unreadable(failure)

    def release(self) -> None:
        """Ask the application's callables, now that the handler has run, and forget the context.

        Not to be called once the RPC is over, where a look at the context may end the process.
        """
        if self.capture.asks and self._answers is not None:
            early, late = self._answers, Exchange.identity(self)
            self._answers = (late[0] or early[0], late[1] or early[1], late[2] or early[2])
        self.source = None

    def deserialize(self, data: bytes) -> Any:
        """Stand in for the handler's deserializer."""
        self.messages_in += 1
        self.bytes_in += len(data)
        try:
            message = data if self._deserializer is None else self._deserializer(data)
        except BaseException as error:
            self.broken = True
            self.note_error(error)
            raise
        if self._requests is not None:
            self._requests.feed(message, data)
        return message

    def serialize(self, message: Any) -> Any:
        """Stand in for the handler's serializer."""
        try:
            data = message if self._serializer is None else self._serializer(message)
        except BaseException as error:
            self.note_failure(error)
            raise
        self.messages_out += 1
        self.failed = False
        if type(data) is bytes:
            self.bytes_out += len(data)
            if self._responses is not None:
                self._responses.feed(message, data)
        elif data is not None:
            self.note_unsendable()
        return data

    def note_unsendable(self) -> None:
        """Take note that a serializer has returned what are no bytes."""

    def note_failure(self, error: BaseException) -> None:
        """Take note of what left the handler or its serializer."""
        self.failed = True
        self.note_error(error)

    def note_error(self, error: BaseException) -> None:
        """Keep the type of what was raised."""
        self.error_type = type(error).__name__

    def note_unreadable(self, failure: Exception) -> None:
        """Say that the row of an RPC will lack what could not be read of it."""
        self.capture.recorder.reporter.report(
            "auditlog.rpc_unreadable",
            "something of an RPC could not be read, its row lacks details:"
            f" {describe_error(failure)}",
        )

    # What becomes of it: asked by `finish`.

    def conclude(self, error: BaseException | None) -> None:
        """Sort the status that the door has told."""
        if error is not None:
            self.note_error(error)
        self.outcome = outcome_of(self.status)

    def route(self) -> str | None:
        """The full method: an RPC has no other path."""
        return self.path

    def target(self) -> str:
        """The full method, printable."""
        path = self.path
        if self._names.plain:
            return path
        return self.capture.redactor.target(path.encode("utf-8", "surrogatepass"), b"")

    def knows_user(self) -> bool:
        """Tell whether a certificate names the client."""
        return self._principal is not None

    def identity(self) -> Identity:
        """Return user, organisation and tenant; where nobody names a user, the certificate's."""
        # By the truth of a text, for a call that was cut off may answer with empty ones.
        user_id, resource_owner, instance_id = self._answers or _NOBODY
        return (
            self.user_id or user_id or self._principal,
            self.resource_owner or resource_owner,
            self.instance_id or instance_id,
        )

    def peer(self) -> str | None:
        """Return the address in what grpcio calls the peer."""
        return None if self._peer is None else ADDRESSES[self._peer]

    def describe(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add the method's kind, counts, deadline, and what came beside the status."""
        kind, level = self.kind, decision.level
        metadata["rpc.service"] = self._names.service
        if kind is not None:
            metadata["audit.rpc_kind"] = kind
            metadata["audit.bytes_in"] = self.bytes_in
            metadata["audit.bytes_out"] = self.bytes_out
            if kind is not UNARY:
                metadata["audit.messages_in"] = self.messages_in
                metadata["audit.messages_out"] = self.messages_out
        if self.deadline_ms is not None:
            metadata["audit.deadline_ms"] = self.deadline_ms
        if level >= _HEADERS:
            if self.details or self.trailing_metadata:
                self._describe_status(metadata)
            if level is _BODY:
                self._describe_messages(metadata)

    def _describe_status(self, metadata: dict[str, Any]) -> None:
        redactor = self.capture.redactor
        if self.details and self.status != SUCCESS:
            details = self.details
            if isinstance(details, bytes):
                details = details.decode("utf-8", "replace")
            # Half a secret is not recognized as one: what is looked through goes beyond the cut.
            text = redactor.text(details[: 2 * _MAX_DETAILS_CHARS])
            metadata["audit.status_details"] = text[:_MAX_DETAILS_CHARS]
        pairs = raw_pairs(self.trailing_metadata)
        for name, values in redactor.headers(pairs).items():
            metadata[f"rpc.response.metadata.{name}"] = values
        if any(name == _RICH_STATUS for name, _ in pairs):
            metadata["audit.rich_status"] = True

    def _describe_messages(self, metadata: dict[str, Any]) -> None:
        redactor = self.capture.redactor
        if self._requests is not None and self.messages_in:
            metadata["audit.request_body"] = self._requests.describe(self.bytes_in, redactor)
        if self._responses is not None and self.messages_out:
            metadata["audit.response_body"] = self._responses.describe(self.bytes_out, redactor)
