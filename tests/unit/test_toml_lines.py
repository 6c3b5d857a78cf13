import pytest

from auditlog.toml_lines import Lines

TEXT = """\
top = 1
dotted.key = 2
[section]
"quoted" = 3
# comment = 4
[ section . "inner" ]
key = [
    "x",
]
[[table]]
key = 5
[[ 'table' ]]  # the second

key = 6
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 1),
        (("dotted", "key"), 2),
        (("section",), 3),
        (("section", "quoted"), 4),
        (("section", "inner", "key"), 7),
        (("table", "0"), 10),
        (("table", "0", "key"), 11),
        (("table", "1", "key"), 14),
    ],
)
def test_keys_are_where_they_stand(path: tuple[str, ...], line: int) -> None:
    """Those of a list of tables by its number, from 0."""
    assert Lines(TEXT).of(*path) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("section", "comment"), 3),
        (("section", "inner", "missing"), 6),
        (("table", "1", "missing"), 12),
        (("table", "2", "key"), 1),
        (("missing",), 1),
    ],
)
def test_what_is_missing_is_told_where_it_belongs(path: tuple[str, ...], line: int) -> None:
    """At the head of its section, or of the file."""
    assert Lines(TEXT).of(*path) == line
