"""Notebooks in processes of their own: done only when the receipt of this very run says so."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facecomp.records import batch
from facecomp.records.batch import NotebookRun, check_parameters, run_notebook, run_notebooks
from facecomp.records.files import InputError
from facecomp.records.receipts import Receipt, write_receipt

ROOT = Path(__file__).resolve().parents[1]

WRITES_ITS_RECEIPT = """
from pathlib import Path
from facecomp.records.receipts import Receipt, write_receipt
made = Path(out) / "made.txt"
made.write_text(f"{word} in {Path.cwd().name}")
write_receipt(Path(out), Receipt("toy", "toy", "toy", "synthetic", {"word": word}), [made])
"""
ENDS = {
    "its own kernel killed": ("import os\nos.kill(os.getpid(), 9)", "DeadKernelError", False),
    "a mistake of the user": (
        "from facecomp.records.files import InputError\nraise InputError('a.csv: row 3: no face')",
        "a.csv: row 3: no face",
        True,
    ),
}


@pytest.fixture(autouse=True)
def fresh_surroundings(monkeypatch, tmp_path):
    monkeypatch.delenv("FACECOMP_RUN", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel starts elsewhere
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


def notebook(path, *cells):
    """A notebook whose first cell holds its parameters."""
    tags = [["parameters"], *([] for _ in cells)]
    sources = ["out: str = 'nowhere'\nword: str = 'plain'", *cells]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    content = {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": f"cell-{i}",
                "metadata": {"tags": t},
                "outputs": [],
                "source": s.strip(),
            }
            for i, (s, t) in enumerate(zip(sources, tags, strict=True))
        ],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(content))
    return path


def toy(folder, *cells, **parameters):
    given = {"out": str(folder / "out"), **parameters}
    path = notebook(folder / "toy.ipynb", *cells)
    (folder / "out").mkdir(exist_ok=True)
    receipt = folder / "out" / "toy.receipt.json"
    return NotebookRun(path, folder / "done" / "toy.ipynb", (receipt,), given)


def saved_text(path):
    return "".join(
        "".join(output.get("text", "")) + output.get("evalue", "")
        for cell in json.loads(path.read_text())["cells"]
        for output in cell.get("outputs", [])
    )


# --- real kernels (each takes some seconds) ----------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One batch of three notebooks, two at a time, and the order in which they were reported."""
    folders = [tmp_path_factory.mktemp(name) for name in ("good", "killed", "mistake")]
    runs = [toy(folders[0], WRITES_ITS_RECEIPT, "print('done: ' + word)", word="très long")]
    runs += [
        toy(folder, f"print('before', word)\n{code}", "never_reached")
        for folder, (code, *_) in zip(folders[1:], ENDS.values(), strict=True)
    ]
    reported = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("FACECOMP_RUN", raising=False)
        outcomes = run_notebooks(runs, jobs=2, done=reported.append, quiet=True)
    return runs, outcomes, reported


def test_outcomes_are_in_the_order_of_the_runs_and_each_is_reported_once(finished):
    runs, outcomes, reported = finished
    assert [outcome.run for outcome in outcomes] == runs
    assert len(reported) == 3
    assert {id(outcome) for outcome in reported} == {id(outcome) for outcome in outcomes}


def test_notebook_with_its_receipt_is_done(finished):
    (run, *_), (outcome, *_), _ = finished
    assert (outcome.ok, outcome.error, outcome.input_error) == (True, "", False)
    assert (run.receipts[0].parent / "made.txt").read_text() == (
        f"très long in {run.notebook.parent.name}"
    )
    assert saved_text(run.executed) == "done: très long\n"
    assert json.loads(run.receipts[0].read_text())["run"] not in ("", None)
    assert 0.5 < outcome.seconds < 60


def test_killed_kernel_is_a_failure_that_names_the_executed_notebook(finished):
    run, outcome = finished[0][1], finished[1][1]
    assert (outcome.ok, outcome.input_error) == (False, False)
    assert outcome.error.startswith(f"{run.executed}: DeadKernelError: ")
    assert "\n" not in outcome.error
    assert run.executed.is_file()


def test_mistake_of_the_user_is_told_in_its_own_words(finished):
    run, outcome = finished[0][2], finished[1][2]
    assert (outcome.ok, outcome.input_error) == (False, True)
    assert outcome.error == "a.csv: row 3: no face"
    assert "before plain\n" in saved_text(run.executed)


