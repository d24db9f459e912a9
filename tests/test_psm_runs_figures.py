"""The paper notebooks on results of other cohorts: other people, other numbers, files that are not there (yet)."""

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, run_cells

from facecomp import cli
from facecomp.paper import reproduce as engine
from facecomp.paper.compare import read_comparison
from facecomp.paper.figures import read_provenance
from facecomp.psm.action_units import AU8, AU12, by_action_unit, person_averages, person_scores
from facecomp.psm.study import STUDY
from facecomp.records.batch import Outcome
from facecomp.records.pickles import read_pickle, write_pickle
from facecomp.records.receipts import Receipt, output_faults, read_receipt, write_receipt

# --- two small cohorts ----------------------------------------------------------------------------

TWO = {"SYN01": ["au1", "au12", "au25"], "P_07": []}  # one of the two shows no action unit
FIVE = {
    "SYN01": ["au1", "au12", "au25"],
    "P_07": ["au4"],
    "SN001": ["au6", "au12", "au15", "au17"],
    "quiet": [],
    "a_rather_long_name": [au for au in AU12 if au != "au5"],  # au5 is scored for nobody
}


def table(columns, rows=None):
    """A data frame whose pickle needs nothing but numpy, as result files have them."""
    n = len(next(iter(columns.values())))
    labels = np.asarray(range(n) if rows is None else rows)
    kind = object if labels.dtype.kind in "UO" else np.int64
    index = pd.Index(labels.astype(kind), dtype=kind)
    series = {k: pd.Series(v, index=index, dtype=v.dtype) for k, v in columns.items()}
    made = pd.DataFrame(series, index=index)
    return made.set_axis(pd.Index(np.array(list(columns), object), dtype=object), axis=1)


def clusters(labels, aus, rng, copy=False):
    """Cluster table of a person who shows only `aus`."""
    columns = {"label": np.asarray(labels, np.int64)}
    for au in AU12:
        shown = rng.random(len(labels)) < 0.4 if au in aus else np.zeros(len(labels))
        columns[f"{au}_bis"] = shown.astype(float)
    return table(columns | ({"labels": columns["label"]} if copy else {}))


def scores(persons, rng, resamples, low=0.0, high=1.0):
    """Person -> vectors of F1; persons without an action unit are left out."""
    return {p: list(rng.uniform(low, high, (resamples, len(a)))) for p, a in persons.items() if a}


def figure2(rng, folds, low, high):
    vectors = list(rng.uniform(low, high, (100 * folds, len(AU8))))
    return {
        "F1_Bootstrap_FaceCycle": vectors,
        "avg_F1_Bootstrap_FaceCycle": [np.mean(v) for v in vectors],
    }


def figure3(persons, rng, resamples, low):
    found = {}
    for model in ("PSM", "GM"):
        own = scores(persons, rng, resamples, low)
        averages = person_averages(own)
        found[f"F1_Bootstrap_{model}"] = own
        found[f"avg_F1_Bootstrap_{model}"] = averages
        found[f"All_avg_F1_Bootstrap_{model}"] = list(np.concatenate(list(averages.values())))
        found[f"{model}_by_AUs"] = {
            au: list(v) for au, v in by_action_unit(person_scores(own, persons)).items()
        }
    return found


def figure5(persons, rng, resamples, approaches):
    """Runs of the approaches, named as our own runs name them."""
    alone = "NO_pretraining_trained_{}_FRAMES_on_that_subject_for_{}_epochs"
    runs = {}
    for approach in approaches:
        for p in (p for p, aus in persons.items() if aus):
            ends = {
                1: [alone.format("ALL", 20)],
                2: ["pretrained_on_VoxCeleb"],
                3: [f"pretrained_on_{other}" for other in persons if other != p],
                4: [alone.format(48, 2)],
            }[approach]
            for end in ends:
                values = scores({p: persons[p]}, rng, resamples)[p]
                runs[f"{p}_{end}"] = [v.tolist() for v in values]
    return runs


