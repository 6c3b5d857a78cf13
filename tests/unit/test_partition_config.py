"""Settings of maintenance: what is read, what precedes what, and how mistakes are told."""

from pathlib import Path

import pytest

from auditlog.errors import SettingsError
from auditlog.partitions.configuration.config import load
from auditlog.partitions.configuration.sizes import parse, shown
from auditlog.partitions.model import TableConfig
from auditlog.partitions.spans import Span
from auditlog.tables import TABLES

EXAMPLE = Path(__file__).parents[2] / "examples" / "partitions" / "partitions.toml"
KB = 1024


def read(tmp_path: Path, text: str, **flags: object) -> dict[str, TableConfig]:
    path = tmp_path / "partitions.toml"
    path.write_text(text, "utf-8")
    return load(path, **flags)


def problems(tmp_path: Path, text: str, **flags: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, **flags)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def test_without_a_file_every_table_has_the_defaults() -> None:
    """Which say nothing that could delete."""
    assert load() == {table.name: TableConfig(table.name) for table in TABLES}


def test_no_tenant_has_a_name_that_no_row_can_have(tmp_path: Path) -> None:
    """It would end every run of that table."""
    text = '[logs.tenants]\n"a\\u0000b" = "90 days"\n'
    (problem,) = problems(tmp_path, text)
    assert problem == r"partitions.toml:1: logs.tenants: 'a\x00b': no tenant's name has a NUL in it"


def test_every_key_is_read(tmp_path: Path) -> None:
    """As `TableConfig` has them."""
    logs = read(
        tmp_path,
        """
        [logs]
        by = "week"
        ahead = "60 days"
        retain = "24 months"
        retain_size = "1.5 TB"
        min_retain = "1 month"
        archive = "s3://bucket/trail"
        archive_format = "parquet"
        drop_without_archive = true
        max_retire = 0
        lock_timeout = 2

        [logs.tenants]
        "tenant.7" = "90 days"
        """,
    )["logs"]
    assert logs == TableConfig(
        "logs",
        by="week",
        ahead=Span(days=60),
        retain=Span(months=24),
        retain_bytes=3 * KB**4 // 2,
        min_retain=Span(months=1),
        tenants={"tenant.7": Span(days=90)},
        archive="s3://bucket/trail",
        archive_format="parquet",
        drop_without_archive=True,
        max_retire=0,
        lock_timeout_s=2.0,
    )


def test_flags_precede_sections_precede_defaults(tmp_path: Path) -> None:
    """Key by key; a flag that is None is none."""
    text = '[defaults]\nahead = "1 month"\nmax_retire = 1\nby = "day"\n[logs]\nahead = "2 months"\n'
    found = read(tmp_path, text + "max_retire = 2\n", max_retire=9, by=None)
    ahead = {name: config.ahead for name, config in found.items()}
    assert ahead["logs"] == Span(months=2)
    assert ahead["quota_logs"] == Span(months=1)
    assert {config.max_retire for config in found.values()} == {9}
    assert {config.by for config in found.values()} == {"day"}


def test_a_folder_is_meant_from_where_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cron starts commands somewhere else."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert read(tmp_path, '[logs]\narchive = "kept"\n')["logs"].archive == str(tmp_path / "kept")
    assert load(archive="kept")["logs"].archive == str(elsewhere / "kept")


def test_the_example_is_well() -> None:
    """What the documentation points to."""
    assert load(EXAMPLE)["logs"].tenants == {"tenant-7": Span(days=90)}


