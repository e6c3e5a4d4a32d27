"""One of the processes that torchrun has started: which one this is, and how all of them end with one line.

    if first(): ...                                     # the only process, or the one that writes and speaks
    with together("add --resume to go on"):             # around the work of a command
        ...

torchrun ends all processes where one has ended badly, and reports each of them at length. What went wrong is said once on every machine:
by the process that met it first, in a line of its own and in torchrun's report.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Iterator

from solution.files import Failure, InputError, lacks_memory, one_line, told
from solution.locks import release_all

TORN = "/gloo/", "nccl", "closed by peer", "reset by peer", "broken pipe"  # words of what torch raises where another process is gone


class Lost(Failure):
    """Another process is gone, and with it the work of all."""


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """The number of processes, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this is the only process or the first of those that torchrun started: the one that writes and speaks."""
    return rank() == 0


@contextlib.contextmanager
def together(advice: str) -> Iterator[None]:
    """Work that several processes do: where it fails one of them says so; where one is gone the others end, saying so and `advice`."""
    if world() == 1:
        yield
        return
    end_by_exception(advice)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the words that are said now are not cut off
        meant = lost(error, advice)
        speaking = speaks(meant)
        if isinstance(meant, Lost):
            end_at_once(meant, speaking)
        if not speaking:
            raise SystemExit(2 if isinstance(error, InputError) else 1) from None
        raise


def end_by_exception(advice: str) -> None:
    """The signal with which torchrun ends a process because of another one raises Lost; readers that are forked end at once."""
    process = os.getpid()

    def end(*_) -> None:
        if os.getpid() != process:
            os._exit(1)
        raise Lost(f"told to end, as torchrun does where another process has ended; {advice}")

    signal.signal(signal.SIGTERM, end)


def lost(error: BaseException, advice: str) -> BaseException:
    """The same, or Lost where it says that another process is gone."""
    text = str(error).lower()
    if not isinstance(error, RuntimeError) or lacks_memory(error) or not any(word in text for word in TORN):
        return error
    reason = "" if "/gloo/" in text else f" ({one_line(told(error))[-300:]})"  # NCCL's, which names network interfaces
    return Lost(f"another process of this run has ended or is out of reach{reason}; {advice}")


def speaks(error: BaseException) -> bool:
    """Whether this process is the first on its machine in which something went wrong; torchrun's report then has its words."""
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not report:
        return True
    try:
        os.close(os.open(Path(report).parents[1] / "said", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    message = {"message": f"error: {one_line(told(error))}", "extraInfo": {"timestamp": str(int(time.time()))}}
    Path(report).write_text(json.dumps({"message": message}))
    return True


def end_at_once(error: Lost, speaking: bool) -> None:
    """Without the orderly end that torch's threads, whose partner is gone, would answer with an abort or not at all."""
    try:
        if speaking:
            print(f"error: {one_line(str(error))}", file=sys.stderr, flush=True)
        release_all()
    finally:
        os._exit(1)
