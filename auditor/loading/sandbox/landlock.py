"""Landlock: kernel restriction of file access, by stable system calls for which glibc has no wrappers.

Source: the kernel's documentation, userspace-api/landlock. Rights are the kernel's own; those that a kernel does not
know yet are neither denied nor asked for there.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from functools import cache
from pathlib import Path
from typing import NoReturn

# The same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_NETWORK = 0b11  # to bind and to connect by TCP; from version 4
_SCOPES = 0b11  # abstract Unix sockets and signals end at the sandbox; from version 6


class Access(IntFlag):
    """Permitted access to a path and everything below it."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Access.READ_FILE | Access.READ_DIR
WRITE = (
    READ
    | Access.WRITE_FILE
    | Access.TRUNCATE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.REFER
)
DEVICE = READ | Access.WRITE_FILE | Access.TRUNCATE | Access.IOCTL_DEV
_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV


@dataclass(frozen=True)
class Place:
    """A path and its permitted access."""

    path: Path
    access: Access


def version() -> int:
    """The kernel's Landlock version; 0 if it is absent or disabled."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_call(_CREATE_RULESET, ctypes.c_void_p(None), ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))))


def restrict(places: Iterable[Place], abi_version: int) -> None:
    """Confine this thread, and all its later threads and processes, to ``places``, permanently.

    abi_version: the version of the interface to ask for, at most that of :func:`version`. ``no_new_privs`` must be set.
    Places that are not there are left out. Raises OSError where the kernel does not do it, so that nobody believes in
    a sandbox that there is not.
    """
    handled = _known_access(abi_version)
    attributes = struct.pack("=QQQ", handled, _NETWORK if abi_version >= 4 else 0, _SCOPES if abi_version >= 6 else 0)
    attributes = attributes[: 8 if abi_version < 4 else 16 if abi_version < 6 else 24]
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if ruleset < 0:
        _fail("landlock_create_ruleset")
    try:
        for place in places:
            _allow(ruleset, place, handled)
        if _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)):
            _fail("landlock_restrict_self")
    finally:
        os.close(ruleset)


def _known_access(abi_version: int) -> int:
    rights = int(Access.MAKE_SYM) * 2 - 1
    for since, right in ((2, Access.REFER), (3, Access.TRUNCATE), (5, Access.IOCTL_DEV)):
        rights |= right if abi_version >= since else 0
    return rights


def _allow(ruleset: int, place: Place, handled: int) -> None:
    try:
        descriptor = os.open(place.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        access = place.access & handled
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            access &= _OF_FILES
        rule = struct.pack("=Qi", access, descriptor)
        if access and _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)):
            _fail(f"landlock_add_rule of {place.path}")
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    return int(_libc().syscall(ctypes.c_long(number), *arguments))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _fail(call_name: str) -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, f"{call_name}: {os.strerror(code)}")
