"""`facecomp reproduce` as a reader starts it: no published files, killed, started again, nothing left to do."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from facecomp.paper.figures import read_provenance
from facecomp.paper.sources import load_study
from facecomp.records.receipts import output_faults

pytestmark = pytest.mark.slow
COMMAND = [str(Path(sys.executable).with_name("facecomp")), "reproduce", "psm"]
STUDY = load_study("psm")


def surroundings(tmp: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FACECOMP_")}
    return {**kept, "FACECOMP_OFFLINE": "1", "FACECOMP_CACHE": str(tmp / "empty")}


def reproduce(tmp: Path, *more: str) -> subprocess.CompletedProcess:
    command = [*COMMAND, "--out", str(tmp / "out"), *more]
    return subprocess.run(command, cwd=ROOT, env=surroundings(tmp), capture_output=True, text=True)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder in which reproduce was killed (SIGKILL) after its first figures; what was there then."""
    tmp = tmp_path_factory.mktemp("reproduce")
    receipts = tmp / "out" / "psm"
    command = [*COMMAND, "--out", str(tmp / "out")]
    log = (tmp / "log").open("wb")
    child = subprocess.Popen(command, cwd=ROOT, env=surroundings(tmp), stdout=log, stderr=log)
    end = time.monotonic() + 240
    while len(list(receipts.glob("*.receipt.json"))) < 2 and child.poll() is None:
        assert time.monotonic() < end, "no figure within four minutes"
        time.sleep(0.05)
    assert child.poll() is None, (tmp / "log").read_text()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return tmp


def test_what_a_killed_run_leaves_is_whole_or_not_there(killed):
    receipts = list((killed / "out" / "psm").glob("*.receipt.json"))
    assert 2 <= len(receipts) < len(STUDY.artefacts)
    assert [output_faults(path) for path in receipts] == [[]] * len(receipts)


def test_the_next_run_completes_and_says_what_is_not_published(killed):
    run = reproduce(killed, "--strict")
    assert run.returncode == 3, run.stderr
    first = run.stdout.splitlines()[0]
    assert first.startswith("Not the published data but synthetic stand-ins for fig2a, fig2b,")
    assert "FACECOMP_OFFLINE is set" in first
    assert run.stdout.splitlines()[-1].startswith("Synthetic, not the published data: fig2a")
    assert str(killed / "out" / "index.html") in run.stdout
    for artefact in STUDY.artefacts:
        stem = killed / "out" / "psm" / artefact.name
        assert read_provenance(f"{stem}.png").data == "synthetic"
        assert ">synthetic<" in Path(f"{stem}.svg").read_text()
        assert output_faults(f"{stem}.receipt.json") == []


def test_a_third_run_has_nothing_to_do(killed):
    before = {p: p.stat().st_mtime_ns for p in (killed / "out" / "psm").glob("*.png")}
    run = reproduce(killed)
    assert run.returncode == 0, run.stderr
    assert f"psm: {len(STUDY.artefacts)} figures and tables, 0 to make" in run.stdout
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_the_page_shows_every_figure_without_a_network(killed):
    page = (killed / "out" / "psm.html").read_text()
    for artefact in STUDY.artefacts:
        assert f'<img src="psm/{artefact.name}.png"' in page
        assert f"{artefact.name} · psm · {artefact.notebook} · commit" in page
    assert "http" not in page.replace("https://raw.githubusercontent.com", "")
    assert page.count("not the published") + page.count("Not the published") >= 1


def test_executed_notebooks_are_kept_with_their_pictures(killed):
    page = (killed / "out" / "psm.html").read_text()
    made = list((killed / "out" / "psm" / "notebooks").glob("paper_*.ipynb"))
    # one that the kill met between its last receipt and its end has no executed copy, and needs none
    assert len(made) >= len(STUDY.notebooks()) - 2
    for path in made:
        cells = json.loads(path.read_text())["cells"]
        outputs = [o for c in cells if c["cell_type"] == "code" for o in c["outputs"]]
        assert any("image/png" in o.get("data", {}) for o in outputs), path.name
    linked = set(re.findall(r'href="psm/notebooks/(\w+)\.ipynb"', page))
    assert linked == {path.stem for path in made}
