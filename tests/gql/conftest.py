"""Fixtures: each library's service once for all tests, behind a real server.

`service`   one after the other; asked for, a test runs once on each
`client`    a client of that service, with a request id of its own
"""

import gc
from collections.abc import Iterator

import pytest
from services import SERVICES
from serving import Client, Service, serving

from auditlog import Level, Policy, Protocol, Rule

RULES = (
    Rule(
        name="bodies",
        level=Level.BODY,
        protocols=(Protocol.GRAPHQL,),
        paths=("/bodies",),
    ),
    Rule(
        name="introspection",
        level=Level.NONE,
        protocols=(Protocol.GRAPHQL,),
        paths=("/quiet",),
        routes=("**/__schema",),
    ),
)


@pytest.fixture(scope="session", params=SERVICES)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with serving(SERVICES[request.param], policy=Policy(RULES)) as service:
        service.name = request.param
        yield service


@pytest.fixture
def client(service: Service) -> Client:
    return service.client()


@pytest.fixture(scope="module", autouse=True)
def _leftovers() -> Iterator[None]:
    """Let what Ariadne leaves pending, of clients that are gone, be complained of here."""
    yield
    gc.collect()
