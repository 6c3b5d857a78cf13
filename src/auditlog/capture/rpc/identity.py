"""Who is at the other end, as a client's certificate says it.

Takes the identities that grpcio gives for a peer that was authenticated by TLS, gives one name.
Whether the certificate is to be trusted, the handshake has decided before.
"""

from collections.abc import Iterable
from typing import Any

_MAX_NAME_CHARS = 512
# With local credentials the identity is the kind of the connection, `local`, and names nobody.
_NOBODYS_KEY = "transport_security_type"


def principal_of(identities: Iterable[Any] | None, key: str | None = None) -> str | None:
    """Return the first identity: a subject alternative name, or else the common name.

    Args:
        identities: What `context.peer_identities()` gives: bytes, in the certificate's order.
        key: What `context.peer_identity_key()` gives: of what kind they are.
    """
    if key == _NOBODYS_KEY:
        return None
    for identity in identities or ():
        text = identity.decode("utf-8", "replace") if isinstance(identity, bytes) else str(identity)
        if text:
            return text[:_MAX_NAME_CHARS]
    return None
