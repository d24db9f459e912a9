"""`facecomp batch --slurm` against a real slurmctld and slurmd on the loopback, and waiting without them."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT
from filelock import FileLock, Timeout
from test_batch import LAUNCHER, toy

from facecomp import cli
from facecomp.records import slurm
from facecomp.records.batch import NotebookRun, Outcome, read_outcome, run_notebook, write_outcome
from facecomp.records.files import InputError
from facecomp.records.receipts import read_receipt

# ---------------------------------------------------------------- a cluster of one node

PLACE = Path("/etc/slurm/slurm.conf")  # where Debian's daemons and commands look
MARK = "# written by facecomp's tests, removed when they end"
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
CONFIGURATION = """{mark}
ClusterName=facecomp
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=60
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no cluster can be started here; empty if it can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [name for name in DAEMONS if shutil.which(name, path=path) is None]
    if absent:
        return f"SLURM is not installed (no {', '.join(absent)}): apt-get install slurm-wlm munge"
    if os.geteuid():
        return "only root can start slurmctld and slurmd where their commands look for them"
    if PLACE.exists() and not PLACE.read_text().startswith(MARK):
        return f"{PLACE} is of another cluster"
    return ""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until(condition, what: str, seconds: float = 300.0):
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)
    return answer


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def start_daemons(folder: Path) -> list[subprocess.Popen]:
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    where = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    names = where | {"seed-file": "munged.seed", "key-file": key.name}
    munged = ["munged", "--foreground", "--force"]
    munged += [f"--{option}={folder / name}" for option, name in names.items()]
    started = []
    for command in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
        with (folder / f"{command[0]}.out").open("wb") as out:
            started.append(
                subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
            )
        if command is munged:
            wait_until((folder / "munge.socket").exists, "munged", 20)
    return started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Its node's name; daemons and slurm.conf are gone afterwards."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o700)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    host = socket.gethostname().split(".")[0]
    only_one = FileLock(Path(tempfile.gettempdir(), "facecomp-slurm.lock"), timeout=0)
    try:
        only_one.acquire()
    except Timeout:
        pytest.skip("another run of these tests has its cluster on this machine")
    started, patch = [], pytest.MonkeyPatch()
    patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    try:
        PLACE.parent.mkdir(exist_ok=True)
        values = {"mark": MARK, "host": host, "folder": folder}
        ports = {"port": free_port(), "node_port": free_port()}
        PLACE.write_text(CONFIGURATION.format(**values, **ports))
        started = start_daemons(folder)
        wait_until(lambda: said("sinfo", "-h", "-o", "%T") == "idle", "an idle node", 60)
        yield host
        subprocess.run(["scancel", "--user=root"], check=False)
        wait_until(lambda: not said("squeue", "-h"), "an empty queue", 60)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(20)
        PLACE.unlink(missing_ok=True)
        patch.undo()
        only_one.release()


# ---------------------------------------------------------------- the command in a small clone

SMALL = ("epochs=3", "batch_size=2", "width=16", "frames=6", "sheet_epochs=0", "device=cpu")
NOTEBOOK = "nbs/psm/run_train.ipynb"


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that counts as a checkout, so that all results lie in it; the current folder."""
    (tmp_path / "nbs" / "psm").mkdir(parents=True)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    shutil.copy(ROOT / NOTEBOOK, tmp_path / NOTEBOOK)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(people: str, *more: str) -> list[str]:
    given = [x for p in SMALL for x in ("-p", p)]
    limit = ["--slurm", "--time", "00:30:00", "--at-once", "2", "--cpus", "1"]
    return ["batch", NOTEBOOK, "--over", f"participant={people}", *given, *limit, *more]


@pytest.fixture
def background():
    """Starts the command beside the test; what it returns has the exit code as its result."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda people, *more: pool.submit(cli.main, arguments(people, *more))


def lines(out: str, state: str) -> list[str]:
    """Lines of the table that begin with a state."""
    return [x for x in out.partition("-----")[2].splitlines() if x.startswith(f"{state} ")]


