"""The study as a whole: cohort of synthetic people, claims, tables and figures drawn from its results."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from facecomp import cli
from facecomp.flow import cohort as cohort_module
from facecomp.flow.cohort import (
    CLAIMS,
    VARIANTS,
    Cohort,
    claims,
    network_fault,
    prepare_cohort,
    run_cohort,
    train_networks,
    write_cohort_results,
)
from facecomp.flow.evaluation import COLUMNS
from facecomp.flow.pair_lists import read_pairs
from facecomp.flow.runs import RECEIPTS, why_not_done
from facecomp.flow.study import STUDY
from facecomp.paper.figures import read_provenance
from facecomp.paper.reproduce import Request, comparison, disagreements
from facecomp.paper.sources import open_results
from facecomp.records.files import InputError
from facecomp.records.pickles import read_pickle
from facecomp.records.receipts import output_faults, read_receipt
from facecomp.records.spent import Spent

SMALL = {"learn": 1, "validate": 1, "test": 2, "frames": 3, "epochs": 1, "batch_size": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny cohort, its evaluation and its results."""
    home = tmp_path_factory.mktemp("cohort")
    cohort = Cohort(out=str(home / "made"), networks=("exp1", "exp1_exact"), **SMALL)
    evaluation, objects, inputs = run_cohort(cohort)
    write_cohort_results(cohort, objects, inputs, home / "results", Spent(1.0, 1.0, 100.0))
    return cohort, evaluation, objects, home / "results"


def test_nobody_is_in_two_parts_and_all_kinds_of_labels_have_the_same_pairs(made):
    cohort = made[0]
    people, pairs = {}, {}
    for labels in ("corrected", "compat", "exact"):
        for part in ("train", "val", "test"):
            listed = read_pairs(cohort.list_of(labels, part))
            people[labels, part] = {p.subject for p in listed}
            pairs[labels, part] = [(p.subject, p.sequence, p.name) for p in listed]
    for labels in ("corrected", "compat", "exact"):
        parts = [people[labels, part] for part in ("train", "val", "test")]
        assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) == 4
    assert pairs["corrected", "test"] == pairs["compat", "test"] == pairs["exact", "test"]
    assert len(pairs["exact", "test"]) == 2 * 1 * 2  # people, sequences, pairs of three frames


def test_controls_are_what_they_should_be(made):
    errors = made[1].errors
    mean = errors.groupby(["method", "scaling", "region"])["epe"].mean()
    assert mean["truth", "unbiased", "face"] < 0.02 < 0.3 * mean["truth", "published", "face"]
    motion = made[1].crops["motion"].mean()  # the mean over the whole picture
    assert abs(mean["zero", "unbiased", "whole"] - motion) < 0.02 * motion
    for labels in ("labels_corrected", "labels_compat"):
        assert mean[labels, "unbiased", "face"] < 0.7 * mean["zero", "unbiased", "face"]
    assert set(errors["method"]) == {
        *("truth", "zero", "labels_corrected", "labels_compat", "farneback", "dis"),
        *("exp1", "exp1_exact"),
    }


def test_a_network_is_trained_again_only_if_something_of_it_changed(made, monkeypatch):
    cohort = made[0]
    assert [network_fault(cohort, name) for name in cohort.networks] == ["", ""]
    monkeypatch.setattr(cohort_module, "Training", None)
    with pytest.raises(TypeError):  # it looks at the lists
        network_fault(cohort, "exp1")
    monkeypatch.undo()
    calls = []
    monkeypatch.setattr(cohort_module.Training, "train", lambda self: calls.append(self))
    train_networks(cohort)
    assert calls == []
    assert network_fault(replace(cohort, epochs=2), "exp1") == "epochs changed"
    assert network_fault(replace(cohort, rate=1e-4), "exp1") == "rate changed"
    weights = cohort.config("exp1").folder / "cp.pt"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + b"?")
    assert network_fault(cohort, "exp1") == "cp.pt was changed after it was made"
    weights.write_bytes(before)
    listed = cohort.list_of("corrected", "train")
    text = listed.read_text()
    listed.write_text("\n".join(text.splitlines()[:2]) + "\n")
    assert network_fault(cohort, "exp1") == "its lists changed"
    assert network_fault(cohort, "exp1_exact") == ""
    listed.write_text(text)


def test_results_have_a_receipt_each_that_verifies(made):
    _, _, objects, folder = made
    for name in (*objects, "cohort"):
        path = folder / f"{name}.receipt.json"
        assert output_faults(path) == [] and read_receipt(path).data == "synthetic"
    assert read_pickle(folder / "errors_synthetic.pickle").equals(objects["errors_synthetic"])
    assert len(pd.read_csv(folder / "claims.csv")) == len(objects["claims_synthetic"])
    counts = objects["pair_counts"].set_index("part")
    assert list(counts.loc["test"]) == ["synthetic", 2, 2, 4]


def test_the_same_cohort_gives_the_same_results(made):
    cohort, _, objects, _ = made
    again = run_cohort(cohort)[1]
    assert again["errors_synthetic"].equals(objects["errors_synthetic"])
    assert again["claims_synthetic"].equals(objects["claims_synthetic"])


def test_killed_while_it_makes_labels_it_goes_on(made, tmp_path):
    whole = made[0]
    code = f"""
from facecomp.flow.cohort import Cohort, prepare_cohort, train_networks
cohort = Cohort(out={str(tmp_path)!r}, networks=("exp1",), **{SMALL | {"epochs": 1}!r})
prepare_cohort(cohort)
train_networks(cohort)
"""
    cohort = Cohort(out=str(tmp_path), networks=("exp1",), **SMALL)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / "labelled_corrected").is_dir():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert network_fault(cohort, "exp1") == "not trained yet"
    prepare_cohort(cohort)
    train_networks(cohort)
    ours, theirs = (c.config("exp1").folder / "history.csv" for c in (cohort, whole))
    assert ours.read_text() == theirs.read_text()


