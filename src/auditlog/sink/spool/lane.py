"""A lane: the folder of one writer, which is its owner's as long as the lock in it is held.

The kernel gives the lock back when the owner ends, however it ends. A descriptor that a forked
child has inherited keeps it as well, so a child lets go of it at once (`abandon`).
"""

import fcntl
import os
import re
from contextlib import suppress

import uuid_utils

LOCK = "lock"
LANE_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_ATTEMPTS = 10


class Lane:
    """A lane that this process owns. Made by `create` or `adopt`."""

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self._lock = lock

    @classmethod
    def create(cls, directory: str) -> "Lane":
        """Make a lane of this process's own, and the spool's folder if there is none.

        Raises:
            OSError: the folder cannot be made, or nothing can be made in it.
        """
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for _ in range(_ATTEMPTS):
            path = os.path.join(directory, str(uuid_utils.uuid7()))
            os.mkdir(path, 0o700)
            lane = cls._lock_at(path)
            if lane is not None:
                return lane
            # Somebody has adopted it before it was locked, and removes it.
        raise BlockingIOError(f"no lane could be kept in {directory}")

    @classmethod
    def adopt(cls, directory: str, name: str) -> "Lane | None":
        """Take over the lane of a dead owner; None when it is alive, or another was faster.

        Raises:
            OSError: the lane cannot be opened.
        """
        return cls._lock_at(os.path.join(directory, name))

    @classmethod
    def _lock_at(cls, path: str) -> "Lane | None":
        lock_path = os.path.join(path, LOCK)
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, another owner may have emptied the lane and removed it.
            if os.path.samestat(os.fstat(lock), os.lstat(lock_path)):
                return cls(path, lock)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None

    def restore(self) -> None:
        """Make the folder and the lock again, which somebody has removed.

        Raises:
            OSError: that is not possible.
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        lane = self._lock_at(self.path)
        if lane is None:
            raise BlockingIOError(f"{self.path} is another's by now")
        self.abandon()
        self._lock = lane._lock

    def release(self) -> None:
        """Let another process own it."""
        if self._lock >= 0:
            with suppress(OSError):
                # Closing is not enough where a forked child has the descriptor as well.
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        self.abandon()

    def abandon(self) -> None:
        """Forget it, in a forked child: the lock stays the parent's."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            with suppress(OSError):
                os.close(lock)

    def remove(self) -> bool:
        """Remove the emptied folder and the lock; False when something else is in it."""
        # The lock first, while it is held: who opens it from here on finds another file, or none.
        with suppress(OSError):
            os.unlink(os.path.join(self.path, LOCK))
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        finally:
            self.release()
        return True


def is_alive(path: str) -> bool:
    """Tell whether a lane's owner lives.

    Asks for a shared lock and gives it back: `/proc/locks` knows nothing of other containers.

    Raises:
        OSError: the lock cannot be opened.
    """
    try:
        lock = os.open(os.path.join(path, LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def lane_names(directory: str) -> list[str]:
    """Return the names of the lanes in a spool, oldest first; none when there is no spool.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        with os.scandir(directory) as entries:
            return sorted(
                entry.name
                for entry in entries
                if LANE_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
