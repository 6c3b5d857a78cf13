"""What is wanted of each table: a TOML file and flags → `TableConfig`s (docs/partitions.md).

A flag precedes the file, and in the file a table's own section precedes `[defaults]`. Whatever is
wrong is told at once, each problem with its line or its flag, and with what would be right.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, get_args

from auditlog.capture.policy.rules import did_you_mean
from auditlog.errors import SettingsError
from auditlog.partitions import spans
from auditlog.partitions.configuration import sizes
from auditlog.partitions.model import ArchiveFormat, Step, TableConfig
from auditlog.partitions.spans import Span
from auditlog.tables import TABLES
from auditlog.toml_lines import Lines

_NAMES = tuple(table.name for table in TABLES)
_DEFAULTS, _TENANTS = "defaults", "tenants"
_ELSEWHERE = "it belongs into the section of a table"
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)
"""A month has no number of days, so lengths are compared from a day on."""


def load(path: Path | None = None, **flags: object) -> dict[str, TableConfig]:
    """Return what is wanted of each table of the trail.

    Args:
        path: The file; None: none.
        flags: The same keys in the same words, for all tables; None is no flag.

    Raises:
        SettingsError: the file cannot be read, or something in it or among the flags cannot work.
    """
    problems: list[str] = []
    file = _File(path, problems)
    given = {name: value for name, value in flags.items() if value is not None}
    over = _values(given, _KEYS, _flag, problems)
    over, under = _at_home(over, Path.cwd()), file.defaults()
    configs = {
        name: TableConfig(name, **{**under, **file.of_table(name), **over}) for name in _NAMES
    }
    file.check_sections()
    if not problems:
        problems = [f"{name}: {each}" for name in _NAMES for each in _contradictions(configs[name])]
    if problems:
        raise SettingsError("\n".join(problems))
    return configs


class _File:
    """The settings file; what is wrong in it goes to `problems`."""

    def __init__(self, path: Path | None, problems: list[str]) -> None:
        self._path = path or Path()
        self._problems = problems
        text = _text(path) if path else ""
        self._lines = Lines(text)
        try:
            self._document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path}: not TOML: {error}; see https://toml.io") from None

    def defaults(self) -> dict[str, Any]:
        """Return the values of all tables."""
        return self._read(_DEFAULTS, self._section(_DEFAULTS), _SHARED_KEYS)

    def of_table(self, name: str) -> dict[str, Any]:
        """Return the values of one table, its tenants among them."""
        section = dict(self._section(name))
        tenants = section.pop(_TENANTS, {})
        return {**self._read(name, section, _KEYS), "tenants": self._tenants(name, tenants)}

    def check_sections(self) -> None:
        """Find what is nobody's section."""
        known = (_DEFAULTS, *_NAMES)
        for name in self._document:
            if name not in known:
                self._tell((name,), f"unknown section; {did_you_mean(name, known)}")

    def _section(self, name: str) -> dict[str, Any]:
        section = self._document.get(name, {})
        if isinstance(section, dict):
            return section
        self._tell((name,), f"must be a section: write [{name}] and its keys below")
        return {}

    def _read(self, name: str, section: Mapping[str, object], keys: "_Keys") -> dict[str, Any]:
        found = _values(section, keys, lambda key: self._place(name, key), self._problems)
        return _at_home(found, self._path.parent)

    def _tenants(self, name: str, tenants: object) -> dict[str, Span]:
        if not isinstance(tenants, dict):
            self._tell((name, _TENANTS), f"must be a section: write [{name}.{_TENANTS}]")
            return {}
        for tenant in tenants:
            if "\0" in tenant:
                self._tell((name, _TENANTS), f"{tenant!r}: no tenant's name has a NUL in it")
        keys = {tenant: _Key(tenant, _span) for tenant in tenants}
        return _values(tenants, keys, lambda key: self._place(name, _TENANTS, key), self._problems)

    def _tell(self, path: tuple[str, ...], problem: str) -> None:
        self._problems.append(f"{self._place(*path)}: {problem}")

    def _place(self, *path: str) -> str:
        return f"{self._path}:{self._lines.of(*path)}: {'.'.join(path)}"


