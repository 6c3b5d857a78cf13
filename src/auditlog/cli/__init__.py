"""The command line: one file per group of commands, each command a thin adapter over a function.

Data goes to stdout, talk to stderr. Typer and rich are the extra `cli`; this module imports
neither, so that it can say so where they are missing.
"""

import sys

NOT_INSTALLED = "the command line needs typer and rich: pip install 'auditlog-postgres[cli]'\n"


def main() -> None:
    """Run the command line and exit."""
    try:
        from auditlog.cli.app import run  # noqa: PLC0415  # the extra may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        sys.stderr.write(NOT_INSTALLED)
        sys.exit(2)
    except KeyboardInterrupt:  # the imports take a moment
        sys.exit(130)
    sys.exit(run())
