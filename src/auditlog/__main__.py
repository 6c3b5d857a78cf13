"""`python -m auditlog`: the command line, where the script `auditlog` is not on the path."""

from auditlog.cli import main

if __name__ == "__main__":
    main()
