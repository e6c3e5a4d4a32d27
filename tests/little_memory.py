"""Commands in processes that may take so many MB more than they have at their start.

    python tests/little_memory.py PLAN.json        # writes PLAN.json's answers to stdout as JSON

PLAN.json is a list of cases: module, megabytes, words. An answer: code, stdout, stderr. The libraries are imported once, before them.
"""

import contextlib
import json
import os
import resource
import runpy
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch

from eval import folds, score  # noqa: F401  what the commands import is there before they are limited
from solution import fitting, predict, rank, torch_engine, train, validate  # noqa: F401


def taken() -> int:
    """Bytes of address space, which is what the limit is of."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def child(module: str, megabytes: int, words: list) -> None:
    """Never returns."""
    code = 0
    resource.setrlimit(resource.RLIMIT_AS, (taken() + (megabytes << 20),) * 2)
    try:
        sys.argv = [module, *words]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the module is imported already
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        code = stopped.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def answer(module: str, megabytes: int, words: list) -> dict:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = os.fork()
        if process == 0:
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            child(module, megabytes, words)
        status = os.waitpid(process, 0)[1]
        said = [os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace") for file in (out, err)]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    return {"code": code, "stdout": said[0], "stderr": said[1]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([answer(**case) for case in json.loads(Path(sys.argv[1]).read_text())]))