def test_each_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    """All of them at once, each with what would do."""
    text = """[defaults]
archve = "/srv"
retain_size = "1 GB"

[logs]
by = "moth"
ahead = 3
max_retire = -1
lock_timeout = true
drop_without_archive = "yes"
retain_size = "much"
logs = 1

[logs.tenants]
"a" = "soon"

[loggs]
"""
    assert problems(tmp_path, text, retain="x") == [
        "--retain: 'x' is no length of time: write 90 days, 26 weeks, 24 months, 7 years",
        "partitions.toml:2: defaults.archve: unknown key; did you mean 'archive'?",
        "partitions.toml:3: defaults.retain_size: unknown key;"
        " it belongs into the section of a table",
        "partitions.toml:6: logs.by: 'moth' is none of day, week, month; did you mean 'month'?",
        'partitions.toml:7: logs.ahead: 3 is no text: write "90 days", "24 months"',
        "partitions.toml:8: logs.max_retire: -1 is no number of partitions: write 3",
        "partitions.toml:9: logs.lock_timeout: True is no number of seconds: write 1.5",
        "partitions.toml:10: logs.drop_without_archive: 'yes' is neither true nor false",
        "partitions.toml:11: logs.retain_size: 'much' is no size: write 500 GB, 1.5 TB",
        "partitions.toml:12: logs.logs: unknown key; write one of by, ahead, retain, min_retain,"
        " archive, archive_format, drop_without_archive, max_retire, lock_timeout, retain_size",
        "partitions.toml:15: logs.tenants.a: 'soon' is no length of time: write 90 days, 26 weeks,"
        " 24 months, 7 years",
        "partitions.toml:17: loggs: unknown section; did you mean 'logs'?",
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0"])
def test_a_lock_timeout_has_an_end(tmp_path: Path, value: str) -> None:
    """Zero would be none for PostgreSQL."""
    (problem,) = problems(tmp_path, f"[logs]\nlock_timeout = {value}\n")
    assert "write 1.5" in problem


def test_a_section_must_be_one(tmp_path: Path) -> None:
    """A table and its tenants alike."""
    (problem,) = problems(tmp_path, 'logs = "24 months"\n')
    assert problem == "partitions.toml:1: logs: must be a section: write [logs] and its keys below"
    (problem,) = problems(tmp_path, "[logs]\ntenants = 3\n")
    assert problem == "partitions.toml:2: logs.tenants: must be a section: write [logs.tenants]"


@pytest.mark.parametrize("how", ['retain = "24 months"', 'retain_size = "500 GB"'])
def test_a_retention_needs_somewhere_to_go(tmp_path: Path, how: str) -> None:
    """An archive, or leave to do without."""
    (problem,) = problems(tmp_path, f"[logs]\n{how}\n")
    assert problem.startswith("logs: a retention needs an archive")
    assert read(tmp_path, f"[logs]\n{how}\n", archive="/a")["logs"].archive == "/a"
    assert read(tmp_path, f"[logs]\n{how}\n", drop_without_archive=True)


def test_lengths_must_fit_each_other(tmp_path: Path) -> None:
    """A typing error is told, rather than half obeyed."""
    text = '[logs]\nretain = "{}"\narchive = "/a"\n[logs.tenants]\na = "{}"\n'
    too_short, _ = problems(tmp_path, text.format("6 days", "8 days"))
    assert too_short.startswith("logs: retain = 6 days is shorter than min_retain = 7 days")
    (problem,) = problems(tmp_path, text.format("24 months", "1 day"))
    assert problem.startswith("logs: a = 1 day is shorter than min_retain = 7 days")
    (problem,) = problems(tmp_path, text.format("24 months", "3 years"))
    assert problem.startswith("logs: a = 36 months is longer than retain = 24 months")
    assert read(tmp_path, text.format("24 months", "2 years"))


def test_what_is_no_file_of_settings_is_told(tmp_path: Path) -> None:
    """Missing, in another encoding, or in another language."""
    with pytest.raises(SettingsError, match=r"cannot be read as settings"):
        load(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b"[logs]\narchive = '/\xe9'\n")
    with pytest.raises(SettingsError, match=r"cannot be read as settings"):
        load(tmp_path / "latin.toml")
    assert "not TOML" in problems(tmp_path, "[logs\n")[0]


def test_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    """Some editors write them."""
    path = tmp_path / "partitions.toml"
    path.write_bytes(b'\xef\xbb\xbf[logs]\r\nahead = "1 month"\r\n')
    assert load(path)["logs"].ahead == Span(months=1)


@pytest.mark.parametrize(
    ("text", "expected", "again"),
    [
        ("500 GB", 500 * KB**3, "500 GB"),
        ("1.5TB", 3 * KB**4 // 2, "1.5 TB"),
        ("2 MiB", 2 * KB**2, "2 MB"),
        ("7 kb", 7 * KB, "7 kB"),
        ("12 B", 12, "12 B"),
    ],
)
def test_sizes_are_read_and_shown(text: str, expected: int, again: str) -> None:
    """With PostgreSQL's units."""
    assert parse(text) == expected
    assert shown(expected) == again


@pytest.mark.parametrize("text", ["", "500", "GB", "0 GB", "-1 GB", "1 XB", "1e3 GB", "٥ GB"])
def test_other_sizes_are_refused(text: str) -> None:
    """With an example of what would do."""
    with pytest.raises(ValueError, match="write 500 GB"):
        parse(text)
