"""What hostile code would do, each a short program that says FIRED only where it was done.

A program finds ``T`` (paths and the parent's process id) and the helpers of ``PRELUDE``. None does harm where nothing
stops it: it touches files of its own test, and sends signals that say nothing.
"""

from __future__ import annotations

import platform

PRELUDE = """
import ctypes, json, os, signal, socket, stat, struct, subprocess, sys, threading, time
T = json.loads({targets!r})
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    libc.syscall.restype = ctypes.c_long
    found = libc.syscall(ctypes.c_long(number), *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
def fired(what=""):
    print("FIRED", what, flush=True)
def stolen(text):
    if isinstance(text, str):
        text = text.encode()
    if b"hunter2" in bytes(text):
        fired("read")
def made(path):
    if os.path.lexists(path):
        fired("made")
def gone(path):
    if not os.path.lexists(path):
        fired("gone")
print("TRIED", flush=True)
try:
    {body}
except BaseException as error:
    print("STOPPED", type(error).__name__, str(error)[:100], flush=True)
"""


def program(body: str, targets: str) -> str:
    """The whole source of a payload; ``targets``: JSON."""
    return PRELUDE.format(targets=targets, body=body.strip().replace("\n", "\n    "))


# ---- files ---------------------------------------------------------------------------------------------------------

_READ = {
    "open": "stolen(open(P).read())",
    "os.open": "stolen(os.read(os.open(P, os.O_RDONLY), 99))",
    "ctypes": "fd = libc.open(P.encode(), 0)\nstolen(os.read(fd, 99))",
    "mmap": "import mmap\nf = open(P, 'rb')\nstolen(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:])",
    "numpy": "import numpy as np\nstolen(np.fromfile(P, np.uint8).tobytes())",
    "a link in scratch": "os.symlink(P, 'l')\nstolen(open('l').read())",
    "a hard link in scratch": "os.link(P, 'l')\nstolen(open('l').read())",
    "the root of the process": "stolen(open('/proc/self/root' + P).read())",
    "the root of the parent": "stolen(open(f'/proc/{T[\"parent\"]}/root' + P).read())",
    "a descriptor of its folder": "d = os.open(os.path.dirname(P), os.O_PATH)\n"
    "stolen(os.read(os.open(os.path.basename(P), os.O_RDONLY, dir_fd=d), 99))",
    "a descriptor without rights": "d = os.open(P, os.O_PATH)\nstolen(open(f'/proc/self/fd/{d}').read())",
    "up from scratch": "stolen(open(os.path.relpath(P)).read())",
    "another working folder": "os.chdir(os.path.dirname(P))\nstolen(open(os.path.basename(P)).read())",
    "a thread": "t = threading.Thread(target=lambda: stolen(open(P).read()))\nt.start()\nt.join()",
    "a copy": "import shutil\nshutil.copyfile(P, 'copy')\nstolen(open('copy').read())",
    "moved into scratch": "os.rename(P, 'moved')\nstolen(open('moved').read())",
    "its bytes sent": "f = open('c', 'wb')\nos.sendfile(f.fileno(), os.open(P, 0), 0, 99)\nstolen(open('c').read())",
}
_CREATE = {
    "open": "open(P, 'w').write('x')",
    "os.open": "os.write(os.open(P, os.O_CREAT | os.O_WRONLY, 0o644), b'x')",
    "ctypes": "libc.creat(P.encode(), 0o644)",
    "a folder": "os.mkdir(P)",
    "a link to elsewhere": "os.symlink('/etc/passwd', P)",
    "a hard link": "os.link(T['model'], P)",
    "a pipe": "os.mkfifo(P)",
    "a socket": "s = socket.socket(socket.AF_UNIX)\ns.bind(P)",
    "moved out of scratch": "open('f', 'w').write('x')\nos.rename('f', P)",
    "copied": "import shutil\nshutil.copyfile(sys.executable, P)",
    "numpy": "import numpy as np\nnp.save(P, np.zeros(3))\nP = P + '.npy'",
    "a database": "import sqlite3\nsqlite3.connect(P).execute('create table t (x)')",
    "a descriptor of its folder": "d = os.open(os.path.dirname(P), os.O_PATH)\n"
    "os.open(os.path.basename(P), os.O_CREAT | os.O_WRONLY, dir_fd=d)",
    "a thread": "t = threading.Thread(target=lambda: open(P, 'w').write('x'))\nt.start()\nt.join()",
}
_CHANGE = {
    "appended to": "open(P, 'a').write('x')\nfired()",
    "written into": "open(P, 'r+b').write(b'x')\nfired()",
    "emptied": "open(P, 'w')\nfired()",
    "emptied while read": "os.open(P, os.O_RDONLY | os.O_TRUNC)\nfired()",
    "cut": "os.truncate(P, 0)\nfired()",
    "mapped": "import mmap\nf = os.open(P, os.O_RDWR)\nmmap.mmap(f, 0)[0] = 1\nfired()",
    "removed": "os.unlink(P)\ngone(P)",
    "moved away": "os.rename(P, P + '.moved')\ngone(P)",
    "replaced": "open('f', 'w').write('x')\nos.replace('f', P)\nfired()",
    "given a mode": "os.chmod(P, 0o777)\nfired()",
    "given a mode by its descriptor": "os.fchmod(os.open(P, os.O_RDONLY), 0o777)\nfired()",
    "given an owner": "os.chown(P, os.getuid(), os.getgid())\nfired()",
    "given times": "os.utime(P, (1, 1))\nfired()",
    "given an attribute": "os.setxattr(P, 'user.x', b'x')\nfired()",
    "given flags": "import fcntl\nf = os.open(P, os.O_RDONLY)\n"
    "flags = fcntl.ioctl(f, 0x80086601, b'\\0' * 8)\nfcntl.ioctl(f, 0x40086602, flags)\nfired()",
    "locked away": "os.mkdir('d')\nos.rename(P, 'd/m')\ngone(P)",
}

