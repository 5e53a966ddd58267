"""seccomp: system calls not needed for measuring fail with EPERM, permanently, in all threads.

Landlock holds files by their paths; this holds what it does not know of: other processes, sockets, keyrings, the modes,
owners, times and attributes of files, and the parts of the kernel that exploits are made of. A classic BPF program by
hand, for x86_64 and aarch64; a call of another architecture ends the process. Numbers are those of the kernel's own
asm/unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SET_SECCOMP_FILTER = 1
_IN_ALL_THREADS = 1
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
# The last call that was looked at. What later kernels add is not there, and neither is the x32 interface above it.
_LAST = 462

# By name, the number on x86_64 and on aarch64; None where it has none.
_Numbers = tuple[int | None, int | None]
_Calls = dict[str, _Numbers]
_STAYING: _Calls = {"setsid": (112, 157), "setpgid": (109, 154)}


def _calls(table: str) -> _Calls:
    """The calls of a table: names, and their numbers on x86_64 and on aarch64."""
    lines = (line for line in table.splitlines() if not line.lstrip().startswith("#"))
    found = (call.split() for line in lines for call in line.split(",") if call.strip())
    return {name: (int(first), None if second == "-" else int(second)) for name, first, second in found}


_DENIED = _calls(
    """
    # other programs and other processes
    fork 57 -, vfork 58 -, execve 59 221, execveat 322 281
    ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272
    process_madvise 440 440, process_mrelease 448 448, pidfd_open 434 434
    pidfd_getfd 438 438, pidfd_send_signal 424 424, tkill 200 130
    rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, migrate_pages 256 238
    move_pages 279 239, setpriority 141 140, ioprio_set 251 30, sched_setparam 142 118
    sched_setscheduler 144 119, sched_setattr 314 274
    # sockets, and what outlives a process
    socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, listen 50 201
    shmget 29 194, semget 64 190, msgget 68 186, mq_open 240 180
    memfd_create 319 279, memfd_secret 447 447
    # of files what Landlock does not hold, in some version of it
    chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -
    fchown 93 55, lchown 94 -, fchownat 260 54, utime 132 -, utimes 235 -
    futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6
    fsetxattr 190 7, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16
    truncate 76 45, mknod 133 -, mknodat 259 33, name_to_handle_at 303 264
    open_by_handle_at 304 265, inotify_add_watch 254 27, fanotify_init 300 262
    quotactl 179 60, quotactl_fd 443 443, acct 163 89
    # the tree of files, and other worlds
    mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, move_mount 429 429
    open_tree 428 428, fsopen 430 430, fsconfig 431 431, fsmount 432 432
    fspick 433 433, mount_setattr 442 442, setns 308 268, unshare 272 97
    # the kernel itself
    add_key 248 217, request_key 249 218, keyctl 250 219, bpf 321 280
    io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427
    userfaultfd 323 282, perf_event_open 298 241, kexec_load 246 104, kexec_file_load 320 294
    init_module 175 105, finit_module 313 273, delete_module 176 106, personality 135 92
    modify_ldt 154 -, iopl 172 -, ioperm 173 -, syslog 103 116, reboot 169 142
    swapon 167 224, swapoff 168 225, sethostname 170 161, setdomainname 171 162
    settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, clock_adjtime 305 266
    vhangup 153 58, lookup_dcookie 212 18
    """
)
# Their flags lie in memory, where no filter sees them; who is told that there is none uses the older call.
_ABSENT: _Calls = {"clone3": (435, 435), "openat2": (437, 437)}

_CLONE_THREAD = 0x00010000
_TRUNCATES_ON_READING = os.O_ACCMODE | os.O_TRUNC
_PR_SET_PDEATHSIG = 1
_F_SETOWN, _F_SETOWN_EX = 8, 15
# Is it a terminal, how large, how much is there to read, keep it over an exec, do not wait.
_HARMLESS_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451, 0x5421)


@dataclass(frozen=True)
class _Checked:
    """A call that is denied by one of its arguments, of which the lower half counts, under ``mask``.

    Denied where it is one of ``values``, or where it is none of them if they are what is ``allowed``.
    """

    numbers: _Numbers
    argument: int
    values: tuple[int, ...]
    allowed: bool
    mask: int = 0xFFFFFFFF


def _checked(*, with_devices: bool) -> Iterator[_Checked]:
    # kill: not its group either, in which there may be another process.
    yield _Checked((62, 129), 0, (os.getpid(),), allowed=True)
    for numbers in ((234, 131), (302, 261), (203, 122)):
        # tgkill, prlimit64, sched_setaffinity: of this process alone.
        yield _Checked(numbers, 0, (0, os.getpid()), allowed=True)
    yield _Checked((56, 220), 0, (0,), allowed=False, mask=_CLONE_THREAD)  # clone: threads alone
    # open, openat: before version 3 Landlock takes a file that is emptied for one that is read.
    yield _Checked((2, None), 1, (os.O_TRUNC,), allowed=False, mask=_TRUNCATES_ON_READING)
    yield _Checked((257, 56), 2, (os.O_TRUNC,), allowed=False, mask=_TRUNCATES_ON_READING)
    yield _Checked((157, 167), 0, (_PR_SET_PDEATHSIG,), allowed=False)  # prctl
    yield _Checked((72, 25), 1, (_F_SETOWN, _F_SETOWN_EX), allowed=False)  # fcntl: signals to others
    if not with_devices:
        # Of a file that may be read, flags can be set too: immutable, encrypted, verified.
        yield _Checked((16, 29), 1, _HARMLESS_REQUESTS, allowed=True)


def supported() -> bool:
    """Whether this module knows the system calls of this machine."""
    return sys.platform == "linux" and sys.byteorder == "little" and platform.machine() in _ARCHITECTURES


def install(*, with_devices: bool, may_fork: bool = False) -> None:
    """Deny the calls in ``_DENIED``, and others by their arguments, in every thread of this process.

    with_devices: leaves the requests alone by which a driver is spoken to; whose devices may be opened is Landlock's to
    say. may_fork: leaves alone what a fork needs, and what it would be denied of itself; to be called again without.
    ``no_new_privs`` must be set. Raises OSError where the kernel does not do it.
    """
    if may_fork:
        _set_filter(_STAYING | {name: _DENIED[name] for name in _DENIED if name != "fork"}, _ABSENT, ())
    else:
        _set_filter(_STAYING | _DENIED, _ABSENT, tuple(_checked(with_devices=with_devices)))


def stay_in_group() -> None:
    """Forbid leaving the process group, so that killing the group ends all descendants.

    ``no_new_privs`` must be set. Raises OSError where the kernel does not do it.
    """
    _set_filter(_STAYING, {}, ())


def _set_filter(denied: _Calls, absent: _Calls, checked: Sequence[_Checked]) -> None:
    place, architecture, call = _ARCHITECTURES[platform.machine()]
    program = _program(place, architecture, denied, absent, checked)
    steps = ctypes.create_string_buffer(b"".join(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    asked = Program(len(program), ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    number, operation, flags = ctypes.c_long(call), ctypes.c_uint(_SET_SECCOMP_FILTER), ctypes.c_uint(_IN_ALL_THREADS)
    if libc.syscall(number, operation, flags, ctypes.byref(asked)):
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")


def _program(place: int, architecture: int, denied: _Calls, absent: _Calls, checked: Sequence[_Checked]) -> list[bytes]:
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, on_match=1),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _LAST + 1, other=1),
        _failing(errno.ENOSYS),
    ]
    for calls, code in ((denied, errno.EPERM), (absent, errno.ENOSYS)):
        for numbers in calls.values():
            program += _guarded_steps(numbers[place], [_failing(code)])
    for rule in checked:
        program += _guarded_steps(rule.numbers[place], _by_argument(rule))
    return [*program, _step(_RETURN, _ALLOW)]


def _guarded_steps(number: int | None, steps: Sequence[bytes]) -> list[bytes]:
    return [] if number is None else [_step(_EQUAL, number, other=len(steps)), *steps]


def _by_argument(rule: _Checked) -> list[bytes]:
    passing, failing = _step(_RETURN, _ALLOW), _failing(errno.EPERM)
    matched, unmatched = (passing, failing) if rule.allowed else (failing, passing)
    compared = [_step(_EQUAL, value, on_match=len(rule.values) - i) for i, value in enumerate(rule.values)]
    return [_step(_LOAD, _ARGUMENTS + 8 * rule.argument), _step(_AND, rule.mask), *compared, unmatched, matched]


def _step(code: int, operand: int, *, on_match: int = 0, other: int = 0) -> bytes:
    return struct.pack("=HBBI", code, on_match, other, operand)


def _failing(code: int) -> bytes:
    return _step(_RETURN, 0x00050000 | code)
