"""The study as a whole: what was published, every oddity, tables and figures drawn from small objects made by hand."""

import ast
import json
import re
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, run_cells

from facecomp.dfer.annotations import data_set
from facecomp.dfer.costs import NETWORKS, VIDEO_MAE
from facecomp.dfer.scores import Scores
from facecomp.dfer.sections import LegacyParams
from facecomp.dfer.study import EVALUATION, GAZE360, STUDY
from facecomp.dfer.tables import (
    LOGS,
    columns_of,
    fold_table,
    log_scores,
    method_numbers,
    named_predictions,
    read_answers,
    runs_of,
    write_evaluation,
    write_gaze360,
)
from facecomp.paper.compare import compare
from facecomp.paper.figures import read_provenance
from facecomp.paper.publish import expectations_of
from facecomp.paper.reproduce import Request, comparison, disagreements, survey
from facecomp.paper.sources import open_results
from facecomp.records.files import InputError, write_atomic
from facecomp.records.pickles import plain_table, read_pickle
from facecomp.records.receipts import (
    Receipt,
    output_faults,
    read_receipt,
    write_objects,
    write_receipt,
)

NOTEBOOKS = ROOT / "nbs" / "dfer"
NAMES = ("happy", "sad", "neutral", "anger", "surprise", "disgust", "fear")
NEED_NOTHING = {a.name for a in STUDY.artefacts if not a.inputs}


# ------------------------------------------------------------------ small objects of the cohort's form


def course(rng):
    """Losses of two encoders, two starts, six epochs."""
    rows = [(e, s, k, rng.uniform(0.9, 1) * 0.95**k) for e in ("lgi", "joint") for s in (0, 1) for k in range(6)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["encoder", "seed", "epoch", "loss"])
    return table.assign(appearance=table["loss"] * 1.1, motion=table["loss"] * 0.9)


def frames_of(rng, count=8, side=16):
    return rng.integers(0, 255, (count, side, side, 3)).astype(np.uint8)


def predictions(rng):
    rows = []
    for variant in ("lgi", "joint", "lgi_scratch", "joint_scratch"):
        for k in range(28):
            shares = rng.dirichlet(np.ones(7))
            shares[k % 7] += 0.2
            row = {"variant": variant, "seed": 0, "clip": f"c{k}", "person": f"p{k % 4}"}
            row |= {"label": k % 7, "said": int(shares.argmax())}
            rows.append(row | dict(zip(NAMES, shares / shares.sum(), strict=True)))
    return pd.DataFrame(rows)


def gaze(rng):
    rows = []
    for variant, spread in (("gaze", 4.0), ("gaze_scratch", 9.0), ("middle", 14.0)):
        yaw = rng.uniform(-1.2, 1.2, 160)
        error = np.abs(rng.normal(0, spread, 160))
        table = pd.DataFrame(
            {"variant": variant, "seed": 0, "person": "p", "yaw": yaw, "error": error}
        )
        rows.append(
            table.assign(clip="c", frame=np.arange(160), pitch=0.1, said_pitch=0.1, said_yaw=yaw)
        )
    return pd.concat(rows, ignore_index=True)


def relabelled(rng):
    parts = []
    for k, name in enumerate(NAMES):
        walk = np.cumsum(rng.normal(0, 0.02 * (1 + k), (40, 2)), 0)
        table = pd.DataFrame(
            {"clip": f"c{k}", "frame": np.arange(40), "person": "p", "emotion": name}
        )
        table = table.assign(pitch=walk[:, 0], yaw=walk[:, 1])
        noise = rng.normal(0, 0.05, (40, 2))
        parts.append(
            table.assign(said_pitch=walk[:, 0] + noise[:, 0], said_yaw=walk[:, 1] + noise[:, 1])
        )
    return pd.concat(parts, ignore_index=True)


def ablation():
    rows = [("lgi", s, 50.0 + s, 60.0, np.nan, 1_000_000, 0.05) for s in (0, 1)]
    rows += [
        ("joint", 0, 48.0, 61.0, np.nan, 1_200_000, 0.06),
        ("gaze", 0, np.nan, np.nan, 4.5, 900_000, 0.05),
    ]
    columns = ["variant", "seed", "uar", "war", "gaze_error", "parameters", "gmacs"]
    return pd.DataFrame(rows, columns=columns)


