"""`Definitions`: which quota applies to a tenant, wherever it is laid down."""

import logging
from pathlib import Path
from typing import Any

import pytest

from auditlog import AuditLogError
from auditlog.quota.definitions.catalogue import Catalogue
from auditlog.quota.definitions.defined import Definitions
from auditlog.quota.definitions.rows import row_from
from auditlog.quota.model import Quota
from auditlog.testing import MemorySink

FOR_ALL = Quota("exports", limit=1, counts="reported")
FOR_ACME = Quota("exports", limit=2, counts="reported", tenant="acme")
REQUESTS = Quota("requests", limit=100)


def row(**fields: Any) -> dict[str, Any]:
    """A row of the database, as its statement gives it."""
    return row_from(Quota(**fields)) | {"anchor_s": None}


def test_one_for_a_tenant_goes_before_one_for_all() -> None:
    definitions = Definitions([FOR_ALL, FOR_ACME])
    assert definitions.get("exports", "acme") is FOR_ACME
    assert definitions.get("exports", "other") is FOR_ALL
    assert definitions.get("imports", "acme") is None
    assert definitions.ids == ["exports"]


def test_the_database_goes_before_the_code_for_the_same_tenant_only() -> None:
    """A limit for all is raised there without touching what the code says of one tenant."""
    stored = Quota("exports", limit=50, counts="reported")
    definitions = Definitions([FOR_ALL, FOR_ACME], [stored])
    assert definitions.get("exports", "other") is stored
    assert definitions.get("exports", "acme") is FOR_ACME


def test_what_counts_by_itself_is_the_same_object_until_it_changes() -> None:
    """Tables of what is to be asked are kept by it."""
    own = Quota("requests", limit=5, tenant="acme")
    definitions = Definitions([FOR_ALL, REQUESTS, own])
    assert definitions.automatic("other") == (REQUESTS,)
    assert definitions.automatic("acme") == (own,)
    assert definitions.automatic("acme") is definitions.automatic("acme")
    assert definitions.automatic("one") is definitions.automatic("another")


def test_a_tenant_may_have_a_quota_that_nobody_else_has() -> None:
    writes = Quota("writes", limit=5, counts="writes", tenant="acme")
    definitions = Definitions([REQUESTS, writes])
    assert definitions.automatic("acme") == (REQUESTS, writes)
    assert definitions.get("writes", "other") is None


def test_unknown_tenants_leave_nothing_behind() -> None:
    """A tenant may be what a client has made up."""
    definitions = Definitions([REQUESTS, FOR_ACME])
    for number in range(100):
        definitions.automatic(f"tenant-{number}")
    assert definitions._automatic == {}


def test_a_quota_that_is_defined_twice_is_refused() -> None:
    with pytest.raises(AuditLogError, match=r"'exports' for the tenant 'acme' is defined 2 times"):
        Definitions([FOR_ACME, FOR_ACME, FOR_ALL])


def test_a_file_adds_to_the_code(tmp_path: Path) -> None:
    path = tmp_path / "quotas.toml"
    path.write_text('[[quota]]\nid = "requests"\nlimit = 7\n')
    catalogue = Catalogue(MemorySink(), [FOR_ALL], path)
    assert catalogue.definitions.ids == ["exports", "requests"]


def test_what_the_database_says_replaces_all_it_has_said_before() -> None:
    catalogue = Catalogue(MemorySink(), [FOR_ALL], None)
    assert not catalogue.read_once.done()
    catalogue.read([row(id="exports", limit=9, counts="reported"), row(id="more", limit=1)])
    assert catalogue.read_once.done()
    changed = catalogue.definitions.get("exports", "acme")
    assert changed is not None
    assert changed.limit == 9
    catalogue.read([])
    assert catalogue.definitions.get("exports", "acme") is FOR_ALL
    assert catalogue.definitions.ids == ["exports"]


def test_what_did_not_change_stays_the_same_object() -> None:
    """Units at hand are known by the definition that they were taken under."""
    catalogue = Catalogue(MemorySink(), [], None)
    catalogue.read([row(id="a", limit=1), row(id="b", limit=1)])
    before, kept = catalogue.definitions, catalogue.definitions.get("a", "acme")
    catalogue.read([row(id="a", limit=1), row(id="b", limit=1)])
    assert catalogue.definitions is before
    catalogue.read([row(id="a", limit=1), row(id="b", limit=2)])
    assert catalogue.definitions.get("a", "acme") is kept


def test_a_row_that_is_no_quota_is_told_and_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    catalogue = Catalogue(MemorySink(), [FOR_ALL], None)
    broken = row(id="exports", limit=1) | {"time_zone": "Mars/Olympus"}
    with caplog.at_level(logging.WARNING, "auditlog"):
        catalogue.read([broken, row(id="more", limit=1)])
    assert "auditlog.quota_invalid" in caplog.text
    assert "auditlog quota set exports" in caplog.text
    assert catalogue.definitions.get("exports", "acme") is FOR_ALL
    assert catalogue.definitions.get("more", "acme") is not None
