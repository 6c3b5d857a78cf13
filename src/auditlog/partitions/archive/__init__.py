"""Partitions in files: exported, stored, verified, found again and put back.

    leaf → fingerprint ┐
    leaf → COPY → raw bytes → packed → stored → read back → manifest

Data first, manifest last: what has none is unfinished. Raw bytes are what PostgreSQL's COPY sent,
whatever format they are stored in, and every format gives them back byte by byte.
"""

from auditlog.partitions.archive.exporting import Archived, archive
from auditlog.partitions.archive.finding import Found, found
from auditlog.partitions.archive.fingerprints import Fingerprint, fingerprint
from auditlog.partitions.archive.known import known_digests
from auditlog.partitions.archive.restoring import Restored, restore
from auditlog.partitions.archive.verifying import Verification, verify

__all__ = [
    "Archived",
    "Fingerprint",
    "Found",
    "Restored",
    "Verification",
    "archive",
    "fingerprint",
    "found",
    "known_digests",
    "restore",
    "verify",
]
