"""What a training sees of this machine, when we may decide it: no network, an empty /tmp, and no way into closed rooms.

In mount and network namespaces of its own (Linux, root): shared scratch directories, through which one training could
influence the next without a record, are covered by empty ones, and so is each directory that the training's user may
not enter but that its interpreter or workspace lies below; only these are put back. Standard library only, and nothing
of ours: it runs in the launcher, between fork and training.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
O_PATH: Final = 0x200000  # os.O_PATH is not in the type stubs of every platform
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1

SCRATCH: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - covered, not used

_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _call(
        _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()),
        f"mount {target}",
    )


def isolate(*, keep: Sequence[str], uid: int, gid: int, tmp_mib: int) -> tuple[str, ...]:
    """Enter namespaces of our own and narrow the view; returns what was isolated, of `network` and `mounts`.

    `keep` are the paths that stay visible. Where the kernel does not permit a namespace, that part is left out.
    """
    done: list[str] = []
    if _libc.unshare(CLONE_NEWNET) == 0:
        _loopback_up()
        done.append("network")
    if _libc.unshare(CLONE_NEWNS) == 0:
        _mount("none", "/", "", MS_REC | MS_PRIVATE)
        _narrow(keep, uid, gid, tmp_mib)
        done.append("mounts")
    return tuple(done)


def _loopback_up() -> None:
    """A new network namespace has a loopback that is down; programs that talk to themselves need it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _narrow(keep: Sequence[str], uid: int, gid: int, tmp_mib: int) -> None:
    kept = sorted({p for path in keep for p in (path, os.path.realpath(path)) if Path(p).exists()})
    kept = [p for p in kept if not any(p != other and p.startswith(other.rstrip("/") + "/") for other in kept)]
    covers = {s for s in SCRATCH if Path(s).is_dir()}
    covers |= {closed for path in kept if (closed := closed_ancestor(path, uid, gid))}
    covers = {c for c in covers if not any(c != other and c.startswith(other + "/") for other in covers)}
    handles = {
        path: os.open(path, O_PATH | os.O_CLOEXEC)
        for path in kept
        if any(path.startswith(cover + "/") for cover in covers)
    }
    for cover in sorted(covers):
        mode = "1777" if cover in SCRATCH else "0755"
        _mount("tmpfs", cover, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode},size={tmp_mib}m")
    for path, handle in handles.items():
        if Path(f"/proc/self/fd/{handle}").is_dir():
            Path(path).mkdir(parents=True, exist_ok=True)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
        _mount(f"/proc/self/fd/{handle}", path, "", MS_BIND | MS_REC)
        os.close(handle)


def closed_ancestor(path: str, uid: int, gid: int) -> str | None:
    """The highest directory above `path` that this user may not enter, or None."""
    for parent in reversed(Path(path).parents):
        status = parent.stat()
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not (status.st_mode >> shift) & 0o1:
            return str(parent)
    return None
