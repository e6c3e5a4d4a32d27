"""Predictions in processes of their own, whose models, decoders and disks are as slow as a test wants them.

    python tests/forked.py PLAN.json        # a list of cases; writes PLAN.json's answers to stdout as JSON

A case: data, weights, output, and where wanted limit (seconds), workers, slow (seconds a batch by model),
hang ("decoder", "lock" or "disk"), signal ([number, seconds after the file is there]), record (a folder for each state
of the file). An answer: status, seconds until the process and its log had ended, log. The cases run at the same time;
torch is imported once, before them.
"""

import ctypes
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from solution import images, pixels, predict, torch_engine
from solution.files import run
from solution.torch_engine import TorchEngine


def child(case):
    """Never returns."""
    pixels.BATCH = torch_engine.MOST = 7
    slow(case.get("slow", {}))
    HANGING.get(case.get("hang"), lambda case: None)(case)
    if "record" in case:
        record(Path(case["record"]))
    options = {"--data": case["data"], "--weights": case["weights"], "--output": case["output"], "--device": "cpu", "--engine": "torch", "--workers": case.get("workers", 0)}
    if "limit" in case:
        options["--time-limit"] = case["limit"]
    code = 0
    try:
        run(lambda: predict.main(["--no-cache", *(str(word) for option in options.items() for word in option)]))
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            print(stopped.code, file=sys.stderr)
        code = stopped.code if isinstance(stopped.code, int) else 1
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def slow(seconds):
    embeddings = TorchEngine.embeddings

    def late(self, batch, mirrored):
        time.sleep(seconds.get(self.spec.name, 0))
        return embeddings(self, batch, mirrored)

    TorchEngine.embeddings = late


def hanging_decoder(case):
    images.opened = lambda content, path: time.sleep(100)


def hanging_lock(case):
    """As a large library that is loaded from a slow disk: code that does not let go of the interpreter."""
    images.opened = lambda content, path: ctypes.PyDLL(None).sleep(100)


def hanging_disk(case):
    """The first writing ends, later ones never."""
    replace, written = os.replace, []

    def stuck(source, target):
        time.sleep(100) if written else written.append(replace(source, target))

    os.replace = stuck


HANGING = {"decoder": hanging_decoder, "lock": hanging_lock, "disk": hanging_disk}


def record(folder):
    write = predict.write_table

    def recorded(table, path):
        shutil.copy(write(table, path), folder / f"{len(list(folder.iterdir()))}.csv")

    predict.write_table = recorded


def started(case):
    """Process id and the reading end of its log."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.dup2(writing, 1), os.dup2(writing, 2)
        os.closerange(3, 256)
        child(case)
    os.close(writing)
    return process, reading


def watched(case, process, reading, begun):
    if "signal" in case:
        number, delay = case["signal"]
        while not Path(case["output"]).exists():
            time.sleep(0.005)
        time.sleep(delay)
        os.kill(process, number)
    with open(reading, errors="replace") as log:
        text = log.read()
    status = os.waitpid(process, 0)[1]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    case["answer"] = {"status": code, "seconds": time.monotonic() - begun, "log": text}


def main():
    cases = json.loads(Path(sys.argv[1]).read_text())
    processes = [(case, *started(case), time.monotonic()) for case in cases]
    threads = [threading.Thread(target=watched, args=process) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([case["answer"] for case in cases]))


if __name__ == "__main__":
    main()
