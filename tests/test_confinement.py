"""A submission that tries to get out: to the network, to files and processes of whoever rehearses it, beyond its limits and its end."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from eval.files import run
from submission import confinement
from submission import rehearse as rehearsal
from test_embed import ensemble, tiny
from test_rehearse import VALID, fold, log, rehearse, report, running  # noqa: F401 - `fold` is a fixture

SYSTEM = Path("/usr/bin/python3")  # an interpreter that nobody may start, too
PYTHON = Path(sys.executable)
SECRET = "what nobody else should read"
# Tries everything, and says of each whether it worked. `given` has what it could guess: ports, paths and numbers of processes.
TRY = """
import ctypes, json, os, signal, socket, subprocess, sys
given, libc, found = json.loads(os.environ["GIVEN"]), ctypes.CDLL(None, use_errno=True), {}

def attempt(function):
    try:
        value = function()
        found[function.__name__] = "done" if value is None else str(value)
    except BaseException as error:
        found[function.__name__] = ""
    return function

def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno())

@attempt
def dns(): socket.getaddrinfo("pypi.org", 443)
@attempt
def tcp(): socket.create_connection(("127.0.0.1", given["port"]), 2)
@attempt
def tcp6(): socket.create_connection(("::1", given["port"]), 2)
@attempt
def tcp_outside(): socket.create_connection(("1.1.1.1", 53), 2)
@attempt
def udp(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"leak", ("127.0.0.1", given["port"]))
@attempt
def udp_outside(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"leak", ("1.1.1.1", 53))
@attempt
def raw(): socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"leak", ("1.1.1.1", 0))
@attempt
def packets(): socket.socket(socket.AF_PACKET, socket.SOCK_RAW).bind(("eth0", 0))
@attempt
def without_python():
    descriptor = libc.socket(2, 1, 0)
    address = (2).to_bytes(2, sys.byteorder) + given["port"].to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    if descriptor < 0 or libc.connect(descriptor, address, 16):
        raise OSError
@attempt
def unix_path(): socket.socket(socket.AF_UNIX).connect(given["unix"])
@attempt
def unix_abstract(): socket.socket(socket.AF_UNIX).connect("\\0" + given["abstract"])

@attempt
def write_above(): open("../written", "w").write("x")
@attempt
def write_home(): open(given["home"] + "/written", "w").write("x")
@attempt
def write_theirs(): open(given["secret"], "a").write("x")
@attempt
def truncate_theirs(): os.truncate(given["secret"], 0)
@attempt
def chmod_theirs(): os.chmod(given["secret"], 0o777)
@attempt
def remove_theirs(): os.unlink(given["secret"])
@attempt
def link_theirs(): os.link(given["secret"], "linked")
@attempt
def write_data(): open("data/metadata.csv", "a").write("x")
@attempt
def chmod_data(): os.chmod("data/metadata.csv", 0o666), open("data/metadata.csv", "a").write("x")
@attempt
def replace_data(): os.rename("data", "elsewhere"), os.symlink(given["home"], "data")
@attempt
def write_python(): os.close(os.open(given["python"], os.O_TMPFILE | os.O_WRONLY))
@attempt
def write_system(): os.close(os.open("/usr/lib", os.O_TMPFILE | os.O_WRONLY))
@attempt
def write_kernel(): open("/proc/sys/kernel/core_pattern", "a").write("")
@attempt
def write_disk(): os.open(given["disk"], os.O_RDWR)

@attempt
def read_secret(): return open(given["secret"]).read()
@attempt
def read_link():
    os.symlink(given["secret"], "link")
    return open("link").read()
@attempt
def read_environment(): return open("/proc/%d/environ" % given["parent"]).read()[:9]
@attempt
def read_memory(): open("/proc/%d/mem" % given["parent"], "rb")
@attempt
def read_root(): return os.readlink("/proc/%d/cwd" % given["parent"])
@attempt
def own_variable(): return os.environ["SECRET"]
@attempt
def read_shadow(): return open("/etc/shadow").read()[:1]

@attempt
def kill(): os.kill(given["victim"], signal.SIGKILL)
@attempt
def trace(): call("ptrace", 16, given["parent"], 0, 0)
@attempt
def mount(): call("mount", b"tmpfs", b"/usr", b"tmpfs", 0, None)
@attempt
def remount(): call("mount", None, b"/usr", None, 32 | 4096, None)
@attempt
def unmount(): call("umount2", b"/usr", 2)
@attempt
def new_namespace():
    call("unshare", 0x10000000 | 0x20000)
    call("mount", None, b"/usr", None, 32 | 4096, None)
    os.close(os.open("/usr/lib", os.O_TMPFILE | os.O_WRONLY))
