"""A cohort from frames to result files: labels, splits, plan, what makes a run stale, and the published form of what comes out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from facecomp.psm import analysis, cohort, people, prediction, results
from facecomp.psm.action_units import AU12
from facecomp.psm.clustering import sampled_rows
from facecomp.psm.cohort import Cohort
from facecomp.psm.simulation import simulate_results
from facecomp.records.files import InputError
from facecomp.records.pickles import read_pickle
from facecomp.records.receipts import output_faults, read_receipt

TINY = {"frames": 40, "strangers": 2, "epochs": 2, "general_epochs": 1, "saved": "1,2", "batch_size": 4, "width": 16}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Cohort:
    """Two participants, trained and analysed."""
    c = Cohort(out=str(tmp_path_factory.mktemp("cohort")), device="cpu", **TINY)
    cohort.carry_out_all([cohort.general_run(c)], c)
    for part in cohort.PARTS[:2]:
        for person in c.names:
            cohort.carry_out_all(cohort.part_runs(c, person, part), c)
            cohort.write_part_receipt(c, person, part)
    for person in c.names:
        analysis.analyse(c, person)
    return c


# ---------------------------------------------------------------- labels


def test_labels_of_disfa_are_read_by_frame(tmp_path):
    folder = tmp_path / "ActionUnit_Labels" / "SN001"
    folder.mkdir(parents=True)
    for au in people.DISFA_AUS:
        (folder / f"SN001_au{au}.txt").write_text("\n".join(f"{t},{(au + t) % 6}" for t in range(1, 5)))
    table = people.read_labels(tmp_path, "SN001")
    assert list(table.columns) == list(AU12) and list(table.index) == [1, 2, 3, 4]
    assert table.loc[3, "au12"] == 15 % 6
    rows = people.labels_of_frames(table, ["SN001/frame3.jpg", "SN001/frame0.jpg"])
    assert rows["au12"].tolist() == [16 % 6, 13 % 6]  # frame 0 is the label 1
    (folder / "SN001_au26.txt").unlink()
    with pytest.raises(InputError, match=r"no labels of SN001.*11 found"):
        people.read_labels(tmp_path, "SN001")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,au1\n1,6\n", r"frame 1, au1: 6.0 is not an intensity"),
        ("frame,au1\n1,\n", r"frame 1, au1: nan is not an intensity"),
        ("frame,au1\n1,0\n1,2\n", r"frame 1 stands twice"),
        ("frame,au1\n1.5,0\n", r"row 1: frame is not a whole number"),
        ("frame,au1,AU01_r\n1,0,0\n", r"at most once"),
        ("time,au1\n1,0\n", r"needs the column frame"),
        ("frame,pain\n1,0\n", r"needs the column frame, and each of au1"),
        ("", r"cannot be read as a table"),
    ],
)
def test_wrong_labels_are_named(tmp_path, text, message):
    (tmp_path / "P1.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        people.read_labels(tmp_path, "P1")


def test_frames_without_labels_are_named():
    table = pd.DataFrame({"au1": [0.0, 1.0]}, index=[5, 6])
    with pytest.raises(InputError, match=r"frame7.jpg: has no label .*1 other frames.*5 to 6"):
        people.labels_of_frames(table, ["frame7.jpg", "frame8.jpg", "frame5.jpg"])


def test_another_day_is_the_same_person_doing_something_else(tmp_path):
    one, two = (people.make_person(tmp_path / str(s), "SYN09", 30, seed=s) for s in (0, 1))
    first, second = (pd.read_csv(folder / "aus.csv") for folder in (one, two))
    assert not np.allclose(first, second)
    before = (one / "aus.csv").stat().st_mtime_ns
    people.make_person(tmp_path / "0", "SYN09", 30)
    assert (one / "aus.csv").stat().st_mtime_ns == before  # what is whole is kept


# ---------------------------------------------------------------- classifiers


def test_splits_cover_all_frames_and_never_overlap():
    for frames in (10, 57, 480):
        train, test = prediction.split_frames(frames, seed=3)
        assert sorted([*train, *test]) == list(range(frames)) and len(test) == round(0.2 * frames)
        train, test = prediction.split_frames(frames, "blocks", gap=2)
        assert not len(train) or np.abs(train[:, None] - test).min() > 2
    with pytest.raises(InputError, match="one of random, blocks"):
        prediction.split_frames(10, "days")


def test_codes_that_know_an_au_score_high_and_noise_scores_low():
    rng = np.random.default_rng(0)
    present = rng.random((400, 12)) < 0.2
    knows = present + 0.05 * rng.normal(size=present.shape)
    split = prediction.split_frames(400)
    true, said = prediction.within_person(knows, present, AU12, split)
    assert (true == said).all()
    true, said = prediction.within_person(rng.normal(size=(400, 12)), present, AU12, split)
    assert np.mean(prediction.resampled_f1(true, said, 20)) < 0.5


def test_nothing_of_the_test_part_reaches_the_classifier():
    rng = np.random.default_rng(1)
    codes, present = rng.normal(size=(100, 5)), rng.random((100, 12)) < 0.3
    train, test = prediction.split_frames(100)
    before = prediction.within_person(codes, present, ["au1", "au2"], (train, test))[1]
    other = present.copy()
    other[test] = ~other[test]
    after = prediction.within_person(codes, other, ["au1", "au2"], (train, test))[1]
    assert (before == after).all()


def test_persons_of_a_fold_do_not_train_its_classifier():
    rng = np.random.default_rng(2)
    codes = {p: rng.normal(size=(50, 4)) for p in "ABC"}
    present = {p: c[:, [0] * 12] > 0 for p, c in codes.items()}
    present["C"] = ~present["C"]  # C is the other way round: F1 is near 0 if C's own labels are unknown
    scores = np.reshape(np.mean(prediction.across_persons(codes, present, ["au1"], n=5), axis=1), (3, 5))
    assert scores[2].max() < 0.2


# ---------------------------------------------------------------- the plan


def test_a_cohort_of_real_people_says_what_it_needs(tmp_path):
    with pytest.raises(InputError, match="general: real participants need"):
        Cohort(data=str(tmp_path), participants="P1")
    with pytest.raises(InputError, match="no folder of P1"):
        _ = Cohort(data=str(tmp_path), participants="P1", general_model="m.tar")
    with pytest.raises(InputError, match="participants=all: needs data"):
        Cohort(participants="all")
    with pytest.raises(InputError, match="saved '1,x'"):
        Cohort(saved="1,x")


def test_every_ordered_pair_of_participants_is_a_transfer(made):
    more = replace(made, participants="SYN01,SYN02")
    names = [run.name for p in more.names for run in cohort.part_runs(more, p, "transfers")]
    assert names == ["from_SYN02/SYN01", "from_SYN01/SYN02"]
    with pytest.raises(InputError, match=r"SYN03.*train first"):
        cohort.part_runs(replace(made, participants="SYN01,SYN03"), "SYN01", "transfers")
    with pytest.raises(InputError, match="part 'all'"):
        cohort.part_runs(made, "SYN01", "all")


def test_what_is_proven_is_not_trained_again(made):
    for person in made.names:
        for part in cohort.PARTS[:2]:
            assert cohort.part_fault(made, person, part) == ""
        assert analysis.analysis_fault(made, person) == ""
    assert analysis.analyse(made, "SYN01").endswith("analysed before")
    assert "epochs is 3, was 2" in cohort.part_fault(replace(made, epochs=3), "SYN01", "own")


def test_another_general_model_makes_exactly_its_children_stale(made, tmp_path):
    other = tmp_path / "other.tar"
    from facecomp.psm.networks import build_networks, published_state

    torch.save(published_state(build_networks(16)), other)
    changed = replace(made, general_model=str(other))
    stale = [r.name for r in cohort.own_runs(changed, "SYN01") if cohort.missing(r, changed)]
    assert stale == ["from_GM/SYN01"]
    assert analysis.analysis_fault(changed, "SYN01") == "GM is another"


def test_other_frames_make_a_persons_models_stale(made):
    frame = cohort.persons_folder(made) / "SYN02" / "face_only_aligned" / "frame3.jpg"
    kept = frame.read_bytes()
    frame.write_bytes(frame.with_name("frame9.jpg").read_bytes())
    try:
        cohort._identity_of.cache_clear()
        assert cohort.part_fault(made, "SYN02", "own") == "PSM/SYN02: the frames are others"
        assert cohort.part_fault(made, "SYN01", "own") == ""
    finally:
        frame.write_bytes(kept)
        cohort._identity_of.cache_clear()


def test_a_changed_label_or_table_makes_the_analysis_stale(made):
    table = cohort.persons_folder(made) / "SYN02" / "aus.csv"
    before = table.read_text()
    lines = before.splitlines()
    lines[1] = lines[1].rsplit(",", 1)[0] + ",5.0"
    table.write_text("\n".join(lines))
    try:
        assert analysis.analysis_fault(made, "SYN02") == "frames and labels is another"
        assert analysis.analysis_fault(made, "SYN01") == ""
    finally:
        table.write_text(before)
    scores = analysis.analysis_folder(made, "SYN01") / "scores.parquet"
    kept = scores.read_bytes()
    scores.write_bytes(kept[:-1])
    try:
        assert "scores.parquet was changed" in analysis.analysis_fault(made, "SYN01")
        with pytest.raises(InputError, match="analysis of SYN01: scores.parquet was changed"):
            results.Collected(made)
    finally:
        scores.write_bytes(kept)


# ---------------------------------------------------------------- results


def fits(value: object, wanted: object) -> bool:
    """Whether a result object has the form of another one, whatever its sizes; an empty list fits every list."""
    if type(value) is not type(wanted):
        return isinstance(value, float) and isinstance(wanted, float)
    if isinstance(value, dict | list | tuple):
        mine, theirs = (list(v.values()) if isinstance(v, dict) else v for v in (value, wanted))
        return all(any(fits(part, other) for other in theirs[:12]) for part in mine[:12])
    if isinstance(value, pd.DataFrame):
        forms = [([(c, v[c].dtype) for c in v], v.index.dtype, v.columns.dtype) for v in (value, wanted)]
        return forms[0] == forms[1]
    if isinstance(value, np.ndarray | torch.Tensor):
        return (value.dtype, value.ndim) == (wanted.dtype, wanted.ndim)
    return True


def test_the_comparison_of_forms_can_tell():
    assert fits({"a": [1.0]}, {"b": [2.0, 3.0]}) and fits({"a": []}, {"b": [2.0]})
    assert not fits({"a": [1]}, {"b": [2.0]}) and not fits({"a": np.zeros(2)}, {"a": [0.0]})
    assert not fits(np.zeros(2), np.zeros(2, np.float32))


@pytest.fixture(scope="module")
def written(made, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    results.write_results(results.Collected(made), folder)
    return folder


def test_thirteen_pickles_have_the_published_form(written):
    stand_ins = simulate_results(0)
    assert {p.stem for p in written.glob("*.pickle")} == set(stand_ins)
    for name, wanted in stand_ins.items():
        value = read_pickle(written / f"{name}.pickle")
        receipt = read_receipt(written / f"{name}.receipt.json")
        assert receipt.data == "synthetic" and not output_faults(written / f"{name}.receipt.json")
        assert fits(value, wanted), name
        if name not in ("PSM_and_GM_clusters",):  # no third participant
            assert len(value), name
    methods = read_pickle(written / "Bootstraps_results_Figure2.pickle")
    assert list(methods) == ["F1_Bootstrap_FaceCycle", "avg_F1_Bootstrap_FaceCycle"]


def test_numbers_of_the_pickles_agree_with_each_other(made, written):
    found = results.Collected(made)
    figure3 = read_pickle(written / "Bootstraps_results_Figure3.pickle")
    figure5 = read_pickle(written / "Bootstrap_F1_scores_Training_Approaches_Figure5.pickle")
    for person in found.scored:
        first = next(k for k in figure5 if k.startswith(person) and "ALL_FRAMES" in k)
        assert np.array_equal(figure3["F1_Bootstrap_PSM"][person], figure5[first])
        assert len(figure5[first]) == 100 and len(figure5[first][0]) == len(found.aus[person])
    assert len(figure5) == 4 * len(found.scored)  # approaches 1, 2, 4, and one other participant
    epochs = read_pickle(written / "epoch_by_epoch_CTL_Figure6.pickle")
    assert list(epochs) == ["epoch_1", "epoch_2"]
    pairs = sum(len(aus) for aus in found.aus.values())
    assert {len(v) for models in epochs.values() for v in models.values()} == {pairs}
    last = found.scores[(found.scores["resample"] == -1) & (found.scores["test"] == "random")]
    plain = [
        v
        for p in found.scored
        for v in last[last["run"] == results.model_run(found, p, "PSM")].query("person == @p")["f1"]
    ]
    assert epochs["epoch_2"]["PSM"] == plain  # the last epoch is the model of Approach 1
    counts = read_pickle(written / "dict_clusters_difference_Figure4.pickle")
    assert {len(c) for m in counts.values() for c in m.values()} == {40}
    clusters = read_pickle(written / "clusters_Figure4.pickle")["SYN01"]
    assert list(clusters["PSM"].index) == list(sampled_rows(made.frames)) == list(clusters["GM"].index)
    faces = read_pickle(written / "neu_face_dict.pickle")
    assert list(faces) == ["Original_input", "Approach1", "Approach2", "Approach3", "Approach4"]


def test_the_same_models_give_the_same_results(made, written, tmp_path):
    results.write_results(results.Collected(made), tmp_path)
    for path in [*written.glob("*.pickle"), written / "claims.csv"]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_claims_have_intervals_over_participants(made):
    found = results.Collected(made)
    table = results.claims(found).set_index(["claim", "test"])
    wide = results.plain_means(found).pivot(index=["test", "person"], columns="role", values="f1")
    claim = table.loc[("a person's own model beats the general one (PSM - GM)", "another day")]
    d = wide.loc["another day", "Approach 1"] - wide.loc["another day", "GM"]
    assert claim["difference"] == pytest.approx(d.mean()) and claim["participants"] == 2
    half = 12.7062047 * d.std(ddof=1) / 2**0.5
    assert (claim["low"], claim["high"]) == pytest.approx((d.mean() - half, d.mean() + half))
    assert set(table["verdict"]) <= {"holds", "fails", "open"}
    saved = table.loc[("transfer learning saves epochs (epochs of PSM - epochs of Approach 2)", "random")]
    assert 0 <= saved["difference"] <= 2


def test_epochs_to_reach_a_goal():
    epochs = pd.DataFrame({"approach": "PSM", "epoch": [1, 2, 4], "f1": [0.2, 0.5, 0.4]})
    assert results.epochs_to_reach(epochs, 0.45) == 2 and results.epochs_to_reach(epochs, 0.6) == np.inf


# ---------------------------------------------------------------- notebooks


def test_the_cohort_notebook_makes_only_what_is_missing(made, tmp_path, capsys, monkeypatch):
    from facecomp import cli_batch
    from facecomp.cli import main

    monkeypatch.setattr(cli_batch, "project_root", lambda: tmp_path)
    settings = TINY | {
        "out": made.out,
        "results": str(tmp_path / "results"),
        "device": "cpu",
    }
    chosen = [text for name, value in settings.items() for text in ("-p", f"{name}={value!r}".replace("'", ""))]
    chosen[chosen.index("saved=1,2")] = "saved='1,2'"
    notebook = str(ROOT / "nbs/psm/run_cohort.ipynb")
    assert main(["batch", notebook, *chosen]) == 0
    text = (tmp_path / "results/psm/batch/run_cohort/run.ipynb").read_text()
    assert text.count("done before") == 5 * 2 + 1 and text.count("analysed before") == 2 and "another day" in text
    receipt = read_receipt(tmp_path / "results/cohort.receipt.json")
    assert receipt.data == "synthetic" and "claims.receipt.json" in receipt.outputs
    capsys.readouterr()
    assert main(["batch", notebook, *chosen, "--dry-run"]) == 0
    assert "the receipt verifies" in capsys.readouterr().out
    model = next((Path(made.out) / "models/short/PSM/SYN02").glob("ExpCode_*.tar"))
    kept = model.read_bytes()
    model.write_bytes(kept + b"x")
    try:
        assert main(["batch", notebook, *chosen, "--dry-run"]) == 0
        assert "short/SYN02: ExpCode_1.tar was changed" in capsys.readouterr().out
    finally:
        model.write_bytes(kept)
