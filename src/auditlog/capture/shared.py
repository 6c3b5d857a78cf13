"""What the exchanges of one middleware or interceptor have in common: built once, immutable."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

from auditlog.capture.client_address import TrustedProxies
from auditlog.capture.policy import Policy
from auditlog.capture.policy.file import load_policy
from auditlog.capture.recorder import Recorder
from auditlog.capture.redaction.redactor import Redactor
from auditlog.errors import SettingsError

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
        cls,
        recorder: Recorder,
        policy: Policy | None,
        *,
        default_user: Identify | None = None,
        **identify: Identify | None,
    ) -> "Capture":
        """Build the shared parts from the recorder's settings.

        Args:
            recorder: The log to write to.
            policy: None: from `policy_file` of the settings, or the default one.
            default_user: What to ask for the user if the application has no callable for that.
            identify: The application's for `user_id`, `instance_id` and `resource_owner`.

        Raises:
            PolicyError: the policy file is invalid.
            SettingsError: a setting or a callable that cannot work.
        """
        for name, function in identify.items():
            refuse_coroutine(name, function)
        settings = recorder.settings
        if policy is None:
            policy = load_policy(settings.policy_file) if settings.policy_file else Policy()
        redactor = Redactor.of(settings)
        return cls(
            recorder,
            policy,
            redactor,
            TrustedProxies(settings.trusted_proxies, header=settings.trusted_proxy_header),
            max_body_bytes=settings.max_body_bytes,
            echo_request_id=settings.echo_request_id,
            tenant=settings.instance_id,
            asks=any(identify.values()),
            keeps_correlation=redactor.headers(_CORRELATION) == _CORRELATION_KEPT,
            **{**identify, "user_id": identify.get("user_id") or default_user},
        )


def refuse_coroutine(name: str, identify: Identify | None) -> None:
    """See that a callable can be asked when nobody can wait.

    Raises:
        SettingsError: it is a coroutine function.
    """
    call = getattr(identify, "__call__", None)  # noqa: B004  # not whether it is callable: which
    if iscoroutinefunction(identify) or iscoroutinefunction(call):
        raise SettingsError(
            f"{name} must be a plain function: it is asked when nobody can wait any more; let a"
            " handler, a dependency or an inner middleware annotate() what takes time to find out"
        )
