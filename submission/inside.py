"""The first process of a rehearsal: shuts away all files but a few, gives up its rights, runs a command and ends with everything it started.

    unshare --user --keep-caps --mount --pid --fork ... python -I -S inside.py FOLDER READABLE ... -- python main.py

Runs in namespaces that unshare has made (confinement.py), on plain Python 3.9. The command sees the system's programs and libraries, READABLE
and FOLDER, and writes in FOLDER alone, but not in FOLDER/data; /tmp and /dev/shm are its own, small and gone afterwards. It sees no
process but its own. What it leaves running ends with it. Exit status: the command's, 128 + n where signal n ended it.
"""

import ctypes
import glob
import os
import sys

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sys", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
          "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime", "/etc/alternatives")
DEVICES = "null", "zero", "full", "random", "urandom", "nvidia*", "dri", "kfd"
OWN, SIZE = ("/tmp", "/dev/shm"), "size=256m"
BASE = "/tmp"  # where the new root is laid out; any folder will do
NOSUID, NODEV, NOEXEC, BIND, REC, DETACH = 2, 4, 8, 4096, 16384, 2  # of mount and umount2 in <linux/mount.h>
PIVOT_ROOT, MOUNT_SETATTR = {"x86_64": 155, "aarch64": 41}, 442  # system calls that the C library does not wrap
RECURSIVE, READ_ONLY, HERE = 0x8000, 1, -100
NO_NEW_PRIVILEGES, CAPABILITIES = 38, 0x20080522  # of prctl; the version of capset

libc = ctypes.CDLL(None, use_errno=True)


def did(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source, target, kind, flags, options=""):
    did(libc.mount(*(text.encode() for text in (source, target, kind)), ctypes.c_ulong(flags), options.encode()))


def read_only(path, flags=RECURSIVE):
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY, 0, 0, 0)
    did(libc.syscall(MOUNT_SETATTR, HERE, path.encode(), flags, attributes, ctypes.sizeof(attributes)))


def bind(path, opened):
    """Lays what is `opened` at the same path below BASE."""
    target = BASE + path
    if os.path.isdir("/proc/self/fd/%d" % opened):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "ab").close()
    mount("/proc/self/fd/%d" % opened, target, "", BIND | REC)
    return target


def lay_out(folder, readable):
    """A new root at BASE, which holds what may be seen."""
    devices = sorted(path for name in DEVICES for path in glob.glob("/dev/" + name))
    seen = [path for path in (*SYSTEM, *readable) if os.path.exists(path)]
    opened = {path: os.open(path, os.O_PATH) for path in (*seen, *devices, folder)}  # before BASE hides some of them
    mount("tmpfs", BASE, "tmpfs", NOSUID, "size=1m")
    for path in OWN:
        os.makedirs(BASE + path)
        mount("tmpfs", BASE + path, "tmpfs", NOSUID | NODEV, SIZE)
    for path in seen:
        read_only(bind(path, opened[path]))
    for path in devices:
        bind(path, opened[path])
    os.makedirs(BASE + "/proc")
    mount("proc", BASE + "/proc", "proc", NOSUID | NODEV | NOEXEC)
    read_only(BASE + "/proc")  # without rights, too, the owner of /proc/sys could write there
    bind(folder, opened[folder])
    if os.path.isdir(BASE + folder + "/data"):
        mount(BASE + folder + "/data", BASE + folder + "/data", "", BIND | REC)
        read_only(BASE + folder + "/data")
    for descriptor in opened.values():
        os.close(descriptor)


def enter(folder):
    """Makes BASE the root, and nothing else is left."""
    os.chdir(BASE)
    did(libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."))
    did(libc.umount2(b".", DETACH))
    read_only("/", 0)
    os.chdir(folder)


def give_up_rights():
    did(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    did(libc.capset((ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()))


def status_of(command):
    """The exit status of a command, all that is left of it being waited for meanwhile."""
    own = os.fork()
    if not own:
        os.execvp(command[0], command)
    while True:
        process, status = os.wait()
        if process == own:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    words, command = sys.argv[1:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:]
    lay_out(words[0], words[1:])
    enter(words[0])
    give_up_rights()
    os._exit(status_of(command))
