"""What `auditlog doctor` says of the folder for the spool."""

import os
from pathlib import Path

import pytest

from auditlog.cli.spool_check import check_spool
from auditlog.reporting import Reporter
from auditlog.sink.spool.spool import Spool


def spool_in(directory: Path) -> Spool:
    return Spool(
        str(directory),
        max_bytes=1 << 20,
        fsync="never",
        fsync_interval_s=1.0,
        writer="here:1",
        reporter=Reporter(),
    )


@pytest.mark.parametrize("directory", [None, ""])
def test_no_spool_is_nothing_to_judge(directory: str | None) -> None:
    """It is a choice."""
    assert check_spool(directory) == []


def test_folder_that_can_be_made(tmp_path: Path) -> None:
    """However deep."""
    (finding,) = check_spool(str(tmp_path / "a" / "b"))
    assert finding.state == "ok"


def test_file_in_its_place(tmp_path: Path) -> None:
    """Which no record would find out before there is an outage."""
    (tmp_path / "file").write_text("")
    (finding,) = check_spool(str(tmp_path / "file" / "spool"))
    assert (finding.state, finding.detail) == ("failed", f"{tmp_path}/file is no folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_folder_of_another_user(tmp_path: Path) -> None:
    """Nothing can be written there."""
    tmp_path.chmod(0o500)
    (finding,) = check_spool(str(tmp_path))
    assert finding.state == "failed"


def test_what_a_dead_process_left(tmp_path: Path) -> None:
    """Told, with what to do; while it lives it ships that itself."""
    spool = spool_in(tmp_path)
    spool.append(0, b"\0\1" + b"\0\0\0\4text", low_priority=False)
    assert check_spool(str(tmp_path))[0].state == "ok"
    spool.close()
    (finding,) = check_spool(str(tmp_path))
    assert finding.state == "warning"
    assert finding.detail.startswith("1 rows wait")
    assert "auditlog spool ship" in finding.remedy
