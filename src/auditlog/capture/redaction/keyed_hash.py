"""What stands where a secret stood: `[REDACTED]`, or a keyed hash that can be searched for.

With a key a value becomes `hmac-sha256:<key-id>:<hex>`, the HMAC of its JSON text (compact,
sorted keys, UTF-8), so that 1, "1" and true differ and anyone who has the key can recompute it.
What has no JSON text becomes `[REDACTED]`: when in doubt, a value is hidden.
"""

import hmac
import re
from typing import Final

import orjson

from auditlog.errors import SettingsError

REDACTED: Final = "[REDACTED]"

_MIN_KEY_BYTES = 16
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
# Dates are hidden whole: orjson 3.13 does not survive a zone whose utcoffset() raises.
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
_MASK = re.compile(r"\[REDACTED\]|hmac-sha256:[A-Za-z0-9._-]{1,32}:[0-9a-f]{64}")


class Mask:
    """Hides values; call it with one.

    Raises:
        SettingsError: a key that can be guessed, or a key id that cannot be told from a hash.
    """

    __slots__ = ("_key", "_prefix")

    def __init__(self, key: str | None = None, key_id: str = "1") -> None:
        self._key = None if key is None else key.encode()
        if self._key is not None and len(self._key) < _MIN_KEY_BYTES:
            raise SettingsError(
                f"redact_key has {len(self._key)} bytes and needs at least {_MIN_KEY_BYTES}; "
                "make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
            )
        if not _KEY_ID.fullmatch(key_id):
            raise SettingsError(
                f"redact_key_id must be 1 to 32 letters, digits, '.', '_' or '-', not {key_id!r}"
            )
        self._prefix = f"hmac-sha256:{key_id}:"

    @property
    def keyed(self) -> bool:
        """Is there a key?"""
        return self._key is not None

    def __call__(self, value: object) -> str:
        """Hide a value; never raises. An empty text hides nothing and stays."""
        if type(value) is str and not value:
            return ""
        if self._key is None:
            return REDACTED
        try:
            return self.hash(value)
        except Exception:  # noqa: BLE001  # whatever the value is, it must not show
            return REDACTED

    def hash(self, value: object) -> str:
        """Return the hash to search for.

        Raises:
            SettingsError: there is no key.
            TypeError: the value has no JSON text.
        """
        return self.hash_bytes(orjson.dumps(value, option=_OPTIONS))

    def hash_bytes(self, data: bytes) -> str:
        """Return the hash of bytes as they are.

        Raises:
            SettingsError: there is no key.
        """
        if self._key is None:
            raise SettingsError("hashing needs a key; set redact_key (AUDITLOG_REDACT_KEY)")
        return self._prefix + hmac.digest(self._key, data, "sha256").hex()


def is_mask(text: str) -> bool:
    """Tell whether a text is nothing but what a `Mask` leaves."""
    return _MASK.fullmatch(text) is not None
