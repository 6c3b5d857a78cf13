"""One GraphQL operation in flight: what it asks for, what became of it, and whose request it is.

A library's extension fills it in; what handlers `annotate` while it runs is said of it alone. It is
an exchange of protocol 3 with the HTTP facts of its parent, the request or the WebSocket that
carried it. An operation of a request waits for the end of the request, which may still fail on the
wire; one on a WebSocket has its row as soon as it is over.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from auditlog.capture.exchange import Exchange, Identity
from auditlog.capture.graphql.document import SUBSCRIPTION, Document, OperationFacts, read
from auditlog.capture.graphql.outcome import Judge, NotedError, note, unread, worst
from auditlog.capture.graphql.target import without_document
from auditlog.capture.graphql.variables import storable
from auditlog.capture.outcomes import OK
from auditlog.capture.policy import Decision, Level
from auditlog.records import Protocol

GRAPHQL: Final = int(Protocol.GRAPHQL)
INTROSPECTION_ROUTE: Final = "/__schema"
"""Behind the route of an operation that only introspects, as the policy's rules see it."""
MAX_ERRORS: Final = 10
"""Stored in full; a list of a thousand items may fail a thousand times."""
# Longer names are no names of a schema, and would fill the trail.
_MAX_NAME_CHARS = _MAX_ID_CHARS = 255
_BODY = Level.BODY