def test_nothing_half_written_lies_beside_the_executed_notebooks(finished):
    for run in finished[0]:
        assert sorted(p.name for p in run.executed.parent.iterdir()) == ["toy.ipynb", "toy.log"]


def processes_with(word):
    """Ids of processes, zombies left out, whose command line or environment holds `word`."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            said = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            zombie = ") Z " in (folder / "stat").read_text()
        except OSError:
            continue
        if word.encode() in said and not zombie and int(folder.name) != os.getpid():
            found.add(int(folder.name))
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


LAUNCHER = """
import sys
from pathlib import Path
from facecomp.records.batch import NotebookRun, run_notebook
folder = Path(sys.argv[1])
out = {"out": str(folder / "out")}
run_notebook(NotebookRun(folder / "toy.ipynb", folder / "done" / "toy.ipynb", (), out))
"""
SLEEPS = """
import os, time
from pathlib import Path
(Path(out) / "kernel.pid").write_text(str(os.getpid()))
time.sleep(300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ends with its parent on Linux only")
def test_killed_launcher_takes_its_notebook_and_kernel_along(tmp_path):
    toy(tmp_path, SLEEPS)
    mark = {"TOY_MARK": f"mark of {tmp_path}"}
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path)], env={**os.environ, **mark}
    )
    pid_file = tmp_path / "out" / "kernel.pid"
    try:
        assert wait_for(lambda: pid_file.is_file() and pid_file.read_text() != "", 40)
        running = processes_with(mark["TOY_MARK"])
        assert {launcher.pid, int(pid_file.read_text())} < running
        assert len(running) >= 3  # launcher, its child, the kernel
        launcher.kill()
        assert launcher.wait() == -signal.SIGKILL
        assert wait_for(lambda: not processes_with(mark["TOY_MARK"]), 10)
    finally:
        for pid in processes_with(mark["TOY_MARK"]):
            os.kill(pid, signal.SIGKILL)
        launcher.wait()
    assert not (tmp_path / "done" / "toy.ipynb").exists()


# --- without a kernel -----------------------------------------------------------------------------


def instead(monkeypatch, code):
    """Let the child process run `code` in place of a kernel."""
    real = subprocess.run

    def run(command, **options):
        assert command[1:3] == ["-m", "facecomp.records.batch"]
        return real([command[0], "-c", code, command[3]], **options)

    monkeypatch.setattr(batch.subprocess, "run", run)


ANSWER = 'print(\'\\n{"ename": "", "evalue": ""}\')'
OWN_RECEIPT = (
    "import json, sys\n"
    "from pathlib import Path\n"
    "word, out = 'x', json.loads(sys.argv[1])['parameters']['out']\n" + WRITES_ITS_RECEIPT
)


def test_run_without_a_receipt_is_a_failure(tmp_path, monkeypatch):
    instead(monkeypatch, ANSWER)
    run = toy(tmp_path, "pass")
    outcome = run_notebook(run)
    assert (outcome.ok, outcome.input_error) == (False, False)
    assert outcome.error == (
        f"{run.executed}: no receipt toy.receipt.json: the kernel ended before the last cell"
    )


@pytest.mark.parametrize("earlier", ["", "0123456789abcdef"])
def test_receipt_of_an_earlier_run_does_not_count(tmp_path, monkeypatch, earlier):
    instead(monkeypatch, ANSWER)
    run = toy(tmp_path, "pass")
    made = tmp_path / "out" / "made.txt"
    made.write_text("earlier")
    write_receipt(made.parent, Receipt("toy", "toy", "toy", "real", run=earlier), [made])
    outcome = run_notebook(run)
    assert not outcome.ok
    assert outcome.error == (
        f"{run.executed}: the receipt toy.receipt.json is of an earlier run: "
        "the kernel ended before the last cell"
    )


def test_receipt_of_this_run_counts(tmp_path, monkeypatch):
    instead(monkeypatch, f"{OWN_RECEIPT}\n{ANSWER}")
    assert run_notebook(toy(tmp_path, "pass")).error == ""


