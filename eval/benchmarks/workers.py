"""Processes that wait to be told to run one more round: starting is not in what they answer, and each has an allocator of its own.

    with Worker("eval.benchmarks.peak") as peak:     # python -m eval.benchmarks.peak, which ends in serve({...}, work)
        peak.about, peak()                            # what it said of itself, and the answer to one round
"""

import json
import os
import subprocess
import sys
import tempfile
from typing import Callable

from eval.files import InputError


class Worker:
    """`python -m MODULE WORDS...` with further environment variables; ends with its `with` block."""

    def __init__(self, module: str, *words: object, **environment: str) -> None:
        self.module, self.said = module, tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([sys.executable, "-m", module, *map(str, words)], env={**os.environ, **environment},
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True)

    def __enter__(self) -> "Worker":
        self.about = self.answer()
        return self

    def __call__(self):
        print(file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.said.seek(0)
            sys.exit(f"error: python -m {self.module}: {last_line(self.said.read())}")
        return json.loads(line)

    def __exit__(self, *error) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()


def serve(about: object, work: Callable[[], object]) -> None:
    """In the process: tells what it is, then one answer a line that it is sent."""
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        print(json.dumps(work()), flush=True)


def command(*words: object, **environment: str) -> None:
    """Runs `python -m WORDS...`; its last words are the error where it fails, an InputError where it was asked for something wrong."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        told = f"python -m {words[0]}: {last_line(done.stderr)}"
        if done.returncode == 2:
            raise InputError(told)
        sys.exit(f"error: {told}")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["failed"])[-1].removeprefix("error: ")
