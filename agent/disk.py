"""What the outbox asks of its disk: how much is free, whether it keeps what it says it keeps, and a reserve.

Everything here blocks and is called in a thread.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}
STEADY = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"}
"""File systems on which a file keeps its inode number for life, so that another number means another file."""


def free(path: Path) -> int:
    """Bytes that an ordinary user may still write on the disk of `path`."""
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize


class Room(NamedTuple):
    """What the disk has for an outbox, in bytes: free, taken by all its files, and by its write-ahead log alone.

    Files that were set aside are not counted.
    """

    free: int
    occupied: int
    log: int


def room(path: Path) -> Room:
    sizes = {}
    for tail in ("", "-wal", "-shm", ".reserve"):
        sizes[tail] = 0
        with contextlib.suppress(FileNotFoundError):
            sizes[tail] = path.with_name(path.name + tail).stat().st_blocks * 512
    return Room(free(path), sum(sizes.values()), sizes["-wal"])


def mount(path: Path) -> tuple[str, str]:
    """(type, options) of the file system that holds `path`; empty texts where the system does not say."""
    try:
        number = path.stat().st_dev
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", ""
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for line in reversed(lines):
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            kind, _, options = right.split(" ", 2)
            return kind, options
    return "", ""


def doubts(path: Path) -> str:
    """Why what is committed on this disk may still be lost in a power cut; empty where nothing is known."""
    kind, options = mount(path)
    if kind in NETWORK:
        return f"it is on a network file system ({kind}), where locks and syncs are not reliable; use a local disk"
    if kind.startswith("fuse"):
        return f"it is on a file system in user space ({kind}), which may not keep what it says; use a local disk"
    if "data=writeback" in options.split(","):
        return (
            f"its {kind} is mounted with data=writeback: after a power cut files may hold old bytes; use data=ordered"
        )
    return ""


def inode(path: Path) -> int:
    """What tells this file from a copy of it; 0 where the file system gives numbers that do not last."""
    return path.stat().st_ino if mount(path)[0] in STEADY else 0


class Reserve:
    """A file that only holds space, so that a disk filled by others still takes what the outbox must write.

    Given up when the disk is full, and taken again when there is room: confirming, dropping and deleting need the log
    to grow by a little before they free anything.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._path = path.with_name(f"{path.name}.reserve")

    def held(self) -> bool:
        try:
            return self._path.stat().st_blocks * 512 >= self.size
        except FileNotFoundError:
            return False

    def hold(self) -> None:
        """Takes the space if it is there; what can't be had now is tried again later."""
        if self.held() or free(self._path) < 2 * self.size:
            return
        opened = -1
        try:
            opened = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(opened, 0, self.size)
        except OSError:
            self.give_up()
        finally:
            if opened >= 0:
                os.close(opened)

    def give_up(self) -> None:
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)
