"""What the exchanges of one middleware or interceptor have in common: built once, immutable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from auditlog.capture.client_address import TrustedProxies
from auditlog.capture.policy import Policy
from auditlog.capture.recorder import Recorder
from auditlog.capture.redaction.redactor import Redactor

Identify: TypeAlias = Callable[[Any], str | None]
"""Asked about the request's source: the ASGI scope, or the context of an RPC."""

_CORRELATION = [(b"traceparent", b"-"), (b"x-request-id", b"-")]
_CORRELATION_KEPT = {"traceparent": ["-"], "x-request-id": ["-"]}


@dataclass(frozen=True, slots=True)
class Capture:
    """What every exchange of one middleware or interceptor uses. Immutable, shared."""

    recorder: Recorder
    policy: Policy
    redactor: Redactor
    proxies: TrustedProxies
    user_id: Identify | None = None
    instance_id: Identify | None = None
    resource_owner: Identify | None = None
    max_body_bytes: int = 16 * 1024
    echo_request_id: bool = False
    tenant: str = ""
    """The tenant of a request that names none, as the rules see it."""
    asks: bool = False
    """Whether the application has callables of its own for user, tenant or organisation."""
    keeps_correlation: bool = False
    """Whether traceparent and x-request-id are among the headers that are kept, in clear."""

    @classmethod
    def of(
        cls, recorder: Recorder, policy: Policy, *, asks: bool, **identify: Identify | None
    ) -> "Capture":
        """Build the shared parts from the recorder's settings.

        Raises:
            SettingsError: a setting that cannot work.
        """
        settings = recorder.settings
        redactor = Redactor.of(settings)
        return cls(
            recorder,
            policy,
            redactor,
            TrustedProxies(settings.trusted_proxies, header=settings.trusted_proxy_header),
            max_body_bytes=settings.max_body_bytes,
            echo_request_id=settings.echo_request_id,
            tenant=settings.instance_id,
            asks=asks,
            keeps_correlation=redactor.headers(_CORRELATION) == _CORRELATION_KEPT,
            **identify,
        )