def claims():
    row = {
        "claim": "pre-training helps",
        "measure": "accuracy",
        "first": "lgi",
        "second": "lgi_scratch",
    }
    row |= {"mean_first": 0.6, "mean_second": 0.5, "margin": 0.05, "difference": 0.1}
    other = row | {"claim": "nothing moves", "difference": np.nan, "low": np.nan, "high": np.nan}
    rows = [row | {"low": 0.02, "high": 0.2, "clips": 9, "verdict": "holds"}]
    return pd.DataFrame([*rows, other | {"clips": 0, "verdict": "no value"}])


def objects():
    """One object of each result file that the cohort makes, small, by hand."""
    rng = np.random.default_rng(0)
    keys = ("original", "masked", "first", "difference", "second")
    clips = {f"clip {k}": {key: frames_of(rng) for key in keys} for k in (1, 2)}
    labels = np.arange(28) % 7
    features = (
        rng.normal(size=(28, 6)).astype(np.float32) + 3 * np.eye(7, 6, dtype=np.float32)[labels]
    )
    part = {"features": features, "labels": labels, "names": list(NAMES), "people": ["p"] * 28}
    looks = {"clip 1": {"frames": frames_of(rng, 16), "scores": rng.random((8, 2, 2), np.float32)}}
    summary = [
        ("lgi", "accuracy", 0.5, 0.4, 0.6, 4, 28),
        ("gaze", "gaze error", 4.5, 4.0, 5.0, 4, 9),
    ]
    columns = ["variant", "measure", "mean", "low", "high", "people", "clips"]
    speed = [(n, 1.0 + k, 0.9, 3.0, 5, 1, "a processor") for k, n in enumerate(NETWORKS)]
    timed = ["network", "seconds", "fastest", "slowest", "repeats", "threads", "device"]
    return {
        "pretraining_synthetic": plain_table(course(rng)),
        "reconstruction_synthetic": clips,
        "features_synthetic": {"lgi": part, "lgi_scratch": part},
        "predictions_synthetic": plain_table(predictions(rng)),
        "gaze_synthetic": plain_table(gaze(rng)),
        "relabelled_synthetic": plain_table(relabelled(rng)),
        "attention_synthetic": looks,
        "ablation_synthetic": plain_table(ablation()),
        "summary_synthetic": plain_table(pd.DataFrame(summary, columns=columns)),
        "claims_synthetic": plain_table(claims()),
        "speed_synthetic": plain_table(pd.DataFrame(speed, columns=timed)),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of these objects with receipts, as a cohort leaves them."""
    folder = tmp_path_factory.mktemp("results")
    write_objects(folder, Receipt("cohort", "dfer", "run_cohort", "synthetic"), objects())
    return folder


@pytest.fixture(scope="module")
def drawn(made, tmp_path_factory):
    """Everything that can be drawn of them."""
    out = tmp_path_factory.mktemp("figures")
    for notebook in STUDY.notebooks():
        run_cells(notebook, "dfer", results_dir=str(made), out_dir=str(out))
    return out / "dfer"


def test_the_objects_have_the_form_that_the_study_demands(made):
    needed = {name for a in STUDY.artefacts for name in a.inputs}
    assert needed == set(objects()) and all(
        output_faults(p) == [] for p in made.glob("*.receipt.json")
    )
    text = " ".join(cell_texts("31_study"))
    for name, value in objects().items():
        [line] = [
            x for x in text.splitlines() if x.startswith("| ") and f"`{name}`" in x.split(" | ")[0]
        ] or [""]
        if isinstance(value, pd.DataFrame) and line and "with intervals" not in line:
            said = re.split(r", (?![^(]*\))", line.split(": ", 1)[1].strip(" |"))
            told = {re.sub(r" \(.*\)", "", word).strip() for word in said}
            told = {word for word in told if " " not in word}
            assert told <= {*value.columns}, name


# ------------------------------------------------------------------ what was published


def test_cells_that_nobody_has_have_no_number():
    content = json.loads(STUDY.expected.read_text())
    keys = {(e["figure"], e["key"]) for e in content["entries"]}
    never = {(e["figure"], e["key"]) for e in content["never_published"]}
    assert len(keys) == content["n"] == len(content["entries"]) and not keys & never
    assert all(e["value"] is not None and e["source"] for e in content["entries"])
    assert {k for f, k in never if f == "table_lab"} == {f"{d}/{m}" for d in ("CREMA-D", "RAVDESS", "eNTERFACE05") for m in ("UAR", "WAR")}  # fmt: skip
    assert (
        any(f == "table_ablation" for f, _ in never)
        and ("table_gaze", "first version/error") in never
    )
    assert {f for f, _ in keys | never} <= {a.name for a in STUDY.artefacts}


def test_published_rows_are_those_of_the_paper():
    found = {
        e.figure + ": " + e.key: e.value
        for n in STUDY.artefacts
        for e in expectations_of(STUDY, n.name)
    }
    for key, value in {
        "table_dfew: MAE-DFER/UAR": 63.41, "table_dfew: MAE-DFER/WAR": 74.43,
        "table_dfew: M3DFEL/happy": 89.59, "table_ferv39k: MAE-DFER/fear": 17.17,
        "table_mafw: T-ESFL/disgust": 2.51, "table_dfew_folds: 5/UAR": 65.42,
        "table_mafw_folds: 3/UAR": 46.25, "table_mafw_folds: 3/WAR": 58.87,
        "table_mafw_folds: 3, log/UAR": 46.08, "table_mafw_folds: 3, log/WAR": 59.25,
        "table_mafw_folds: mean/UAR": 42.36, "table_mafw_folds: paper/WAR": 54.31,
        "table_ferv39k_runs: reproduced/UAR": 43.29, "table_ferv39k_runs: reported/WAR": 52.07,
        "table_cost: MAE-DFER/GMACs, counted": 49.75, "table_cost: VideoMAE/GMACs, counted": 80.76,
        "table_cost: saved": -38, "table_pretraining: parameters": 92_760_192,
        "table_gaze: relabelled DFEW fold 1/frames": 149_664,
    }.items():  # fmt: skip
        assert found[key] == value, key
    rows = {n: len({e.key.rpartition("/")[0] for e in expectations_of(STUDY, n)} - {"gain"}) for n in ("table_dfew", "table_ferv39k", "table_mafw")}  # fmt: skip
    assert rows == {"table_dfew": 17, "table_ferv39k": 17, "table_mafw": 11}


@pytest.mark.parametrize("log", LOGS)
def test_confusion_matrices_of_the_logs_give_their_numbers_to_the_last_digit(log):
    printed = {e.key: e.value for e in expectations_of(STUDY, "table_logs")}
    scores = Scores(np.array(printed[f"{log}/counts"]))
    assert scores.counts.sum() == printed[f"{log}/clips"] == printed[f"{log}/views"] / 4
    assert f"{100 * scores.uar:.2f}" == f"{printed[f'{log}/UAR']:.2f}"
    assert (
        f"{100 * scores.war:.2f}"
        == f"{printed[f'{log}/WAR']:.2f}"
        == f"{printed[f'{log}/top 1']:.2f}"
    )
    for kind in ("weighted", "micro", "macro"):
        assert f"{scores.table()[f'{kind}_f1']:.4f}" == f"{printed[f'{log}/{kind} F1']:.4f}"
    [recalls] = [
        e.value for e in expectations_of(STUDY, "fig_confusion") if e.key == f"{log}/recalls"
    ]
    assert [f"{100 * r:.2f}" for r in scores.recalls] == [f"{r:.2f}" for r in recalls]


def test_a_wrong_digit_in_a_confusion_matrix_is_noticed():
    wanted = expectations_of(STUDY, "table_logs")
    [counts] = [np.array(e.value) for e in wanted if e.key == "mafw_fold3/counts"]
    counts[0, 0], counts[0, 1] = counts[0, 0] - 1, counts[0, 1] + 1
    changed = {"mafw_fold3/UAR": round(100 * Scores(counts).uar, 2)}
    [row] = compare([e for e in wanted if e.key in changed], changed).itertuples()
    assert row.verdict == "DIFFERS"


def test_expressions_of_the_tables_come_in_the_order_of_the_labels():
    for name, data in (
        ("table_dfew", "DFEW"),
        ("table_ferv39k", "FERV39k"),
        ("table_mafw", "MAFW"),
    ):
        columns = columns_of(expectations_of(STUDY, name))
        assert [c[:4] for c in columns] == [
            c[:4].replace("angr", "ange") for c in data_set(data).classes
        ]


def test_four_rows_do_not_average_to_their_own_mean_and_stay_as_printed():
    found = set()
    for name in ("table_dfew", "table_ferv39k", "table_mafw"):
        expected = expectations_of(STUDY, name)
        full = {
            e.key.rpartition("/")[0]
            for e in expected
            if e.key.endswith(("/fear", "/disappointment"))
        }
        _, printed = method_numbers(expected)
        found |= {f"{name}: {m}" for m in full if f"{m}/UAR" in printed}
    assert found == {"table_dfew: ResNet-18+GRU", "table_dfew: M3DFEL", "table_ferv39k: NR-DFERNet", "table_mafw: C3D"}  # fmt: skip


# ------------------------------------------------------------------ oddities


def cell_texts(notebook):
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]


def oddity_rows():
    """Number -> cells of the rows of the table in the study's notebook."""
    lines = "\n".join(cell_texts("31_study")).splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| 22\.\d+ \|", line)]
    return {row[0]: row[1:] for row in rows}


def test_all_thirty_oddities_are_in_one_table_with_both_modes():
    rows = oddity_rows()
    assert list(rows) == [f"22.{n}" for n in range(1, 31)]
    for number, row in rows.items():
        assert len(row) == 5 and all(cell.strip() for cell in row), number
        paper, published, corrected, compat, where = row
        assert published != corrected and compat, number


def test_every_notebook_that_an_oddity_names_is_there_and_says_its_number():
    for number, row in oddity_rows().items():
        links = re.findall(r"\]\(([^)]+)\)", row[-1])
        assert links or row[-1].startswith("here:"), number
        for link in links:
            cells = json.loads((NOTEBOOKS / link).resolve().read_text())["cells"]
            text = " ".join("".join(c["source"]) for c in cells)
            assert re.search(re.escape(number) + r"(?!\d)", text), f"{link} does not say {number}"


def test_every_setting_that_brings_an_oddity_back_exists_and_is_named():
    named = {m for row in oddity_rows().values() for m in re.findall(r"`legacy\.(\w+)`", row[3])}
    assert named == {f.name for f in fields(LegacyParams)}


def test_the_study_imports_no_other_study():
    others = {p.parent.name for p in (ROOT / "facecomp").glob("*/study.py")} - {"dfer"}
    assert "fomm" in others
    for path in (ROOT / "facecomp" / "dfer").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [n.name for n in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if set(n.split(".")) & others], path.name


# ------------------------------------------------------------------ tables and figures


def test_everything_is_drawn_and_synthetic_pictures_say_so(drawn):
    kinds = {path.stem: read_provenance(path).data for path in drawn.glob("*.png")}
    assert set(kinds) == {a.name for a in STUDY.artefacts}
    assert {name for name, kind in kinds.items() if kind == "none"} == NEED_NOTHING
    assert {kind for name, kind in kinds.items() if name not in NEED_NOTHING} == {"synthetic"}
    for name in set(kinds) - NEED_NOTHING:
        assert "synthetic</text>" in re.sub(r"\s+", "", (drawn / f"{name}.svg").read_text()), name


def test_published_numbers_are_quoted_or_computed_again_and_nothing_differs(drawn):
    table = comparison(Request(STUDY, out_dir=drawn.parent))
    assert disagreements(table).empty and len(table) == 560 - 1  # the loss is drawn beside ours
    by_figure = table.groupby("figure")["verdict"].agg(set)
    assert by_figure["fig_confusion"] == {"equal"} and by_figure["table_cost"] == {"within"}
    assert by_figure["table_logs"] == {"equal", "as printed"}
    words = table.set_index(["figure", "key"])["verdict"]
    for key in (
        ("table_dfew", "gain/UAR"),
        ("table_mafw", "gain/UAR"),
        ("table_ferv39k", "MAE-DFER/UAR"),
    ):
        assert words[key] == "equal"
    assert words["table_pretraining", "rates"] == "within"
    assert words["table_mafw_folds", "3, log/UAR"] == "equal"


def test_without_results_what_needs_them_is_missing_and_the_rest_can_be_drawn(tmp_path):
    (tmp_path / "none").mkdir()
    items = survey(Request(STUDY, "runs", str(tmp_path / "none"), tmp_path / "out"))
    assert {i.artefact.name for i in items if i.absent} == {
        a.name for a in STUDY.artefacts
    } - NEED_NOTHING
    assert {i.state.state for i in items} == {"missing"} and not any(i.fault for i in items)


def read_table(folder, name):
    return pd.read_csv(folder / f"{name}.table.csv", index_col=0, dtype=str, keep_default_na=False)


def test_cells_say_whether_nobody_published_them_or_nobody_ran_them(drawn):
    lab = read_table(drawn, "table_lab")
    assert list(lab.index) == ["CREMA-D", "RAVDESS", "eNTERFACE05"]
    assert set(lab["UAR published"]) | set(lab["WAR published"]) == {"not available"}
    assert set(lab["UAR our run"]) == {"not run"}
    parts = read_table(drawn, "table_parts")
    assert set(parts["UAR published"]) == {"not available"} and set(parts["UAR ours"]) == {
        "not run"
    }
    assert parts.loc["as published", "GMACs"] == "49.75" and len(parts) == 19
    ablated = read_table(drawn, "table_ablation")
    assert ablated.loc["local, global, local-global (LGI)", "UAR ours"] == "50.50"
    assert ablated.loc["gaze of every frame", "UAR ours"] == "–"
    assert set(ablated["WAR published"]) == {"not available", "–"}
    gaze_known = read_table(drawn, "table_gaze")
    assert gaze_known.loc["first version", "published"] == "not available"
    assert gaze_known.loc["our run", "ours"] == "not run"
    claimed = read_table(drawn, "table_claims")
    assert claimed.loc["nothing moves", ["gain", "verdict"]].tolist() == ["–", "no value"]


def test_both_runs_of_mafw_are_shown_for_what_they_are(drawn):
    table = read_table(drawn, "table_mafw_folds")
    assert table.loc["3", ["UAR published", "WAR published"]].tolist() == ["46.25", "58.87"]
    log = table.loc["3, released log of the paper's run"]
    assert log[["UAR computed again", "WAR computed again"]].tolist() == ["46.08", "59.25"]
    assert table.loc["mean in the paper", "UAR published"] == "41.62"
    text = " ".join(" ".join(cell_texts("paper_table_folds")).split())
    assert "of fold 3 has 46.08 and 59.25" in text and "fold 3 has 46.25 and 58.87" in text


def test_milliseconds_come_with_the_machine_that_needed_them(drawn, made):
    table = read_table(drawn, "table_speed")
    assert table.loc[VIDEO_MAE, "GMACs"] == "80.76" and table.loc[VIDEO_MAE, "ms a clip"] == "1000"
    assert table.loc["MAE-DFER", "GMACs against VideoMAE"] == "-38.4 %"
    assert "a processor, 1 thread" in (drawn / "table_speed.svg").read_text()


def test_without_published_files_every_source_leads_to_our_own_runs(made):
    for source in ("published", "synthetic", "runs"):
        results = open_results(STUDY, source, str(made))
        assert results.source == "runs" and results.has("summary_synthetic")
        assert bool(results.notice) == (source != "runs")


# ------------------------------------------------------------------ runs on real clips


def answers_file(path, scores):
    """A `pred.csv` with this confusion."""
    lines = ["id,label,pred"]
    for (label, said), count in np.ndenumerate(scores.counts):
        lines += [f"c{label}_{said}_{k},{label},{said}" for k in range(count)]
    return write_atomic(path, "\n".join(lines) + "\n")


def test_our_runs_stand_beside_the_published_numbers(tmp_path):
    logs = log_scores(expectations_of(STUDY, "table_logs"))
    given = {
        "DFEW/1": answers_file(tmp_path / "a" / "pred.csv", logs["dfew_fold1"]),
        "FERV39k/all": answers_file(tmp_path / "b" / "pred.csv", logs["ferv39k"]),
    }
    text = ", ".join(f"{name}={path}" for name, path in given.items())
    (tmp_path / "results").mkdir()
    given = {"results_dir": str(tmp_path / "results"), "out_dir": str(tmp_path)}
    run_cells("paper_table_methods", "dfer", predictions=text, **given)
    run_cells("paper_figure_confusion", "dfer", **given)
    folder = tmp_path / "dfer"
    table = read_table(folder, "table_ferv39k")
    assert table.loc["MAE-DFER, ours (1 of 1 folds)", "happy"] == "73.05"
    assert table.loc["difference", "UAR"] in ("+0.00", "-0.00")
    assert "MAE-DFER, ours (1 of 5 folds)" in read_table(folder, "table_dfew").index
    compared = pd.read_csv(folder / "table_ferv39k.compare.csv")
    assert set(compared["verdict"]) == {"own run"} and len(compared) == 9
    assert read_provenance(folder / "table_dfew.png").data == "real"


def test_means_of_our_folds_come_with_their_deviation():
    logs = log_scores(expectations_of(STUDY, "table_logs"))
    one, two = logs["dfew_fold1"], Scores(np.eye(7, dtype=int))
    table = fold_table(expectations_of(STUDY, "table_dfew_folds"), {}, {("DFEW", "1"): one, ("DFEW", "2"): two}, "DFEW")  # fmt: skip
    assert table.loc["2", "WAR our run"] == "100.00"
    assert (table.loc["1", "UAR our run"], table.loc["3", "UAR our run"]) == ("62.59", "not run")
    mean, sd = (np.mean([one.war, 1]), np.std([one.war, 1], ddof=1))
    assert table.loc["mean of these", "WAR our run"] == f"{100 * mean:.2f}"
    assert table.loc["sd", "WAR our run"] == f"{100 * sd:.2f}"


def test_the_kind_of_answers_is_that_of_their_receipt_and_changed_ones_are_refused(tmp_path):
    path = write_atomic(tmp_path / "pred.csv", "id,label,pred\na,0,0\n")
    write_receipt(tmp_path, Receipt("evaluation", "dfer", "run_evaluate", "synthetic"), [path])
    made = write_evaluation(f"RAVDESS/2={path}", tmp_path / "results")
    assert read_receipt(made.with_name(f"{EVALUATION}.receipt.json")).data == "synthetic"
    assert runs_of(read_pickle(made), {"RAVDESS": 8})["RAVDESS", "2"].war == 1
    path.write_text("id,label,pred\na,0,1\n")
    with pytest.raises(InputError, match="was changed after it was made"):
        write_evaluation(f"RAVDESS/2={path}", tmp_path / "results")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DFEW=a.csv", "must be DATASET/FOLD=path"),
        ("FER2013/1=a.csv", "DATASET one of DFEW, MAFW"),
        ("DFEW/1=nowhere.csv", "there is no such file"),
    ],
)
def test_answers_that_are_named_wrongly_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        named_predictions(text)