FILES = {
    **{
        f"read {what} by {how}": f"P = T[{what!r}]\n{body}"
        for what in ("secret", "beside", "hidden")
        for how, body in _READ.items()
    },
    **{
        f"create {what} by {how}": f"P = T[{what!r}] + '/new'\n{body}\nmade(P)"
        for what in ("outside", "code", "home", "models")
        for how, body in _CREATE.items()
    },
    **{
        f"{what} {how}": f"P = T[{what!r}]\n{body}"
        for what in ("model", "data", "secret")
        for how, body in _CHANGE.items()
    },
    "list a folder outside": "stolen(' '.join(os.listdir(T['outside'])))",
    "watch a folder outside": "f = libc.inotify_init()\n"
    "if libc.inotify_add_watch(f, T['outside'].encode(), 0xfff) >= 0: fired()",
    "what the parent was given": "open(f'/proc/{T[\"parent\"]}/environ').read()\nfired()",
    "the parent's command": "open(f'/proc/{T[\"parent\"]}/cmdline').read()\nfired()",
    "the parent's memory": "open(f'/proc/{T[\"parent\"]}/mem', 'rb')\nfired()",
    "the parent's descriptors": "os.listdir(f'/proc/{T[\"parent\"]}/fd')\nfired()",
    "shared memory by name": "open('/dev/shm/' + T['mark'], 'w')\nfired()\nos.unlink('/dev/shm/' + T['mark'])",
    "the common temporary folder": "open('/tmp/' + T['mark'], 'w')\nfired()\nos.unlink('/tmp/' + T['mark'])",
}

# ---- other programs and processes -----------------------------------------------------------------------------------

