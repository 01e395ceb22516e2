"""File locks (flock), which the kernel releases when their process dies for any reason.

Child processes do not inherit a `FileLock`: files are closed on exec, and forks close them first of all. A lock file is
removed while it is still locked, so after locking one a process checks that the path still refers to it. On NFS the
server manages the locks for all machines (flock(2)), unless it is mounted with `nolock` or `local_lock`.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_open_locks: set[int] = set()


def _forget_locks() -> None:
    """Closes inherited locks in a fork, so that only its parent holds them."""
    for handle in _open_locks:
        os.close(handle)
    _open_locks.clear()


os.register_at_fork(after_in_child=_forget_locks)


@dataclass(frozen=True)
class FileLock:
    """A lock that this process holds.

    Attributes:
        path: Path of the lock file.
        handle: File descriptor.
    """

    path: Path
    handle: int

    @classmethod
    def acquire(cls, path: Path, *, shared: bool = False, wait: bool = False) -> FileLock | None:
        """Acquires a lock; None where another process holds it or this user may not open it.

        Args:
            path: Path of the lock file, which is created if missing; its folder must exist.
            shared: Whether other processes may hold shared locks on the file at the same time.
            wait: Whether to wait until the lock is free.
        """
        kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        while True:
            handle = _open(path)
            if handle is None:
                return None
            _open_locks.add(handle)
            lock = cls(path, handle)
            try:
                fcntl.flock(handle, kind)
            except BlockingIOError:
                lock.close()
                return None
            except BaseException:
                lock.close()
                raise
            if lock._is_at_path():
                return lock
            lock.close()

    def _is_at_path(self) -> bool:
        """Whether the path still refers to the locked file."""
        try:
            return os.path.samestat(os.fstat(self.handle), os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def write(self, text: str) -> None:
        """Writes a description of the holder into the file, for processes that wait for it."""
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, text.encode(), 0)

    def release(self) -> None:
        """Releases the lock; removes its file if no other process shares it and permissions allow."""
        with suppress(OSError):
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self.handle, 0)
            if self._is_at_path():
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Releases the lock and keeps its file."""
        if self.handle in _open_locks:
            _open_locks.discard(self.handle)
            os.close(self.handle)


def lock_folder(path: Path) -> FileLock:
    """Takes a shared lock on a folder, so that systemd-tmpfiles does not delete old files in it."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _open_locks.add(handle)
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return FileLock(path, handle)


@contextmanager
def locked_with_forks(path: Path) -> Iterator[None]:
    """Waits for a lock on a file and holds it while the block runs, or as long as a fork of this process lives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def describe_process(job: str = "") -> str:
    """A line for a lock file that describes its holder."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    since = datetime.now(UTC).isoformat(timespec="seconds")
    line = f"pid {os.getpid()} of {user} on {socket.gethostname()}, {job} in {Path.cwd()}, since {since}"
    return " ".join(line.split()) + "\n"


def _open(path: Path) -> int | None:
    """Opens a lock file, and creates it for all users if it is missing; None without permission."""
    while True:
        try:
            # not with O_CREAT: in a shared folder the kernel refuses it for another user's file (protected_regular)
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            pass
        except PermissionError:
            return None
        with suppress(FileExistsError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            os.fchmod(handle, 0o666)
            return handle
