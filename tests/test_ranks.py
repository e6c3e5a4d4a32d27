"""What goes wrong in one of several processes is said once, ends all of them, and costs a training what came after its last checkpoint."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch

import toy
import toy_training as toying
from solution import fitting, norms, ranks
from solution import train as training
from solution.files import Failure, InputError, run

GLOO = "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:17832. This is typically caused by a remote worker crashing."
NCCL = "NCCL error in: ../NCCLUtils.cpp:94, remote process exited or there was a network error, NCCL version 2.21.5\nncclRemoteError: connect to 10.0.0.7 failed"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=10)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return toying.write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")


def as_torchrun(folder, words, disturbed=lambda: None, world=2):
    """The exit statuses of a training's processes and what each said on stderr; each calls `disturbed` first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    statuses = toying.in_forks(process, *[(rank, world, port, folder, words, disturbed) for rank in range(world)])
    return statuses, [(folder / str(rank) / "stderr").read_text() for rank in range(world)]


def process(rank, world, port, folder, words, disturbed):
    """Never returns."""
    own = folder / str(rank)
    own.mkdir(parents=True)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                      TORCHELASTIC_RUN_ID="toy", TORCHELASTIC_ERROR_FILE=str(own / "error.json"))
    sys.stderr = open(own / "stderr", "w", buffering=1)
    sys.argv = ["train", *toying.arguments(*words)]
    disturbed()
    try:
        run(training.main)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    os._exit(0)


def errors(said):
    return [line for text in said for line in text.splitlines() if line.startswith("error: ")]


def in_step(rank, number):
    """Makes a process send itself a signal in the second step of the second epoch."""
    take = fitting.Fitting.step

    def step(self, *batch):
        if (self.progress.epoch, self.progress.step) == (1, 1) and ranks.rank() == rank:
            os.kill(os.getpid(), number)
            time.sleep(0.2)
        return take(self, *batch)

    fitting.Fitting.step = step


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data, tiny):
    folder = tmp_path_factory.mktemp("trained")
    assert as_torchrun(folder / "ranks", (tiny, data, folder / "weights"))[0] == [0, 0]
    return folder / "weights"


@pytest.mark.parametrize("victim", [0, 1])
def test_where_a_process_is_killed_the_other_says_so_in_one_line_and_resume_goes_on(tmp_path, data, tiny, trained, victim):
    statuses, said = as_torchrun(tmp_path / "killed", (tiny, data, tmp_path / "w"), lambda: in_step(victim, signal.SIGKILL))
    assert statuses[victim] == -signal.SIGKILL and statuses[1 - victim] == 1
    assert errors(said) == ["error: another process of this run has ended or is out of reach; the same command with --resume goes on from the last checkpoint"]
    assert "Traceback" not in "".join(said) and errors(said[victim:][:1]) == []
    assert json.loads((tmp_path / "killed" / str(1 - victim) / "error.json").read_text())["message"]["message"] == errors(said)[0]
    assert (tmp_path / "w.resume" / "tiny.npz").is_file() and not list((tmp_path / "w").glob("*.npz"))
    statuses, _ = as_torchrun(tmp_path / "resumed", (tiny, data, tmp_path / "w", "--resume"))
    assert statuses == [0, 0] and toying.result(tmp_path / "w") == toying.result(trained)


def test_a_process_that_torchrun_ends_says_so_and_leaves_the_checkpoint(tmp_path, data, tiny, trained):
    statuses, said = as_torchrun(tmp_path / "ended", (tiny, data, tmp_path / "w"), lambda: in_step(0, signal.SIGTERM))
    assert statuses == [1, 1] and len(errors(said)) == 1 and "--resume goes on from the last checkpoint" in errors(said)[0] and "Traceback" not in "".join(said)
    statuses, _ = as_torchrun(tmp_path / "resumed", (tiny, data, tmp_path / "w", "--resume"))
    assert statuses == [0, 0] and toying.result(tmp_path / "w") == toying.result(trained)


def test_an_error_that_all_processes_meet_is_said_by_one(tmp_path, tiny):
    statuses, said = as_torchrun(tmp_path / "ranks", (tiny, tmp_path / "nowhere", tmp_path / "w"), world=3)
    assert statuses == [2, 2, 2] and errors(said) == [f"error: {tmp_path}/nowhere/metadata.csv: no such file"]
    assert len(list((tmp_path / "ranks").glob("*/error.json"))) == 1 and not (tmp_path / "w").exists()


def test_outputs_that_another_run_holds_are_told_once_and_left_alone(tmp_path, data, tiny):
    from eval import outputs

    with outputs.alone(tmp_path / "w" / "tiny.npz"):
        status, said = toying.in_forks(process, (0, 2, 1, tmp_path / "ranks", (tiny, data, tmp_path / "w"), lambda: None)), (tmp_path / "ranks" / "0" / "stderr").read_text()
        assert status == [2] and errors([said]) == [f"error: {tmp_path}/w/tiny.npz: another run is writing it; wait for that one, or choose another --output"]
        assert [path.name for path in (tmp_path / "w").iterdir()] == [".tiny.npz.lock"]


