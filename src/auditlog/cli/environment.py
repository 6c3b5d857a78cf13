"""The `AUDITLOG_*` variables of the environment → a warning for each that nobody reads."""

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches

from auditlog.postgres.doctor import Finding
from auditlog.settings import PREFIX, Settings

_SETTINGS = tuple(PREFIX + field.name.upper() for field in fields(Settings))
_KNOWN = (*_SETTINGS, f"{PREFIX}DEBUG")


def check_environment(names: Iterable[str]) -> list[Finding]:
    """Judge the names of all variables; a misspelt setting would leave the default in force."""
    ours = sorted(name for name in names if name.upper().startswith(PREFIX))
    unknown = [name for name in ours if name not in _KNOWN]
    if not unknown:
        return [Finding("environment", "ok", f"{len(ours)} {PREFIX}* variables, all known")]
    return [
        Finding("environment", "warning", f"{name} is no setting and has no effect", _remedy(name))
        for name in unknown
    ]


def _remedy(name: str) -> str:
    if close := get_close_matches(name.upper(), _KNOWN, n=1):
        return f"did you mean {close[0]}?"
    return "remove it; docs/settings.md lists what there is"
