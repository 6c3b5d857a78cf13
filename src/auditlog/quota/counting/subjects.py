"""Whose usage is added up: the subject and the tenant of a counter, as texts. Pure.

A subject is what a quota's `per` names, in one order whatever the definition's: `user=42`, or
`user=42&route=/exports/*`; empty where all of a tenant is one. All of it is printable ASCII, at
most `MAX_SUBJECT_BYTES` long, and different for different subjects. No API key stands in it.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import quote

from auditlog.capture.redaction.keyed_hash import Mask
from auditlog.quota.model import Per
from auditlog.settings import MAX_ID_BYTES, Settings
from auditlog.sink.encoding.storable import storable_text

MAX_SUBJECT_BYTES: Final = MAX_ID_BYTES
EVERYBODY: Final = ""
"""The subject where all of a tenant is one."""
_ORDER: Final = {each: place for place, each in enumerate(Per)}
# Neither what joins the parts, nor what begins an escape.
_PLAIN: Final = "!$'()*+,-./:;@_~"
_IS_PLAIN: Final = re.compile(rf"[A-Za-z0-9{re.escape(_PLAIN)}]*").fullmatch
# What one client of IPv6 has at its disposal (RFC 6177).
_CLIENT_PREFIX: Final = 64


def subject_of(
    per: tuple[Per, ...], parts: Mapping[Per, str | None], settings: Settings
) -> str | None:
    """Return the subject of a counter; None if a part that it needs is not known.

    Args:
        per: Of the quota.
        parts: What is known of the request; an empty text is as good as none.
        settings: With `redact_key` an API key is hidden as secrets in the trail are, so that who
            has that key can search for it; without, its SHA-256 stands there.
    """
    if per == (Per.TENANT,):
        return EVERYBODY
    texts = []
    for each in sorted(per, key=_ORDER.__getitem__):
        if each is Per.TENANT:
            continue
        value = parts.get(each)
        if not value:
            return None
        texts.append(f"{each}={_written(each, value, settings)}")
    return _bounded("&".join(texts))


def named(subject: str) -> str:
    """Return a subject that the application names by itself, fit for a counter."""
    return _bounded(_escaped(subject))


def tenant_of(instance_id: str | None, settings: Settings) -> str:
    """Return the tenant of a counter, spelled as in the rows of the trail."""
    return fitting(instance_id) if instance_id else settings.instance_id


def fitting(text: str) -> str:
    """Return what is stored of an identifier that anybody may have written."""
    if len(text) <= MAX_ID_BYTES // 4 and text.isprintable():
        return text
    return storable_text(text, MAX_ID_BYTES)[0].decode()


def _written(kind: Per, value: str, settings: Settings) -> str:
    if kind is Per.KEY:
        mask = _mask(settings.redact_key, settings.redact_key_id)
        return mask.hash_bytes(_utf8(value)) if mask.keyed else _digest(value)
    return _escaped(_network(value) if kind is Per.ADDRESS else value)


@lru_cache(maxsize=8)
def _mask(key: str | None, key_id: str) -> Mask:
    return Mask(key, key_id)


def _escaped(text: str) -> str:
    return text if _IS_PLAIN(text) else quote(text, safe=_PLAIN, errors="surrogatepass")


def _network(address: str) -> str:
    """Return an address as it is, of IPv6 the network; what is none stays what it is."""
    if ":" not in address:
        return address
    try:
        read = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(read, IPv6Address):
        return address
    if read.ipv4_mapped is not None:
        return str(read.ipv4_mapped)
    return str(IPv6Network((read, _CLIENT_PREFIX), strict=False))


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_SUBJECT_BYTES else _digest(text)


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(_utf8(text)).hexdigest()}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