def plane(persons, rng, frames, regions):
    columns = {"SN": np.array(rng.choice(list(persons), frames), object)}
    columns |= {d: rng.normal(size=frames) for d in ("Dim1", "Dim2")}
    columns |= {au: rng.integers(0, 2, frames) for au in AU12}
    whole = table(columns | {"label": rng.integers(-1, 13, frames)})
    order = whole["Dim1"].to_numpy().argsort()
    parts = {f"GM_embeddings_region{k}": whole.iloc[np.sort(order[r])] for k, r in regions.items()}
    return {"GM_embeddings": whole, **parts}


def faces(rng, rows, columns):
    return {row: list(rng.random((columns, 3, 64, 64), np.float32)) for row in rows}


def epochs(numbers, pairs, rng):
    return {
        f"epoch_{e}": {m: rng.random(pairs).tolist() for m in ("PSM", "PSM_wCTL")} for e in numbers
    }


def two_persons():
    """Results of two persons: noise only, nothing to match, two folds, no other persons, short lists of everything."""
    rng = np.random.default_rng(1)
    noise = clusters([-1] * 9, TWO["SYN01"], rng, copy=True)
    rest = clusters([0] * 4 + [1] * 5, [], rng, copy=True)
    regions = {1: [], 2: [0], 3: [5, 6], 4: [2, 4]}  # no line cuts off the fourth
    return {
        "AUs_to_use_per_Person": TWO,
        "Bootstraps_results_Figure2": figure2(rng, 2, 0.5, 1.0),
        "Bootstraps_results_Figure3": figure3(TWO, rng, 100, 0.0),
        "Bootstrap_F1_scores_Training_Approaches_Figure5": figure5(TWO, rng, 100, (1, 3)),
        "epoch_by_epoch_CTL_Figure6": epochs((1, 2), 3, rng),
        "dict_clusters_difference_Figure4": {
            "GM": {"SYN01": [12, 10], "P_07": [1, 1]},
            "PSM": {"SYN01": [3, 1], "P_07": [2, 9]},
        },
        "dict_flagged_novel_clusters_Figure4": {
            "GM": {"SYN01": [], "P_07": []},
            "PSM": {"SYN01": ["PSM_-1"], "P_07": []},
        },
        "clusters_Figure4": {
            "SYN01": {"GM": noise, "PSM": noise},
            "P_07": {"GM": rest, "PSM": rest},
        },
        "PSM_and_GM_clusters": {},
        "GM_embeddings": plane(TWO, rng, 7, regions),
        "neu_face_dict": faces(rng, ["Original_input", "Approach1", "Approach3"], 1),
        "neu_face_dict_random": faces(rng, ["Original_input", "PSM_ExpCode_20.tar"], 3),
        "summary_DISFA_dataset": table(
            {au: np.array([6 if au in TWO["SYN01"] else 0, 0]) for au in AU12}
            | {"frames": np.array([60, 45])},
            list(TWO),
        ),
    }


