"""A FastAPI application with an audit trail: one row in PostgreSQL for every request.

Run it, with a PostgreSQL of its own that keeps its data in ./trail:

    pip install 'auditlog-postgres[cli,embedded]' fastapi 'uvicorn[standard]'
    AUDITLOG_DSN=embedded:./trail uvicorn examples.fastapi_app:app

    curl -H 'authorization: Bearer alice' -X POST http://127.0.0.1:8000/invoices/42/pay
    auditlog tail --dsn embedded:./trail

With a PostgreSQL that you have: AUDITLOG_DSN=postgresql://..., after `auditlog migrate`.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException

from auditlog import AuditLog, AuditMiddleware, annotate


def current_user(authorization: Annotated[str, Header()] = "") -> str:
    """Name the user once, in the dependency that finds out; every row of its routes has him."""
    user = authorization.removeprefix("Bearer ")
    if not user:
        raise HTTPException(401)
    annotate(user_id=user, resource_owner="acme")
    return user


User = Annotated[str, Depends(current_user)]
invoices = APIRouter(prefix="/invoices")
paid = {13}


@invoices.get("/{number}")
async def read_invoice(number: int, user: User) -> dict[str, object]:
    """Rows carry the template, /invoices/{number}, beside the URL: easy to count and to filter."""
    return {"number": number, "for": user}


@invoices.post("/{number}/pay")
def pay_invoice(number: int, user: User) -> dict[str, object]:
    """Synchronous endpoints run in a thread, and annotate all the same."""
    annotate(aggregate=("invoice", number), event_type="invoice.paid")
    if number in paid:
        raise HTTPException(409, "paid already")
    paid.add(number)
    return {"number": number, "paid by": user}


app = FastAPI()
app.include_router(invoices)
# The whole set-up. AuditLog() writes to where AUDITLOG_DSN says.
app.add_middleware(AuditMiddleware, audit=AuditLog())
