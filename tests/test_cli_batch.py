"""`facecomp batch`: fresh processes, receipts decide what runs, one line for what fails."""

import pytest

from facecomp import cli, cli_batch

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
    failed = [line for line in out.splitlines() if line.startswith("failed")]
    assert len(failed) == 1 and "BB0" in failed[0] and ".ipynb" in failed[0]
    code, out, _ = run(capsys, tmp_path / "m", "--over", "participant=all", "-p", f"data={data}", "--dry-run")
    assert code == 0 and "the receipt verifies" in out and "would run" not in out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nbs/psm/run_trian.ipynb"], "no such notebook"),
        (["nbs/psm/paper_figure2.ipynb"], "is not a run notebook"),
        (["nbs/faces/01_video.ipynb"], "is not a run notebook"),
        ([NOTEBOOK, "--over", "participant"], "--over participant"),
        ([NOTEBOOK, "--over", "participant=all"], "needs -p data="),
        ([NOTEBOOK, "-p", "epoch=3"], "did you mean 'epochs'?"),
        ([NOTEBOOK, "-p", "epochs"], "-p epochs"),
        ([NOTEBOOK, "--over", "seed=1,2"], "this one folder"),
        ([NOTEBOOK, "--jobs", "0"], "--jobs 0"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, arguments, words):
    assert cli.main(["batch", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
