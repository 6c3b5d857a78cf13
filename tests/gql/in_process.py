"""Operations without a server: requests of JSON for `asgi_driver`."""

import json
from typing import Any

from asgi_driver import Run, drive, http_scope, upload

_JSON = [(b"host", b"example.org"), (b"content-type", b"application/json")]


async def post(app: Any, query: Any, **more: Any) -> Run:
    """Send one operation, or with a list several."""
    asked = query if isinstance(query, list) else {"query": query, **more}
    scope = http_scope(method="POST", path="/graphql", raw_path=b"/graphql", headers=_JSON)
    return await drive(app, scope, [upload(json.dumps(asked).encode())])