def test_output_changed_after_the_receipt_is_a_failure(tmp_path, monkeypatch):
    instead(monkeypatch, f"{OWN_RECEIPT}\nmade.write_text('later')\n{ANSWER}")
    run = toy(tmp_path, "pass")
    outcome = run_notebook(run)
    assert outcome.error == f"{run.executed}: made.txt was changed after it was made"


def test_every_receipt_is_asked_for(tmp_path, monkeypatch):
    instead(monkeypatch, f"{OWN_RECEIPT}\n{ANSWER}")
    run = toy(tmp_path, "pass")
    second = run.receipts[0].with_name("second.receipt.json")
    both = NotebookRun(run.notebook, run.executed, (*run.receipts, second), run.parameters)
    assert "no receipt second.receipt.json" in run_notebook(both).error


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the process was killed by signal 9 before"),
        ("import sys; sys.exit(3)", "the process ended with exit code 3 before"),
        ("print('no answer')", "the process ended with exit code 0 before"),
        ("print(1)", "the process ended with exit code 0 before"),
        ("print('[]')", "the process ended with exit code 0 before"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "ended with exit code 0 before"),
        ("pass", "the process ended with exit code 0 before"),
    ],
)
def test_process_that_ends_without_an_answer(tmp_path, monkeypatch, code, fault):
    instead(monkeypatch, code)
    run = toy(tmp_path, "pass")
    outcome = run_notebook(run)
    assert (outcome.ok, outcome.input_error) == (False, False)
    assert outcome.error.startswith(f"{run.executed}: ")
    assert fault in outcome.error


def test_process_that_ends_early_leaves_no_empty_notebook(tmp_path, monkeypatch):
    instead(monkeypatch, "import sys; sys.exit(3)")
    run = toy(tmp_path, "pass")
    run.executed.parent.mkdir()
    run.executed.write_text("the notebook of an earlier run")
    run_notebook(run)
    assert not run.executed.exists() or run.executed.stat().st_size > 0


def test_broken_receipt_is_a_failure_and_not_the_end_of_the_batch(tmp_path, monkeypatch):
    instead(
        monkeypatch, f"{OWN_RECEIPT}\n(made.parent / 'toy.receipt.json').write_text('{{')\n{ANSWER}"
    )
    run = toy(tmp_path, "pass")
    (outcome,) = run_notebooks([run], quiet=True)
    assert not outcome.ok
    assert "toy.receipt.json: is not JSON" in outcome.error


def test_standard_error_goes_to_the_log(tmp_path, monkeypatch):
    instead(monkeypatch, f"import sys; print('a warning', file=sys.stderr); {ANSWER}")
    run = toy(tmp_path, "pass")
    run_notebook(run)
    assert run.executed.with_suffix(".log").read_text() == "a warning\n"


def test_one_failure_does_not_stop_the_others(tmp_path, monkeypatch):
    instead(
        monkeypatch, f"import sys\n'bad' in sys.argv[1] and sys.exit(1)\n{OWN_RECEIPT}\n{ANSWER}"
    )
    runs = []
    for name in ("bad", "good", "bad too"):
        (tmp_path / name).mkdir()
        runs.append(toy(tmp_path / name, "pass"))
    outcomes = run_notebooks(runs, jobs=1, quiet=True)
    assert [outcome.ok for outcome in outcomes] == [False, True, False]


def test_no_runs_at_all():
    assert run_notebooks([], quiet=True) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("wrod", "; did you mean 'word'?"), ("palette", "; it has out, word")],
)
def test_unknown_parameter_is_refused_before_anything_runs(tmp_path, monkeypatch, name, hint):
    instead(monkeypatch, "raise SystemExit('was run')")
    good, bad = toy(tmp_path, "pass"), toy(tmp_path, "pass", **{name: 1})
    for work in (lambda: check_parameters(bad), lambda: run_notebook(bad)):
        with pytest.raises(InputError) as caught:
            work()
        assert str(caught.value) == f"{bad.notebook}: has no parameter {name!r}{hint}"
    with pytest.raises(InputError, match="has no parameter"):
        run_notebooks([good, bad], quiet=True)
    assert not (tmp_path / "done").exists()


def test_notebook_that_is_not_there(tmp_path):
    run = NotebookRun(tmp_path / "absent.ipynb", tmp_path / "done.ipynb", ())
    with pytest.raises(InputError, match=f"^{tmp_path}/absent.ipynb: cannot be read"):
        run_notebook(run)
