"""Runs a program as the organisers do: few rights, no network, few threads, limits on time and memory, and nothing outside its folder.

    confinement = strictest(python, folder)
    outcome = confined([python, "main.py"], folder, confinement, seconds=10800, memory=16e9)

What the system does not allow is replaced by the next best, and `told` says which it was: namespaces in which there are but the
system's programs, Python and its folder, and no processes but its own (inside.py), else a network namespace, else Python's sockets
switched off; the user nobody, else no rights through a user namespace, else the caller. Not limited: how many processes it starts.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set

THREADS = 6  # of the official runtime
NOBODY = 65534
UNSHARE = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--net"]
NAMESPACE = [*UNSHARE, "--"]
INSIDE = Path(__file__).parent / "inside.py"
OFFLINE = str(Path(__file__).parent / "offline")
SUBREAPER = 36  # of prctl: orphans become children of the process that asks for them
LEFT, SEARCH = 1 << 30, 5  # bytes of the disk that stay free; seconds that killing may take
# Fails unless the network is off and this folder can be entered.
PROBE = """
import os, socket, sys
os.chdir(sys.argv[1])
try:
    socket.socket().connect(("192.0.2.1", 9))
except OSError as error:
    sys.exit(0 if error.errno == 101 else 1)
sys.exit(1)
"""


class Confinement(NamedTuple):
    prefix: List[str]  # of the command
    user: Dict  # of subprocess.Popen
    kind: str  # walls (inside.py), network or python
    told: Dict[str, str]

    @property
    def offline(self) -> bool:
        """Whether Python's sockets are switched off."""
        return self.kind == "python"


class Outcome(NamedTuple):
    exit_code: int
    seconds: float
    peak_bytes: float  # of all its processes together
    stopped: str  # what it was killed for, empty where it ended by itself


def strictest(python: Path, folder: Path) -> Confinement:
    """The first choice that works here for this interpreter and folder; the last one always does."""
    kinds = {"walls": walls(python, folder), "network": NAMESPACE} if shutil.which("unshare") else {}
    choices = [Confinement(prefix, user, kind, {"network": network(prefix), "user": name(prefix, user), **reach(kind)})
               for kind, prefix in {**kinds, "python": []}.items()
               for user in ([{"user": NOBODY, "group": NOBODY, "extra_groups": []}] if os.geteuid() == 0 else []) + [{}]]
    return next((choice for choice in choices if works(choice, python, folder)), choices[-1])


