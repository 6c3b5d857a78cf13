"""A `Reconciliation` for people, verdict by verdict with what is behind it, and as one document.

Names come from the trail, where anybody may have put them: no control character of theirs gets to
the terminal.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from auditlog.cli.output import plain
from auditlog.cli.rows import plain_table
from auditlog.query.reconciliation import Reconciliation
from auditlog.query.verdicts import conclusion, is_well, verdicts

MOST_LINES = 20
"""Of one kind: a screen. `--json` has all of them."""

_STYLES = {"notice": "yellow", "unexplained": "red"}


def table_of(found: Reconciliation) -> Table:
    """Lay out the verdicts."""
    table = plain_table()
    table.add_column("what", min_width=14)
    table.add_column("verdict", min_width=11)
    table.add_column("figure", min_width=6, justify="right")
    table.add_column("meaning", overflow="fold")
    for verdict in verdicts(found):
        cells = (verdict.name, verdict.state, f"{verdict.figure:,}", plain(verdict.detail))
        table.add_row(*map(Text, cells), style=_STYLES.get(verdict.state))
    return table


def lines_of(found: Reconciliation) -> Iterator[str]:
    """Yield what is behind the verdicts that are not well, and what all of it means."""
    yield from _listed(_places(found))
    yield from _listed(
        f"{life.state} {life.writer} (tenant {life.tenant}, durability {life.durability}), started"
        f" {life.started}, last batch {life.last_batch or 'none'}, run {life.run_id}"
        for life in found.lives.odd
    )
    yield from _listed(
        f"lost {gap.count:,} of tenant {gap.tenant} from {gap.first} to {gap.last}: {gap.reason}"
        for gap in found.gaps
    )
    yield ""
    yield conclusion(found)


def as_json(found: Reconciliation, *, strict: bool) -> dict[str, Any]:
    """Return one document with everything: figures, verdicts, and whether it is well."""
    return {
        "well": is_well(found, strict=strict),
        "unaccounted": found.unaccounted,
        "conclusion": conclusion(found),
        "at": found.at,
        "since": found.since,
        "until": found.until,
        "tenant": found.tenant,
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts(found)],
        "tables": [
            {
                "table": table.table,
                "stored": table.stored,
                "retired": table.retired,
                "retired_at_most": table.retired_at_most,
                "retired_uncounted": table.uncounted,
                "ledger_at_least": table.at_least,
                "ledger_at_most": table.at_most,
                "missing": table.missing,
                "unexplained": table.unexplained,
                "where": [
                    {"start": span.start, "end": span.end}
                    | {"missing": span.missing, "unexplained": span.unexplained}
                    for span in table.spans
                    if span.missing or span.unexplained
                ],
            }
            for table in found.tables
        ],
        "ledger": dataclasses.asdict(found.ledger),
        "lives": dataclasses.asdict(found.lives),
        "gaps": [dataclasses.asdict(gap) for gap in found.gaps],
        "requests": dataclasses.asdict(found.open),
        "dead_letters": found.dead_letters,
        "spool": dataclasses.asdict(found.spooled) if found.spooled else None,
    }


def _places(found: Reconciliation) -> Iterator[str]:
    for table in found.tables:
        for span in table.spans:
            where = f"{table.table} from {span.start or 'the beginning'} to {span.end or 'the end'}"
            if span.missing:
                yield f"missing {span.missing:,} of {where}"
            if span.unexplained:
                yield f"unexplained {span.unexplained:,} of {where}"


def _listed(lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    yield from (f"  {plain(line)}" for line in lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        yield f"  and {len(lines) - MOST_LINES:,} more: --json has all of them"
