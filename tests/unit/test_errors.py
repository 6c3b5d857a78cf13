"""The error tree: drawn in the docstring as it is in the code."""

import inspect
import pathlib
import re

import pytest

import auditlog
from auditlog import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


def drawn(docstring: str) -> dict[str, str | None]:
    """Each class in the drawing with the one above it."""
    parents: dict[str, str | None] = {}
    above: list[str] = []
    for line in docstring.splitlines():
        match = re.match(r"^([│ ]*)([├└]── )?([A-Z]\w*Error)\b", line)
        if match:
            depth = len(match[1]) // 4 + bool(match[2])
            del above[depth:]
            parents[match[3]] = above[-1] if above else None
            above.append(match[3])
    return parents


def test_the_drawing_is_the_tree() -> None:
    """Every class, each below its base."""
    real = {
        cls.__name__: cls.__base__.__name__ if cls is not errors.AuditLogError else None
        for cls in CLASSES
        if cls.__base__ is not None
    }
    assert drawn(errors.__doc__ or "") == real


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_caught_by_the_base(cls: type[Exception]) -> None:
    """And tells in its docstring what it means."""
    assert issubclass(cls, auditlog.AuditLogError)
    assert cls.__doc__
    assert cls.__doc__ != errors.AuditLogError.__doc__ or cls is errors.AuditLogError


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_raised_somewhere(cls: type[Exception]) -> None:
    """An error that nobody raises is a promise that nobody keeps."""
    if cls is errors.AuditLogError:
        return
    package = inspect.getfile(auditlog).removesuffix("__init__.py")
    sources = "".join(path.read_text() for path in _modules(package))
    assert re.search(rf"raise {cls.__name__}\b|\b{cls.__name__}\(", sources), cls.__name__


def _modules(package: str) -> list[pathlib.Path]:
    return [path for path in pathlib.Path(package).rglob("*.py") if path.name != "errors.py"]
