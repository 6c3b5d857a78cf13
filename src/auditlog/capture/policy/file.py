"""A policy from a TOML file: `default` and `[[rules]]` tables (docs/policy.md).

Takes a path, gives a policy. Whatever is wrong is told at once, each problem with the file, the
line, the rule and what would be right.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from auditlog.capture.policy.policy import Level, Policy, Rule
from auditlog.capture.policy.rules import Problem, did_you_mean, find_order_problems, find_problems
from auditlog.errors import PolicyError
from auditlog.records import Protocol

_LEVELS = {level.name.lower(): level for level in Level}
_PROTOCOLS = {protocol.name.lower(): protocol for protocol in Protocol if protocol}
_TOP_KEYS = ("default", "rules")
_RULE_KEYS = tuple(field.name for field in fields(Rule))
_RULE_HEADER = re.compile(r"\s*\[\[\s*[\"']?rules[\"']?\s*\]\]")
_NEXT_TABLE = re.compile(r"\s*\[(?!\s*rules\s*\.)")
_TOML_LINE = re.compile(r" \(at line (\d+), column \d+\)$| \(at end of document\)$")


def load_policy(path: str | Path) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: the file cannot be read, or holds something that cannot work.
    """
    try:
        # utf-8-sig: editors on Windows write a byte order mark.
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read as a policy: {error}") from None
    return _PolicyFile(str(path), text).policy()


class _PolicyFile:
    """One file: its text for the lines, its document for the values."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._rule_lines = [
            number for number, line in enumerate(self._lines, 1) if _RULE_HEADER.match(line)
        ]
        try:
            self._document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self._refuse_syntax(error)

    def policy(self) -> Policy:
        problems = list(self._top_problems())
        tables = self._document.get("rules", [])
        rules: list[Rule | None] = []
        for index, table in enumerate(tables if isinstance(tables, list) else []):
            values, found = _rule_values(table)
            found.extend(find_problems(values))
            problems.extend(self._located(index, table, problem) for problem in found)
            rules.append(None if found else Rule(**values))
        if not problems and all(rules):
            valid = [rule for rule in rules if rule]
            for index, problem in find_order_problems(valid):
                problems.append(self._located(index, tables[index], problem))
        if problems:
            raise PolicyError("\n".join(problems))
        default = _LEVELS[self._document.get("default", "headers")]
        return Policy([rule for rule in rules if rule], default=default)

    def _top_problems(self) -> Iterator[str]:
        for key in self._document:
            if key not in _TOP_KEYS:
                line = self._line_of(key, 0, len(self._lines))
                yield f"{self._path}:{line}: unknown key {key!r}; {did_you_mean(key, _TOP_KEYS)}"
        default = self._document.get("default", "headers")
        if not isinstance(default, str) or default not in _LEVELS:
            line = self._line_of("default", 0, len(self._lines))
            yield f"{self._path}:{line}: default: {_no_level(default)}"
        tables = self._document.get("rules")
        if not isinstance(tables, list) or not tables:
            line = self._line_of("rules", 0, len(self._lines))
            yield f"{self._path}:{line}: no rules; write at least one [[rules]] table"

    def _located(self, index: int, table: Any, problem: Problem) -> str:
        name = table.get("name") if isinstance(table, dict) else None
        rule = f"rule {name!r}" if isinstance(name, str) and name else f"rule {index + 1}"
        line = self._line(index, problem.field)
        return f"{self._path}:{line}: {rule}: {problem.field}: {problem.text}"

    def _line(self, index: int, key: str) -> int:
        """The line of a key of the n-th rule; of its header, where the key is not found."""
        if index >= len(self._rule_lines):
            return self._line_of("rules", 0, len(self._lines))
        header = self._rule_lines[index]
        end = len(self._lines)
        for number in range(header, len(self._lines)):
            if _NEXT_TABLE.match(self._lines[number]) and not self._within_list(header, number):
                end = number
                break
        return max(header, self._line_of(key, header, end))

    def _within_list(self, start: int, number: int) -> bool:
        """A line that begins with a bracket may belong to a list of several lines."""
        text = "\n".join(self._lines[start:number])
        return text.count("[") > text.count("]")

    def _line_of(self, key: str, start: int, end: int) -> int:
        pattern = re.compile(
            rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]|\s*\[[^\]]*\b{re.escape(key)}\b"
        )
        for number in range(start, end):
            if pattern.match(self._lines[number]):
                return number + 1
        return max(start, 1)

    def _refuse_syntax(self, error: tomllib.TOMLDecodeError) -> NoReturn:
        message = str(error)
        place = _TOML_LINE.search(message)
        line = place[1] if place and place[1] else len(self._lines)
        text = _TOML_LINE.sub("", message)
        raise PolicyError(f"{self._path}:{line}: not TOML: {text}; see https://toml.io") from None


def _rule_values(table: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Turn the words of a table into a rule's values."""
    if not isinstance(table, dict):
        return {}, [Problem("rules", "must be a table; write [[rules]] and its keys below")]
    problems = [
        Problem(key, f"unknown key; {did_you_mean(key, _RULE_KEYS)}")
        for key in table
        if key not in _RULE_KEYS
    ]
    problems += [
        Problem(key, f"missing; write {example}")
        for key, example in (("name", 'name = "..."'), ("level", 'level = "headers"'))
        if key not in table
    ]
    values = {key: value for key, value in table.items() if key in _RULE_KEYS}
    for key, convert in (("level", _level), ("protocols", _protocols), ("statuses", _statuses)):
        if key in values:
            values[key], found = convert(values[key])
            problems += [Problem(key, text) for text in found]
            if found:
                del values[key]
    return values, problems


def _level(value: Any) -> tuple[Any, list[str]]:
    if isinstance(value, str) and value in _LEVELS:
        return _LEVELS[value], []
    return None, [_no_level(value)]


def _no_level(value: object) -> str:
    return f"{value!r} is no level; {did_you_mean(value, _LEVELS)}"


def _protocols(values: Any) -> tuple[Any, list[str]]:
    if not isinstance(values, list):
        return values, []
    unknown = [value for value in values if not isinstance(value, str) or value not in _PROTOCOLS]
    if unknown:
        return None, [f"{v!r} is no protocol; {did_you_mean(v, _PROTOCOLS)}" for v in unknown]
    return [_PROTOCOLS[value] for value in values], []


def _statuses(values: Any) -> tuple[Any, list[str]]:
    """404 is written as a number, too."""
    if not isinstance(values, list):
        return values, []
    return [str(value) if type(value) is int else value for value in values], []
