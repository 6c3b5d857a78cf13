"""Requests and responses of Starlette, with the middleware around them and without."""

import io
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.testclient import TestClient

Install = Callable[..., TestClient]


def test_path_and_query_parameters(install: Install) -> None:
    """Converted, repeated and percent-encoded."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse([request.path_params, list(request.query_params.multi_items())])

    client = install(Starlette(routes=[Route("/{number:int}/{rest:path}", endpoint)]))

    assert client.get("/7/a/b?x=1&x=2&y=%C3%A9").json() == [
        {"number": 7, "rest": "a/b"},
        [["x", "1"], ["x", "2"], ["y", "é"]],
    ]


def test_url_and_headers_of_the_request(install: Install) -> None:
    """And URLs that are built from them."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse(
            [str(request.url), request.headers.getlist("x-a"), str(request.url_for("named", x="1"))]
        )

    client = install(Starlette(routes=[Route("/named/{x}", endpoint, name="named")]))
    response = client.get("/named/2?q=1", headers=[("x-a", "1"), ("x-a", "2")])

    assert response.json() == [
        "http://testserver/named/2?q=1",
        ["1", "2"],
        "http://testserver/named/1",
    ]


def test_form(install: Install) -> None:
    """Fields in their order, repeated ones too."""

    async def endpoint(request: Request) -> Response:
        async with request.form() as form:
            return JSONResponse(form.multi_items())

    client = install(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))

    assert client.post("/", data={"a": "1", "b": ["2", "3"]}).json() == [
        ["a", "1"],
        ["b", "2"],
        ["b", "3"],
    ]


def test_upload_of_files(install: Install) -> None:
    """Large enough to be spooled to disk."""

    async def endpoint(request: Request) -> Response:
        async with request.form() as form:
            file = form["file"]
            assert not isinstance(file, str)
            return JSONResponse([file.filename, len(await file.read()), form["note"]])

    client = install(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))
    files = {"file": ("a.bin", io.BytesIO(b"x" * 3_000_000), "application/octet-stream")}

    assert client.post("/", data={"note": "n"}, files=files).json() == ["a.bin", 3_000_000, "n"]


def test_body_read_as_a_stream(install: Install) -> None:
    """Chunk by chunk, as the server gives them."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse([len(chunk) async for chunk in request.stream()])

    def chunks() -> Iterator[bytes]:
        yield from (b"a", b"bb", b"ccc")

    client = install(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))

    assert client.post("/", content=chunks()).json() == [6, 0]


def test_streaming_response(install: Install) -> None:
    """Without a length, with its headers."""

    async def parts() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d," % number

    async def endpoint(_request: Request) -> Response:
        return StreamingResponse(parts(), media_type="text/csv", headers={"x-a": "1"})

    client = install(Starlette(routes=[Route("/", endpoint)]))
    with client.stream("GET", "/") as response:
        content = b"".join(response.iter_bytes())

    assert content == b"".join(b"%d," % number for number in range(100))
    assert (response.headers["x-a"], "content-length" in response.headers) == ("1", False)


def test_stream_that_breaks(install: Install) -> None:
    """The exception of the generator reaches the server."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        raise RuntimeError("in the middle")

    async def endpoint(_request: Request) -> Response:
        return StreamingResponse(parts())

    client = install(Starlette(routes=[Route("/", endpoint)]))

    with pytest.raises(RuntimeError, match="in the middle"):
        client.get("/")


def test_cookies_set_and_deleted(install: Install) -> None:
    """Three headers of one name."""

    async def endpoint(request: Request) -> Response:
        response = JSONResponse(request.cookies)
        response.set_cookie("a", "1", httponly=True, samesite="strict")
        response.set_cookie("b", "2", max_age=60)
        response.delete_cookie("c")
        return response

    client = install(Starlette(routes=[Route("/", endpoint)]))
    first = client.get("/", headers={"cookie": "c=3"})

    assert first.json() == {"c": "3"}
    assert len(first.headers.get_list("set-cookie")) == 3
    assert client.get("/").json() == {"a": "1", "b": "2"}


def test_redirects(install: Install) -> None:
    """From a POST to a GET."""

    async def away(_request: Request) -> Response:
        return RedirectResponse("/here", status_code=303)

    async def here(request: Request) -> Response:
        return PlainTextResponse(request.method)

    client = install(
        Starlette(routes=[Route("/away", away, methods=["POST"]), Route("/here", here)])
    )

    assert client.post("/away").text == "GET"
    assert [each.status_code for each in client.post("/away").history] == [303]


def test_redirect_of_slashes(install: Install) -> None:
    """By the router, with the query kept."""

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(request.url.path)

    client = install(Starlette(routes=[Route("/a/", endpoint), Route("/b", endpoint)]))

    assert (client.get("/a").text, client.get("/b/").text) == ("/a/", "/b")
    assert client.get("/a?x=1", follow_redirects=False).headers["location"] == (
        "http://testserver/a/?x=1"
    )