def job_of(clone: Path, person: str) -> str:
    run = NotebookRun(Path(NOTEBOOK), clone / f"results/psm/batch/run_train/{person}.ipynb", ())
    wait_until(lambda: slurm.last_job(run), f"a job of {person}")
    return slurm.last_job(run).id


def test_four_as_an_array_one_cancelled_and_resumed(cluster, clone, background, capsys):
    people = "BS1,BS2,BS3,BS4"
    models = clone / "results/psm/models/PSM"
    command = background(people)
    wait_until(lambda: list((models / "BS1").glob("checkpoint-*")), "a checkpoint of BS1")
    kernel = int((models / "BS1" / "run.holder").read_text().split()[1])
    os.kill(
        kernel, signal.SIGSTOP
    )  # in the middle, however fast this machine is; SLURM wakes it up
    number = job_of(clone, "BS1")
    assert (
        said("squeue", "-h", "-r", "-j", number, "-o", "%i %T %N") == f"{number} RUNNING {cluster}"
    )
    out = capsys.readouterr().out
    assert "submitted 4 runs as job" in out
    assert cli.main(arguments(people, "--status")) == 0
    running = lines(capsys.readouterr().out, "running")
    assert any("participant=BS1" in line and number in line for line in running)
    subprocess.run(["scancel", number], check=True)
    assert command.result(timeout=600) == 1
    out = capsys.readouterr().out
    assert "4 runs: 0 were done, 3 made, 1 failed" in out
    assert [x.split()[1][-3:] for x in lines(out, "done")] == ["BS2", "BS3", "BS4"], out
    [failed] = lines(out, "failed")
    assert "participant=BS1" in failed and "was stopped by SIGTERM" in failed
    assert failed.split()[-1] == "results/psm/batch/run_train/BS1.ipynb"
    assert "SIGTERM: saved at" in (models / "BS1" / "log.txt").read_text()
    receipts = {p.parent.name: p.read_text() for p in models.glob("*/train.receipt.json")}
    assert sorted(receipts) == ["BS2", "BS3", "BS4"]

    assert cli.main(arguments(people, "--no-wait")) == 0
    out = capsys.readouterr().out
    assert "submitted 1 runs as job" in out and "1 running or waiting" in out
    assert len(lines(out, "done")) == 3 and len(lines(out, "running") + lines(out, "waiting")) == 1
    alone = job_of(clone, "BS1")
    assert "_" not in alone and alone != number
    assert cli.main(arguments(people)) == 0
    out = capsys.readouterr().out
    assert "submitted" not in out and "4 runs: 3 were done, 1 made, 0 failed" in out
    assert len(lines(out, "done")) == 4
    log = (models / "BS1" / "log.txt").read_text()
    assert "going on from" in log.partition("SIGTERM: saved at")[2]
    after = {p.parent.name: p.read_text() for p in models.glob("*/train.receipt.json")}
    assert {**after, **receipts} == after and "BS1" in after
    assert read_receipt(models / "BS1" / "train.receipt.json").parameters["epochs"] == 3


def test_one_killed_by_force_is_not_waited_for_for_ever(
    cluster, clone, background, capsys, monkeypatch
):
    monkeypatch.setattr(slurm, "PATIENCE", 3.0)
    command = background("BS5")
    number = job_of(clone, "BS5")
    log = clone / f"results/psm/batch/run_train/slurm/{number}_0_log.out"
    wait_until(lambda: log.is_file() and "Loading" in log.read_text(), "its process")
    subprocess.run(["scancel", "--signal=KILL", number], check=True)
    assert command.result(timeout=600) == 1
    [failed] = lines(capsys.readouterr().out, "failed")
    ways = (f"job {number} ended without a result", "was killed by signal")  # which process SLURM hits first
    assert any(text in failed for text in ways)
    assert cli.main(arguments("BS5", "--status")) == 0
    [again] = lines(capsys.readouterr().out, "failed")
    assert again.split() == failed.split()
    assert cli.main(arguments("BS5", "--partition", "nosuch")) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("facecomp: --slurm: sbatch: error: ") and "partition" in error
    assert "\n" not in error


# ---------------------------------------------------------------- without a cluster

