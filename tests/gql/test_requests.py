"""Operations over HTTP: one row each, the same for every library, behind a real server."""

import json
from typing import Any

import pytest
from gql_scenario import Scenario, seen
from request_scenarios import SCENARIOS, batch, get
from services import ARIADNE, EXTENSION
from serving import Client, Service

from asgi_driver import metadata_of


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_row_says_what_was_asked_and_how_it_ended(
    service: Service, client: Client, scenario: Scenario
) -> None:
    """The whole table, on every service."""
    expected = scenario.expected_on(service.name)
    scenario.talk(client)
    records = client.rows(len(expected))
    assert [seen(record) for record in records] == list(expected)
    assert "hunter2" not in repr(records)


def test_request_without_an_operation_is_plain_http(client: Client) -> None:
    """A body that is no JSON reaches no schema."""
    client.http("POST", content=b"{", headers={"content-type": "application/json"})
    (record,) = client.rows(1)
    assert (record.protocol, record.response_status) == (1, 400)
    assert not [key for key in metadata_of(record) if key.startswith("graphql.")]


def test_batch_is_tied_by_the_id_of_its_first_row(client: Client) -> None:
    """The first row is the request's; the others name it."""
    batch(client)
    first, *others = client.rows(3)
    assert first.log_id is not None
    assert "audit.parent_id" not in metadata_of(first)
    assert [metadata_of(each)["audit.parent_id"] for each in others] == [first.log_id] * 2
    assert len({first.log_id, *[each.log_id for each in others]}) == 3


def test_what_resolvers_say_is_said_of_their_own_operation(client: Client) -> None:
    """From coroutines, tasks and threads, though the operations of a batch run at once."""
    batch(client)
    for name, record in zip("abc", client.rows(3), strict=True):
        assert (record.user_id, record.aggregate_id) == (name, name)
        assert (record.event_type, metadata_of(record)["seen"]) == (f"{name}.seen", name)


def test_single_operation_has_sizes_times_and_route_of_its_request(
    service: Service, client: Client
) -> None:
    """It is the request's own row."""
    client.post('{ who(name: "ada") }')
    (record,) = client.rows(1)
    metadata = metadata_of(record)
    assert record.user_id == "ada"
    assert record.request_headers is not None
    assert record.request_headers["content-type"] == ["application/json"]
    assert metadata["http.response.body.size"] == len('{"data":{"who":"ada"}}')
    assert metadata.get("http.route") == (
        "/graphql" if service.name == "strawberry-fastapi" else None
    )


def test_rule_with_bodies_stores_the_response_and_not_the_document(client: Client) -> None:
    """The document may hold values that no variable names."""
    client.post('{ echo(text: "precious") }', path="/bodies")
    (record,) = client.rows(1)
    metadata = metadata_of(record)
    assert "audit.request_body" not in metadata
    assert metadata["audit.response_body"]["content"] == {"data": {"echo": "precious"}}


def test_introspection_can_be_left_out_by_a_rule(client: Client) -> None:
    """Rules see its route with a mark behind it; all else on the same path is recorded."""
    client.post("{ __schema { types { name } } }", path="/quiet")
    client.post("{ hello __typename }", path="/quiet")
    (record,) = client.rows(1)
    assert metadata_of(record)["graphql.operation.type"] == "query"
    assert record.request_url == "/quiet"
    assert len(client.rows(1)) == 1


@pytest.mark.parametrize(
    "query",
    [
        'query { echo(text: "password: hunter2") }',
        'mutation { login(user: "a", password: "hunter2") }',
    ],
)
def test_secrets_in_a_url_are_hidden(client: Client, query: str) -> None:
    """In the document, and in variables of every form."""
    variables = {"input": {"password": "hunter2", "tokens": [{"apiKey": "hunter2"}]}}
    get(query, variables=json.dumps(variables))(client)
    (record,) = client.rows(1)
    assert "variables=" in (record.request_url or "")
    assert "hunter2" not in repr(record)


def test_services_answer_as_they_do_without_the_extension(service: Service) -> None:
    """The field's wrapper changes no value; see `test_transparent` for every byte."""
    answer: Any = service.client().post("{ items(count: 3) { number } }").json()
    assert answer == {"data": {"items": [{"number": number} for number in range(3)]}}
    assert service.name in {ARIADNE, EXTENSION, "strawberry", "strawberry-fastapi"}
