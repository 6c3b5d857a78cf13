"""Variables: what of them may be stored."""

import io
from typing import Any

import pytest
from starlette.datastructures import UploadFile

from auditlog import Settings
from auditlog.capture.graphql.variables import TRUNCATED, UNREADABLE, storable
from auditlog.capture.redaction.redactor import Redactor

REDACTOR = Redactor.of(Settings(redact_fields=("ssn",)))


def stored(variables: object, room: int = 1000) -> Any:
    return storable(variables, REDACTOR, room)


def test_secrets_are_redacted_at_every_depth() -> None:
    """By the names that are secret everywhere, and by those of the settings."""
    variables = {"input": {"ssn": "1", "list": [{"api_key": "2", "name": "n"}]}, "token": "3"}
    assert stored(variables) == {
        "input": {"ssn": "[REDACTED]", "list": [{"api_key": "[REDACTED]", "name": "n"}]},
        "token": "[REDACTED]",
    }


def test_of_files_only_the_class_is_shown() -> None:
    """Not the content, not the name."""
    file = UploadFile(io.BytesIO(b"content"), filename="name.txt")
    assert stored({"file": file, "files": [file], "raw": b"content"}) == {
        "file": "<UploadFile>",
        "files": ["<UploadFile>"],
        "raw": "<bytes>",
    }


@pytest.mark.parametrize("variables", [None, {}, [], "x", 7])
def test_what_are_no_variables_is_left_out(variables: object) -> None:
    """A client may send anything."""
    assert stored(variables) is None


def test_what_does_not_fit_is_named_without_its_value() -> None:
    """One large value leaves the small ones in place; the names of many end at the bound."""
    assert stored({"a": 1, "large": "x" * 2000, "b": 2}) == {"a": 1, "large": TRUNCATED, "b": 2}
    many = stored({f"v{number}": number for number in range(10_000)}, 100)
    assert len(many) < 40


def test_what_is_no_json_is_marked() -> None:
    """Numbers beyond 64 bits, half a surrogate pair, and mappings that raise."""

    class Hostile(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no")

    assert stored({"big": 1 << 70, "half": "\ud800"}) == {"big": UNREADABLE, "half": UNREADABLE}
    assert stored(Hostile(a=1)) == UNREADABLE


def test_variables_are_not_changed() -> None:
    """They belong to the application."""
    variables = {"password": "p", "deep": {"token": ["t"]}}
    stored(variables)
    assert variables == {"password": "p", "deep": {"token": ["t"]}}