def five_persons():
    """Results of five persons: three folds, another number of resamples, uneven epochs, no summary of all frames."""
    rng = np.random.default_rng(2)
    shown = {
        p: {
            m: clusters(rng.integers(-1, 2 if m == "GM" else 5, 40), aus, rng, i < 2)
            for m in ("GM", "PSM")
        }
        for i, (p, aus) in enumerate(FIVE.items())
    }
    shown["SN001"]["GM"] = clusters([-1] * 40, FIVE["SN001"], rng)
    examples = list(FIVE)[:2]
    counts = {m: {p: rng.integers(0, 30, 6).tolist() for p in FIVE} for m in ("GM", "PSM")}
    flagged = {m: {p: [f"{m}_{k}" for k in range(i)] for i, p in enumerate(FIVE)} for m in counts}
    return {
        "AUs_to_use_per_Person": FIVE,
        "Bootstraps_results_Figure2": figure2(rng, 3, 0.0, 0.1),
        "Bootstraps_results_Figure3": figure3(FIVE, rng, 20, 0.6),
        "Bootstrap_F1_scores_Training_Approaches_Figure5": figure5(FIVE, rng, 20, (1, 2, 3, 4)),
        "epoch_by_epoch_CTL_Figure6": epochs((1, 2, 5, 10, 20, 40, 80), 19, rng),
        "dict_clusters_difference_Figure4": counts,
        "dict_flagged_novel_clusters_Figure4": flagged,
        "clusters_Figure4": {p: shown[p] for p in examples},
        "PSM_and_GM_clusters": {p: shown[p] for p in FIVE if p not in examples},
        "GM_embeddings": plane(FIVE, rng, 60, {1: [0], 2: [58, 59], 3: range(60), 4: []}),
        "neu_face_dict": faces(rng, ["Original_input", *(f"Approach{k}" for k in range(1, 5))], 6),
        "neu_face_dict_random": faces(rng, ["Original_input", "GM_ExpCode_20.tar"], 9),
    }


def write_runs(folder, results):
    """Result files with receipts, as finished runs on synthetic participants leave them."""
    for name, value in results.items():
        path = write_pickle(folder / f"{name}.pickle", value)
        write_receipt(folder, Receipt(name, "psm", "run_cohort", "synthetic"), [path])
    return folder


# --- drawn once -----------------------------------------------------------------------------------

MISSING = ("dict_clusters_difference_Figure4", "neu_face_dict")  # of the five


class Drawn:
    """A cohort, and what was drawn of it."""

    def __init__(self, results, runs, out, code, said, error):
        self.results, self.runs, self.folder = results, runs, out / "psm"
        self.page = (out / "psm.html").read_text()
        self.code, self.said, self.error = code, said, error

    def numbers(self, name):
        text = (self.folder / f"{name}.numbers.json").read_text()
        assert "NaN" not in text
        return json.loads(text)

    def texts(self, name):
        """What is written in a picture."""
        found = re.findall(r"<text[^>]*>(.*?)</text>", (self.folder / f"{name}.svg").read_text())
        return [re.sub(r"<[^>]+>", "", text).strip() for text in found]

    @property
    def names(self):
        return {
            path.name.removesuffix(".receipt.json") for path in self.folder.glob("*.receipt.json")
        }


def run_here(runs, jobs=2, done=None, quiet=False):
    """Paper notebooks in this process instead of in kernels."""
    for run in runs:
        run_cells(run.notebook.stem, **run.parameters)
    return [Outcome(run, True, 0.0) for run in runs]


def draw(tmp, results):
    """`facecomp figures psm` on a cohort's result files."""
    runs = write_runs(tmp / "runs", results)
    options = ["--source", "runs", "--results-dir", str(runs), "--out", str(tmp / "out")]
    said, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(error):
        patch.chdir(ROOT)
        patch.setattr(engine, "run_notebooks", run_here)
        code = cli.main(["figures", "psm", *options, "--offline"])
    return Drawn(results, runs, tmp / "out", code, said.getvalue(), error.getvalue())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Everything that there is of two persons."""
    return draw(tmp_path_factory.mktemp("two"), two_persons())


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five persons, two result files not there."""
    results = five_persons()
    there = {k: v for k, v in results.items() if k not in MISSING}
    drawn = draw(tmp_path_factory.mktemp("five"), there)
    drawn.results = results
    return drawn


LEFT_OUT = {"fig4a", "fig5c"}  # the other figures of their notebooks are drawn
ALL = {a.name for a in STUDY.artefacts}


def test_all_of_a_whole_cohort_is_drawn(two):
    assert two.code == 0
    assert two.names == ALL


