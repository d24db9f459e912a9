"""Runs resume bit-equal from any kill; NaN names its batch; one of two launchers trains; processes agree."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from toy_training import train

from facecomp.data.sampling import EpochSampler
from facecomp.records.files import InputError
from facecomp.training import loop
from facecomp.training.checkpoint import CheckpointFolder, read_checkpoint
from facecomp.training.history import draw_history, history_csv
from facecomp.training.loop import NonFiniteLoss, StopSignal, Terminated
from facecomp.training.options import Options, make_fabric

TOY = Path(__file__).with_name("toy_training.py")


def child(folder: Path, **arguments) -> int:
    """Train in a forked process; returns its exit code, or minus the signal that killed it."""
    process = os.fork()
    if process == 0:
        code = 70
        try:
            train(folder, **arguments)
            code = 0
        except SystemExit as error:
            code = error.code
        except BaseException as error:
            print(type(error), error, file=sys.stderr)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def result(folder: Path) -> tuple[dict, str]:
    """Weights of the last checkpoint and the history's text."""
    store = CheckpointFolder(folder)
    return read_checkpoint(store.paths()[-1])["models"]["net"], (folder / "history.csv").read_text()


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[dict, str]:
    """Result of the run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert child(folder) == 0
    return result(folder)


# ---------------------------------------------------------------- kills


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_9_at_random_steps_and_restart_is_bit_equal(tmp_path, alone, workers):
    draw = random.Random(workers)
    for _ in range(6):
        die = (draw.randint(3, 4), draw.choice(["middle", "end"]))
        assert child(tmp_path, workers=workers, die=die) == -signal.SIGKILL
    log = (tmp_path / "log.txt").read_text()
    assert log.count("going on from") == 5 and "finished" not in log
    assert child(tmp_path, workers=workers) == 0
    weights, history = result(tmp_path)
    assert equal(weights, alone[0]) and history == alone[1]


def test_kill_9_at_random_moments_and_restart_is_bit_equal(tmp_path, alone):
    draw = random.Random(5)
    for _ in range(8):
        process = os.fork()
        if process == 0:
            train(tmp_path, pause=0.004)
            os._exit(0)
        time.sleep(draw.uniform(0.02, 0.2))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert child(tmp_path) == 0
    weights, history = result(tmp_path)
    assert equal(weights, alone[0]) and history == alone[1]
    assert not list(tmp_path.glob(".checkpoint*"))


def forget_optimiser(state, fresh):
    state["optimizers"] = fresh["optimizers"]


def forget_scheduler(state, fresh):
    state["schedulers"]["decay"]["last_epoch"] = 0


def forget_torch(state, fresh):
    state["generators"][0]["torch"] = fresh["generators"][0]["torch"]


def forget_named(state, fresh):
    state["generators"][0]["named"] = fresh["generators"][0]["named"]


def forget_step(state, fresh):
    state["step"] = 0


def forget_sums(state, fresh):
    state["running"][0] = fresh["running"][0]


LEFT_OUT = [
    forget_optimiser,
    forget_scheduler,
    forget_torch,
    forget_named,
    forget_step,
    forget_sums,
]


@pytest.mark.parametrize("forget", LEFT_OUT)
def test_a_state_that_is_left_out_shows(tmp_path, alone, forget):
    """Negative control: the comparison sees every part of the state."""
    with pytest.raises(Terminated):
        train(tmp_path / "fresh", die=(1, "middle"), kill=signal.SIGTERM)
    with pytest.raises(Terminated):
        train(tmp_path / "run", die=(9, "end"), kill=signal.SIGTERM)
    fresh = read_checkpoint(CheckpointFolder(tmp_path / "fresh").paths()[-1])
    path = CheckpointFolder(tmp_path / "run").paths()[-1]
    state = read_checkpoint(path)
    forget(state, fresh)
    torch.save(state, path)
    train(tmp_path / "run")
    weights, history = result(tmp_path / "run")
    assert not (equal(weights, alone[0]) and history == alone[1])


def test_a_damaged_newest_checkpoint_changes_nothing_in_the_end(tmp_path, alone):
    assert child(tmp_path, die=(9, "end")) == -signal.SIGKILL
    newest = CheckpointFolder(tmp_path).paths()[-1]
    newest.write_bytes(newest.read_bytes()[:-40])
    weights = train(tmp_path)
    assert equal(weights, alone[0]) and result(tmp_path)[1] == alone[1]
    assert (tmp_path / "log.txt").read_text().count("; going on from checkpoint") == 1


# ---------------------------------------------------------------- SIGTERM


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["middle", "end"])
def test_sigterm_saves_exits_143_and_resumes_bit_equal(tmp_path, alone, workers, where):
    code = child(tmp_path, workers=workers, die=(9, where), kill=signal.SIGTERM, checkpoint_steps=0)
    assert code == 143
    assert CheckpointFolder(tmp_path).paths()[-1].name == "checkpoint-000002-00000003.pt"
    assert child(tmp_path, workers=workers) == 0
    weights, history = result(tmp_path)
    assert equal(weights, alone[0]) and history == alone[1]


def program(folder: Path, **arguments) -> subprocess.Popen:
    command = [sys.executable, str(TOY), str(folder), json.dumps(arguments)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.02)


def test_sigterm_to_the_whole_group_of_a_program_with_workers(tmp_path, alone):
    """As a job manager sends it: to the trainer and to its data workers."""
    process = program(tmp_path, workers=2, pause=0.05)
    wait_for(tmp_path / "checkpoint-000001-00000002.pt")
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 143, said
    assert "SIGTERM: saved at epoch" in (tmp_path / "log.txt").read_text()
    train(tmp_path)
    weights, history = result(tmp_path)
    assert equal(weights, alone[0]) and history == alone[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_while_data_do_not_come(tmp_path, workers):
    process = os.fork()
    if process == 0:
        try:
            train(tmp_path, workers=workers, slow=20.0 if workers == 0 else 4.0, items=4)
        except SystemExit as error:
            os._exit(error.code)
        os._exit(71)
    wait_for(tmp_path / "log.txt")
    time.sleep(0.5)
    start = time.monotonic()
    os.kill(process, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 143
    assert time.monotonic() - start < 10
    assert CheckpointFolder(tmp_path).paths()[-1].name == "checkpoint-000001-00000000.pt"


def test_the_old_handler_is_back_and_threads_do_without(tmp_path):
    def mine(*_):
        pass

    old = signal.signal(signal.SIGTERM, mine)
    try:
        train(tmp_path / "a", epochs=1)
        assert signal.getsignal(signal.SIGTERM) is mine
        with pytest.raises(Terminated):
            train(tmp_path / "b", die=(2, "end"), kill=signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, old)
    found = []

    def body():
        found.append(train(tmp_path / "c", epochs=1))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert equal(found[0], result(tmp_path / "a")[0])


def test_stop_signal_raises_only_while_waiting():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.seen
        stop.waiting = True
        with pytest.raises(Terminated) as error:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
    assert error.value.code == 143


# ---------------------------------------------------------------- what is not finite


@pytest.mark.parametrize("check_steps", [1, 5])
def test_a_nan_loss_stops_with_the_batch_named_and_the_last_good_checkpoint(tmp_path, check_steps):
    with pytest.raises(NonFiniteLoss) as error:
        train(tmp_path, nan=(2, 3), check_steps=check_steps, checkpoint_steps=3)
    items = [int(item) for item in list(EpochSampler(22, 0, 4, epoch=2))[3]]
    assert (error.value.epoch, error.value.step, error.value.items) == (2, 3, items)
    assert "loss square is nan" in str(error.value) and "\n" not in str(error.value)
    last = CheckpointFolder(tmp_path).paths()[-1]
    assert last.name == "checkpoint-000002-00000003.pt" and last.name in str(error.value)
    assert all(bool(torch.isfinite(v).all()) for v in result(tmp_path)[0].values())
    assert "items" in (tmp_path / "log.txt").read_text()


def test_the_weights_in_memory_are_from_before_the_bad_batch(tmp_path):
    with pytest.raises(NonFiniteLoss):
        train(tmp_path / "bad", nan=(1, 2), checkpoint_steps=2)
    assert child(tmp_path / "bad", epochs=1) == 0
    assert equal(train(tmp_path / "good", epochs=1), result(tmp_path / "bad")[0])


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    parts = loop.Parts({"net": torch.nn.Linear(1, 1)}, {})
    options = Options(device="cpu", progress=False)
    with loop.Run(tmp_path, parts, options) as run:
        run.save()
        with torch.no_grad():
            parts.models["net"].weight.fill_(float("inf"))
        with pytest.raises(
            NonFiniteLoss, match="weights of net not finite.*last good checkpoint is"
        ):
            run.save()
    assert len(CheckpointFolder(tmp_path).paths()) == 1


# ---------------------------------------------------------------- launchers, folders, options


def test_of_two_launchers_exactly_one_trains(tmp_path, alone):
    first = program(tmp_path, pause=0.05, lock_wait=0)
    log, end = tmp_path / "log.txt", time.monotonic() + 100
    while not (log.exists() and "new run" in log.read_text()):
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGSTOP)  # it stays in the middle, however slow the second one starts
    try:
        second = program(tmp_path, pause=0.05, lock_wait=0)
        said = second.communicate(timeout=120)[1]
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 1 and "already worked on by process" in said
    assert first.communicate(timeout=120) and first.returncode == 0
    weights, history = result(tmp_path)
    assert equal(weights, alone[0]) and history == alone[1]
    assert (tmp_path / "log.txt").read_text().count("new run") == 1


def test_another_identity_or_other_parts_are_refused(tmp_path):
    train(tmp_path, epochs=1, identity={"width": 4, "rate": 0.1})
    before = result(tmp_path)
    with pytest.raises(InputError, match="started with width 4, now 5"):
        train(tmp_path, epochs=1, identity={"width": 5, "rate": 0.1})
    with pytest.raises(InputError, match="started with rate 0.1, now nothing"):
        train(tmp_path, epochs=1, identity={"width": 4})
    with pytest.raises(InputError, match="started with seed 0, now 7"):
        train(tmp_path, epochs=1, seed=7, identity={"width": 4, "rate": 0.1})
    after = result(tmp_path)
    assert equal(before[0], after[0]) and before[1] == after[1]


def test_more_epochs_continue_a_finished_run(tmp_path, alone):
    train(tmp_path, epochs=2)
    assert equal(train(tmp_path, epochs=3), alone[0])
    assert result(tmp_path)[1] == alone[1]


def test_kept_epochs_sheets_history_and_the_number_of_workers(tmp_path, alone):
    seen = []

    def sheet(path, epoch):
        seen.append((epoch, torch.is_grad_enabled(), torch.rand(1)))
        draw_history([{"epoch": 1, "a": 1.0}], path)

    weights = train(
        tmp_path, workers=2, save_epochs=(1, 3), sheet_epochs=2, sheet=sheet, check_steps=4
    )
    assert equal(weights, alone[0]) and result(tmp_path)[1] == alone[1]
    assert [(epoch, grad) for epoch, grad, _ in seen] == [(2, False), (3, False)]
    assert sorted(p.name for p in tmp_path.glob("epoch-*")) == [
        "epoch-000001.pt",
        "epoch-000003.pt",
    ]
    assert equal(read_checkpoint(tmp_path / "epoch-000003.pt")["models"]["net"], alone[0])
    assert len(list((tmp_path / "sheets").glob("*.png"))) == 2
    assert (tmp_path / "history.png").stat().st_size > 1000
    assert len(CheckpointFolder(tmp_path).paths()) == 3


def test_checkpoints_only_at_the_end(tmp_path, alone):
    train(tmp_path, checkpoint_epochs=0, checkpoint_steps=0)
    assert [p.name for p in CheckpointFolder(tmp_path).paths()] == ["checkpoint-000004-00000000.pt"]


def test_history_of_missing_values_and_of_nothing(tmp_path):
    rows = [{"epoch": 1, "steps": 2, "a": -1.0}, {"epoch": 2, "steps": 2, "b": 0.1}]
    assert history_csv(rows) == "epoch,steps,a,b\n1,2,-1.0,\n2,2,,0.1\n"
    draw_history(rows, tmp_path / "a.png")
    draw_history([], tmp_path / "b.png")
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_mixed_precision_is_near_and_resumes_bit_equal(tmp_path, alone, precision):
    how = {"precision": precision, "device": "cpu" if precision == "bf16" else "cuda"}
    if precision == "16" and not torch.cuda.is_available():
        with pytest.raises(InputError, match="precision 16: not on the CPU"):
            train(tmp_path, precision="16")
        pytest.skip("no CUDA device for precision 16")
    once = train(tmp_path / "once", **how)
    with pytest.raises(Terminated):
        train(tmp_path / "twice", die=(9, "end"), kill=signal.SIGTERM, **how)
    assert equal(train(tmp_path / "twice", **how), once)
    assert not equal(once, alone[0])
    assert all(torch.allclose(once[k], alone[0][k], atol=0.05) for k in once)


def test_compiled_models_have_plain_names_in_their_checkpoints(tmp_path, alone, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: real(model, backend="eager"))
    train(tmp_path, compile=True, epochs=1)
    assert result(tmp_path)[0].keys() == alone[0].keys()


def test_a_device_that_is_not_there_and_wrong_options():
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device cuda"):
            make_fabric(Options(device="cuda"))
    for wrong in ({"epochs": 0}, {"check_steps": -1}, {"save_epochs": (9,)}, {"precision": "64"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Options(**wrong)


def test_the_progress_bar_counts_the_whole_run(tmp_path, capsys):
    train(tmp_path, progress=True)
    said = capsys.readouterr().err
    assert "18/18" in said and "epoch 3/3" in said and "square=" in said
    assert "finished after epoch 3" in said