class Operation(Exchange):
    """What operations of requests and of WebSockets have in common."""

    __slots__ = (
        "_document",
        "_facts",
        "_route",
        "error_count",
        "errors",
        "execution",
        "failed_last",
        "handed_over",
        "joinable",
        "look",
        "name",
        "parent",
        "query",
        "results",
        "stream",
        "streamed",
        "variables",
        "wire_id",
    )

    protocol = GRAPHQL
    query: str | None
    """The document's text; None while it is not known."""
    name: str | None
    """The operation's, as the request asks for it."""
    variables: Any
    wire_id: str | None
    """By which a persisted document was asked for."""
    execution: Any
    """The library's own view of the operation, for its extension."""
    look: Callable[[], None] | None
    """Takes what the library knows at the end; asked once, then or when the row is made."""
    stream: Any
    """Where its results come from, if the library stops the operation by that."""
    joinable: bool
    """Was it begun by a handler, for an extension to go on with?"""
    handed_over: bool
    """Does a task of its own end it?"""
    _document: Document | None
    _facts: OperationFacts | None
    _route: str | None

    def __init__(self, parent: Exchange) -> None:
        Exchange.__init__(
            self, parent.capture, parent.source, parent.method, parent.path, parent.raw_headers
        )
        self.parent = parent
        self.query = self.name = self.variables = self.wire_id = None
        self.execution = self.look = self.stream = None
        self._document = self._facts = self._route = None
        self.errors: list[NotedError] = []
        self.error_count = self.results = 0
        self.joinable = self.handed_over = self.streamed = self.failed_last = False

    def ask(self, query: object, name: object, variables: object, extensions: object) -> None:
        """Take what the request asks for, of whatever types a client sends."""
        self.query = query if isinstance(query, str) else None
        self.name = name if isinstance(name, str) else None
        self.variables = variables
        self.wire_id = _persisted_id(extensions)
        self._document = self._facts = None

    def learn(self, text: object, name: object) -> None:
        """Take the document that is run, where what was asked for does not show one."""
        if isinstance(text, str) and self.facts_of_document is None:
            self.query = text
            self._document = None
            if isinstance(name, str):
                self.name = name

    def end(self, error: BaseException | None) -> None:
        """Take what left its execution, if anything did; the first end counts."""
        raise NotImplementedError

    def look_once(self) -> None:
        """Ask the library for what it knows; it may never have come to the end by itself."""
        look, self.look = self.look, None
        if look is not None:
            look()

    def withdraw(self) -> None:
        """Leave no row."""
        raise NotImplementedError

    def note_errors(self, errors: Iterable[BaseException], judge: Judge) -> None:
        """Judge the errors of a result; the first few are kept, of the others the worst.

        Raises:
            Exception: the last of what errors raised when they were looked at; all are noted.
        """
        failure = None
        for error in errors:
            try:
                noted = note(error, judge)
            except Exception as raised:  # noqa: BLE001  # they hold what applications put there
                noted, failure = unread(error), raised
            self._note(noted)
        self.failed_last = True
        if failure is not None:
            raise failure

    def note_result(self, *, failed: bool) -> None:
        """Count one of a subscription's results."""
        self.results += 1
        self.failed_last = failed

    @property
    def facts_of_document(self) -> OperationFacts | None:
        """What the document tells of the operation."""
        if self._document is None and self.query:
            self._document = read(self.query)
            self._facts = self._document.select(self.name)
        return self._facts

    @property
    def subscribes(self) -> bool:
        """Is it a subscription, for certain?"""
        facts = self.facts_of_document
        return facts is not None and facts.type == SUBSCRIPTION

    @property
    def may_subscribe(self) -> bool:
        """Is it a subscription, or nothing that the document tells, as with a persisted one?"""
        return self.facts_of_document is None or self.subscribes

    def identity(self) -> Identity:
        """What was said of the operation; where nothing was, of what carries it."""
        user_id, resource_owner, instance_id = self.user_id, self.resource_owner, self.instance_id
        if user_id is None or resource_owner is None or instance_id is None:
            outer = self.parent.identity()
            user_id = outer[0] if user_id is None else user_id
            resource_owner = outer[1] if resource_owner is None else resource_owner
            instance_id = outer[2] if instance_id is None else instance_id
        return user_id, resource_owner, instance_id

    def knows_user(self) -> bool:
        """It has to ask what carries it, in any case."""
        return True

    def target(self) -> str:
        """That of the request or WebSocket, without what it asks for."""
        return without_document(self.parent.target())

    def route(self) -> str | None:
        """The parent's; for the rules, with a mark behind it where the schema is introspected."""
        self._route = route = self.parent.route()
        facts = self.facts_of_document
        if facts is not None and facts.introspects:
            return f"{route or ''}{INTROSPECTION_ROUTE}"
        return route

    def facts(self, headers: dict[str, list[str]] | None) -> dict[str, Any]:
        """What carries it, and what it is."""
        metadata = self.parent.facts(headers)
        metadata["audit.outcome"] = self.outcome
        facts = self.facts_of_document
        if facts is not None:
            if facts.name is not None:
                metadata["graphql.operation.name"] = facts.name[:_MAX_NAME_CHARS]
            metadata["graphql.operation.type"] = facts.type
        if self._document is not None:
            metadata["graphql.document.hash"] = self._document.hash
        if self.wire_id is not None:
            metadata["graphql.document.id"] = self.capture.redactor.text(self.wire_id)
        return metadata

    def describe(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add the errors, how it went on the wire, and variables where a rule asks for bodies."""
        if self._route is not None:
            metadata["http.route"] = self._route
        if self.errors:
            metadata["graphql.errors"] = [error.described() for error in self.errors]
            if self.error_count > len(self.errors):
                metadata["graphql.errors.count"] = self.error_count
        if self.subscribes:
            metadata["graphql.subscription.results"] = self.results
        self.describe_wire(metadata, decision)
        # The largest come last, for a row that is too large is cut from the end.
        if decision.level is _BODY and decision.matched is not None:
            capture = self.capture
            variables = storable(self.variables, capture.redactor, capture.max_body_bytes)
            if variables is not None:
                metadata["graphql.variables"] = variables

    def describe_wire(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add what its carrier knows."""
        raise NotImplementedError

    def conclude_from_errors(self, outcome: str) -> None:
        """Let the worst of the errors and the transport's outcome win; name its cause."""
        self.outcome = outcome
        if self.errors:
            self.outcome = worst(outcome, self._worst_of_errors())
            if self.error_type is None:
                error = next((e for e in self.errors if e.outcome == self.outcome), self.errors[0])
                self.error_type = error.code or error.type

    def _note(self, noted: NotedError) -> None:
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(noted)
        elif worst(noted.outcome, self._worst_of_errors()) != self._worst_of_errors():
            self.errors[-1] = noted

    def _worst_of_errors(self) -> str:
        return worst(OK, *[error.outcome for error in self.errors])


def _persisted_id(extensions: object) -> str | None:
    """Return the hash by which Apollo's persisted queries are asked for, or another document id."""
    if not isinstance(extensions, Mapping):
        return None
    persisted = extensions.get("persistedQuery")
    found = persisted.get("sha256Hash") if isinstance(persisted, Mapping) else None
    found = found or extensions.get("documentId")
    return found[:_MAX_ID_CHARS] if isinstance(found, str) and found.isprintable() else None
