"""Quotas from files: what is read, and how mistakes are told."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from auditlog.errors import QuotaError
from auditlog.quota.definitions.file import load
from auditlog.quota.model import Counts, Per, Quota


def read(tmp_path: Path, text: str) -> tuple[Quota, ...]:
    path = tmp_path / "quotas.toml"
    path.write_text(text, "utf-8")
    return load(path)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(QuotaError) as caught:
        read(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def test_every_key_is_read(tmp_path: Path) -> None:
    """As a quota in Python would have it, and in the order of the file."""
    requests, exports, rolling = read(
        tmp_path,
        """
        [[quota]]
        id = "requests"
        limit = 100_000

        [[quota]]
        id = "exports"
        limit = 10
        period = "day"
        counts = "reported"
        per = ["user", "organisation"]
        anchor = 2026-07-15T06:00:00+02:00
        time_zone = "Europe/Berlin"
        thresholds = [80, 100]
        enforced = false
        exact = true
        on_unavailable = "closed"
        refunds = ["server_error", 404]
        routes = [
            "/exports/**",
        ]
        methods = "POST"
        tenant = "acme"
        log_allowed = true

        [[quota]]
        id = "exports"
        limit = 1
        period = "90 minutes"
        rolling = true
        """,
    )
    assert requests == Quota("requests", 100_000)
    assert exports == Quota(
        "exports",
        10,
        period="1 day",
        counts=Counts.REPORTED,
        per=(Per.ORGANISATION, Per.USER),
        anchor=datetime(2026, 7, 15, 4, tzinfo=UTC),
        time_zone="Europe/Berlin",
        thresholds=(80, 100),
        enforced=False,
        exact=True,
        on_unavailable="closed",
        refunds=("server_error", "404"),
        routes=("/exports/**",),
        methods=("POST",),
        tenant="acme",
        log_allowed=True,
    )
    assert rolling == Quota("exports", 1, period="90 minutes", rolling=True)


@pytest.mark.parametrize("anchor", ["2026-07-15", "2026-07-15T00:00:00", "2026-07-14T22:00:00Z"])
def test_an_anchor_without_an_offset_is_of_the_time_zone(tmp_path: Path, anchor: str) -> None:
    """And a date is its midnight."""
    text = f'[[quota]]\nid = "a"\nlimit = 1\ntime_zone = "Europe/Berlin"\nanchor = {anchor}\n'
    (quota,) = read(tmp_path, text)
    assert quota.anchor == datetime(2026, 7, 14, 22, tzinfo=UTC)


def test_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    """Some editors write them."""
    path = tmp_path / "quotas.toml"
    path.write_bytes(b'\xef\xbb\xbf[[quota]]\r\nid = "a"\r\nlimit = 1\r\n')
    assert load(str(path)) == (Quota("a", 1),)


GOOD = '[[quota]]\nid = "good"\nlimit = 1\nroutes = ["/x"]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "quotas.toml:1: no quotas; write at least one [[quota]] table"),
        ('\n[quota]\nid = "a"\n', "quotas.toml:2: no quotas; write at least one [[quota]] table"),
        ("\nquota = []\n", "quotas.toml:2: no quotas; write at least one [[quota]] table"),
        (f"[[quotas]]\n{GOOD}", "quotas.toml:1: unknown key 'quotas'; did you mean 'quota'?"),
        (f"\nrules = 1\n{GOOD}", "quotas.toml:2: unknown key 'rules'; write one of quota"),
        (
            f'{GOOD}\n[[quota]]\nid = "a"\nlimit = 1\nroute = ["/y"]\n',
            "quotas.toml:9: quota 'a': route: unknown key; did you mean 'routes'?",
        ),
        (
            f'{GOOD}# note\n[[quota]]  # another\nlimit = 1\n',
            "quotas.toml:6: quota 2: id: missing; write id = \"exports\"",
        ),
        (
            f'{GOOD}[[quota]]\nid = "a"\n',
            "quotas.toml:5: quota 'a': limit: missing; write limit = 1000",
        ),
        (
            f'{GOOD}[[quota]]\n"id" = "a"\n"limit" = "all"\n',
            "quotas.toml:7: quota 'a': limit: must be a whole number from 0 to",
        ),
        (
            f'{GOOD}[[quota]]\nlimit = 1\nid = "a"\nroutes = [\n  "/a",\n  "b",\n]\n',
            "quotas.toml:8: quota 'a': routes: 'b' matches no path; write '/b' or '**/b'",
        ),
        (
            f'{GOOD}[[quota]]\nlimit = 1\nid = "a"\nrolling = true\nperiod = "month"\n',
            "quotas.toml:9: quota 'a': period: 1 month has no fixed length",
        ),
        (
            f'{GOOD}[[quota]]\nlimit = 1\nid = "a"\nrolling = true\n',
            "quotas.toml:5: quota 'a': period: 1 month has no fixed length",
        ),
        (
            f'{GOOD}[[quota]]\nlimit = 1\nid = "a"\nanchor = 06:00:00\n',
            "quotas.toml:8: quota 'a': anchor: must be a date and time, not",
        ),
        (
            f'{GOOD}[[quota]]\nlimit = 1\nid = "good"\n',
            "quotas.toml:7: quota 'good': id: 'good' is taken; another one needs a tenant or name",
        ),
        (
            f'{GOOD}[[quota]]\nid = ["good"]\nlimit = 1\n',
            "quotas.toml:6: quota 2: id: must be a text that can be printed, not ['good']",
        ),
        (
            f'{GOOD}[[quota]]\nid = "a"\nlimit = 1\ntenant = ["acme"]\n',
            "quotas.toml:8: quota 'a': tenant: must be a text that can be printed, not ['acme']",
        ),
        (f"{GOOD}[quota.x]\ny = 1\n", "quotas.toml:1: quota 'good': x: unknown key; write one of"),
        ('quota = [\n{id = "a", limit = -1}]', "quotas.toml:1: quota 'a': limit: must be a whole"),
        ("quota = [1]", "quotas.toml:1: quota 1: quota: must be a table; write [[quota]] and"),
        (f"{GOOD}id = \n", "quotas.toml: not TOML: Invalid value (at line 5, column 6); see http"),
        (f"x = {'1' * 5000}", "quotas.toml: not TOML: Exceeds the limit"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_line_quota_and_remedy(
    tmp_path: Path, text: str, expected: str
) -> None:
    """One line a mistake, as compilers do it."""
    (first, *_) = problems(tmp_path, text)
    assert first.startswith(expected)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Nobody likes to mend a file one error at a time."""
    text = (
        'x = 1\n[[quota]]\nid = "a"\nlimit = -1\nperiod = "x"\n[[quota]]\nid = "b"\nroute = "/"\n'
    )
    assert [re.sub(r"(\d): .*", r"\1", line) for line in problems(tmp_path, text)] == [
        "quotas.toml:1",
        "quotas.toml:4",
        "quotas.toml:5",
        "quotas.toml:8",
        "quotas.toml:6",
    ]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, not UTF-8, or a directory."""
    path = tmp_path / "quotas.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QuotaError, match=f"^{re.escape(str(path))}: cannot be read as quotas: "):
        load(path)
    with pytest.raises(QuotaError, match="cannot be read"):
        load(tmp_path)


def test_a_quota_of_a_tenant_may_have_the_name_of_one_for_all(tmp_path: Path) -> None:
    """It goes before it."""
    tenants = "".join(f'tenant = "{name}"\n[[quota]]\nid = "a"\nlimit = 2\n' for name in "xy")
    found = read(tmp_path, f'[[quota]]\nid = "a"\nlimit = 1\n{tenants}')
    assert [quota.tenant for quota in found] == ["x", "y", None]
