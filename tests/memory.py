"""Where tests keep their files: in memory where that can be, as what they sync need not reach a disk. No machine loses its power meanwhile;
and to wait for disks is a tenth of their time."""

from __future__ import annotations

import os

_FOLDER = "/dev/shm"
#: Bytes that a whole run of the tests may take, and then some; a container often has no more than 64 MiB.
_ROOM = 4 << 30


def in_memory(room: int = _ROOM) -> str | None:
    """A folder in memory with so many bytes of room, in which programs may be run; None where there is none such."""
    try:
        found = os.statvfs(_FOLDER)
    except OSError:
        return None
    usable = os.access(_FOLDER, os.W_OK) and not found.f_flag & os.ST_NOEXEC
    return _FOLDER if usable and found.f_bavail * found.f_frsize >= room else None