@attempt
def join_network(): call("setns", os.open("/proc/%d/ns/net" % given["parent"], os.O_RDONLY), 0)
@attempt
def become_root(): os.setuid(0)
@attempt
def kernel_module(): call("syscall", 175, b"", 0, b"")

if not os.fork():
    os.setsid()
    if not os.fork():
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 1), os.dup2(null, 2)
        os.execv("/bin/sleep", ["/bin/sleep", given["asleep"]])
    os._exit(0)
print(json.dumps(found), flush=True)
"""
NETWORK = "dns", "tcp", "tcp6", "tcp_outside", "udp", "udp_outside", "raw", "packets"
RIGHTS = "mount", "remount", "unmount", "join_network", "become_root", "kernel_module"


def allowed(kind: str) -> bool:
    """Whether this system lets one build such a confinement."""
    with tempfile.TemporaryDirectory() as folder:
        return kind == "python" or bool(choices(kind, PYTHON, Path(folder)))


def choices(kind, python, folder, **user):
    """The confinement of a kind, if it works here."""
    prefix = {"walls": lambda: confinement.walls(python, folder), "network": lambda: confinement.NAMESPACE, "python": lambda: []}[kind]()
    choice = confinement.Confinement(prefix, user, kind, {})
    return [choice] if confinement.works(choice, python, folder) else []


@pytest.fixture
def outside(monkeypatch):
    """A folder to run in, and beside it what is not the submission's: a file, sockets that listen, a process."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place, contextlib.ExitStack() as opened:  # /tmp is its own within walls
        os.chmod(place, 0o777)
        place = Path(place)
        folder, home = place / "out", place / "home"
        (folder / "data").mkdir(parents=True), home.mkdir()
        (folder / "data" / "metadata.csv").write_text("image_id\n")
        (place / "secret").write_text(SECRET)
        os.chmod(place / "secret", 0o666), os.chmod(home, 0o777), os.chmod(folder, 0o777)  # no mode protects them, the walls must
        monkeypatch.setenv("SECRET", SECRET)
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        udp = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", port)), udp.setblocking(False), server.setblocking(False)
        listening = [opened.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for unix, name in zip(listening, (str(place / "unix"), f"\0whales-{os.getpid()}")):
            unix.bind(name), unix.listen(), unix.setblocking(False)
        os.chmod(place / "unix", 0o777)
        victim = subprocess.Popen(["/bin/sleep", "300"])
        opened.callback(lambda: (victim.kill(), victim.wait()))
        disks = [str(path) for path in Path("/dev").glob("*da*") if path.is_block_device()]
        yield {"port": port, "unix": str(place / "unix"), "abstract": f"whales-{os.getpid()}", "home": str(home), "secret": str(place / "secret"), "parent": os.getpid(),
               "victim": victim.pid, "asleep": f"{300 + time.time() % 1:.6f}", "disk": (disks or ["/dev/mem"])[0]}, folder, (server, udp, *listening), victim


def tried(code, choice, python, folder, given=None, seconds=60.0, memory=4e9):
    (folder / "main.py").write_text(code)
    given = {"python": str(python.parent.parent), **(given or {})}
    outcome = confinement.confined([str(python), "main.py"], folder, choice, folder.parent / "log", seconds, memory, GIVEN=json.dumps(given))
    return outcome, (folder.parent / "log").read_text()


def heard(sockets):
    """Which of the sockets anything has come to."""
    found = []
    for number, each in enumerate(sockets):
        with contextlib.suppress(BlockingIOError):
            each.recv(1) if each.type == socket.SOCK_DGRAM else each.accept()
            found.append(number)
    return found


@pytest.mark.parametrize("user", ["caller", "nobody"])
def test_within_walls_nothing_leads_out(outside, user):
    python, rights = (PYTHON, {}) if user == "caller" else (SYSTEM, {"user": 65534, "group": 65534, "extra_groups": []})
    if user == "nobody" and (os.geteuid() or not SYSTEM.exists()):
        pytest.skip("only root can become nobody, in an interpreter that nobody may start")
    given, folder, sockets, victim = outside
    found = choices("walls", python, folder, **rights)
    if not found:
        pytest.skip("this system allows no such namespaces")
    before = sorted(path for path in folder.parent.rglob("*") if folder not in path.parents)
    outcome, said = tried(TRY, found[0], python, folder, given)
    assert outcome.exit_code == 0 and {name: value for name, value in json.loads(said).items() if value} == {}, said
    assert heard(sockets) == [] and victim.poll() is None and not running("/bin/sleep", given["asleep"])
    assert Path(given["secret"]).read_text() == SECRET and Path(given["secret"]).stat().st_nlink == 1
    assert sorted(path for path in folder.parent.rglob("*") if folder not in path.parents and path.name != "log") == before
    assert (folder / "data" / "metadata.csv").read_text() == "image_id\n" and not (folder / "data").is_symlink()


@pytest.mark.parametrize("kind", ["network", "python"])
def test_with_less_than_walls_it_reaches_what_is_told_and_no_more(outside, kind):
    """Whatever else is open, the network is shut, and what is left running is found."""
    given, folder, sockets, _ = outside
    found = choices(kind, PYTHON, folder)
    if not found:
        pytest.skip("this system allows no network namespaces")
    python_alone = kind == "python" and os.geteuid() == 0  # root within no namespace may do what it likes: only Python's sockets are tried
    code = TRY if not python_alone else TRY[:TRY.index("@attempt\ndef raw")] + TRY[TRY.index("@attempt\ndef read_secret"):TRY.index("@attempt\ndef kill")] + TRY[TRY.index("if not os.fork"):]
    outcome, said = tried(code, found[0], PYTHON, folder, given)
    worked = {name for name, value in json.loads(said).items() if value}
    assert not worked & {*NETWORK, *(RIGHTS if not python_alone else ()), "own_variable"} and worked & {"read_secret", "write_theirs"}
    assert "reads and writes what the user may" in confinement.reach(kind)["files"]
    assert kind == "python" or not worked & {"without_python", "unix_abstract"}
    assert heard(sockets[:2]) == [] and not running("/bin/sleep", given["asleep"])


@pytest.mark.parametrize("kind", ["walls", "network", "python"])
def test_memory_counts_wherever_it_is_hidden(outside, kind):
    """A process with a session and a parent of its own is still one of the family."""
    _, folder, _, _ = outside
    found = choices(kind, PYTHON, folder)
    if not found:
        pytest.skip("this system allows no such namespaces")
    code = """
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        held = [bytes([1]) * 20_000_000 for _ in range(20)]
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
    outcome, _ = tried(code, found[0], PYTHON, folder, memory=0.2e9)
    assert outcome.stopped == "the memory limit of 0.2 GB" and outcome.exit_code == -9 and outcome.seconds < 30 and confinement.family(0, children()) == set()


def children():
    return {pid for pid, parent in confinement.parents().items() if parent == os.getpid()}


def test_a_disk_is_not_filled(outside, monkeypatch):
    _, folder, _, _ = outside
    monkeypatch.setattr(confinement, "least_room", lambda free: free - 150_000_000)
    choice = (choices("walls", PYTHON, folder) or choices("python", PYTHON, folder))[0]
    code = "import time\nwith open('full', 'wb') as file:\n    for _ in range(400):\n        file.write(bytes(5_000_000)), file.flush(), time.sleep(0.01)\ntime.sleep(60)"
    outcome, _ = tried(code, choice, PYTHON, folder)
    assert outcome.stopped.startswith("a disk with ") and (folder / "full").stat().st_size < 2e9


def test_half_of_a_small_disk_and_a_gigabyte_of_a_large_one_stay_free():
    assert [confinement.least_room(free) for free in (0, 1000, 1 << 40)] == [0, 500, 1 << 30]


def test_sleeping_past_the_limit_ends_all(outside):
    given, folder, _, _ = outside
    choice = (choices("walls", PYTHON, folder) or choices("python", PYTHON, folder))[0]
    code = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + TRY[TRY.index("if not os.fork"):].replace("json.dumps(found)", "1")
    code = "import json\ngiven = json.loads(__import__('os').environ['GIVEN'])\n" + code + "time.sleep(60)"
    outcome, _ = tried(code, choice, PYTHON, folder, given, seconds=1.0)
    assert outcome.stopped == "the time limit of 1 s" and outcome.seconds < 20 and not running("/bin/sleep", given["asleep"])


@pytest.mark.parametrize("code, status", [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 11)", -11), ("import os; os.abort()", -6), ("", 0)])
def test_the_exit_status_comes_out_as_it_was(outside, code, status):
    _, folder, _, _ = outside
    for kind in ("walls", "python"):
        for choice in choices(kind, PYTHON, folder):
            assert tried(code, choice, PYTHON, folder)[0].exit_code == status


def test_other_children_of_this_process_are_left_alone(outside):
    _, folder, _, _ = outside
    other = subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
    tried("", choices("python", PYTHON, folder)[0], PYTHON, folder)
    assert other.poll() is None
    other.kill(), other.wait()


# A packed submission whose main.py is another

@pytest.fixture(scope="module")
def packed(fold):  # noqa: F811
    ensemble(fold / "weights", tiny("one", 0, 32))
    words = [sys.executable, "-m", "submission.pack", "--weights", fold / "weights", "--output", fold / "submission.zip"]
    subprocess.run(list(map(str, words)), cwd=Path(__file__).parents[1], check=True)
    return fold / "submission.zip"


def replaced(packed, path, code):
    """The packed submission with another main.py."""
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, code if name == "main.py" else old.read(name))
    return path


def test_a_packed_submission_with_another_main_reaches_nothing_and_the_report_says_why(packed, fold, outside, tmp_path):  # noqa: F811
    given, _, sockets, victim = outside
    code = VALID + TRY.replace('json.loads(os.environ["GIVEN"])', repr({**given, "python": str(PYTHON.parent.parent)}))
    done = rehearse(replaced(packed, tmp_path / "s.zip", code), fold, tmp_path / "out")
    told = report(tmp_path / "out")
    assert done.returncode == 0 and told["passed"], done.stderr
    worked = {name for name, value in json.loads(log(tmp_path / "out").splitlines()[-1]).items() if value}
    if "alone" in told["files"]:
        assert worked <= {"write_above"} and not (tmp_path / "written").exists()  # it has a /tmp of its own, and this is one
        assert "alone" in told["processes"] and heard(sockets) == [] and victim.poll() is None and "files" in done.stdout
        assert Path(given["secret"]).read_text() == SECRET
    else:
        assert not worked & set(NETWORK) and told["files"] == "reads and writes what the user may"
    assert not running("/bin/sleep", given["asleep"])


@pytest.mark.parametrize("code, words", [
    ("import os; os.symlink(SECRET, 'submission/submission.csv')", "is a link to somewhere else"),
    ("import os; os.rename('submission', 'old'); os.symlink(HOME, 'submission')", "is a link to somewhere else"),
    ("import os; os.mkfifo('submission/submission.csv')", ""),
    ("import os; os.symlink('/dev/zero', 'submission/submission.csv')", ""),
    (VALID + "open('submission/timings.json', 'w').write('{\"embed_seconds\": [')", None),
    (VALID + "open('submission/timings.json', 'w').write('[' * 100000)", None),
    (VALID + "import os; os.symlink(SECRET, '.rehearsal.json.part'); os.symlink(SECRET, '.rehearsal.json.lock')", ""),
    (VALID + "import os, shutil; shutil.rmtree('data', ignore_errors=True); os.path.isdir('data') or os.symlink(HOME, 'data')", None),
])
def test_what_it_leaves_behind_leads_the_rehearsal_nowhere(code, words, packed, fold, outside, tmp_path, monkeypatch, capsys):  # noqa: F811
    given, _, _, _ = outside
    home = Path(given["home"])
    (home / "submission.csv").write_text("theirs"), os.chmod(home, 0o700)
    code = code.replace("SECRET", repr(given["secret"])).replace("HOME", repr(given["home"]))
    command = ["rehearse", replaced(packed, tmp_path / "s.zip", code), "--data", fold / "test", "--output", tmp_path / "out", "--runtime", "current", "--time-limit", 30]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    status = 0
    try:
        run(rehearsal.main)
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    said = f"{out}{err}{status if isinstance(status, str) else ''}"
    assert "Traceback" not in said and len(said.removeprefix(out).strip().splitlines()) == (status != 0) and SECRET not in said
    assert (status == 0) == (words is None) and (words or "") in said, said
    assert Path(given["secret"]).read_text() == SECRET and (home / "submission.csv").read_text() == "theirs" and home.stat().st_mode & 0o777 == 0o700


def test_without_walls_a_link_in_the_place_of_the_data_is_not_followed(tmp_path):
    """Where the data are taken away by their path, a link of that name would have its target made writable, and more."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o500)
    (tmp_path / "data").symlink_to(theirs)
    rehearsal.remove(tmp_path / "data")
    assert theirs.stat().st_mode & 0o777 == 0o500 and not os.path.lexists(tmp_path / "data")
