"""What FastAPI adds: models, dependencies, forms, sub-applications."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, UploadFile
from fastapi import Request as FastAPIRequest
from fastapi.responses import JSONResponse as FastAPIJSONResponse
from pydantic import BaseModel
from starlette.testclient import TestClient

Install = Callable[..., TestClient]


class Item(BaseModel):
    name: str
    price: float = 1.0


def test_models_of_fastapi(install: Install) -> None:
    """Validated on the way in, filtered on the way out."""
    app = FastAPI()

    @app.post("/items/{item_id}", response_model=Item, status_code=201)
    async def create(item_id: int, item: Item, limit: int = 10) -> Any:
        return {"name": f"{item.name}-{item_id}-{limit}", "secret": "not in the model"}

    client = install(app)
    created = client.post("/items/7?limit=3", json={"name": "a"})

    assert (created.status_code, created.json()) == (201, {"name": "a-7-3", "price": 1.0})
    assert client.post("/items/x", json={}).status_code == 422
    assert client.get("/openapi.json").json()["paths"].keys() == {"/items/{item_id}"}


def test_dependencies_with_yield(install: Install) -> None:
    """Asynchronous and in threads, with what follows the yield."""
    entries: list[str] = []

    async def session() -> AsyncIterator[str]:
        entries.append("open")
        try:
            yield "session"
        except ZeroDivisionError:
            entries.append("rolled back")
            raise
        finally:
            entries.append("closed")

    def threaded(session: Annotated[str, Depends(session)]) -> Iterator[str]:
        yield session + " in a thread"

    app = FastAPI()

    @app.get("/")
    async def endpoint(value: Annotated[str, Depends(threaded)], *, fail: bool = False) -> str:
        if fail:
            raise ZeroDivisionError
        return value

    client = install(app, raise_server_exceptions=False)

    assert client.get("/").json() == "session in a thread"
    assert client.get("/?fail=1").status_code == 500
    assert entries == ["open", "closed", "open", "rolled back", "closed"]


def test_forms_and_files_of_fastapi(install: Install) -> None:
    """As parameters."""
    app = FastAPI()

    @app.post("/")
    async def endpoint(
        name: Annotated[str, Form()], file: UploadFile, raw: Annotated[bytes, File()]
    ) -> list[Any]:
        return [name, file.filename, len(await file.read()), len(raw)]

    client = install(app)
    answer = client.post("/", data={"name": "n"}, files={"file": ("a", b"12"), "raw": b"123"})

    assert answer.json() == ["n", "a", 2, 3]


def test_http_middleware_and_handlers_of_fastapi(install: Install) -> None:
    """Together."""

    class Own(Exception):  # noqa: N818  # an application's name
        pass

    app = FastAPI()

    @app.middleware("http")
    async def stamp(request: FastAPIRequest, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-stamp"] = "1"
        return response

    @app.exception_handler(Own)
    async def on_own(_request: FastAPIRequest, _error: Own) -> FastAPIJSONResponse:
        return FastAPIJSONResponse({"own": 1}, status_code=409)

    @app.get("/")
    def endpoint() -> None:
        raise Own

    answer = install(app).get("/")

    assert (answer.status_code, answer.json(), answer.headers["x-stamp"]) == (409, {"own": 1}, "1")


def test_sub_applications_of_fastapi(install: Install) -> None:
    """With URLs and documents of their own."""
    sub = FastAPI()

    @sub.get("/item")
    def item(request: FastAPIRequest) -> str:
        return str(request.url_for("item"))

    app = FastAPI()
    app.mount("/sub", sub)
    client = install(app)

    assert client.get("/sub/item").json() == "http://testserver/sub/item"
    assert client.get("/sub/openapi.json").json()["servers"] == [{"url": "/sub"}]
    assert client.get("/sub/nothing").json() == {"detail": "Not Found"}