SAVES_SLOWLY = """
import signal, time
from pathlib import Path

def save(*_):
    time.sleep(3)  # a kernel ends within a second of the process that started it
    Path(out, "saved").touch()
    raise SystemExit(143)

signal.signal(signal.SIGTERM, save)
Path(out, "ready").touch()
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="learns of its launcher's end on Linux only")
def test_a_kernel_that_saves_on_sigterm_is_waited_for(tmp_path):
    toy(tmp_path, SAVES_SLOWLY)
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path)])
    wait_until((tmp_path / "out" / "ready").exists, "the notebook")
    launcher.terminate()
    assert launcher.wait(20) == -signal.SIGTERM
    wait_until((tmp_path / "out" / "saved").exists, "what it saves", 30)


def test_a_stop_by_sigterm_is_said_in_words(tmp_path):
    run = toy(tmp_path, "class Terminated(SystemExit):\n    pass\n\nraise Terminated(143)")
    assert run_notebook(run).error.partition(": ")[2].startswith("was stopped by SIGTERM and saved")


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A stand-in for squeue: call it with the answers that it gives, the last one for ever."""
    monkeypatch.setattr(slurm.time, "sleep", lambda _: None)

    def answer(*texts: str | None) -> None:
        left = list(texts)

        def run(command, **_):
            text = left.pop(0) if len(left) > 1 else left[0]
            said = "" if text is None else text
            error = "slurm_load_jobs error: Unable to contact slurm controller"
            return subprocess.CompletedProcess(command, int(text is None), said, error)

        monkeypatch.setattr(slurm.subprocess, "run", run)
        monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/bin/{name}")

    return answer


def job(tmp_path, number="9_0") -> slurm.Job:
    return slurm.Job(NotebookRun(Path("a.ipynb"), tmp_path / "a.ipynb", ()), number, "9.err")


def test_a_job_that_slurm_starts_again_is_waited_for(tmp_path, squeue):
    one = job(tmp_path)
    write_outcome(Outcome(one.run, False, 3.0, "stopped"))  # by the preemption
    squeue("9_0|PENDING|(BeginTime)", None, "9_0|RUNNING|node1", "9_0|COMPLETED|node1")
    [outcome] = slurm.wait_for_jobs([one], patience=0.0)
    assert outcome.error == "stopped"  # what is there when it has left the queue, not before
    squeue("9_0|RUNNING|node1", "9_0|COMPLETING|node1", "9_0|NODE_FAIL|node1")
    read_outcome(one.run)
    (tmp_path / "a.outcome.json").unlink()
    [outcome] = slurm.wait_for_jobs([one], patience=0.0)
    assert outcome.error == "job 9_0 ended without a result (node fail); see 9.err"
    assert read_outcome(one.run) == outcome


def test_silence_of_slurm_ends_no_job(tmp_path, squeue):
    one = job(tmp_path)
    squeue(None, None, None, "")
    [outcome] = slurm.wait_for_jobs([one], patience=0.0)
    assert not outcome.ok and "no longer in the queue" in outcome.error
    write_outcome(Outcome(one.run, True, 3.0))
    squeue(None)
    [outcome] = slurm.wait_for_jobs([one], patience=0.0)
    assert outcome.ok


def test_what_ended_well_is_believed_when_its_receipt_is_there(tmp_path, squeue):
    receipt = tmp_path / "train.receipt.json"
    run = NotebookRun(Path("a.ipynb"), tmp_path / "a.ipynb", (receipt,))
    write_outcome(Outcome(run, True, 3.0))
    squeue("")
    [outcome] = slurm.wait_for_jobs([slurm.Job(run, "9", "9.err")], patience=0.0)
    assert not outcome.ok
    write_outcome(Outcome(run, True, 3.0))
    receipt.write_text("{}")
    assert slurm.wait_for_jobs([slurm.Job(run, "9", "9.err")], patience=0.0)[0].ok


def test_without_slurm_or_submitit_one_line_says_so(monkeypatch):
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None if name == "sbatch" else name)
    with pytest.raises(InputError, match="there is no sbatch on this machine's PATH"):
        slurm.check_cluster()
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs submitit; install it with"):
        slurm.check_cluster()
