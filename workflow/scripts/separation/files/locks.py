"""Locks on files (flock): the kernel frees them when the process that holds them dies, however it dies.

Nothing that a process starts inherits its locks: other programs do not, since files are closed when they begin, and
forks close them first of all. A file is removed while the lock on it is still held, so whoever has locked one looks
whether its name still leads to it. On NFS the server keeps such locks for all machines (flock(2)), unless it is mounted
with `nolock` or `local_lock`.
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
    """In a fork: the locks stay those of its parent alone."""
    for handle in _open_locks:
        os.close(handle)
    _open_locks.clear()


os.register_at_fork(after_in_child=_forget_locks)


@dataclass(frozen=True)
class FileLock:
    """A lock that is held.

    Attributes:
        path: of the file.
        handle: the open file.
    """

    path: Path
    handle: int

    @classmethod
    def take(cls, path: Path, *, shared: bool = False, wait: bool = False) -> FileLock | None:
        """The lock where it is free, else None.

        Args:
            path: of the file, which is made where it is missing; its folder is there.
            shared: several may hold it, but not beside one who does not share.
            wait: until it is free.
        """
        kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        while True:
            handle = _opened(path)
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
            if lock._named():
                return lock
            lock.close()

    def _named(self) -> bool:
        """Whether the file is still there under its name."""
        try:
            return os.path.samestat(os.fstat(self.handle), os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def tell(self, text: str) -> None:
        """Writes into the file what others may want to know of who holds it."""
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, text.encode(), 0)

    def release(self) -> None:
        """Frees the lock; its file is removed where nobody shares it and this process may."""
        with suppress(OSError):
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self.handle, 0)
            if self._named():
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Frees the lock; its file stays."""
        if self.handle in _open_locks:
            _open_locks.discard(self.handle)
            os.close(self.handle)


def hold_folder(path: Path) -> FileLock:
    """Shares a lock on a folder: systemd-tmpfiles, which clears old files away, leaves such folders alone."""
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


def this_process(what: str = "") -> str:
    """A line for a lock's file: who holds it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    since = datetime.now(UTC).isoformat(timespec="seconds")
    said = (
        f"pid {os.getpid()} of {user} on {socket.gethostname()}, {what}{' ' * bool(what)}in {Path.cwd()}, since {since}"
    )
    return " ".join(said.split()) + "\n"


def _opened(path: Path) -> int | None:
    """The file, made where it is missing, so that all users can lock it; None where this one cannot at the moment."""
    while True:
        try:
            # not with O_CREAT: in a folder for all, the kernel refuses that for another user's file (protected_regular)
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            pass
        except PermissionError:
            return None
        with suppress(FileExistsError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            os.fchmod(handle, 0o666)
            return handle
