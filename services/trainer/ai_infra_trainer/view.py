"""What a training sees of this machine, when we may decide it: no network, the system's programs, its own workspace.

In namespaces of its own (Linux, root): every directory at the top that does not hold programs is covered by an empty
one, because much that is nobody's business can be read by all (/run/secrets of a container, other people's homes), and
scratch directories would let one training influence the next without a record. Interpreter and workspace are put back.
Standard library only, and nothing of ours: it runs in the launcher, between fork and training.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWIPC: Final = 0x08000000
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
O_PATH: Final = 0x200000  # os.O_PATH is not in the type stubs of every platform
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1

SCRATCH: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - covered, not used
SYSTEM: Final = {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "nix", "opt", "proc", "sbin", "sys", "usr"}
"""What stays visible at the top: programs, their settings, and the kernel's own."""

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


def isolate(*, keep: Sequence[str], uid: int, gid: int, tmp_mib: int) -> tuple[tuple[str, ...], int | None]:
    """Enter namespaces of our own and narrow the view.

    Returns what was isolated, of `network`, `ipc`, `mounts` and `processes` (of other users), and a descriptor of the
    file system in memory that the training can write to (at most `tmp_mib`), to measure it by. `keep` are the paths
    that stay visible. Where the kernel does not permit a namespace, that part is left out.
    """
    done: list[str] = []
    memory: int | None = None
    if _libc.unshare(CLONE_NEWNET) == 0:
        _loopback_up()
        done.append("network")
    if _libc.unshare(CLONE_NEWIPC) == 0:  # shared memory without a name in the file system would outlive the training
        done.append("ipc")
    if _libc.unshare(CLONE_NEWNS) == 0:
        _mount("none", "/", "", MS_REC | MS_PRIVATE)
        memory = _narrow(keep, uid, gid, tmp_mib)
        done.append("mounts")
        with suppress(OSError):  # a container may not permit it; since Linux 5.8 it is of this mount alone
            _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2")
            done.append("processes")
    return tuple(done), memory


def _loopback_up() -> None:
    """A new network namespace has a loopback that is down; programs that talk to themselves need it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _narrow(keep: Sequence[str], uid: int, gid: int, tmp_mib: int) -> int:
    kept = sorted({p for path in keep for p in (path, os.path.realpath(path)) if Path(p).exists()})
    kept = [p for p in kept if not any(p != other and p.startswith(other.rstrip("/") + "/") for other in kept)]
    covers = {s for s in SCRATCH if Path(s).is_dir()}
    covers |= {e.path for e in os.scandir("/") if e.name not in SYSTEM and e.is_dir(follow_symlinks=False)}
    covers |= {closed for path in kept if (closed := closed_ancestor(path, uid, gid))}
    covers = {c for c in covers if not any(c != other and c.startswith(other + "/") for other in covers)}
    handles = {
        path: os.open(path, O_PATH | os.O_CLOEXEC)
        for path in kept
        if any(path.startswith(cover + "/") for cover in covers)
    }
    memory = _cover(sorted(covers), tmp_mib)
    for scratch in SCRATCH:
        if any(scratch.startswith(cover + "/") for cover in covers):
            _open_to_all(Path(scratch))
    for path, handle in handles.items():
        if Path(f"/proc/self/fd/{handle}").is_dir():
            Path(path).mkdir(parents=True, exist_ok=True)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
        _mount(f"/proc/self/fd/{handle}", path, "", MS_BIND | MS_REC)
        os.close(handle)
    return memory


def _cover(covers: Sequence[str], tmp_mib: int) -> int:
    """Cover directories by empty ones, all of one file system in memory: so one size bounds them together."""
    first = covers[0]
    _mount("tmpfs", first, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=0755,size={tmp_mib}m")
    memory = os.open(first, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for number in range(len(covers)):
        os.mkdir(str(number), 0o755, dir_fd=memory)
    for number, cover in reversed(list(enumerate(covers))):  # the first last: it hides where the others come from
        empty = os.open(str(number), O_PATH | os.O_CLOEXEC, dir_fd=memory)
        _mount(f"/proc/self/fd/{empty}", cover, "", MS_BIND)
        os.close(empty)
        if cover in SCRATCH:
            _open_to_all(Path(cover))
    return memory


def _open_to_all(scratch: Path) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    scratch.chmod(0o1777)


def closed_ancestor(path: str, uid: int, gid: int) -> str | None:
    """The highest directory above `path` that this user may not enter, or None."""
    for parent in reversed(Path(path).parents):
        status = parent.stat()
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not (status.st_mode >> shift) & 0o1:
            return str(parent)
    return None