def test_what_can_be_drawn_is_drawn_and_the_rest_is_named(five):
    assert (five.code, five.names) == (0, ALL - LEFT_OUT)
    assert f"fig5c is not drawn: neu_face_dict.pickle is not in {five.runs}" in five.said
    lines = [
        f"{n} ({m}.pickle is not in {five.runs})"
        for n, m in zip(sorted(LEFT_OUT), MISSING, strict=True)
    ]
    assert five.error.splitlines() == [f"facecomp: not drawn: {line}" for line in lines]
    assert "psm: 16 figures and tables, 14 to make" in five.said
    drawn = [Path(line).stem for line in five.said.splitlines() if line.endswith(".png")]
    assert set(drawn) == five.names and len(drawn) == 14


@pytest.mark.parametrize("cohort", ["two", "five"])
def test_every_picture_says_that_it_is_synthetic(cohort, request):
    drawn = request.getfixturevalue(cohort)
    for name in drawn.names:
        receipt = drawn.folder / f"{name}.receipt.json"
        assert (read_receipt(receipt).data, output_faults(receipt)) == ("synthetic", [])
        assert read_provenance(drawn.folder / f"{name}.png").source == "runs"
        assert "synthetic" in drawn.texts(name), name
    assert "Not of recorded people: our own runs on synthetic data" in drawn.page
    assert "stand-ins" not in drawn.page


@pytest.mark.parametrize("cohort", ["two", "five"])
def test_nothing_says_what_is_true_of_the_paper_only(cohort, request):
    drawn = request.getfixturevalue(cohort)
    for name in drawn.names:
        texts = " ".join(t for t in drawn.texts(name) if "commit" not in t)
        false = r"(?<![\d.])(27|500|486|182|SN004|SN018|as printed|recomputed|read off)(?![\d.])"
        assert not re.search(false, texts), (name, texts)
        assert "DISFA" not in texts
    assert not re.search(r"\b(27|40|182|2700|18200) (persons|settings|pairs|averages)", drawn.said)
    titles = re.findall(r'<h2 id="\w+">(.*?)</h2>', drawn.page)
    assert len(titles) == len(ALL)
    assert not re.search(r"SN0|25|27|four", " ".join(titles))


@pytest.mark.parametrize("cohort", ["two", "five"])
def test_no_number_is_judged_by_the_paper(cohort, request):
    drawn = request.getfixturevalue(cohort)
    for name in drawn.names:
        comparison = read_comparison(drawn.folder / f"{name}.compare.csv")
        assert set(comparison["verdict"]) <= {"synthetic"}
        assert set(comparison["key"]) <= drawn.numbers(name).keys()
    assert "DIFFERS" not in drawn.page and "MISSING" not in drawn.page


