"""Quotas from a TOML file: `[[quota]]` tables, whose keys are the fields of `Quota`.

Takes a path, gives quotas. Whatever is wrong is told at once, each problem with the file, the line,
the quota, the key and what would be right.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from auditlog.capture.policy.rules import Problem, did_you_mean
from auditlog.errors import QuotaError
from auditlog.quota.limits.checks import find_problems
from auditlog.quota.model import Quota
from auditlog.toml_lines import Lines

_TABLES = "quota"
_KEYS = tuple(field.name for field in fields(Quota))
_NEEDED = {"id": 'id = "exports"', "limit": "limit = 1000"}


def load(path: str | Path) -> tuple[Quota, ...]:
    """Read quotas, in the order of the file.

    An anchor may be a date, which begins with midnight; without an offset it is the time of day in
    the quota's time zone.

    Raises:
        QuotaError: the file cannot be read, or holds something that cannot work.
    """
    try:
        # utf-8-sig: editors on Windows write a byte order mark.
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise QuotaError(f"{path}: cannot be read as quotas: {error}") from None
    try:
        document = tomllib.loads(text)
    # A number of thousands of digits is a ValueError of Python's own.
    except ValueError as error:
        raise QuotaError(f"{path}: not TOML: {error}; see https://toml.io") from None
    return _QuotaFile(str(path), Lines(text), document).quotas()


class _QuotaFile:
    """One file: its lines for the messages, its document for the values."""

    def __init__(self, path: str, lines: Lines, document: Mapping[str, Any]) -> None:
        self._path = path
        self._lines = lines
        self._document = document

    def quotas(self) -> tuple[Quota, ...]:
        problems = list(self._top_problems())
        tables = self._document.get(_TABLES)
        found = [_without_dates(table) for table in tables] if isinstance(tables, list) else []
        taken: set[tuple[str, str]] = set()
        for index, table in enumerate(found):
            told = [*_table_problems(table), *_name_problems(table, taken)]
            problems += [self._located(index, table, problem) for problem in told]
        if problems:
            raise QuotaError("\n".join(problems))
        return tuple(Quota(**table) for table in found)

    def _top_problems(self) -> Iterator[str]:
        for key in self._document:
            if key != _TABLES:
                hint = did_you_mean(key, (_TABLES,))
                yield f"{self._path}:{self._lines.of(key)}: unknown key {key!r}; {hint}"
        tables = self._document.get(_TABLES)
        if not isinstance(tables, list) or not tables:
            line = self._lines.of(_TABLES)
            yield f"{self._path}:{line}: no quotas; write at least one [[quota]] table"

    def _located(self, index: int, table: Any, problem: Problem) -> str:
        name = table.get("id") if isinstance(table, dict) else None
        quota = f"quota {name!r}" if isinstance(name, str) and name else f"quota {index + 1}"
        line = self._lines.of(_TABLES, str(index), problem.field)
        return f"{self._path}:{line}: {quota}: {problem.field}: {problem.text}"


def _without_dates(table: Any) -> Any:
    """A date is its midnight; a datetime is a date, too."""
    anchor = table.get("anchor") if isinstance(table, dict) else None
    if not isinstance(anchor, date) or isinstance(anchor, datetime):
        return table
    return {**table, "anchor": datetime.combine(anchor, time())}


def _table_problems(table: Any) -> Iterator[Problem]:
    if not isinstance(table, dict):
        yield Problem(_TABLES, "must be a table; write [[quota]] and its keys below")
        return
    for key in table:
        if key not in _KEYS:
            yield Problem(key, f"unknown key; {did_you_mean(key, _KEYS)}")
    for key, example in _NEEDED.items():
        if key not in table:
            yield Problem(key, f"missing; write {example}")
    yield from find_problems({key: value for key, value in table.items() if key in _KEYS})


def _name_problems(table: Any, taken: set[tuple[str, str]]) -> Iterator[Problem]:
    if not isinstance(table, dict):
        return
    name, tenant = table.get("id"), table.get("tenant", "")
    if not isinstance(name, str) or not isinstance(tenant, str):
        return
    if (name, tenant) in taken:
        yield Problem("id", f"{name!r} is taken; another one needs a tenant or name of its own")
    taken.add((name, tenant))
