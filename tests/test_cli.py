"""The command line: exit codes, one clear line for bad input, help with examples."""

import json
import shutil

import pytest
from conftest import ROOT, published_folder, run_cells

from facecomp import cli
from facecomp.paper import reproduce as engine
from facecomp.records.batch import Outcome
from facecomp.records.receipts import read_receipt, receipt_path, write_receipt


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    try:
        code = cli.main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Stand-ins in a folder of one's own."""
    from facecomp.paper.sources import load_study, open_results

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        source = open_results(load_study("psm"), "synthetic").path("neu_face_dict").parent
    return shutil.copytree(source, tmp_path_factory.mktemp("runs"), dirs_exist_ok=True)


@pytest.fixture
def in_process(monkeypatch):
    """Paper notebooks run in this process instead of in kernels."""

    def run_here(runs, jobs=2, done=None, quiet=False):
        outcomes = []
        for r in runs:
            run_cells(r.notebook.stem, **r.parameters)
            outcomes.append(Outcome(r, True, 0.0))
        return outcomes

    monkeypatch.setattr(engine, "run_notebooks", run_here)


@pytest.mark.parametrize("command", [[], *([c] for c in cli.COMMANDS)])
def test_help_has_examples(capsys, command):
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert ("examples:\n  " in out) == bool(command)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["figures", "--source", "nowhere"],
            "source='nowhere': must be one of published, runs, synthetic",
        ),
        (["figures", "pms"], "study='pms': is not a study of facecomp"),
        (["status", "psm", "--results-dir", "no/such"], "no/such: no such folder"),
        (["reproduce", "--source", "synthetic", "--palette", "pink"], "palette='pink'"),
        (["figures", "--jobs", "0"], "'0' is not a number of 1 or more"),
        (["figure"], "invalid choice: 'figure'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, tmp_path, arguments, line):
    if arguments[0] != "status" and "--jobs" not in arguments and arguments[0] in cli.COMMANDS:
        arguments = [*arguments, "--out", str(tmp_path)]
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert line in error.strip().splitlines()[-1]
    assert "Traceback" not in error


def test_a_published_folder_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setenv("FACECOMP_PUBLISHED", "/no/such/folder")
    for command in ("reproduce", "status", "fetch", "doctor"):
        code, _, error = run(capsys, command)
        assert (code, error) == (
            2,
            "facecomp: FACECOMP_PUBLISHED=/no/such/folder: no such folder\n",
        )


DAMAGE = {
    "empty": (lambda data: b"", "is empty (0 bytes)"),
    "truncated": (lambda data: data[:100], "is truncated"),
    "a web page": (lambda data: b"<!DOCTYPE html><title>404</title>", "is a web page"),
    "another file": (lambda data: data[:-2] + b"x.", "SHA-256"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["fetch", "reproduce"])
def test_damaged_published_files(capsys, monkeypatch, tmp_path, in_process, damage, command):
    folder = published_folder()
    if folder is None:
        pytest.skip("the published PSM result files are not here")
    change, reason = DAMAGE[damage]
    own = shutil.copytree(folder, tmp_path / "own")
    path = own / "epoch_by_epoch_CTL_Figure6.pickle"
    path.write_bytes(change(path.read_bytes()))
    monkeypatch.setenv("FACECOMP_PUBLISHED", str(own))
    monkeypatch.setattr(engine, "run_notebooks", lambda runs, jobs, quiet: [])
    more = ["--out", str(tmp_path / "out")] if command == "reproduce" else []
    code, _, error = run(capsys, command, *more)
    assert code == 2
    assert error.count("\n") == 1 and str(path) in error and reason in error


def test_reproduce_from_own_runs_then_status(capsys, tmp_path, results, in_process):
    common = ["--source", "runs", "--results-dir", str(results), "--out", str(tmp_path)]
    code, out, error = run(capsys, "reproduce", "psm", *common)
    assert (code, error) == (0, "")
    assert "psm: 16 figures and tables, 16 to make" in out
    assert (
        out.strip().splitlines()[-1]
        == f"All figures, comparisons and provenance: {tmp_path}/index.html"
    )
    assert "mean/PSM" in out and "published" in out and "verdict" in out
    code, out, _ = run(capsys, "figures", "psm", *common)
    assert code == 0 and "0 to make" in out and f"{tmp_path}/psm/fig4c.png" in out
    code, out, _ = run(capsys, "status", *common)
    assert code == 0 and out.count(" fresh ") == 16
    code, out, _ = run(capsys, "status", *common, "--json")
    assert {s["state"] for s in json.loads(out)} == {"fresh"}


def test_a_run_without_a_needed_result_says_which(capsys, tmp_path, results, monkeypatch):
    few = shutil.copytree(results, tmp_path / "few")
    (few / "neu_face_dict.pickle").unlink()
    monkeypatch.setattr(engine, "run_notebooks", lambda runs, jobs, quiet: [])
    code, _, error = run(
        capsys,
        "figures",
        "--source",
        "runs",
        "--results-dir",
        str(few),
        "--out",
        str(tmp_path / "o"),
    )
    assert code == 0  # what can be drawn is drawn
    assert error == f"facecomp: not drawn: fig5c (neu_face_dict.pickle is not in {few})\n"


def test_a_failed_notebook_is_code_1_and_named(capsys, tmp_path, results, monkeypatch):
    def fail(runs, jobs, quiet):
        return [
            Outcome(r, False, 1.0, f"{r.executed}: DeadKernelError: Kernel died") for r in runs[:1]
        ]

    monkeypatch.setattr(engine, "run_notebooks", fail)
    code, _, error = run(
        capsys, "figures", "--source", "runs", "--results-dir", str(results), "--out", str(tmp_path)
    )
    assert code == 1
    assert (
        error
        == f"facecomp: failed: {tmp_path}/psm/notebooks/paper_figure2.ipynb: DeadKernelError: Kernel died\n"
    )


def test_a_number_that_differs_is_code_1(capsys, tmp_path, monkeypatch):
    folder = published_folder()
    if folder is None:
        pytest.skip("the published PSM result files are not here")
    monkeypatch.setenv("FACECOMP_PUBLISHED", str(folder))
    run_cells("paper_table_aus", source="published", out_dir=str(tmp_path))
    monkeypatch.setattr(engine, "run_notebooks", lambda runs, jobs, quiet: [])
    assert run(capsys, "reproduce", "--out", str(tmp_path))[0] == 0
    path = tmp_path / "psm" / "table_aus.compare.csv"
    text = path.read_text()
    assert "persons_with/au5,3,3,0.0,0.0,equal" in text
    path.write_text(
        text.replace("persons_with/au5,3,3,0.0,0.0,equal", "persons_with/au5,3,4,1.0,0.0,DIFFERS")
    )
    code, _, error = run(capsys, "reproduce", "--out", str(tmp_path))
    assert code == 1
    assert "table_aus: persons_with/au5 DIFFERS: published 3, ours 4" in error


def test_fetch_offline_says_so_for_every_file(capsys):
    code, out, _ = run(capsys, "fetch", "psm")
    assert code == 1
    assert out.count("not to be had:") == 11 and "FACECOMP_OFFLINE is set" in out
    assert "e9df7e3" in out and "licence: none stated" in out


def test_doctor_finds_data_sets(capsys, monkeypatch, tmp_path):
    (tmp_path / "DISFA").mkdir()
    monkeypatch.setenv("FACECOMP_DATA", str(tmp_path))
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert "data sets found: DISFA\n" in out and "published files of psm: 0 of 11 at hand" in out
    assert "device: " in out and "disk free: " in out


def test_receipts_of_stand_ins_are_marked(results):
    receipt = read_receipt(receipt_path(results, "neu_face_dict"))
    assert (receipt.data, receipt.seed) == ("synthetic", 0)
    assert "facecomp.psm.simulation.simulate_results" in receipt.code
    assert (
        write_receipt(results, receipt, [results / "neu_face_dict.pickle"]).name
        == "neu_face_dict.receipt.json"
    )