def on_another_machine(tmp_path, words):
    """The second process has another --output: a machine that shares no files."""
    def elsewhere():
        if ranks.rank() == 1:
            sys.argv[sys.argv.index("--output") + 1] = str(tmp_path / "elsewhere" / "w")

    return as_torchrun(tmp_path / f"ranks{len(list(tmp_path.iterdir()))}", words, elsewhere)


def test_machines_that_share_no_files_train_alike_and_must_be_given_the_checkpoint_to_go_on(tmp_path, data, tiny, trained):
    with mock.patch("solution.train.timer", lambda *_: iter([False] * 5 + [True] * 9).__next__):
        assert on_another_machine(tmp_path, (tiny, data, tmp_path / "w"))[0] == [0, 0]
    assert not (tmp_path / "elsewhere").exists()
    statuses, said = on_another_machine(tmp_path, (tiny, data, tmp_path / "w", "--resume"))
    assert statuses[1] == 2 and len(errors(said)) == 1 and "checkpoints such as" in errors(said)[0] and "must be alike on all machines; share them, or copy them there" in errors(said)[0]
    for folder in (tmp_path / "elsewhere" / "w", tmp_path / "elsewhere" / "w.resume"):
        folder.mkdir(parents=True)
    for name in ("w/provenance.json", "w/recipe.yaml", "w.resume/tiny.npz"):
        (tmp_path / "elsewhere" / name).write_bytes((tmp_path / name).read_bytes())
    assert on_another_machine(tmp_path, (tiny, data, tmp_path / "w", "--resume"))[0] == [0, 0]
    assert (tmp_path / "w" / "tiny.npz").read_bytes() == (trained / "tiny.npz").read_bytes()


def test_machines_that_train_on_different_data_are_told(tmp_path, data, tiny):
    other = toy.competition(tmp_path / "other", n_whales=9)

    def elsewhere():
        if ranks.rank() == 1:
            sys.argv[sys.argv.index("--data") + 1] = str(other)

    statuses, said = as_torchrun(tmp_path / "ranks", (tiny, data, tmp_path / "w"), elsewhere)
    assert statuses[1] == 2 and errors(said) == ["error: tiny: process 1 does not train what the first one does: the recipe, --seed, --data and the finished models of --output "
                                                 "must be alike on all machines; share them, or copy them there"]


@pytest.mark.parametrize("error, words", [
    (RuntimeError(GLOO), "another process of this run has ended or is out of reach; go on"),
    (RuntimeError(NCCL), "ncclRemoteError: connect to 10.0.0.7 failed); go on"),
    (RuntimeError("Broken pipe"), "another process"),
])
def test_a_lost_process_is_told_from_what_torch_raises(error, words):
    meant = ranks.lost(error, "go on")
    assert isinstance(meant, ranks.Lost) and words in str(meant) and "\n" not in str(meant)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), RuntimeError("NCCL: out of memory"), InputError("gloo/: no such file"), Failure("the loss is nan"), KeyError("nccl")])
def test_other_errors_stay_what_they_are(error):
    assert ranks.lost(error, "go on") is error


def test_one_process_alone_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), ranks.together("go on"):
        assert signal.getsignal(signal.SIGTERM) is before
        raise KeyError


def test_a_model_for_several_gpus_is_the_same_model(tiny):
    """SyncBatchNorm itself runs on no CPU: names, numbers and answers outside of training are what can be seen here."""
    trainee = fitting.Trainee(toying.spec(tiny), mock.Mock(counts=torch.tensor([3, 4]).numpy(), species_names=[""])).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, state = trainee.model(images), {name: value.clone() for name, value in trainee.state_dict().items()}
    shared = norms.shared_on_gpu(trainee)
    synchronised = [module for module in shared.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    assert synchronised and all(isinstance(module, torch.nn.SyncBatchNorm) for module in synchronised)
    assert list(shared.state_dict()) == list(state) and all(torch.equal(value, state[name]) for name, value in shared.state_dict().items())
    assert torch.equal(shared.model(images), before)


@pytest.mark.slow
def test_torchrun_shows_the_line_of_one_process_and_repeats_it_in_its_report(tmp_path, tiny):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "solution.train"]
    done = subprocess.run([*launcher, *toying.arguments(tiny, tmp_path / "nowhere", tmp_path / "w")], env=toying.CHILD, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 1 and errors([done.stderr]) == [f"error: {tmp_path}/nowhere/metadata.csv: no such file"]
    assert f"traceback : error: {tmp_path}/nowhere/metadata.csv: no such file" in done.stderr