PROGRAMS = {
    "os.system": "os.system('echo FIRED')",
    "subprocess.run": "subprocess.run(['/bin/echo', 'FIRED'])",
    "a shell": "subprocess.Popen('echo FIRED', shell=True).wait()",
    "os.popen": "print(os.popen('echo FIRED').read(), flush=True)",
    "posix_spawn": "os.waitpid(os.posix_spawn('/bin/echo', ['echo', 'FIRED'], {}), 0)",
    "posix_spawnp": "os.waitpid(os.posix_spawnp('echo', ['echo', 'FIRED'], {}), 0)",
    "execv": "os.execv('/bin/echo', ['echo', 'FIRED'])",
    "execve by descriptor": "os.execve(os.open('/bin/echo', os.O_RDONLY), ['echo', 'FIRED'], {})",
    "execve by ctypes": "a = (ctypes.c_char_p * 3)(b'echo', b'FIRED', None)\nlibc.execve(b'/bin/echo', a, None)",
    "system by ctypes": "libc.system(b'echo FIRED')",
    "a program in memory": "f = os.memfd_create('x', 0)\nos.write(f, open('/bin/echo', 'rb').read())\n"
    "os.execve(f, ['echo', 'FIRED'], {})",
    "a program in scratch": "import shutil\nshutil.copy('/bin/echo', 'e')\nos.chmod('e', 0o755)\n"
    "os.execv('e', ['e', 'FIRED'])",
    "os.spawnlp": "os.spawnlp(os.P_WAIT, 'echo', 'echo', 'FIRED')",
    "os.fork": "if os.fork() == 0:\n    fired()\n    os._exit(0)\nos.wait()",
    # By a call that keeps the interpreter's lock: a child that was forked while another thread held it waits for ever.
    "fork by ctypes": "if ctypes.PyDLL(None).fork() == 0:\n    os.write(1, b'FIRED')\n    os._exit(0)\nos.wait()",
    "os.forkpty": "p, f = os.forkpty()\nif p == 0: os._exit(0)\nfired()",
    "multiprocessing": "import multiprocessing as m\np = m.get_context('fork').Process(target=fired)\n"
    "p.start()\np.join()",
    "multiprocessing, spawned": "import multiprocessing as m\np = m.get_context('spawn').Process(target=print)\n"
    "p.start()\np.join()\nif p.exitcode == 0: fired()",
    "a pool": "from concurrent.futures import ProcessPoolExecutor\nimport multiprocessing as m\n"
    "print('FIRED', ProcessPoolExecutor(1, m.get_context('fork')).submit(abs, 1).result(timeout=5), flush=True)",
    "a session of its own": "os.setsid()\nfired()",
    "a group of its own": "if os.getpgid(0) == os.getpid(): os.setpgid(0, os.getpgid(T['parent']))\nfired()",
    "the parent's life": "os.kill(T['parent'], signal.SIGCONT)\nfired()",
    "the parent's group": "os.killpg(os.getpgid(T['parent']), signal.SIGCONT)\nfired()",
    "every process": "os.kill(-1, 0)\nfired()",
    "a descriptor of the parent": "p = os.pidfd_open(T['parent'])\nsignal.pidfd_send_signal(p, signal.SIGCONT)\n"
    "fired()",
    "a signal to the parent's thread": "call(NR['tgkill'], T['parent'], T['parent'], signal.SIGCONT)\nfired()",
    "a signal to the parent's thread, older": "call(NR['tkill'], T['parent'], signal.SIGCONT)\nfired()",
    "a signal by a file": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, T['parent'])\nfired()",
    "to trace the parent": "call(NR['ptrace'], 0x4206, T['parent'], ctypes.c_void_p(0), ctypes.c_void_p(0))\nfired()",
    "to read the parent": "b = ctypes.create_string_buffer(8)\nv = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)\n"
    "m = open(f'/proc/{T[\"parent\"]}/maps').readline().split('-')[0]\n"
    "r = (ctypes.c_size_t * 2)(int(m, 16), 8)\n"
    "call(NR['process_vm_readv'], T['parent'], v, ctypes.c_long(1), r, ctypes.c_long(1), ctypes.c_long(0))\nfired()",
    "the parent's limits": "import resource\nresource.prlimit(T['parent'], resource.RLIMIT_CORE)\nfired()",
    "the parent's rank": "os.setpriority(os.PRIO_PROCESS, T['parent'], os.getpriority(os.PRIO_PROCESS, "
    "T['parent']))\nfired()",
    "the parent's processors": "os.sched_setaffinity(T['parent'], os.sched_getaffinity(T['parent']))\nfired()",
    "to outlive the parent": "if libc.prctl(1, 0, 0, 0, 0) == 0: fired()",
}

