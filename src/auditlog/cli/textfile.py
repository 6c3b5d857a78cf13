"""A file that others read at any moment: whole, or as it was before."""

import os
import tempfile
from pathlib import Path
from typing import Any

import orjson

from auditlog.errors import SettingsError

# The node exporter reads it as another user.
_MODE = 0o644


def check_writable(path: Path) -> None:
    """See that a file could be written, before there is something to write.

    Raises:
        SettingsError: there is no such folder, or it takes no file.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise SettingsError(f"{path} cannot be written: name a file in a folder that exists")
    if not os.access(path.parent, os.W_OK):
        raise SettingsError(f"{path.parent} cannot be written by this user")


def replace(path: Path, text: str) -> None:
    """Write a file under another name, then give it its own.

    The other name ends in `.part`, which a textfile collector does not read.

    Raises:
        OSError: the disk is full, or the folder is gone.
    """
    descriptor, name = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(_MODE)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def json_text(document: Any) -> str:
    """Return a document as `output.put_json` writes it."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(document, default=str, option=options).decode()
