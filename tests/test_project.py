"""The project's own rules: versions agree, the lock is whole, nothing private or forbidden is committed."""

import configparser
import importlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from make_readme import overview, readme

from facecomp.cli import study_names
from facecomp.paper.figures import read_provenance
from facecomp.paper.publish import notebook_path
from facecomp.paper.reproduce import Request, comparison, disagreements
from facecomp.paper.sources import load_study
from facecomp.records.code import artefact_code
from facecomp.records.files import sha256_file
from facecomp.records.receipts import output_faults, read_receipt


def tracked() -> list[Path]:
    answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file()]


def notebooks() -> list[Path]:
    return [
        p
        for p in (ROOT / "nbs").rglob("*.ipynb")
        if not any(x.startswith((".", "_")) for x in p.parts)
    ]


def cells(path: Path, kind: str) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def test_settings_and_pyproject_agree():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "settings.ini")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = settings["DEFAULT"]
    assert (ours["lib_name"], ours["version"]) == (project["name"], project["version"])
    assert project["requires-python"] == f">={ours['min_python']}"
    assert ours["update_pyproject"] == "False"


def test_the_lock_has_hashes_and_no_addresses():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    packages = [line for line in lines if re.match(r"^[A-Za-z0-9]", line)]
    assert len(packages) > 50
    assert all(re.match(r"^[\w.\-\[\]]+==\S+", line) for line in packages)
    assert sum("--hash=sha256:" in line for line in lines) >= len(packages)
    bad = [x for x in lines if re.search(r"://|--index|--extra-index|--find-links|file:", x)]
    assert bad == []


def test_the_lock_holds_every_dependency_that_pyproject_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        d for part in project["optional-dependencies"].values() for d in part
    ]
    names = {re.match(r"[\w\-]+", d)[0].lower() for d in wanted} - {"facecomp"}
    locked = set(re.findall(r"(?m)^([\w\-.]+)==", (ROOT / "requirements.lock").read_text().lower()))
    assert names <= locked


def test_readme_is_made_from_the_index_notebook(committed_figures):
    for name in study_names():  # a reader's own `make reproduce` may have drawn other figures
        shutil.copytree(
            ROOT / "results" / name,
            committed_figures.parent / "results" / name,
            ignore=shutil.ignore_patterns("models", "batch", "finetune", "pretrain", "gaze"),
            dirs_exist_ok=True,
        )
    table = overview(committed_figures.parent)
    assert (ROOT / "README.md").read_text() == readme(ROOT / "nbs" / "index.ipynb", table)
    assert table.count("\n") == 5 and "differ**" not in table


def test_readme_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    links = [x for x in re.findall(r"\]\(([^)]+)\)", text) if not x.startswith(("http", "#"))]
    assert links and [x for x in links if not (ROOT / x).exists()] == []


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_notebook_form(path):
    everything = json.loads(path.read_text())
    assert everything["metadata"]["kernelspec"]["name"] == "python3"
    assert path.stat().st_size < 200_000
    first = cells(path, "markdown")[0]["source"]
    text = "".join(first)
    assert text.startswith("# ")
    if re.match(r"\d\d_", path.name):
        assert "".join(everything["cells"][0]["source"]).startswith("#| default_exp ")
        assert re.match(r"# .+\n> .+", text)
        assert any("assert " in "".join(c["source"]) for c in cells(path, "code"))
    if path.name.startswith("paper_"):
        tags = [c["metadata"].get("tags", []) for c in cells(path, "code")]
        assert tags[0] == ["parameters"]
        names = {a.name for a in load_study(path.parent.name).artefacts if a.notebook == path.stem}
        assert {t for ts in tags for t in ts} == {"parameters", *(f"artefact:{n}" for n in names)}


STUDIES = [load_study(name) for name in study_names()]
ARTEFACTS = [artefact for study in STUDIES for artefact in study.artefacts]