# ---- the network --------------------------------------------------------------------------------------------------

NETWORK = {
    "TCP": "socket.create_connection(('127.0.0.1', T['port']), 5)\nfired()",
    "TCP by ctypes": "s = libc.socket(2, 1, 0)\n"
    "a = struct.pack('=HH4s8x', 2, socket.htons(T['port']), b'\\x7f\\0\\0\\1')\n"
    "if s >= 0 and libc.connect(s, a, 16) == 0: fired()",
    "a page": "import urllib.request, urllib.error\ntry:\n"
    "    urllib.request.urlopen(f'http://127.0.0.1:{T[\"port\"]}', timeout=1)\n"
    "except TimeoutError:\n    fired()",
    "asyncio": "import asyncio\n"
    "asyncio.run(asyncio.wait_for(asyncio.open_connection('127.0.0.1', T['port']), 5))\nfired()",
    "UDP": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('127.0.0.1', T['port']))\nfired()",
    "IPv6": "s = socket.socket(socket.AF_INET6)\nfired()",
    "listening": "s = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nfired()",
    "a name": "socket.getaddrinfo('localhost', 80)\ns = socket.socket()\nfired()",
    "a Unix socket": "s = socket.socket(socket.AF_UNIX)\ns.connect(T['socket'])\nfired()",
    "an abstract Unix socket": "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0' + T['mark'])\nfired()",
    "a Unix datagram": "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.bind('mine')\nfired()",
    "netlink": "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\ns.bind((0, 0))\nfired()",
    "a pair": "socket.socketpair()\nfired()",
    "packets": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nfired()",
    "a thread": "t = threading.Thread(target=lambda: (socket.create_connection(('127.0.0.1', T['port']), 5), "
    "fired()))\n"
    "t.start()\nt.join()",
}

# ---- the kernel ---------------------------------------------------------------------------------------------------

# On x86_64 and aarch64.
_NUMBERS = {
    "ptrace": (101, 117), "tkill": (200, 130), "tgkill": (234, 131), "process_vm_readv": (310, 270), "mount": (165, 40),
    "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268), "add_key": (248, 217), "keyctl": (250, 219),
    "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "personality": (135, 92),
    "clone": (56, 220), "clone3": (435, 435), "openat2": (437, 437), "chroot": (161, 51), "sethostname": (170, 161),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264), "fsopen": (430, 430), "open_tree": (428, 428), "kcmp": (312, 272),
    "syslog": (103, 116), "settimeofday": (164, 170), "pivot_root": (155, 41), "kexec_load": (246, 104),
    "init_module": (175, 105), "finit_module": (313, 273), "fchmodat2": (452, 452), "setxattrat": (463, 463),
}  # fmt: skip
_N = {name: both[platform.machine() == "aarch64"] for name, both in _NUMBERS.items()}

