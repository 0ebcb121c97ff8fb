"""What a process that reads documents may not do: open files or connections, start programs, take all memory.

On Linux a seccomp filter refuses the system calls; elsewhere only the limits hold.
"""

import ctypes
import platform
import resource
import struct
import sys

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_OPEN = {"x86_64": (2, 85, 257, 437), "aarch64": (56, 437)}
"""open, creat, openat, openat2."""

_OUTSIDE = {
    "x86_64": (41, 42, 49, 50, 44, 46, 57, 58, 59, 322, 101, 425, 426, 427),
    "aarch64": (198, 203, 200, 201, 206, 211, 221, 281, 117, 425, 426, 427),
}
"""socket, connect, bind, listen, sendto, sendmsg; fork, vfork, execve, execveat, ptrace; and those of io_uring, by
which the others could be made."""

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06


def limit(memory: int) -> None:
    """Bound what this process may take, from now on.

    Args:
        memory: bytes of data; an allocation beyond it fails.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def confine(*, files: bool) -> bool:
    """Give up connections and other programs, and with `files` also opening files, for good.

    Returns:
        Whether the system could do it.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHITECTURES:
        return False
    refused = _OUTSIDE[machine] + (_OPEN[machine] if files else ())
    program = b"".join(_program(_ARCHITECTURES[machine], refused))
    buffer = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero):
        return False
    return not libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), header, zero, zero)


def _program(arch: int, refused: tuple[int, ...]) -> list[bytes]:
    """A Berkeley packet filter over (number, architecture): kill a foreign one, refuse the listed, allow the rest."""
    count = len(refused)
    steps = [
        _step(_LOAD, 4),
        _step(_EQUAL, arch, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, 0),
        # Numbers from here on are those of the x32 interface, which would pass by the list.
        _step(_AT_LEAST, 0x40000000, count + 1, 0),
    ]
    steps += [_step(_EQUAL, number, count - place, 0) for place, number in enumerate(refused)]
    return [*steps, _step(_RETURN, _ALLOW), _step(_RETURN, _REFUSE)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