def test_answers_without_their_columns_are_refused(tmp_path):
    path = write_atomic(tmp_path / "pred.csv", "id,label\na,0\n")
    with pytest.raises(InputError, match="columns id, label, pred of numbers are needed"):
        read_answers({("DFEW", "1"): path})


def test_answers_to_real_clips_are_not_put_where_results_are_passed_on(tmp_path):
    for notebook, given in (
        ("paper_table_methods", "predictions"),
        ("paper_figure_gaze", "gaze_scores"),
    ):
        with pytest.raises(InputError, match="^results_dir: name a folder"):
            run_cells(notebook, "dfer", out_dir=str(tmp_path), **{given: "x"})


def test_our_gaze_stands_beside_the_remark(tmp_path):
    columns = "range,frames,people,degrees,low,high,constant"
    path = write_atomic(tmp_path / "gaze_scores.csv", f"{columns}\nall 360,10,2,12.5,11,14,40\n")
    made = write_gaze360(path, tmp_path / "results")
    assert made.stem == GAZE360
    given = {"results_dir": str(tmp_path / "results"), "out_dir": str(tmp_path)}
    run_cells("paper_figure_gaze", "dfer", **given)
    table = read_table(tmp_path / "dfer", "table_gaze")
    assert table.loc["our run, all 360", "ours"] == "12.50 [11.00, 14.00]"
    assert table.loc["second version, 50 epochs", "published"] == "about 30"
    assert not (tmp_path / "dfer" / "fig_gaze.png").exists()
    bad = write_atomic(tmp_path / "bad.csv", "range\nall\n")
    with pytest.raises(InputError, match="columns range, frames"):
        write_gaze360(bad, tmp_path / "results")