class _Key(NamedTuple):
    """A key: the field that it sets, and how its value is read."""

    field: str
    read: Callable[[Any], Any]
    """Raises ValueError with what would do."""


_Keys = Mapping[str, _Key]


def _text(path: Path) -> str:
    try:
        # utf-8-sig: editors on Windows write a byte order mark.
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as settings: {error}") from None


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _values(
    table: Mapping[str, object], keys: _Keys, place: Callable[[str], str], problems: list[str]
) -> dict[str, Any]:
    """Turn the words of a section into the values of fields."""
    values = {}
    for name, value in table.items():
        if name not in keys:
            hint = _ELSEWHERE if name in _KEYS else did_you_mean(name, keys)
            problems.append(f"{place(name)}: unknown key; {hint}")
            continue
        try:
            values[keys[name].field] = keys[name].read(value)
        except ValueError as error:
            problems.append(f"{place(name)}: {error}")
    return values


def _at_home(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A folder is meant from where its name stands, not from where cron happens to start."""
    archive = values.get("archive")
    if archive is None or "://" in archive:
        return values
    return {**values, "archive": str(folder.absolute() / Path(archive).expanduser())}


def _contradictions(config: TableConfig) -> Iterator[str]:
    has_retention = config.retain or config.retain_bytes
    if has_retention and not config.archive and not config.drop_without_archive:
        yield (
            "a retention needs an archive for what it drops: set archive, or"
            " drop_without_archive = true"
        )
    if config.retain and _is_shorter(config.retain, config.min_retain):
        yield _too_short("retain", config.retain, config)
    for tenant, span in config.tenants.items():
        if _is_shorter(span, config.min_retain):
            yield _too_short(tenant, span, config)
        elif config.retain and _is_shorter(config.retain, span):
            yield (
                f"{tenant} = {span} is longer than retain = {config.retain}, after which"
                " partitions go as a whole: the rows of one tenant can only go earlier"
            )


def _too_short(name: str, span: Span, config: TableConfig) -> str:
    return (
        f"{name} = {span} is shorter than min_retain = {config.min_retain}: set min_retain as"
        " well, if that is meant"
    )


def _is_shorter(one: Span, other: Span) -> bool:
    return one.before(_SOME_DAY) > other.before(_SOME_DAY)


def _span(value: object) -> Span:
    return spans.parse(_word(value, '"90 days", "24 months"'))


def _size(value: object) -> int:
    return sizes.parse(_word(value, '"500 GB"'))


def _location(value: object) -> str:
    return _word(value, '"/srv/audit-archive", "s3://bucket/path"')


def _word(value: object, example: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is no text: write {example}")
    return value


def _choice(choices: Any) -> Callable[[object], str]:
    names = get_args(choices)

    def read(value: object) -> str:
        if value not in names:
            raise ValueError(
                f"{value!r} is none of {', '.join(names)}; {did_you_mean(value, names)}"
            )
        return str(value)

    return read


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no number of partitions: write 3")
    return value


def _seconds(value: object) -> float:
    # Every comparison with NaN is false, so this one is written to fail then.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < inf:
        raise ValueError(f"{value!r} is no number of seconds: write 1.5")
    return float(value)


_SHARED_KEYS: _Keys = {
    "by": _Key("by", _choice(Step)),
    "ahead": _Key("ahead", _span),
    "retain": _Key("retain", _span),
    "min_retain": _Key("min_retain", _span),
    "archive": _Key("archive", _location),
    "archive_format": _Key("archive_format", _choice(ArchiveFormat)),
    "drop_without_archive": _Key("drop_without_archive", _switch),
    "max_retire": _Key("max_retire", _count),
    "lock_timeout": _Key("lock_timeout_s", _seconds),
}
_KEYS: _Keys = {**_SHARED_KEYS, "retain_size": _Key("retain_bytes", _size)}
