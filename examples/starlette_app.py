"""A Starlette application with an audit trail: one row in PostgreSQL for every request.

Run it, with a PostgreSQL of its own that keeps its data in ./trail:

    pip install 'auditlog-postgres[cli,embedded]' starlette 'uvicorn[standard]'
    AUDITLOG_DSN=embedded:./trail uvicorn examples.starlette_app:app

    curl -H 'authorization: Bearer alice' -X DELETE http://127.0.0.1:8000/documents/7
    auditlog tail --dsn embedded:./trail

With a PostgreSQL that you have: AUDITLOG_DSN=postgresql://..., after `auditlog migrate`.
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auditlog import AuditLog, AuditMiddleware, annotate, skip

documents = {"7": "minutes of the board", "8": "cafeteria menu"}


async def read_document(request: Request) -> Response:
    """Method, URL, status, time, client and much else are stored without a word from here."""
    key = request.path_params["key"]
    if key not in documents:
        raise HTTPException(404)
    return JSONResponse({"key": key, "title": documents[key]})


async def delete_document(request: Request) -> Response:
    """What only the application knows, it says: who did it, to what, and what it means."""
    user = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not user:
        raise HTTPException(401)
    key = request.path_params["key"]
    annotate(
        user_id=user,
        aggregate=("document", key),
        event_type="document.deleted",
        retention="7 years",  # any other keyword goes into the row's metadata
    )
    documents.pop(key, None)
    return Response(status_code=204)


async def progress(_request: Request) -> Response:
    """Some things nobody needs to know, such as a page that asks every second."""
    skip()
    return JSONResponse({"done": 0.5})


app = Starlette(
    routes=[
        Route("/documents/{key}", read_document),
        Route("/documents/{key}", delete_document, methods=["DELETE"]),
        Route("/progress", progress),
    ],
    # The whole set-up. AuditLog() writes to where AUDITLOG_DSN says.
    middleware=[Middleware(AuditMiddleware, audit=AuditLog())],
)
