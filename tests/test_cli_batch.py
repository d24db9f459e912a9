"""`facecomp batch`: fresh processes, receipts decide what runs, one line for what fails."""

import os
from pathlib import Path

import pytest

from facecomp import cli, cli_batch
from facecomp.records.batch import NotebookRun, Outcome, write_outcome
from facecomp.records.files import run_lock

NOTEBOOK = "nbs/psm/run_train.ipynb"
SMALL = ("epochs=1", "batch_size=2", "width=16", "frames=6", "sheet_epochs=0", "device=cpu")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    from conftest import ROOT

    monkeypatch.chdir(ROOT)


def run(capsys, out, *arguments):
    """(exit code, standard output, standard error)."""
    given = [x for p in (*SMALL, f"out={out}") for x in ("-p", p)]
    try:
        code = cli.main(["batch", NOTEBOOK, *given, *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_a_batch_runs_what_is_not_proven_and_nothing_else(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_batch, "project_root", lambda: tmp_path)  # executed notebooks
    both = ("--over", "participant=BA1,BA2", "--jobs", 2)
    code, out, error = run(capsys, tmp_path / "m", *both)
    assert (code, "2 made, 0 failed" in out) == (0, True), out + error
    assert len(list(tmp_path.rglob("*.ipynb"))) == 2
    receipts = sorted((tmp_path / "m").rglob("train.receipt.json"))
    before = [r.read_text() for r in receipts]
    code, out, _ = run(capsys, tmp_path / "m", *both)
    assert code == 0 and "2 were done, 0 made" in out and [r.read_text() for r in receipts] == before
    (receipts[1].parent / "losses.txt").write_text("damaged")
    code, out, _ = run(capsys, tmp_path / "m", *both, "--dry-run")
    assert out.count("would run") == 1 and "BA2" in out.split("would run")[1] and "losses.txt" in out
    code, out, _ = run(capsys, tmp_path / "m", *both)
    assert code == 0 and "1 were done, 1 made" in out
    assert receipts[0].read_text() == before[0] and receipts[1].read_text() != before[1]
    code, out, _ = run(capsys, tmp_path / "m", *both, "-p", "epochs=2", "--dry-run")
    assert out.count("epochs is 2, was 1") == 2


def test_one_that_fails_does_not_stop_the_others(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_batch, "project_root", lambda: tmp_path)
    from facecomp.psm.people import make_synthetic

    data = make_synthetic(tmp_path / "data", "BB1", "PSM", 6)
    code, out, _ = run(capsys, tmp_path / "m", "--over", "participant=BB0,BB1", "-p", f"data={data}")
    assert code == 2 and "1 made, 1 failed" in out
    told, shown = [line for line in out.splitlines() if line.startswith("failed")]
    assert "BB0" in told and ".ipynb" in told
    assert "BB0" in shown and shown.split()[-1].endswith("/BB0.ipynb")
    code, out, _ = run(capsys, tmp_path / "m", "--over", "participant=all", "-p", f"data={data}", "--dry-run")
    assert code == 0 and "the receipt verifies" in out and "would run" not in out


def test_status_shows_where_every_run_stands_and_a_run_that_is_held_is_not_started(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_batch, "project_root", lambda: tmp_path)
    monkeypatch.setattr(cli_batch, "run_notebooks", lambda todo, *_, **__: started.extend(todo) or [])
    started = []
    names = ("BC1", "BC2", "BC3")
    everything = ("--over", f"participant={','.join(names)}")
    held, failed, fresh = (tmp_path / "m" / "PSM" / name for name in names)
    executed = tmp_path / "results/psm/batch/run_train/BC2.ipynb"
    of_failed = NotebookRun(Path(NOTEBOOK), executed, ())
    write_outcome(Outcome(of_failed, False, 3.0, f"{executed}: KeyError: 'face'"))
    with run_lock(held / "run.lock"):
        code, out, _ = run(capsys, tmp_path / "m", *everything, "--status")
        table = [line.split(maxsplit=2) for line in out.splitlines()[2:]]
        assert code == 0 and [row[0] for row in table] == ["running", "failed", "not"]
        assert f"by process {os.getpid()} on" in table[0][2]
        assert table[1][2].split() == ["KeyError:", "'face'", str(executed)]
        assert started == []
        code, out, _ = run(capsys, tmp_path / "m", *everything, "--dry-run")
        assert [line.split()[0] for line in out.splitlines()[2:]] == ["running", "would", "would"]
        assert "it failed: KeyError" in out
        code, out, _ = run(capsys, tmp_path / "m", *everything, "--force")
        assert code == 1 and "1 running or waiting" in out
        assert [r.parameters["participant"] for r in started] == ["BC2", "BC3"]
    code, out, _ = run(capsys, tmp_path / "m", *everything, "--status")
    assert {line.split()[0] for line in out.splitlines()[2:]} == {"not"}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nbs/psm/run_trian.ipynb"], "no such notebook"),
        (["nbs/psm/paper_figure2.ipynb"], "is not a run notebook"),
        (["nbs/faces/01_video.ipynb"], "is not a run notebook"),
        ([NOTEBOOK, "--over", "participant"], "--over participant"),
        ([NOTEBOOK, "--over", "approach=all"], "only participant=all is known"),
        ([NOTEBOOK, "-p", "epoch=3"], "did you mean 'epochs'?"),
        ([NOTEBOOK, "-p", "epochs"], "-p epochs"),
        ([NOTEBOOK, "--over", "seed=1,2"], "this one folder"),
        ([NOTEBOOK, "--jobs", "0"], "--jobs 0"),
        ([NOTEBOOK, "--partition", "gpu"], "--partition: needs --slurm"),
        ([NOTEBOOK, "--at-once", "2"], "--at-once: needs --slurm"),
        ([NOTEBOOK, "--slurm-option", "exclusive"], "--slurm-option: needs --slurm"),
        ([NOTEBOOK, "--no-wait"], "--no-wait: needs --slurm"),
        ([NOTEBOOK, "--slurm"], "needs --time"),
        ([NOTEBOOK, "--slurm", "--time", "8h"], "--time 8h: must be minutes"),
        ([NOTEBOOK, "--slurm", "--time", "60", "--jobs", "2"], "--jobs 2: is for runs on this machine"),
        ([NOTEBOOK, "--slurm", "--time", "60", "--gpus", "two"], "--gpus two: must be"),
        ([NOTEBOOK, "--slurm", "--time", "60", "--at-once", "0"], "--at-once 0: must be 1 or more"),
        ([NOTEBOOK, "--slurm", "--time", "60", "--slurm-option", "array=1"], "array is decided by"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, arguments, words):
    assert cli.main(["batch", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error


def test_all_without_data_are_two_synthetic_people(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_batch, "project_root", lambda: tmp_path)
    code, out, _ = run(capsys, tmp_path / "m", "--over", "participant=all", "--dry-run")
    assert code == 0 and out.count("would run") == 2 and "SYN01" in out and "SYN02" in out