def walls(python: Path, folder: Path) -> List[str]:
    """What stands before a command of an interpreter: what else than the system and the folder it takes is asked of it."""
    asked = subprocess.run([python, "-I", "-c", "import sys; print(sys.prefix, sys.base_prefix, sep='\\0', end='')"], capture_output=True, text=True)
    readable = [*asked.stdout.split("\0"), *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    return [*UNSHARE, "--keep-caps", "--ipc", "--pid", "--mount", "--fork", "--kill-child", "--", str(python), "-I", "-S", "-c", INSIDE.read_text(),
            str(folder), *filter(None, readable), "--"]


def reach(kind: str) -> Dict[str, str]:
    if kind == "walls":
        return {"files": "writes its own folder alone; reads that, the system's programs and Python", "processes": "sees its own alone, and none outlives it"}
    return {"files": "reads and writes what the user may", "processes": "sees all; what it leaves running is searched for and killed"}


def works(choice: Confinement, python: Path, folder: Path) -> bool:
    try:
        done = subprocess.run([*choice.prefix, python, "-c", PROBE, folder], env=environment(choice, folder), capture_output=True, timeout=30, **choice.user)
    except (OSError, subprocess.SubprocessError):  # the user may not even start the interpreter
        return False
    return done.returncode == 0


def network(prefix: List[str]) -> str:
    return "none: a network namespace" if prefix else "Python's sockets switched off (the system allows no network namespace)"


def name(prefix: List[str], user: Dict) -> str:
    if user:
        return "nobody"
    return f"uid {os.geteuid()} without any rights of root (user namespace)" if prefix else f"uid {os.geteuid()}"


def cores() -> List[int]:
    return sorted(os.sched_getaffinity(0))[:THREADS]


def environment(choice: Confinement, folder: Path) -> Dict[str, str]:
    """Nothing of the caller's but where programs and devices are."""
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES") if key in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), str(len(cores())))
    return {**kept, **threads, "HOME": str(folder), "LANG": "C.UTF-8", **({"PYTHONPATH": OFFLINE} if choice.offline else {})}


def confined(command: List[str], folder: Path, choice: Confinement, log: Path, seconds: float, memory: float, **variables: str) -> Outcome:
    """Runs the command in `folder`, all it says in `log`; when a limit is passed it is killed, and in any case all it leaves running."""
    allowed, start, others = cores(), time.monotonic(), {pid for pid, parent in parents().items() if parent == os.getpid()}
    with adopting(), open(log, "wb") as said:
        process = subprocess.Popen(
            [*choice.prefix, *command], cwd=folder, env={**environment(choice, folder), **variables}, stdin=subprocess.DEVNULL, stdout=said,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, allowed), **choice.user)
        try:
            stopped, peak, status, usage = watched(process.pid, others, folder, start, seconds, memory)
            process.returncode = os.waitstatus_to_exitcode(status)
            code = 128 - process.returncode if choice.kind == "walls" and process.returncode > 128 else process.returncode
            return Outcome(code, time.monotonic() - start, max(peak, usage.ru_maxrss * 1024), stopped)
        finally:
            end(process.pid)
            end_all(process.pid, others)


def watched(pid: int, others: Set[int], folder: Path, start: float, seconds: float, memory: float):
    """What the process was killed for, the peak of its memory in bytes, its exit status and its resource usage."""
    stopped, peak, least = "", 0.0, least_room(shutil.disk_usage(folder).free)
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return stopped, peak, status, usage
        peak, room = max(peak, resident(family(pid, others))), shutil.disk_usage(folder).free
        if not stopped:
            stopped = passed(time.monotonic() - start > seconds and f"the time limit of {seconds:g} s", room < least and f"a disk with {room / 1e6:.0f} MB left",
                             peak > memory and f"the memory limit of {memory / 1e9:.1f} GB")
            if stopped:
                end(pid)
        time.sleep(0.1)


def passed(*limits) -> str:
    """The last of the limits that are told, empty where none is."""
    return next((limit for limit in reversed(limits) if limit), "")


def least_room(free: int) -> int:
    """Bytes of the disk that must stay free, where there are so many at the start."""
    return min(LEFT, free // 2)


def end(session: int) -> None:
    """Kills all processes of the session's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)


def end_all(pid: int, others: Set[int]) -> None:
    """Kills what is left of a family, also what left the group or lost its parent, until there is nothing."""
    start = time.monotonic()
    while time.monotonic() - start < SEARCH and (left := family(pid, others)):
        for each in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(each, os.WNOHANG)
        time.sleep(0.01)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Orphans among the descendants of this process become its children meanwhile."""
    libc = ctypes.CDLL(None)
    libc.prctl(SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(SUBREAPER, 0, 0, 0, 0)


def family(pid: int, others: Set[int]) -> Set[int]:
    """A child of this process, all below it and its adopted orphans: all children but the `others` of this process."""
    parent = parents()
    found, new = set(), {child for child, above in parent.items() if child == pid or above == os.getpid() and child not in others}
    while new:
        found |= new
        new = {child for child, above in parent.items() if above in new} - found
    return found


def parents() -> Dict[int, int]:
    """The parent of every process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may just have ended
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def resident(processes: Set[int]) -> float:
    """Bytes of memory that processes hold together; pages they share count once."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(OSError, ValueError):  # it may just have ended, or be a zombie
            words = Path(f"/proc/{process}/smaps_rollup").read_text().split()
            total += 1024 * float(words[words.index("Pss:") + 1])
    return total
