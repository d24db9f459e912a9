"""The study as a whole: cohort of synthetic people, claims, faults, tables and figures drawn from its results."""

import ast
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from facecomp.fomm import cohort as cohort_module
from facecomp.fomm.answers import CLAIMS, MEASURES, SMALL, UNTRAINED, all_cases, claims
from facecomp.fomm.clips import find_clips
from facecomp.fomm.cohort import (
    RESULTS,
    VARIANTS,
    Cohort,
    prior_faces,
    run_cohort,
    train_models,
    write_cohort_results,
)
from facecomp.fomm.people import recording_of
from facecomp.fomm.runs import RECEIPTS, why_not_done
from facecomp.fomm.study import STUDY
from facecomp.paper.figures import read_provenance
from facecomp.paper.reproduce import Request, comparison, disagreements
from facecomp.paper.sources import open_results
from facecomp.records.files import InputError, sha256_file
from facecomp.records.pickles import plain_table, read_pickle
from facecomp.records.receipts import Receipt, output_faults, read_receipt, write_objects
from facecomp.records.spent import Spent
from facecomp.training.config import flatten, to_mapping

TINY = {"learn": 1, "test": 2, "expressions": ("happiness",), "frames": 4, "batch_size": 2}
NOTEBOOKS = ROOT / "nbs" / "fomm"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny cohort, what it gave, and where its results lie."""
    home = tmp_path_factory.mktemp("cohort")
    cohort = Cohort(work=str(home / "work"), variants=("prior", "network"), **TINY)
    outcome = run_cohort(cohort)
    write_cohort_results(cohort, outcome, home / "results", Spent(1.0, 1.0, 100.0))
    return cohort, outcome, home / "results"


# ------------------------------------------------------------------ the cohort


def test_variants_differ_in_what_they_name_and_in_nothing_else():
    cohort = Cohort(variants=tuple(VARIANTS))
    plain = flatten(to_mapping(cohort.config("prior")), ())
    for name, changed in VARIANTS.items():
        settings = flatten(to_mapping(cohort.config(name)), ())
        different = {key for key in plain if settings[key] != plain[key]} - {"name"}
        assert different == set(changed), name
    course = cohort.config("network").train_params
    assert course.lr_generator == course.lr_kp_detector == cohort.rate


def test_nobody_is_learnt_from_and_animated(made):
    cohort = made[0]
    people = {
        part: {recording_of(c).take.person for c in find_clips(cohort.people, part, cohort.size)}
        for part in ("train", "test")
    }
    assert len(people["train"]) == 1 and len(people["test"]) == 3  # two people and a still face
    assert not people["train"] & people["test"]


def test_the_right_answer_is_another_person_doing_the_same(made):
    cohort = made[0]
    first, second = all_cases(cohort.people, cohort.size)
    assert (first.driver, first.face) == (second.face, second.driver) == ("SYN400", "SYN401")
    assert np.abs(first.driving[0].astype(int) - first.answer[0]).mean() > 10  # another face
    assert np.abs(first.answer[0].astype(int) - second.driving[0]).mean() < 10  # that person's own
    assert (first.course >= 0).all() and first.course.max() == 1
    moved = first.driving_points[-1] - first.driving_points[0]
    also = first.answer_points[-1] - first.answer_points[0]
    assert np.corrcoef(moved.ravel(), also.ravel())[0, 1] > 0.6


def test_controls_are_what_they_should_be(made):
    rows = made[1].objects["rows_synthetic"]
    mean = rows.groupby("model")[list(MEASURES)].mean()
    assert list(rows.groupby("model").size()) == [2] * 6
    assert mean.loc["no motion", "residual"] == 1 and mean.loc["no motion", "ratio"] == 0
    assert mean.loc["right answer", ["L1 answer", "residual"]].tolist() == [0, 0]
    assert mean.loc["driving clip", "r"] > 0.999 > mean.loc["right answer", "r"] > 0.3
    assert mean.loc["right answer", "EPE"] < mean.loc["no motion", "EPE"]
    assert mean.loc[UNTRAINED, "L1"] > mean.loc["no motion", "L1"]
    still = rows[rows["model"] == "no motion"]
    assert still["r"].isna().all()  # what does not move correlates with nothing


def test_a_model_is_trained_again_only_if_something_of_it_changed(made, monkeypatch):
    cohort, calls = made[0], []
    monkeypatch.setattr(cohort_module, "write_run_receipt", lambda *_: None)
    monkeypatch.setattr(cohort_module.Training, "train", lambda self: calls.append(self.config))
    train_models(cohort)
    assert calls == []
    train_models(replace(cohort, variants=("network",), rate=1e-3))
    assert [config.name for config in calls] == ["network_0"]
    calls.clear()
    train_models(replace(cohort, variants=("prior",), seeds=2))
    assert [config.name for config in calls] == ["prior_1"]
    calls.clear()
    weights = cohort.config("network").folder / "model.pt"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + b"?")
    train_models(cohort)
    weights.write_bytes(before)
    assert [config.name for config in calls] == ["network_0"]


def test_the_same_cohort_gives_the_same_results(made):
    cohort, outcome, _ = made
    again = run_cohort(cohort)
    for name in ("rows_synthetic", "summary_synthetic", "claims_synthetic"):
        assert again.objects[name].equals(outcome.objects[name])
    assert again.inputs == outcome.inputs


def test_a_photograph_is_animated_by_the_test_clips_and_only_numbers_of_it_are_kept(made, tmp_path):
    cohort, outcome, _ = made
    assert outcome.photograph is None
    picture = tmp_path / "face.png"
    [face] = prior_faces(cohort, 1).values()
    Image.fromarray(face["frame"]).save(picture)
    shown = replace(cohort, photograph=str(picture))
    seen = run_cohort(shown)
    used = seen.photograph[seen.photograph["measure"] == "ratio"]
    assert list(used["model"]) == [UNTRAINED, "prior", "network"] and (used["clips"] == 2).all()
    assert (used["mean"] >= 0).all() and used["mean"].max() > 0
    assert set(seen.photograph["measure"]) <= {"ratio", "r", "gain"}
    path = write_cohort_results(shown, seen, tmp_path / "results")
    receipt = read_receipt(path)
    assert receipt.inputs["photograph"] == sha256_file(picture)
    assert "photograph.csv" in receipt.outputs and str(tmp_path) not in path.read_text()


def test_results_have_a_receipt_each_that_verifies_and_say_that_they_are_synthetic(made):
    cohort, outcome, folder = made
    for name in (*RESULTS, "cohort"):
        path = folder / f"{name}.receipt.json"
        assert output_faults(path) == [] and read_receipt(path).data == "synthetic"
    assert read_pickle(folder / "rows_synthetic.pickle").equals(outcome.objects["rows_synthetic"])
    assert read_receipt(folder / "cohort.receipt.json").mode == "compat"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    picture = np.asarray(Image.open(folder / "strip_1.png"))
    films = list(outcome.objects["strips_synthetic"].values())[0]
    height = cohort.size + 18  # a line of words above each film
    assert picture.shape == (len(films) * height, 4 * cohort.size, 3)
    assert (picture[:18, 80:] < 128).any()  # the words go on behind the name of the film


def test_a_batch_knows_when_a_cohort_is_done(made):
    folder = made[2]
    given = {"out": str(folder), "variants": "prior,network", "expressions": "happiness"}
    given |= {"learn": 1, "frames": 4, "seed": 0, "device": "cpu", "work": "elsewhere"}
    receipt = RECEIPTS["run_cohort"](given)
    assert receipt == folder / "cohort.receipt.json" and why_not_done(receipt, given) == ""
    assert why_not_done(receipt, given | {"learn": 2}) == "learn is 2, was 1"
    assert why_not_done(receipt, given | {"variants": "prior"}).startswith("variants is 'prior'")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"test": 1}, "learn 4, test 1, seeds 1: from 1, 2 (one drives the other) and 1 on"),
        ({"variants": ("best",)}, "variant 'best': must be one of prior, no_prior, network"),
        ({"size": 100}, "size 100, divisor 16: 64, 128 or 256 px"),
        ({"rate": -1.0}, "run_train: lr_generator -1.0: at least 0"),
    ],
)
def test_a_cohort_that_cannot_be_is_refused(change, text):
    with pytest.raises(InputError) as caught:
        Cohort(**change)
    assert str(caught.value).startswith(text)


# ------------------------------------------------------------------ claims


def rows_of(gaps, people=6):
    """Measures that are 1 plus a gap for each model, a little different for each person."""
    return pd.DataFrame(
        [
            {"model": model, "driving": f"S{s}", "clip": f"a_{s}"}
            | dict.fromkeys(MEASURES, 1 + gap + 0.01 * s)
            for s in range(people)
            for model, gap in gaps.items()
        ]
    )


def test_claims_hold_only_where_the_whole_interval_does():
    found = claims(rows_of({"prior": 0.3, "no_prior": 0.0, "network": 0.6})).set_index("claim")
    assert found.loc["the prior helps to follow the driving clip", "verdict"] == "holds"
    row = found.loc["the prior helps reconstruction"]  # a measure that should be small
    assert row["verdict"] == "does not hold" and np.isclose(row["difference"], -0.3)
    beaten = found.loc["points from landmarks beat points of the network"]
    assert beaten["verdict"] == "does not hold" and np.isclose(beaten["difference"], -0.3)
    mixed = rows_of({"prior": 0.0, "no_prior": 0.0})
    mixed.loc[mixed["model"] == "no_prior", "r"] += np.array([0.1, -0.1] * 3)
    row = claims(mixed).set_index("claim").loc["the prior helps to follow the driving clip"]
    assert row["verdict"] == "open" and row["low"] < 0 < row["high"]


def test_a_claim_whose_measure_has_no_value_is_shown_as_such(made):
    rows = made[1].objects["rows_synthetic"]
    still = rows.assign(r=rows["r"].where(rows["model"] != UNTRAINED))  # it moves nothing
    found = claims(still).set_index("claim").loc["training helps"]
    assert found["verdict"] == "no value" and found["clips"] == 0 and np.isnan(found["difference"])


def test_a_claim_compares_the_same_clips():
    rows = rows_of({"prior": 0.2, "no_prior": 0.0})
    lacks = (rows["model"] == "no_prior") & (rows["driving"] == "S5")
    rows.loc[lacks, "r"] = np.nan
    rows.loc[(rows["model"] == "prior") & (rows["driving"] == "S5"), "r"] = 100.0
    row = claims(rows).set_index("claim").loc["the prior helps to follow the driving clip"]
    assert row["clips"] == 5 and np.isclose(row["difference"], 0.2)
    assert np.isclose(row["mean_first"] - row["mean_second"], row["difference"])


def test_every_claim_is_about_models_and_measures_that_can_be_there():
    known = {UNTRAINED, "no motion", *VARIANTS}
    for name, better, other in CLAIMS.values():
        assert name in MEASURES and better in known
        assert other in known if isinstance(other, str) else isinstance(other, float)
    assert set(SMALL) < set(MEASURES)


# ------------------------------------------------------------------ what was published, faults


def test_cells_that_nobody_published_have_no_number():
    content = json.loads(STUDY.expected.read_text())
    keys = {(e["figure"], e["key"]) for e in content["entries"]}
    never = {(e["figure"], e["key"]) for e in content["never_published"]}
    assert len(keys) == content["n"] == len(content["entries"]) and not keys & never
    assert all(e["value"] is not None and e["source"] for e in content["entries"])
    by_key = {e["key"]: e["value"] for e in content["entries"]}
    assert by_key["022_3_3/OurSM/max"] == 4.809 and by_key["FOMM-MEGC2021/SMIC"] == 3.1333
    assert ("table_scores", "FOMM-MEGC2021/FID") in never


def normal(text):
    return " ".join(text.split()).lower()


def fault_rows():
    """no -> cells of the rows of the tables in the study's notebook."""
    cells = json.loads((NOTEBOOKS / "27_study.ipynb").read_text())["cells"]
    text = "".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "markdown")
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| [CFO]\d+ \|", line)]
    return {row[0].strip("| "): row for row in rows}


