"""`__all__` of the package: sorted, complete, and nothing that is private."""

import ast
import inspect
import types

import auditlog


def test_all_is_sorted_and_without_repetition() -> None:
    """Two people who add a name do not meet in the same line."""
    assert auditlog.__all__ == sorted(set(auditlog.__all__))


def test_all_names_what_is_there() -> None:
    """`from auditlog import *` works, and every public name of the module is in it."""
    public = {
        name
        for name, value in vars(auditlog).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(auditlog.__all__)


def test_every_import_of_the_package_is_exported() -> None:
    """What `__init__` imports, it imports for its users."""
    tree = ast.parse(inspect.getsource(auditlog))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(auditlog.__all__)


def test_every_public_name_is_documented() -> None:
    """Classes and functions have a docstring of their own."""
    for name in auditlog.__all__:
        value = getattr(auditlog, name)
        assert inspect.getdoc(value), name
        if inspect.isclass(value):
            assert "__doc__" in vars(value), name