_ZEROS = "ctypes.create_string_buffer(128)"
KERNEL = {
    "mount": "call(NR['mount'], b'none', T['outside'].encode(), b'tmpfs', ctypes.c_long(0), None)\n"
    "call(NR['umount2'], T['outside'].encode(), 2)\nfired()",
    "a new file system": "call(NR['fsopen'], b'tmpfs', 0)\nfired()",
    "a copy of the tree": "call(NR['open_tree'], -100, b'/', 1)\nfired()",
    "another root": "os.chroot('/')\nfired()",
    # A process of several threads is given no users of its own: then a host name of its own.
    "a world of its own": "try:\n    call(NR['unshare'], 0x10000000)\nexcept OSError:\n"
    "    call(NR['unshare'], 0x04000000)\nfired()",
    "mounts of its own": "call(NR['unshare'], 0x00020000)\nfired()",
    "the parent's world": "call(NR['setns'], os.open(f'/proc/{T[\"parent\"]}/ns/uts', os.O_RDONLY), 0)\nfired()",
    "a key": "call(NR['add_key'], b'user', T['mark'].encode(), b'x', ctypes.c_long(1), -2)\nfired()",
    "a keyring": "call(NR['keyctl'], 0, -3, 0)\nfired()",
    "io_uring": f"call(NR['io_uring_setup'], 1, {_ZEROS})\nfired()",
    "a program in the kernel": "call(NR['bpf'], 0, struct.pack('=IIIII', 2, 4, 4, 1, 0) + bytes(100), 120)\nfired()",
    "counters": "a = struct.pack('=IIQ', 1, 128, 0) + bytes(112)\ncall(NR['perf_event_open'], a, 0, -1, -1, 0)\n"
    "fired()",
    "page faults": "call(NR['userfaultfd'], 1)\nfired()",
    "shared memory": "i = call(NR['shmget'], 0, ctypes.c_long(4096), 0o600)\nlibc.shmctl(i, 0, None)\nfired()",
    "semaphores": "i = call(NR['semget'], 0, 1, 0o600)\nlibc.semctl(i, 0, 0, 0)\nfired()",
    "messages": "i = call(NR['msgget'], 0, 0o600)\nlibc.msgctl(i, 0, None)\nfired()",
    "a queue": "call(NR['mq_open'], T['mark'].encode(), 0o102, 0o600, None)\nfired()\n"
    "libc.mq_unlink(b'/' + T['mark'].encode())",
    "another personality": "call(NR['personality'], ctypes.c_ulong(0x0040000))\nfired()",
    "a process by the older call": "p = call(NR['clone'], ctypes.c_long(17), None, None, None, None)\n"
    "if p == 0: os._exit(0)\nfired()",
    "a process by the newer call": "a = struct.pack('=11Q', 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)\n"
    "p = call(NR['clone3'], a, ctypes.c_long(88))\nif p == 0: os._exit(0)\nfired()",
    "a file by the newer call": "f = call(NR['openat2'], -100, T['secret'].encode(), struct.pack('=3Q', 0, 0, "
    "0), ctypes.c_long(24))\n"
    "stolen(os.read(f, 99))",
    "a mode by the newer call": "call(NR['fchmodat2'], -100, T['model'].encode(), 0o777, 0)\nfired()",
    "an attribute by the newer call": "v = ctypes.create_string_buffer(b'x')\n"
    "a = struct.pack('=QII', ctypes.addressof(v), 1, 0)\n"
    "call(NR['setxattrat'], -100, T['model'].encode(), 0, b'user.x', a, ctypes.c_long(16))\nfired()",
    "a file in memory": "call(NR['memfd_create'], b'x', 0)\nfired()",
    "a secret in memory": "call(NR['memfd_secret'], 0)\nfired()",
    "all events": "call(NR['fanotify_init'], 0x200, 0)\nfired()",
    "a handle": "h = struct.pack('=II', 120, 0) + bytes(128)\nm = ctypes.c_int()\n"
    "call(NR['name_to_handle_at'], -100, T['secret'].encode(), h, ctypes.byref(m), 0)\nfired()",
    "what two processes share": "call(NR['kcmp'], os.getpid(), T['parent'], 0, ctypes.c_long(0), "
    "ctypes.c_long(0))\nfired()",
    "the kernel's log": f"call(NR['syslog'], 3, {_ZEROS}, 128)\nfired()",
    "the host's name": "call(NR['sethostname'], socket.gethostname().encode(), "
    "ctypes.c_long(len(socket.gethostname())))\nfired()",
    "the kernel's settings": "open('/proc/sys/kernel/core_pattern', 'r+')\nfired()",
    "what is killed first": "open('/proc/self/oom_score_adj', 'w').write('500')\nfired()",
    "a terminal": "open('/dev/ptmx', 'r+b', 0)\nfired()",
    "the kernel's own messages": "open('/dev/kmsg', 'rb', 0)\nfired()",
}  # fmt: skip

PAYLOADS = {
    **{f"files: {name}": body for name, body in FILES.items()},
    **{f"programs: {name}": f"NR = {_N!r}\n{body}" for name, body in PROGRAMS.items()},
    **{f"network: {name}": body for name, body in NETWORK.items()},
    **{f"kernel: {name}": f"NR = {_N!r}\n{body}" for name, body in KERNEL.items()},
}
