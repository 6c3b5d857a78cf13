"""Middleware of Starlette inside of ours: sessions, users, CORS, compression, files."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    SimpleUser,
    requires,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

Install = Callable[..., TestClient]


def test_sessions(install: Install) -> None:
    """In a signed cookie, changed and cleared."""

    async def count(request: Request) -> Response:
        request.session["count"] = request.session.get("count", 0) + 1
        return JSONResponse(request.session)

    async def clear(request: Request) -> Response:
        request.session.clear()
        return JSONResponse(request.session)

    client = install(
        Starlette(
            routes=[Route("/", count), Route("/clear", clear)],
            middleware=[Middleware(SessionMiddleware, secret_key="bait")],
        )
    )

    assert [client.get("/").json()["count"] for _ in range(3)] == [1, 2, 3]
    assert (client.get("/clear").json(), client.get("/").json()) == ({}, {"count": 1})


class TokenBackend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        token = conn.headers.get("authorization")
        if token is None:
            return None
        if token != "right":
            raise AuthenticationError("wrong token")
        return AuthCredentials(["in"]), SimpleUser("alice")


def test_authentication(install: Install) -> None:
    """Nobody, a wrong token and a right one."""

    @requires("in")
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(request.user.display_name)

    client = install(
        Starlette(
            routes=[Route("/", endpoint)],
            middleware=[Middleware(AuthenticationMiddleware, backend=TokenBackend())],
        )
    )

    assert client.get("/").status_code == 403
    assert client.get("/", headers={"authorization": "wrong"}).status_code == 400
    assert client.get("/", headers={"authorization": "right"}).text == "alice"


def test_cors(install: Install) -> None:
    """Preflights that are allowed and refused, and plain requests."""

    async def endpoint(_request: Request) -> Response:
        return PlainTextResponse("ok")

    client = install(
        Starlette(
            routes=[Route("/", endpoint)],
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=["https://example.org"],
                    allow_methods=["*"],
                    allow_headers=["X-A"],
                    expose_headers=["X-B"],
                )
            ],
        )
    )
    headers = {"origin": "https://example.org"}
    preflight = {
        **headers,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "X-A",
    }
    answer = client.get("/", headers=headers)

    assert client.options("/", headers=preflight).status_code == 200
    assert client.options("/", headers={**preflight, "origin": "http://a"}).status_code == 400
    assert answer.headers["access-control-allow-origin"] == "https://example.org"
    assert answer.headers["access-control-expose-headers"] == "X-B"


@pytest.mark.parametrize("streamed", [False, True])
def test_gzip(install: Install, streamed: bool) -> None:
    """In one piece and streamed."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 400

    async def endpoint(_request: Request) -> Response:
        return StreamingResponse(parts()) if streamed else PlainTextResponse("x" * 4000)

    client = install(
        Starlette(
            routes=[Route("/", endpoint)],
            middleware=[Middleware(GZipMiddleware, minimum_size=100)],
        )
    )
    answer = client.get("/", headers={"accept-encoding": "gzip"})

    assert (answer.text, answer.headers["content-encoding"]) == ("x" * 4000, "gzip")
    assert client.get("/", headers={"accept-encoding": "identity"}).text == "x" * 4000


def test_static_files(install: Install, tmp_path: Path) -> None:
    """Found, not modified, missing, outside of the folder."""
    (tmp_path / "a.txt").write_text("0123456789")
    (tmp_path / "index.html").write_text("<p>index")
    client = install(
        Starlette(routes=[Mount("/files", StaticFiles(directory=tmp_path, html=True))])
    )
    whole = client.get("/files/a.txt")
    etag = whole.headers["etag"]

    assert whole.text == "0123456789"
    assert client.get("/files/a.txt", headers={"if-none-match": etag}).status_code == 304
    assert client.head("/files/a.txt").headers["content-length"] == "10"
    assert client.get("/files/").text == "<p>index"
    assert client.get("/files/nothing").status_code == 404
    assert client.get("/files/../secret").status_code == 404
    assert client.post("/files/a.txt").status_code == 405


def test_file_in_ranges(install: Install, tmp_path: Path) -> None:
    """One, several and none that exists."""
    file = tmp_path / "a.txt"
    file.write_text("0123456789")

    async def endpoint(_request: Request) -> Response:
        return FileResponse(file, filename="b.txt")

    client = install(Starlette(routes=[Route("/", endpoint)]))
    part = client.get("/", headers={"range": "bytes=2-4"})
    parts = client.get("/", headers={"range": "bytes=0-1,8-9"})

    assert (part.status_code, part.text) == (206, "234")
    assert parts.headers["content-type"].startswith("multipart/byteranges")
    assert client.get("/", headers={"range": "bytes=50-"}).status_code == 416
    assert 'filename="b.txt"' in client.get("/").headers["content-disposition"]


def test_middleware_of_the_base_class(install: Install) -> None:
    """It changes a response, and makes one of its own."""

    class Timing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            if request.url.path == "/short":
                return PlainTextResponse("short cut", status_code=402)
            request.state.seen = "yes"
            response: Response = await call_next(request)
            response.headers["x-timing"] = "1"
            return response

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(request.state.seen + (await request.body()).decode())

    client = install(
        Starlette(routes=[Route("/", endpoint, methods=["POST"])], middleware=[Middleware(Timing)])
    )
    answer = client.post("/", content=b"!")

    assert (answer.text, answer.headers["x-timing"]) == ("yes!", "1")
    assert client.get("/short").status_code == 402


def test_trusted_hosts_and_https(install: Install) -> None:
    """Refused before a route is asked."""

    async def endpoint(_request: Request) -> Response:
        return PlainTextResponse("ok")

    client = install(
        Starlette(
            routes=[Route("/", endpoint)],
            middleware=[
                Middleware(TrustedHostMiddleware, allowed_hosts=["testserver"]),
                Middleware(HTTPSRedirectMiddleware),
            ],
        )
    )

    assert client.get("/", headers={"host": "other"}).status_code == 400
    assert client.get("/", follow_redirects=False).headers["location"] == "https://testserver/"
    assert client.get("https://testserver/").text == "ok"