def errors_of(gaps, people=6):
    """Errors in which each method's are 1 plus a gap, a little different for each person."""
    rows = [
        (f"S{s}", "001", "a", method, "unbiased", "face", 0.0, 1 + gap + 0.01 * s, 0.1, 4)
        for s in range(people)
        for method, gap in gaps.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_claims_hold_only_where_the_whole_interval_does():
    found = claims(errors_of({"exp1": 0.0, "farneback": 0.3, "dis": -0.3})).set_index("second")
    assert found.loc["farneback", "verdict"] == "holds"
    assert found.loc["dis", "verdict"] == "does not hold"
    assert np.isclose(found.loc["farneback", "difference"], -0.3)
    mixed = errors_of({"exp1": 0.0, "zero": 0.0})
    mixed.loc[mixed["method"] == "zero", "epe"] += np.array([0.1, -0.1] * 3)
    [row] = claims(mixed).itertuples()
    assert row.verdict == "open" and row.low < 0 < row.high


def test_every_claim_is_about_methods_that_can_be_there():
    known = {"zero", "farneback", "dis", "labels_corrected", "labels_compat", *VARIANTS}
    assert {name for pair in CLAIMS.values() for name in pair} <= known
    assert claims(errors_of({"exp2I": 0.0})).empty


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"test": 0}, "people 3, 1, 0: to learn, validate and test with, 1 or more each"),
        ({"networks": ("exp9",)}, "network 'exp9': must be one of exp1, exp2I"),
        ({"size": (100, 128)}, "size 100 x 128: sides must be multiples of 64"),
        ({"rate": 0.0}, "rate 0.0: above 0"),
    ],
)
def test_a_cohort_that_cannot_be_is_refused(change, text):
    with pytest.raises(InputError, match=f"^{text}"):
        Cohort(**change)


def test_a_batch_knows_when_a_cohort_is_done(made):
    cohort, _, _, folder = made
    given = {
        "out": cohort.out,
        "results": str(folder),
        "networks": "exp1, exp1_exact",
        "size": "64x128",
    }
    given |= {"learn": 1, "epochs": 1, "rate": 1e-3, "seed": 0}
    receipt = RECEIPTS["run_cohort"](given)
    assert receipt == folder / "cohort.receipt.json"
    assert why_not_done(receipt, given) == ""
    assert why_not_done(receipt, given | {"epochs": 2}) == "epochs is 2, was 1"
    assert why_not_done(receipt, given | {"networks": "all"}).startswith("networks is")


def test_without_published_files_every_source_leads_to_our_own_runs(made):
    folder = str(made[3])
    for source in ("published", "synthetic", "runs"):
        results = open_results(STUDY, source, folder)
        assert results.source == "runs" and results.has("errors_synthetic")
        assert bool(results.notice) == (source != "runs")


@pytest.fixture(scope="module")
def drawn(made, tmp_path_factory):
    """Everything that can be drawn of the tiny cohort, by the command."""
    out = tmp_path_factory.mktemp("figures")
    code = cli.main(["reproduce", "flow", "--results-dir", str(made[3]), "--out", str(out)])
    return code, out / "flow"


def test_what_there_are_results_for_is_drawn_and_the_rest_named(drawn):
    code, folder = drawn
    assert code == 0
    names = {path.stem for path in folder.glob("*.png")}
    absent = {a.name for a in STUDY.artefacts if {"label_accuracy", "label_maps"} & set(a.inputs)}
    assert names == {a.name for a in STUDY.artefacts} - absent
    page = (folder.parent / "flow.html").read_text()
    assert "label_maps.pickle is not in" in page
    assert "flow.html" in (folder.parent / "index.html").read_text()


def test_pictures_say_whether_they_are_of_synthetic_people(drawn):
    folder = drawn[1]
    kinds = {path.stem: read_provenance(path).data for path in folder.glob("*.png")}
    none = {"table_loss", "fig_network", "table_bp4d", "table_ckplus", "table_micro"}
    assert {name for name, kind in kinds.items() if kind == "none"} == none
    assert all(kind == "synthetic" for name, kind in kinds.items() if name not in none)


def test_loss_weights_agree_and_unknown_cells_stay_unknown(drawn):
    table = comparison(Request(STUDY, out_dir=drawn[1].parent))
    assert disagreements(table).empty
    loss = table[table["figure"] == "table_loss"]
    assert len(loss) > 60 and set(loss["verdict"]) <= {"equal", "within"}
    unknown = table[table["verdict"] == "not transcribed"]
    assert len(unknown) == 95 and unknown["published"].isna().all()
    printed = table[table["verdict"] == "as printed"]
    assert set(printed["key"].str.split("/").str[0]) == {"ststnet"}


def test_a_table_shows_cells_of_data_sets_that_nobody_has_run(drawn):
    text = (drawn[1] / "table_bp4d.table.csv").read_text()
    table = pd.read_csv(drawn[1] / "table_bp4d.table.csv", index_col=0)
    assert set(table["epe_px paper"]) == {"not transcribed"} and set(table["EPE"]) == {"not run"}
    assert "0." not in text
    numbers = json.loads((drawn[1] / "table_bp4d.numbers.json").read_text())
    assert numbers == {}


def test_every_oddity_has_a_row_that_leads_to_a_notebook():
    cells = json.loads((ROOT / "nbs/flow/20_study.ipynb").read_text())["cells"]
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| O")]
    assert [row[0].strip() for row in rows] == [f"O{n}" for n in range(1, 39)]
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and all((ROOT / "nbs/flow" / link).is_file() for link in links)
