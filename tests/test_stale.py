"""One change, and exactly the right artefacts become stale."""

import shutil

import pytest
from conftest import ROOT, run_cells

from facecomp.paper.publish import artefact_code, notebook_path
from facecomp.paper.reproduce import Request, survey
from facecomp.paper.sources import load_study
from facecomp.records.code import CodeTracer
from facecomp.records.pickles import read_pickle, write_pickle
from facecomp.records.receipts import read_receipt, receipt_path, write_receipt

STUDY = load_study("psm")
ALL = {a.name for a in STUDY.artefacts}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(results, out): stand-ins as one's own runs, and every figure drawn from them."""
    from facecomp.paper.sources import open_results

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        standard = open_results(STUDY, "synthetic").path("neu_face_dict").parent
        results, out = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("figures")
        shutil.copytree(standard, results, dirs_exist_ok=True)
        for notebook in STUDY.notebooks():
            run_cells(notebook, source="runs", results_dir=str(results), out_dir=str(out))
    return results, out


def not_fresh(made, results=None, palette="published"):
    items = survey(Request(STUDY, "runs", str(results or made[0]), made[1], palette))
    return {i.artefact.name: i.state for i in items if i.state.state != "fresh"}


def rewrite(results, name, value):
    """What a new run leaves: another result, with its receipt."""
    path = results / f"{name}.pickle"
    write_pickle(path, value)
    write_receipt(results, read_receipt(receipt_path(results, name)), [path])


def test_nothing_changed(made):
    assert not_fresh(made) == {}


@pytest.mark.parametrize("artefact", STUDY.artefacts, ids=lambda a: a.name)
def test_every_input_makes_its_artefacts_stale(made, tmp_path, artefact):
    results = shutil.copytree(made[0], tmp_path / "results")
    name = artefact.inputs[0]
    value = read_pickle(results / f"{name}.pickle")
    value["one more"] = value[next(iter(value))]
    rewrite(results, name, value)
    users = {a.name for a in STUDY.artefacts if name in (*a.inputs, *a.optional)}
    states = not_fresh(made, results)
    assert states.keys() == users
    assert {s.reasons for s in states.values()} == {(f"input {name} changed",)}


def test_one_damaged_byte_is_named_and_leaves_the_others_fresh(made, tmp_path):
    results = shutil.copytree(made[0], tmp_path / "results")
    path = results / "dict_clusters_difference_Figure4.pickle"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    states = not_fresh(made, results)
    assert states.keys() == {"fig4a"} and states["fig4a"].state == "stale"
    assert path.name in states["fig4a"].reasons[0]


def test_another_palette_makes_all_stale(made):
    states = not_fresh(made, palette="colorblind")
    assert states.keys() == ALL
    assert states["fig6"].reasons == ("parameter palette changed from 'published' to 'colorblind'",)


def test_a_picture_that_was_touched_is_stale_and_one_that_is_gone_missing(made, tmp_path):
    out = shutil.copytree(made[1], tmp_path / "out")
    (out / "psm" / "fig6.png").write_bytes(b"painted over")
    (out / "psm" / "fig3a.svg").unlink()
    states = not_fresh((made[0], out))
    assert states.keys() == {"fig3a", "fig6"}
    assert (states["fig3a"].state, states["fig6"].state) == ("missing", "stale")


FUNCTIONS = {
    ("psm/clusters.py", "novel_counts"): {"fig4b"},
    ("psm/clusters.py", "match_matrix"): {"fig4c", "supp_clusters"},
    ("psm/clusters.py", "profiles"): {"fig4c", "supp_clusters"},
    ("psm/supplement_figures.py", "draw_faces"): {"fig5c", "supp_faces_random"},
    ("psm/figures.py", "draw_fig3b"): {"fig3b"},
    ("psm/action_units.py", "ci95_halfwidth"): {"fig2a", "fig3a"},
    ("psm/action_units.py", "approach_scores"): {"fig5a", "fig5b"},
    ("psm/embedding.py", "region_cut"): {"supp_embedding"},
    ("psm/action_units.py", "activity"): {"supp_disfa"},
    ("paper/figures.py", "save_figure"): ALL,
    ("psm/simulation.py", "simulate_results"): set(),
    ("records/batch.py", "run_notebook"): set(),
}


def users_of_change(package):
    """Artefacts whose code differs between the package and a changed copy of it."""
    before, after = CodeTracer(ROOT / "facecomp"), CodeTracer(package)
    codes = {a.name: artefact_code(notebook_path(a), a.name) for a in STUDY.artefacts}
    return {name for name, code in codes.items() if before.trace(code) != after.trace(code)}


@pytest.mark.parametrize(("file", "function"), list(FUNCTIONS))
def test_one_changed_function_makes_its_users_stale(tmp_path, file, function):
    package = shutil.copytree(ROOT / "facecomp", tmp_path / "facecomp")
    source = (package / file).read_text()
    head = f"def {function}("
    assert source.count(head) == 1
    start = source.index(head)
    body = source.index('\n    """', start)
    end = source.index('"""', body + 9) + 3
    (package / file).write_text(source[:end] + "\n    _ = 'changed'" + source[end:])
    assert users_of_change(package) == FUNCTIONS[file, function]


def test_words_make_nothing_stale(tmp_path):
    package = shutil.copytree(ROOT / "facecomp", tmp_path / "facecomp")
    for path in package.rglob("*.py"):
        text = path.read_text().replace(':\n    """', ':\n    """More words. ')
        path.write_text(text + "\n# a comment\n")
    assert users_of_change(package) == set()
