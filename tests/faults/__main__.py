"""The long version of the harness: `python -m tests.faults`, a table in Markdown on stdout.

Every fault in every mode that it concerns, each with a database and a service of its own. A trial
that fails can be repeated with its seed: `--only "kill -9" --modes spool --seed 7`.
"""

# ruff: noqa: T201  # a report prints
import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from fault_cases import Case, cases  # noqa: E402  # needs the path
from fault_hostile import hostile_records  # noqa: E402  # likewise
from fault_postgres import Postgres  # noqa: E402  # likewise
from fault_report import heading, table_head, table_line  # noqa: E402  # likewise
from fault_scene import MODES, Result, tried  # noqa: E402  # likewise
from fault_script import killed_script  # noqa: E402  # likewise

HOSTILE_RECORDS = 5_000


def main() -> int:
    """Try everything that was asked for; return 1 if anything was lost, or stored twice."""
    options = _options()
    chosen = [case for case in cases(options.kills) if options.only in case.name]
    print(heading(options.seed))
    print()
    print(table_head(), flush=True)
    failures: list[str] = []
    with Postgres() as postgres:
        for case in chosen:
            for mode in case.modes:
                if mode in options.modes:
                    _try(case, mode, options.seed, postgres, failures)
        for mode in options.modes:
            if options.only in "script: kill -9" and mode != "commit":
                _note(killed_script(postgres, mode, options.seed, options.kills // 5), failures)
        if options.only in "hostile records" and "spool" in options.modes:
            result, _ = hostile_records(postgres, options.seed, HOSTILE_RECORDS)
            _note(result, failures, lossless=True)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return int(bool(failures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all chance")
    parser.add_argument("--kills", type=int, default=100, help="of the service, in each mode")
    parser.add_argument("--only", default="", help="trials whose name contains this")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    return parser.parse_args()


def _try(case: Case, mode: str, seed: int, postgres: Postgres, failures: list[str]) -> None:
    try:
        result = tried(case.name, case.fault, postgres, mode, seed, reconcile=True, **case.options)
        _note(result, failures, lossless=case.lossless)
    except Exception as error:  # noqa: BLE001  # the other trials are of interest as well
        failures.append(f"{case.name}, {mode}, seed {seed}: {type(error).__name__}: {error}")
        print(f"| {case.name} | `{mode}` | did not end: see stderr |", flush=True)


def _note(result: Result, failures: list[str], *, lossless: bool = False) -> None:
    print(table_line(result), flush=True)
    try:
        result.check(lossless=lossless)
    except AssertionError as error:
        failures.append(str(error))


if __name__ == "__main__":
    sys.exit(main())
