"""The settings: one definition feeds Python, the environment and the command line.

`Settings(batch_rows=500)` in Python is `AUDITLOG_BATCH_ROWS=500` in the environment.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from math import inf
from typing import Any, Literal, Self, TypeAlias, get_args, get_origin, get_type_hints

from auditlog.errors import SettingsError

PREFIX = "AUDITLOG_"
MIN_ROW_BYTES = 16 * 1024
MAX_ID_BYTES = 255
UNIX = "unix"
"""Among the trusted proxies: peers on a Unix socket, which have no address."""

Durability: TypeAlias = Literal["memory", "spool", "commit"]
Overflow: TypeAlias = Literal["drop_low_priority", "drop_newest", "block"]
Fsync: TypeAlias = Literal["never", "interval", "always"]
ForwardingHeader: TypeAlias = Literal["x-forwarded-for", "forwarded"]

DEFAULT_HEADERS = (
    "accept",
    "content-length",
    "content-type",
    "host",
    "origin",
    "referer",
    "traceparent",
    "user-agent",
    "x-request-id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set; each field has its unit in its name or its comment.

    Raises:
        SettingsError: a value that cannot work, with the name and what would.
    """

    dsn: str | None = field(default=None, repr=False)
    """libpq connection string or URL, or `embedded:PATH`."""
    instance_id: str = "default"
    """The tenant of a record that names none."""

    durability: Durability = "memory"
    """Where a record is before its request is answered (docs/reliability.md)."""
    commit_timeout_s: float = 2.0
    """Under `commit`: how long a request waits for its row before it is refused."""
    spool_dir: str | None = None
    """A folder on a local disk for what the database does not take in time; `spool` needs one."""
    spool_fsync: Fsync = "interval"
    """When records are forced to the disk, to survive the machine and not just the process."""
    spool_fsync_interval_s: float = 0.1
    spool_max_bytes: int = 512 * 1024 * 1024
    """For each process."""

    on_overflow: Overflow = "drop_low_priority"
    block_timeout_s: float = 1.0
    """Under `block`: how long a request waits for room in the queue before its row is dropped."""
    max_queued_rows: int = 10_000
    max_queued_bytes: int = 64 * 1024 * 1024
    max_row_bytes: int = 64 * 1024
    batch_rows: int = 1_000
    batch_bytes: int = 1024 * 1024
    batch_age_s: float = 0.5
    retry_min_s: float = 0.1
    retry_max_s: float = 30.0
    connect_timeout_s: float = 10.0
    statement_timeout_s: float = 30.0
    drain_timeout_s: float = 10.0
    life_rows: bool = True
    """Write a row when a log begins to write, and one when it ends: a killed process has no end."""
    min_runway_s: float = 7 * 86_400.0
    """With partitions for a shorter time to come, health is degraded: a week has a Monday in it."""

    policy_file: str | None = None
    """A TOML file with the rules (docs/policy.md); the default policy without one."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks in CIDR form whose forwarding headers are believed; `unix` for Unix sockets."""
    trusted_proxy_header: ForwardingHeader | None = None
    """The header that those proxies write; None: both are read, and must agree."""
    capture_headers: tuple[str, ...] = DEFAULT_HEADERS
    """Request headers that are stored; secret ones are redacted whatever stands here."""
    redact_fields: tuple[str, ...] = ()
    """Names of query parameters and JSON fields to redact, beside the built-in ones."""
    redact_key: str | None = field(default=None, repr=False)
    """HMAC key: redacted values become `hmac-sha256:<key-id>:<hex>`, searchable, not readable."""
    redact_key_id: str = "1"
    echo_request_id: bool = False
    """Send `x-request-id` back with every response."""
    max_body_bytes: int = 16 * 1024
    """Of a body that the policy asks for, how much is kept."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, here rather than at the first request."""
        for name in _POSITIVE:
            _check_number(name, getattr(self, name))
        for name in _LISTS:
            _check_list(name, getattr(self, name))
        if not self.instance_id:
            raise SettingsError("instance_id must not be empty: it leads every primary key")
        if not self.instance_id.isprintable() or len(self.instance_id.encode()) > MAX_ID_BYTES:
            raise SettingsError(
                f"instance_id must be printable and at most {MAX_ID_BYTES} bytes long: every row"
                " of the tenant would otherwise carry another one"
            )
        for name in _CHOICES:
            _check_choice(name, getattr(self, name))
        if self.durability == "spool" and not self.spool_dir:
            raise SettingsError("durability='spool' needs spool_dir, a folder on a local disk")
        if self.max_row_bytes < MIN_ROW_BYTES:
            raise SettingsError(
                f"max_row_bytes must be at least {MIN_ROW_BYTES}: a row of cut fields needs it"
            )
        if self.max_row_bytes > self.max_queued_bytes:
            raise SettingsError("max_row_bytes must not exceed max_queued_bytes")
        if self.retry_min_s > self.retry_max_s:
            raise SettingsError("retry_min_s must not exceed retry_max_s")
        for network in self.trusted_proxies:
            _check_network(network)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read `AUDITLOG_*`; keyword arguments win. Lists are comma-separated.

        Raises:
            SettingsError: a variable that is not of its setting's type.
        """
        environ = os.environ if environ is None else environ
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for setting in fields(cls):
            text = environ.get(PREFIX + setting.name.upper())
            if text is not None:
                values[setting.name] = _parse(setting.name, hints[setting.name], text)
        return cls(**{**values, **overrides})


def _choices(hint: Any) -> tuple[str, ...]:
    """Return the values of a Literal, or of a Literal that may be None instead."""
    options = [option for option in (hint, *get_args(hint)) if get_origin(option) is Literal]
    return get_args(options[0]) if options else ()


_HINTS = get_type_hints(Settings)
_POSITIVE = tuple(name for name, hint in _HINTS.items() if hint in (int, float))
_LISTS = tuple(name for name, hint in _HINTS.items() if hint == tuple[str, ...])
_CHOICES = {name: _choices(hint) for name, hint in _HINTS.items() if _choices(hint)}


def _check_number(name: str, value: Any) -> None:
    whole = _HINTS[name] is int
    # Every comparison with NaN is false, so this one is written to fail then.
    if not isinstance(value, int if whole else int | float) or not 0 < value < inf:
        kind = "whole number" if whole else "number"
        raise SettingsError(f"{name} must be a {kind} greater than 0, not {value!r}")


def _check_choice(name: str, value: Any) -> None:
    may_be_none = type(None) in get_args(_HINTS[name])
    if value not in _CHOICES[name] and not (value is None and may_be_none):
        raise SettingsError(f"{name} must be one of {', '.join(_CHOICES[name])}")


def _check_list(name: str, value: Any) -> None:
    # One string is a sequence as well: of its letters.
    if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{name} must be several texts, as in {name}=('...',), not {value!r}")


def _check_network(network: str) -> None:
    if network == UNIX:
        return
    try:
        ip_network(network, strict=False)
    except ValueError as error:
        raise SettingsError(f"trusted_proxies: {error}; write 10.0.0.0/8 or an address") from None


def _parse(name: str, hint: Any, text: str) -> Any:
    variable = PREFIX + name.upper()
    try:
        if hint is bool:
            return _BOOLEANS[text.strip().lower()]
        if hint in (int, float):
            return hint(text.replace("_", ""))
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[hint]
        raise SettingsError(f"{variable} must be {kind}, not {text!r}") from None
    if hint == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


_BOOLEANS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off", ""), False),
}