@pytest.mark.parametrize("artefact", ARTEFACTS, ids=lambda a: f"{a.study}-{a.name}")
def test_an_artefact_loads_what_it_declares_and_nothing_else(artefact):
    study = importlib.import_module(f"facecomp.{artefact.study}.study")
    code = artefact_code(notebook_path(artefact), artefact.name)
    asked = re.findall(r"paper\.load\(([^)]+)\)", code)
    loaded = {name.strip('"') if '"' in name else getattr(study, name) for name in asked}
    assert loaded == {*artefact.inputs, *artefact.optional}


FORBIDDEN = {
    "star imports": r"^\s*from \S+ import \*",
    "pickle" + ".load": r"\bpickle\.loads?\(",
    "yaml" + ".load": r"\byaml\.load\(",
    "allow_" + "pickle": r"allow_pickle\s*=\s*True",
    "." + "cuda()": r"\.cuda\(",
    "weights_" + "only": r"weights_only\s*=\s*False|torch\.load\((?![^\n]*weights_only=True)",
}


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_forbidden_in_the_package(rule):
    hits = [
        f"{p.name}: {line}"
        for p in (ROOT / "facecomp").rglob("*.py")
        for line in p.read_text().splitlines()
        if re.search(FORBIDDEN[rule], line)
    ]
    assert hits == []


def test_no_picture_of_a_person_is_committed():
    faces = {a.name for a in load_study("psm").artefacts if a.shows_faces}
    assert faces == {"fig5c", "supp_faces_random"}
    names = [p.relative_to(ROOT).as_posix() for p in tracked()]
    shown = [n for n in names if Path(n).suffix in (".png", ".svg", ".jpg", ".pdf", ".gif", ".mp4")]
    assert [n for n in shown if Path(n).stem in faces] == []
    assert [n for n in names if n.endswith((".pkl", ".pth", ".tar", ".pt"))] == []


def test_committed_results_are_synthetic_and_proven():
    paths = [p for p in tracked() if p.suffix in (".pickle", ".parquet")]
    published = {file.sha256 for study in STUDIES for file in study.manifest.files}
    proven = set()
    for folder in {p.parent for p in paths}:
        assert folder.parent == ROOT / "results", folder
        for path in folder.glob("*.receipt.json"):
            receipt = read_receipt(path)
            assert receipt.data == "synthetic" and not output_faults(path), path
            assert not receipt.dirty and len(receipt.commit) == 40, path
            proven |= {folder / name for name in receipt.outputs}
    assert paths and set(paths) <= proven
    assert not {sha256_file(p) for p in paths} & published


@pytest.fixture(scope="module")
def committed_figures(tmp_path_factory):
    """The figures as committed: a reader's own `make reproduce` may have drawn others over them."""
    answer = subprocess.run(["git", "archive", "HEAD", "figures"], cwd=ROOT, capture_output=True)
    if answer.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("committed")
    with tarfile.open(fileobj=io.BytesIO(answer.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "figures"


@pytest.mark.parametrize(
    ("study", "pages", "kinds"),
    [
        ("psm", 25, {("real", "published")}),
        ("flow", 0, {("none", "runs"), ("synthetic", "runs")}),
        ("fomm", 0, {("none", "runs"), ("synthetic", "runs")}),
        ("dfer", 0, {("none", "runs"), ("synthetic", "runs")}),
    ],
)
def test_committed_figures_carry_their_provenance(committed_figures, study, pages, kinds):
    folder = committed_figures / study
    pictures = [p for p in folder.rglob("*") if p.suffix in (".png", ".svg")]
    shown = {a.name for a in load_study(study).artefacts if not a.shows_faces}
    assert {p.stem for p in pictures if p.parent == folder} == shown
    assert len(pictures) == 2 * len(shown) + pages
    found = set()
    for path in pictures:
        where = read_provenance(path)
        assert where.study == study
        found.add((where.data, where.source))
        assert len(where.inputs) == 64 and len(where.commit) == 40
        assert not where.details["dirty"], f"{path.name}: drawn with uncommitted sources"
    assert found == kinds


def test_committed_comparisons_agree_with_the_paper(committed_figures):
    for study in STUDIES:
        table = comparison(Request(study, out_dir=committed_figures))
        assert len(table) and disagreements(table).empty
    table = comparison(Request(load_study("psm"), out_dir=committed_figures))
    assert len(table) == 276 and (table["verdict"] == "as printed").sum() == 39