def test_runs_on_recordings_are_not_judged_either(tmp_path):
    """Through the command line as one starts it, in processes of its own."""
    path = write_pickle(tmp_path / "AUs_to_use_per_Person.pickle", FIVE)
    write_receipt(tmp_path, Receipt(path.stem, "psm", "run_cohort", "real"), [path])
    out = tmp_path / "out"
    command = [str(Path(sys.executable).with_name("facecomp")), "reproduce", "psm", "--offline"]
    command += ["--source", "runs", "--results-dir", str(tmp_path), "--out", str(out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert all(line.startswith("facecomp: not drawn: ") for line in run.stderr.splitlines())
    assert "own run" in run.stdout and read_provenance(out / "psm" / "table_aus.png").data == "real"
    cells = json.loads((out / "psm" / "notebooks" / "paper_table_aus.ipynb").read_text())["cells"]
    shown = [o for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(shown) == 1
    comparison = read_comparison(out / "psm" / "table_aus.compare.csv")
    assert set(comparison["verdict"]) == {"own run"}
    assert comparison.set_index("key").loc["person_au_pairs", ["published", "ours"]].tolist() == [
        182,
        19,
    ]
    request = engine.Request(STUDY, "runs", str(tmp_path), out)
    assert engine.disagreements(engine.comparison(request)).empty


# --- numbers and axes -----------------------------------------------------------------------------


def heights_inside(drawn, name):
    """Tick labels of the y axis of a picture: numbers only."""
    return [float(t.replace("−", "-")) for t in drawn.texts(name) if re.fullmatch(r"[−\d.]+", t)]


def test_figure_2_has_one_method_and_the_folds_of_the_data(two, five):
    for drawn, folds in ((two, 2), (five, 3)):
        values = drawn.results["Bootstraps_results_Figure2"]["avg_F1_Bootstrap_FaceCycle"]
        numbers = drawn.numbers("fig2a")
        assert numbers["mean/FaceCycle"] == pytest.approx(np.mean(values), abs=1e-12)
        last = numbers[f"fold_mean/FaceCycle/fold{folds}"]
        assert last == pytest.approx(np.mean(values[-100:]), abs=1e-12)
        assert len(numbers) == 2 + folds
        assert f"{folds}-cross validation Person-independent F1 score" in drawn.texts("fig2a")
        assert "TCAE" not in drawn.texts("fig2b") and "FaceCycle" in drawn.texts("fig2b")
        assert {0.0, 1.0} <= {*heights_inside(drawn, "fig2a")}  # 0.25-0.38 would not show them


def test_figure_3_of_few_persons(two):
    psm = np.stack(two.results["Bootstraps_results_Figure3"]["F1_Bootstrap_PSM"]["SYN01"])
    numbers = two.numbers("fig3a")
    assert numbers["mean/PSM"] == pytest.approx(psm.mean(), abs=1e-12)
    assert "person_mean/PSM/P_07" not in numbers
    by_au = two.numbers("fig3b")
    assert by_au["mean/PSM/au12"] == pytest.approx(psm[:, 1].mean(), abs=1e-12)
    assert (by_au["rows_per_model"], "mean/PSM/au5" in by_au) == (300, False)
    texts = two.texts("fig3b")
    assert "F1 score (100 Bootstraps)" in texts and texts.count("not scored for any person") == 9
    assert {0.0, 1.0} <= {*heights_inside(two, "fig3a")}  # the mean is below 0.6


def test_figure_3_keeps_the_published_range_where_it_shows_all(five):
    numbers, shown = five.numbers("fig3a"), heights_inside(five, "fig3a")
    assert 0.7 < numbers["mean/PSM"] < 0.85 and 0.7 < numbers["mean/GM"] < 0.85
    assert shown == [0.6, 0.65, 0.7, 0.75, 0.8, 0.85]
    assert five.numbers("fig3b")["rows_per_model"] == 19 * 20
    assert "F1 score (20 Bootstraps)" in five.texts("fig3b")
    assert five.texts("fig3b").count("not scored for any person") == 1


def test_figure_4_of_few_persons(two, five):
    assert two.numbers("fig4a") == {
        "mean_difference/SYN01": 9.0,
        "mean_difference/P_07": -4.5,
        "mean_over_persons": 2.25,
        "n_settings": 2,
    }
    assert max(heights_inside(two, "fig4a")) >= 9 and min(heights_inside(two, "fig4a")) <= -4.5
    assert two.numbers("fig4b")["totals"] == {"PSM": 1, "GM": 0}
    assert five.numbers("fig4b")["n_novel/a_rather_long_name"] == {"PSM": 4, "GM": 4}
    assert {"SYN01", "P_07", "quiet", "a_rather_long_name"} <= {*five.texts("fig4b")}


def test_clusters_without_anything_to_match(two):
    numbers = two.numbers("fig4c")
    assert numbers["SYN01/metric"] == {"rows": ["PSM_-1"], "columns": ["GM_-1"], "values": [[1.0]]}
    assert numbers["SYN01/novel"] == {"PSM": [], "GM": []}
    assert numbers["P_07/metric"] == {"rows": [], "columns": [], "values": []}
    assert numbers["P_07/PSM/counts"] == {"0": 4, "1": 5}
    texts = " ".join(two.texts("fig4c"))
    assert "nothing to match" in texts and "SYN01: PSM Counter({-1: 9})" in texts
    assert two.numbers("supp_clusters") == {}
    assert "there are no other persons: all are in Figure 4" in two.texts("supp_clusters")
    assert not (two.folder / "supp_clusters").exists()


def test_clusters_of_the_others(five):
    numbers = five.numbers("supp_clusters")
    assert numbers["SN001/n_clusters"]["GM"] == 1
    assert numbers["quiet/metric_mean"] is None
    pages = {path.stem for path in (five.folder / "supp_clusters").glob("*.png")}
    assert pages == {"SN001", "quiet", "a_rather_long_name"}


def test_figure_5_draws_the_approaches_that_were_run(two):
    runs = two.results["Bootstrap_F1_scores_Training_Approaches_Figure5"]
    numbers = two.numbers("fig5a")
    assert list(numbers) == ["mean/Approach 1", "mean/Approach 3"]
    assert numbers["mean/Approach 3"] == pytest.approx(
        np.mean(runs["SYN01_pretrained_on_P_07"]), abs=1e-12
    )
    texts = " ".join(two.texts("fig5a"))
    assert "Approach 1: all frames, 20 epochs; Approach 3: model of another person" in texts
    assert "Approach 2" not in texts and "Approach 4" not in texts
    assert set(two.numbers("fig5b")) == {
        f"mean/{a}/{au}" for a in ("Approach 1", "Approach 3") for au in TWO["SYN01"]
    }


def test_figure_5_averages_the_source_persons(five):
    runs = five.results["Bootstrap_F1_scores_Training_Approaches_Figure5"]
    numbers = five.numbers("fig5a")
    assert list(numbers) == [f"mean/Approach {k}" for k in (1, 2, 3, 4)]
    means = [np.mean(v, axis=0) for k, v in runs.items() if re.match("P_07_pretrained_on_[^V]", k)]
    assert len(means) == 4
    others = [v for k, v in runs.items() if re.match(r"(SYN01|SN001|a_\w+?)_pretrained_on_[^V]", k)]
    total = sum(np.sum(v) for v in others) / 4 + np.sum(means) * 20 / 4
    assert numbers["mean/Approach 3"] == pytest.approx(total / (19 * 20), abs=1e-12)
    late = [v for k, v in runs.items() if "_48_FRAMES_" in k]
    flat = np.concatenate([np.ravel(v) for v in late])
    assert numbers["mean/Approach 4"] == pytest.approx(flat.mean(), abs=1e-12)
    said = "Approach 1: all frames, 20 epochs; Approach 3: models of 5 persons; "
    assert said + "Approach 4: 48 frames, 2 epochs" in " ".join(five.texts("fig5b"))


def test_figure_6_draws_any_list_of_epochs(two, five):
    assert two.numbers("fig6")["epochs_drawn"] == ["epoch_1", "epoch_2"]
    numbers, scores = five.numbers("fig6"), five.results["epoch_by_epoch_CTL_Figure6"]
    assert numbers["epochs_drawn"] == [f"epoch_{e}" for e in (2, 5, 10, 20, 40, 80)]
    assert numbers["mean/PSM_wCTL/epoch_5"] == pytest.approx(
        np.mean(scores["epoch_5"]["PSM_wCTL"]), abs=1e-12
    )


def test_faces_in_any_number(two, five):
    expected = two.results["neu_face_dict"]["Approach1"][0].astype(float).mean()
    assert two.numbers("fig5c")["mean/Approach1"] == pytest.approx(expected, abs=1e-12)
    assert two.numbers("fig5c")["frame_spread/Approach1"] == 0.0
    assert len(five.numbers("supp_faces_random")) == 6


def test_plane_with_empty_regions(two, five):
    numbers = two.numbers("supp_embedding")
    assert numbers["n_rows"]["GM_embeddings"] == 7 and numbers["region1/au_share"] == {}
    assert {"region 2", "region 3", "region 4"} <= {*two.texts("supp_embedding")}
    assert five.numbers("supp_embedding")["n_rows"]["GM_embeddings_region3"] == 60
    assert "region 4: 0 frames, share with the AU" in five.texts("supp_embedding")


def test_summary_of_all_frames_or_of_the_clustered_ones(two, five):
    whole = two.numbers("supp_disfa")
    assert whole["share/SYN01"]["au12"] == 0.1 and whole["n_frames/P_07"] == 45
    assert (whole["pairs_above_2_percent"], whole["differs_from_list"]) == (3, [])
    assert "per cent of all frames" in " ".join(two.texts("supp_disfa"))
    part = five.numbers("supp_disfa")
    frames = five.results["clusters_Figure4"]["P_07"]["GM"]
    assert part["count/P_07"]["au4"] == int(frames["au4_bis"].sum())
    assert [k for k in part if k.startswith("n_frames/")] == [f"n_frames/{p}" for p in FIVE]
    assert "the frames in the cluster files" in " ".join(five.texts("supp_disfa"))
    assert five.numbers("table_aus")["person_au_pairs"] == 19


# --- files that are not there, or damaged -----------------------------------------------------------


def figures(capsys, runs, out):
    options = ["--source", "runs", "--results-dir", str(runs), "--out", str(out), "--offline"]
    code = cli.main(["figures", "psm", *options])
    return code, capsys.readouterr().err


def test_status_says_which_file_is_not_there(five, capsys):
    options = ["--source", "runs", "--results-dir", str(five.runs)]
    assert cli.main(["status", "psm", *options, "--out", str(five.folder.parent), "--json"]) == 0
    states = {s["name"]: s for s in json.loads(capsys.readouterr().out)}
    assert {n for n, s in states.items() if s["state"] == "fresh"} == ALL - LEFT_OUT
    assert {states[n]["state"] for n in LEFT_OUT} == {"missing"}
    assert states["fig5c"]["reasons"] == [f"neu_face_dict.pickle is not in {five.runs}"]


def test_a_folder_without_results_is_a_mistake(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(engine, "run_notebooks", run_here)
    (tmp_path / "runs").mkdir()
    code, error = figures(capsys, tmp_path / "runs", tmp_path / "out")
    assert code == 2
    assert error == (
        f"facecomp: no figure can be drawn: its result files are not in {tmp_path / 'runs'}\n"
    )


def test_a_damaged_file_is_a_fault_whatever_else_can_be_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(engine, "run_notebooks", run_here)
    few = dict.fromkeys(("AUs_to_use_per_Person", "neu_face_dict_random"), FIVE)
    runs = write_runs(tmp_path / "runs", few)
    (runs / "neu_face_dict_random.pickle").write_bytes(b"")
    code, error = figures(capsys, runs, tmp_path / "out")
    assert code == 2
    assert f"facecomp: {runs / 'neu_face_dict_random.pickle'}: is empty (0 bytes)" in error
    assert [p.name for p in (tmp_path / "out" / "psm").glob("*.png")] == ["table_aus.png"]


def test_an_older_picture_of_other_results_is_not_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(engine, "run_notebooks", run_here)
    runs = write_runs(tmp_path / "runs", {"AUs_to_use_per_Person": FIVE})
    write_runs(runs, {"epoch_by_epoch_CTL_Figure6": epochs((1, 2), 3, np.random.default_rng(0))})
    assert figures(capsys, runs, tmp_path / "out")[0] == 0
    for path in runs.glob("epoch*"):
        path.unlink()
    assert figures(capsys, runs, tmp_path / "out")[0] == 0
    page = (tmp_path / "out" / "psm.html").read_text()
    assert "psm/table_aus.png" in page and "psm/fig6.png" not in page
    assert "fig6: stale (epoch_by_epoch_CTL_Figure6.pickle is not in" in page


def test_results_are_read_as_written(two):
    assert read_pickle(two.runs / "AUs_to_use_per_Person.pickle") == TWO
