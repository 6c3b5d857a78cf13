r"""Globs of the policy → functions that match in linear time, whatever a client sends.

In paths and routes `*` is any text within a segment, `**` any number of whole segments (none,
too: `/static/**` matches `/static`). In names (`users`, `tenants`) `*` is any text. All else is
literal, upper and lower case differ. No `*` or `**` matches a `.` or `..` segment: a rule for
`/static/**` says nothing about `/static/../admin`. The lone glob `**` is every path there is.

Every part of the expressions is atomic or possessive, or stops at a slash: nothing backtracks
over more than one segment, so that a long path costs no more than its length.
"""

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

Matcher: TypeAlias = Callable[[str], re.Match[str] | None]

EVERYTHING = "**"
_NOT_DOTS = r"(?!\.{1,2}(?:/|\Z))"
_ANY_SEGMENT = f"/{_NOT_DOTS}[^/]*+"


def path_matcher(globs: Iterable[str]) -> Matcher:
    """Return a function that is true for the paths or routes that one of the globs matches."""
    return _matcher(_path_pattern(glob) for glob in globs)


def name_matcher(globs: Iterable[str]) -> Matcher:
    """Return a function that is true for the names that one of the globs matches."""
    return _matcher(_wildcards(glob, ".") for glob in globs)


def path_glob_problem(glob: str) -> str | None:
    """Say what is wrong with a glob for paths and how to write it; None if it is right."""
    if not glob.startswith(("/", EVERYTHING)):
        return f"{glob!r} matches no path; write {'/' + glob!r} or '**/{glob}'"
    if "?" in glob or "#" in glob:
        return f"{glob!r} has a query; a rule sees the path alone, write {_bare(glob)!r}"
    return route_glob_problem(glob)


def route_glob_problem(glob: str) -> str | None:
    """Say what is wrong with a glob for routes and how to write it; None if it is right."""
    for segment in glob.split("/"):
        if EVERYTHING in segment and segment != EVERYTHING:
            better = re.sub(r"\*+", "*", segment)
            return f"{glob!r}: '**' stands for whole segments; write {better!r} or '**' alone"
    return name_glob_problem(glob)


def name_glob_problem(glob: str) -> str | None:
    """Say what is wrong with a glob for names; None if it is right."""
    return None if glob else "an empty text matches nothing; leave it out"


def _bare(glob: str) -> str:
    return re.split("[?#]", glob)[0]


def _matcher(patterns: Iterable[str]) -> Matcher:
    # No glob matches what is not there: no route, nobody.
    return re.compile(rf"(?=.)(?:{'|'.join(patterns)})\Z", re.DOTALL).match


def _path_pattern(glob: str) -> str:
    """Between two `**` stands a block of segments; the first place where one fits is right."""
    if glob == EVERYTHING:
        return ".+"
    if glob.startswith(EVERYTHING):
        glob = "/" + glob
    first, *blocks = _blocks(glob)
    pattern = "/".join(map(_segment, first))
    for index, block in enumerate(blocks, 1):
        fitting = "".join("/" + _segment(segment) for segment in block)
        if not block:
            pattern += f"(?:{_ANY_SEGMENT})*+" if index == len(blocks) else ""
        elif index == len(blocks):
            pattern += rf"(?:{_ANY_SEGMENT})*?{fitting}"
        else:
            pattern += rf"(?>(?:{_ANY_SEGMENT})*?{fitting}(?=/|\Z))"
    return rf"{pattern}\Z"


def _blocks(glob: str) -> list[list[str]]:
    blocks: list[list[str]] = [[]]
    for segment in glob.split("/"):
        if segment == EVERYTHING:
            blocks.append([])
        else:
            blocks[-1].append(segment)
    return blocks


def _segment(glob: str) -> str:
    guard = _NOT_DOTS if glob.startswith("*") else ""
    return guard + _wildcards(glob, "[^/]")


def _wildcards(glob: str, character: str) -> str:
    """Each text between two stars at its first place, the last one at the end."""
    first, *texts = glob.split("*")
    pattern = re.escape(first)
    if not texts:
        return pattern
    for text in filter(None, texts[:-1]):
        pattern += f"(?>{character}*?{re.escape(text)})"
    last = texts[-1]
    if not last:
        return f"{pattern}{character}*+"
    ending = f"(?={character}{{{len(last)}}}){character}*+(?<={re.escape(last)})"
    return pattern + ending