def test_every_fault_has_a_row_whose_notebooks_are_there_and_mention_it():
    rows = fault_rows()
    wanted = [f"{kind}{n}" for kind, count in (("C", 8), ("F", 28), ("O", 21)) for n in range(1, count + 1)]  # fmt: skip
    assert list(rows) == wanted and all(len(row) == 5 for row in rows.values())
    for number, row in rows.items():
        named = re.findall(r'\[[^]]+\]\(([^)]+)\): "([^"]+)"', row[4])
        assert named or "here:" in row[4], number
        for link, words in named:
            cells = json.loads((NOTEBOOKS / link).read_text())["cells"]
            text = normal(" ".join("".join(c["source"]) for c in cells))
            assert normal(words) in text, f"{number}: {link} does not say {words!r}"


def test_the_study_imports_no_other_study():
    others = {p.parent.name for p in (ROOT / "facecomp").glob("*/study.py")} - {"fomm"}
    assert "flow" in others
    for path in (ROOT / "facecomp" / "fomm").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [n.name for n in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if set(n.split(".")) & others], path.name


# ------------------------------------------------------------------ tables and figures


def draw(notebook, **parameters):
    """Run the cells of a notebook with other parameters, in this process."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
    world = {"__name__": "notebook"}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        exec("".join(cell["source"]), world)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(parameters) <= set(world)
            world |= parameters
    return world


@pytest.fixture(scope="module")
def drawn(made, tmp_path_factory):
    """Everything that can be drawn of the tiny cohort."""
    out = tmp_path_factory.mktemp("figures")
    for notebook in STUDY.notebooks():
        draw(notebook, results_dir=str(made[2]), out_dir=str(out))
    return out / "fomm"


def test_everything_is_drawn_and_synthetic_pictures_say_so(drawn):
    kinds = {path.stem: read_provenance(path).data for path in drawn.glob("*.png")}
    assert set(kinds) == {a.name for a in STUDY.artefacts}
    synthetic = {"fig_prior", "fig_motion", "fig_jacobians", "fig_strips"}
    synthetic |= {"table_ablation", "table_claims"}
    assert {name for name, kind in kinds.items() if kind == "synthetic"} == synthetic
    assert {kind for name, kind in kinds.items() if name not in synthetic} == {"none"}


def test_published_numbers_are_quoted_or_recomputed_and_nothing_differs(drawn):
    table = comparison(Request(STUDY, out_dir=drawn.parent))
    assert disagreements(table).empty
    by_figure = table.groupby("figure")["verdict"].agg(set)
    assert by_figure["table_networks"] == by_figure["table_settings"] == {"equal"}
    assert by_figure["table_motion"] == by_figure["table_reconstruction"] == {"as printed"}
    composites = table[table["key"].str.endswith("Composite")]
    assert len(composites) == 5 and set(composites["verdict"]) <= {"within", "equal"}


def test_cells_say_whether_nobody_published_them_or_nobody_ran_them(drawn):
    scores = pd.read_csv(drawn / "table_scores.table.csv", index_col=0, dtype=str)
    assert set(scores.loc["challenge of 2021", ["CASME II", "SAMM", "SMIC"]]) == {"not available"}
    assert scores.loc["our runs", "Composite"] == "not run"
    again = pd.read_csv(drawn / "table_reconstruction.table.csv", index_col=0, dtype=str)
    paper = [c for c in again if c.endswith("paper")]
    assert set(again.loc["all three", paper]) == {"not available"}
    assert set(again.loc["all three", [c for c in again if c.endswith("ours")]]) == {"not run"}


def test_an_own_run_stands_beside_the_published_number(made, tmp_path):
    energy = pd.DataFrame({"clip": ["022_3_3"], "system": ["OurSA"], "max": [6.5], "mean": [3.5]})
    receipt = Receipt("motion_energy", "fomm", "run_evaluate", "real")
    write_objects(tmp_path / "results", receipt, {"motion_energy": plain_table(energy)})
    draw("paper_table_motion", results_dir=str(tmp_path / "results"), out_dir=str(tmp_path))
    table = pd.read_csv(tmp_path / "fomm" / "table_motion.table.csv", index_col=0, dtype=str)
    assert table.loc["022_3_3 ours", "OurSA"] == "6.500 / 3.500"
    assert table.loc["022_3_3 published", "OurSA"] == "6.131 / 3.019"
    assert table.loc["022_3_3 ours", "OurSM"] == "not run"
    compared = pd.read_csv(tmp_path / "fomm" / "table_motion.compare.csv")
    assert set(compared["verdict"]) == {"own run"}


def test_films_of_people_are_not_put_where_results_are_passed_on(tmp_path):
    with pytest.raises(InputError, match="^results_dir: name a folder"):
        draw("paper_figure_systems", data=str(tmp_path), out_dir=str(tmp_path))


def test_without_published_files_every_source_leads_to_our_own_runs(made):
    for source in ("published", "synthetic", "runs"):
        results = open_results(STUDY, source, str(made[2]))
        assert results.source == "runs" and results.has("summary_synthetic")
        assert bool(results.notice) == (source != "runs")
