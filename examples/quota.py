"""A FastAPI application with quotas: so many requests an address, so many exports a user.

Run it, with a PostgreSQL of its own that keeps its data in ./trail:

    pip install 'auditlog-postgres[cli,embedded]' fastapi 'uvicorn[standard]'
    AUDITLOG_DSN=embedded:./trail uvicorn examples.quota:app

    curl -i -H 'authorization: Bearer alice' -X POST http://127.0.0.1:8000/exports/7   # four times
    auditlog quota usage --dsn embedded:./trail
    auditlog quota set exports --limit 5 --dsn embedded:./trail   # holds within seconds

With a PostgreSQL that you have: AUDITLOG_DSN=postgresql://..., after `auditlog migrate`.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

from auditlog import AuditLog, AuditMiddleware, Crossing, Quota, QuotaMiddleware, Quotas, annotate

unreadable = {13}


async def tell(crossing: Crossing) -> None:
    """Called once in a period, whichever process it happened in: time to write to somebody."""
    print(f"{crossing.subject} has used {crossing.percent} % of {crossing.quota_id}", flush=True)


audit = AuditLog()  # writes to where AUDITLOG_DSN says, which is where the counters are, too
quotas = Quotas(
    audit,
    [
        # Counted by the middleware, in any minute; 401 and what is the server's fault come back.
        Quota("requests", limit=100, period="minute", rolling=True, per="address"),
        # Counted where the application says so.
        Quota("exports", limit=3, period="day", per="user", counts="reported", thresholds=(100,)),
    ],
    on_crossed=tell,
)


def current_user(authorization: Annotated[str, Header()] = "") -> str:
    """Whom the trail names, the quota counts."""
    user = authorization.removeprefix("Bearer ")
    if not user:
        raise HTTPException(401)
    annotate(user_id=user, resource_owner="acme")
    return user


app = FastAPI()
app.add_middleware(QuotaMiddleware, quotas=quotas, headers=True)  # inside
app.add_middleware(AuditMiddleware, audit=audit)  # outside: added last


@app.post("/exports/{number}", dependencies=[Depends(current_user)])
async def export(number: int) -> dict[str, int]:
    """Over the limit, the answer is 429, and nothing in the block is done."""
    async with quotas.spend("exports") as spending:
        if number in unreadable:
            raise HTTPException(404)  # leaves the block by an error: it does not count
    return {"left": spending.decision.remaining}
