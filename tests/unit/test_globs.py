"""What globs match, and that they take no time over it."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.policy.globs import (
    name_glob_problem,
    name_matcher,
    path_glob_problem,
    path_matcher,
    route_glob_problem,
)


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("/", ["/"], ["", "/a", "//"]),
        ("/health", ["/health"], ["/health/", "/healthz", "/Health", "/x/health", "/health\n"]),
        ("/a/*", ["/a/b", "/a/", "/a/b\n"], ["/a", "/a/b/c", "/a/b/", "/a/..", "/a/."]),
        ("/a*b", ["/ab", "/axb", "/abb"], ["/a/b", "/abx", "/a"]),
        ("/*.js", ["/x.js", "/.js"], ["/x.json", "/a/x.js"]),
        ("/a*a", ["/aa", "/aba"], ["/a"]),
        ("/a*b*c", ["/abc", "/a1b2c", "/abbcc"], ["/acb", "/ab/c", "/ac"]),
        ("/static/**", ["/static", "/static/", "/static/a/b.js"], ["/staticx", "/x/static/a"]),
        ("/static/**", ["/static/..a"], ["/static/../admin", "/static/a/..", "/static/./a"]),
        ("/**", ["/", "/a", "/a/b"], ["", "/../a"]),
        ("**", ["/", "/a/../b", "*", "a"], [""]),
        ("**/x", ["/x", "/a/x", "/a/b/x"], ["/x/a", "/ax", "x"]),
        ("/a/**/z", ["/a/z", "/a/b/c/z", "/a/z/z"], ["/a/z/b", "/az"]),
        ("/a/**/b/**/c", ["/a/b/c", "/a/x/b/y/c", "/a/b/b/c/c"], ["/a/c/b", "/a/c"]),
        ("/a/**/*b/c", ["/a/xb/c", "/a/xb/xb/c"], ["/a/xb/x/c", "/a/xb"]),
        ("/a/**/**", ["/a", "/a/b"], ["/b"]),
        ("/users/{id}", ["/users/{id}"], ["/users/42"]),
        ("/a.b+c", ["/a.b+c"], ["/axb+c", "/a.bbc"]),
        ("users/<int:id>/**", ["users/<int:id>/x"], ["/users/<int:id>/x"]),
    ],
)
def test_path_globs(glob: str, matching: list[str], others: list[str]) -> None:
    """One star within a segment, two across; never over a dot segment."""
    matches = path_matcher([glob])
    assert [path for path in matching if not matches(path)] == []
    assert [path for path in others if matches(path)] == []


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("*", ["joe", "a/b", "..", "a\nb"], [""]),
        ("svc-*", ["svc-1", "svc-"], ["Svc-1", "xsvc-1"]),
        ("*@example.org", ["joe@example.org"], ["joe@example.org.evil"]),
        ("a*b*a", ["aba", "axbxa"], ["ab", "aa"]),
        ("joe", ["joe"], ["joey", "joe\n"]),
    ],
)
def test_name_globs(glob: str, matching: list[str], others: list[str]) -> None:
    """A star is any text; nobody is matched by nothing."""
    matches = name_matcher([glob])
    assert [name for name in matching if not matches(name)] == []
    assert [name for name in others if matches(name)] == []


def test_several_globs_match_what_one_of_them_does() -> None:
    """A list is an or."""
    matches = path_matcher(["/a", "/b/**"])
    assert [bool(matches(path)) for path in ("/a", "/b/c", "/c", "/a/c")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("glob", "remedy"),
    [
        ("health", "'/health'"),
        ("*", "'/*'"),
        ("", "'/'"),
        ("/a?b=1", "'/a'"),
        ("/a#b", "'/a'"),
        ("/a**", "'a*'"),
        ("/a/***/b", "'*'"),
    ],
)
def test_bad_path_globs_are_told_with_the_remedy(glob: str, remedy: str) -> None:
    """A rule that never matches is a hole in the trail."""
    assert remedy in (path_glob_problem(glob) or "")


@pytest.mark.parametrize("glob", ["/", "/a/*", "/**", "**", "**/x", "/a/**/b*c", "/{id}"])
def test_good_path_globs_have_no_problem(glob: str) -> None:
    """All that the documentation shows."""
    assert path_glob_problem(glob) is None


def test_routes_and_names_are_freer() -> None:
    """Django's templates begin with no slash; an empty text is still nothing."""
    assert route_glob_problem("users/<int:id>") is None
    assert route_glob_problem("a**b") is not None
    assert name_glob_problem("**") is None
    assert name_glob_problem("") is not None


alphabet = st.sampled_from(["/", "a", "b", ".", "..", "/a", "*", "/*", "/**"])


@given(st.lists(alphabet, max_size=6).map("".join), st.text("/ab.", max_size=10))
def test_globs_agree_with_the_obvious_slow_way(glob: str, path: str) -> None:
    """The same answer as a plain translation that may backtrack."""
    glob, path = "/" + glob, "/" + path
    if path_glob_problem(glob) is None:
        assert bool(path_matcher([glob])(path)) == bool(re.fullmatch(_slow(glob), path))


def _slow(glob: str) -> str:
    pattern = ""
    for segment in glob.split("/")[1:]:
        if segment == "**":
            pattern += r"(?:/(?!\.\.?(?:/|\Z))[^/]*)*"
        else:
            guard = r"(?!\.\.?(?:/|\Z))" if segment.startswith("*") else ""
            pattern += "/" + guard + "[^/]*".join(map(re.escape, segment.split("*")))
    return pattern


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("/**/a/**/b/**/c", "/a" * 500_000),
        ("/**/a*a*a*b", "/" + "a" * 1_000_000),
        ("/*a*a*a*a*b", "/" + "a" * 1_000_000),
        ("/**/*a*b/*c", "/aab" * 250_000),
        ("**/x", "/" * 1_000_000),
    ],
)
def test_hostile_paths_take_no_time(glob: str, path: str) -> None:
    """A megabyte is through in less than a second; backtracking would take years."""
    matches = path_matcher([glob])
    started = time.perf_counter()
    assert not matches(path)
    assert time.perf_counter() - started < 2
