"""Settings: one definition for Python and the environment, and errors that say what would do."""

import dataclasses
from typing import Any, get_type_hints

import pytest

from auditlog.errors import AuditLogError, SettingsError
from auditlog.settings import DEFAULT_HEADERS, PREFIX, Settings

NUMBERS = sorted(name for name, hint in get_type_hints(Settings).items() if hint in (int, float))
LISTS = sorted(name for name, hint in get_type_hints(Settings).items() if hint == tuple[str, ...])


def test_nothing_set_gives_the_defaults() -> None:
    """Settings of an empty environment are those of Python without arguments."""
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.dsn is None
    assert settings.capture_headers == DEFAULT_HEADERS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("dsn", "postgresql://h/d", "postgresql://h/d"),
        ("instance_id", "tenant-7", "tenant-7"),
        ("on_overflow", "drop_newest", "drop_newest"),
        ("batch_rows", "500", 500),
        ("max_queued_bytes", "1_000_000", 1_000_000),
        ("batch_age_s", "0.25", 0.25),
        ("drain_timeout_s", "5", 5.0),
        ("policy_file", "/etc/audit.toml", "/etc/audit.toml"),
        ("trusted_proxies", "10.0.0.0/8, ::1 ,", ("10.0.0.0/8", "::1")),
        ("capture_headers", "host", ("host",)),
        ("redact_fields", "", ()),
        ("echo_request_id", "yes", True),
        ("echo_request_id", " TRUE ", True),
        ("echo_request_id", "0", False),
        ("echo_request_id", "", False),
    ],
)
def test_environment_is_read_by_type(name: str, text: str, value: Any) -> None:
    """The variable is `AUDITLOG_` and the setting's name; lists are comma-separated."""
    settings = Settings.from_environment({PREFIX + name.upper(): text})
    assert getattr(settings, name) == value
    assert type(getattr(settings, name)) is type(value)
    assert settings == dataclasses.replace(Settings(), **{name: value})


def test_every_setting_can_be_set_by_the_environment() -> None:
    """No field is left out, and each reads its own variable."""
    texts = {int: "70000000", float: "3.5"}
    words = {
        "durability": "commit",
        "on_overflow": "drop_newest",
        "spool_fsync": "always",
        "trusted_proxy_header": "forwarded",
    }
    for field in dataclasses.fields(Settings):
        hint = get_type_hints(Settings)[field.name]
        text = texts.get(hint, words.get(field.name, "10.0.0.1"))
        if hint is bool:
            text = str(not field.default)
        environ = {PREFIX + field.name.upper(): text, PREFIX + "MAX_QUEUED_BYTES": "90000000"}
        settings = Settings.from_environment(environ)
        assert getattr(settings, field.name) != getattr(Settings(), field.name), field.name


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other variables, even of our prefix, are not ours to judge."""
    monkeypatch.setenv("AUDITLOG_BATCH_ROWS", "7")
    monkeypatch.setenv("AUDITLOG_NO_SUCH_THING", "x")
    assert Settings.from_environment().batch_rows == 7


def test_arguments_win_over_the_environment() -> None:
    """And a variable that is overridden still has to be of its type."""
    environ = {"AUDITLOG_BATCH_ROWS": "7"}
    assert Settings.from_environment(environ, batch_rows=9).batch_rows == 9
    with pytest.raises(SettingsError, match="AUDITLOG_BATCH_ROWS"):
        Settings.from_environment({"AUDITLOG_BATCH_ROWS": "many"}, batch_rows=9)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("batch_rows", "1e3", "a whole number"),
        ("batch_rows", "", "a whole number"),
        ("batch_age_s", "soon", "a number"),
        ("echo_request_id", "maybe", "true or false"),
    ],
)
def test_text_of_another_type_names_the_variable(name: str, text: str, kind: str) -> None:
    """The one who reads it has set a variable, not a field."""
    variable = PREFIX + name.upper()
    with pytest.raises(SettingsError, match=f"{variable} must be {kind}, not {text!r}"):
        Settings.from_environment({variable: text})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "10", None])
def test_numbers_are_positive_and_finite(name: str, value: Any) -> None:
    """A queue of no rows or a wait without end would only be noticed in production."""
    with pytest.raises(SettingsError, match=" greater than 0, not ") as caught:
        Settings(**{name: value})
    assert str(caught.value).startswith(f"{name} must be a ")


def test_counts_are_whole() -> None:
    """A batch of two and a half rows is never full."""
    with pytest.raises(SettingsError, match=r"^batch_rows must be a whole number"):
        Settings(batch_rows=2.5)  # type: ignore[arg-type]
    assert Settings(batch_age_s=1).batch_age_s == 1


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("value", ["password", b"password", None, ("a", 1)])
def test_one_text_is_not_a_list_of_texts(name: str, value: Any) -> None:
    """`redact_fields="password"` would redact p, a, s, w, o, r and d."""
    with pytest.raises(SettingsError, match=f"^{name} must be several texts"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"on_overflow": "wait"},
            "on_overflow must be one of drop_low_priority, drop_newest, block",
        ),
        ({"durability": "disk"}, "durability must be one of memory, spool, commit"),
        ({"durability": "spool"}, "durability='spool' needs spool_dir"),
        ({"spool_fsync": "often"}, "spool_fsync must be one of never, interval, always"),
        ({"instance_id": ""}, "instance_id must not be empty"),
        ({"instance_id": "i" * 256}, "instance_id must be printable and at most 255 bytes"),
        ({"instance_id": "é" * 128}, "instance_id must be printable and at most 255 bytes"),
        ({"instance_id": "a\0"}, "instance_id must be printable"),
        ({"max_row_bytes": 16383}, "max_row_bytes must be at least 16384"),
        ({"max_queued_bytes": 65_535}, "max_row_bytes must not exceed max_queued_bytes"),
        ({"retry_min_s": 31.0}, "retry_min_s must not exceed retry_max_s"),
        ({"trusted_proxies": ("10.0.0.0/99",)}, r"trusted_proxies: .*; write 10\.0\.0\.0/8"),
        ({"trusted_proxies": ("proxy.example",)}, "trusted_proxies: 'proxy.example'"),
    ],
)
def test_what_cannot_work_is_refused_at_once(values: dict[str, Any], message: str) -> None:
    """The message begins with the setting and says what would do."""
    with pytest.raises(SettingsError, match=f"^{message}"):
        Settings(**values)


def test_bounds_themselves_are_allowed() -> None:
    """The smallest and the equal."""
    Settings(max_row_bytes=16384, max_queued_bytes=16384, retry_min_s=1, retry_max_s=1)
    Settings(instance_id="i" * 255, batch_rows=1, max_queued_rows=1)
    Settings(trusted_proxies=("10.1.2.3", "10.1.2.3/8", "::1"))


def test_settings_errors_are_value_errors() -> None:
    """Caught by those who know the package and by those who do not."""
    assert issubclass(SettingsError, AuditLogError)
    assert issubclass(SettingsError, ValueError)


def test_settings_cannot_be_changed() -> None:
    """A running log has taken over its bounds: a change would change half of them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().batch_rows = 5  # type: ignore[misc]


def test_settings_do_not_show_their_secrets() -> None:
    """They stand in tracebacks and debuggers."""
    settings = Settings(dsn="postgresql://user:hunter2@host/db", redact_key="0123456789abcdef")
    assert "hunter2" not in repr(settings)
    assert "0123456789abcdef" not in repr(settings)
