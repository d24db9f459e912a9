"""The cohort of synthetic people: who learns from whom, what is measured, claims, result files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import run_cells

from facecomp.dfer import cohort as cohort_module
from facecomp.dfer.annotations import read_lists
from facecomp.dfer.answers import (
    CHANCE,
    CLAIMS,
    CONSTANT,
    MEASURES,
    MIDDLE,
    NOTHING,
    SMALL,
    claims,
    constant_gaze,
    gaze_errors,
    middle_of,
)
from facecomp.dfer.cohort import (
    ENCODERS,
    TASKS,
    VARIANTS,
    Cohort,
    learn,
    settings_of,
    weights_identity,
)
from facecomp.dfer.config import encoder_settings
from facecomp.dfer.models import open_model
from facecomp.dfer.outcome import (
    EXPRESSION_SET,
    GAZE_SET,
    RESULTS,
    relabelled_frames,
    run_cohort,
    truth_of,
    write_cohort_results,
)
from facecomp.dfer.sizes import recognition_cost
from facecomp.records.files import InputError
from facecomp.records.pickles import read_pickle
from facecomp.records.receipts import output_faults, read_receipt
from facecomp.records.spent import Spent

TINY = {
    "learn": 1, "test": 2, "unlabelled": 1, "size": 32, "patch": 8, "width": 16, "heads": 2,
    "depth": 1, "pretraining_epochs": 2, "epochs": 1, "gaze_epochs": 1, "batch_size": 4,
    "gaze_clips": 1, "gaze_frames": 20, "stride": 1,
}  # fmt: skip
CHOSEN = ("lgi", "joint", "lgi_scratch", "gaze", "combined", "expression_alone", "gaze_alone")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny cohort, what it gave, and where its results lie."""
    home = tmp_path_factory.mktemp("cohort")
    cohort = Cohort(work=str(home / "work"), variants=CHOSEN, **TINY)
    outcome = run_cohort(cohort, quiet=True)
    write_cohort_results(cohort, outcome, home / "results", Spent(1.0, 1.0, 100.0))
    return cohort, outcome, home / "results"


@pytest.fixture(scope="module")
def learnt(made):
    """What the tiny cohort has trained."""
    return learn(made[0], quiet=True)


# ------------------------------------------------------------------ the plan


def test_variants_differ_in_what_they_name_and_in_nothing_else():
    cohort = Cohort(variants=tuple(VARIANTS))
    plain = settings_of(cohort.finetuning("lgi", 0))
    for name, variant in VARIANTS.items():
        if variant.task != "expression" or variant.encoder == "joint":
            continue
        settings = settings_of(cohort.finetuning(name, 0))
        different = {key for key in plain if settings[key] != plain[key]}
        wanted = {key for key in ENCODERS[variant.encoder] if key.startswith("model.")}
        wanted |= {f"model.{key}" for key in variant.opts}
        wanted |= set() if variant.pretrained else {"optimization.layer_decay"}
        assert different == wanted, name


def test_combined_models_differ_only_in_the_weight_of_expressions():
    cohort = Cohort(variants=("gaze", "combined", "expression_alone", "gaze_alone"))
    both = settings_of(cohort.finetuning("combined", 0))
    assert settings_of(cohort.finetuning("expression_alone", 0)) == both
    gaze = settings_of(cohort.finetuning("gaze_alone", 0))
    assert {k for k in both if gaze[k] != both[k]} == {"training.combine_loss_alpha"}
    assert gaze["training.combine_loss_alpha"] == 0 < both["training.combine_loss_alpha"]


def test_joint_attention_has_the_published_proportions():
    cohort = Cohort(size=160, width=512, heads=8, depth=16, region=(2, 5, 10))
    sizes = {n: encoder_settings(cohort.finetuning(n, 0)) for n in ("lgi", "joint")}
    assert [(s.width, s.heads, s.depth) for s in sizes.values()] == [(512, 8, 16), (768, 12, 12)]
    assert [round(recognition_cost(s).giga, 1) for s in sizes.values()] == [49.8, 80.8]


def test_equal_budget_means_equally_many_clips():
    cohort = Cohort(variants=tuple(VARIANTS))
    names = ("data.batch_size", "training.epochs", "optimization.lr", "data.num_segments")
    for make, keys in ((cohort.finetuning, VARIANTS), (cohort.pretraining, ENCODERS)):
        settings = [settings_of(make(name, 0)) for name in keys]
        assert all(len({s[key] for s in settings}) == 1 for key in names)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"test": 0}, "learn 3, test 0, seeds 1: from 1 on"),
        ({"variants": ("best",)}, "variant 'best': must be one of lgi, lgi_scratch, joint"),
        ({"variants": ("combined",)}, "variants combined: combined ones need gaze"),
        ({"region": (2, 3, 4)}, "region (2, 3, 4): it must divide the grid of tokens (8, 4, 4)"),
    ],
)
def test_a_cohort_that_cannot_be_is_refused(change, text):
    with pytest.raises(InputError) as caught:
        Cohort(**({"learn": 3} | change))
    assert str(caught.value).startswith(text)


# ------------------------------------------------------------------ the run


def test_nobody_is_learnt_from_and_judged_by(made, learnt):
    truth = learnt.people.truth_table()
    people = {part: set(rows["person"]) for part, rows in truth.groupby("part")}
    for part, own in people.items():
        others = set().union(*(p for name, p in people.items() if name != part))
        assert not own & others, part
    said = made[1].objects["predictions_synthetic"]
    judged = {int(name.removeprefix("SYN")) for name in said["person"]}
    assert judged == people["test"]


def test_a_training_is_done_again_only_if_something_of_it_changed(made, monkeypatch):
    cohort, calls = made[0], []

    def noted(train):
        def run(config):
            calls.append(config.folder.name.rpartition("_")[0])
            return train(config)

        return run

    for name in ("_pretrain", "_finetune"):
        monkeypatch.setattr(cohort_module, name, noted(getattr(cohort_module, name)))
    learn(cohort, quiet=True)
    assert calls == []
    learn(replace(cohort, variants=("lgi", "lgi_scratch"), epochs=2), quiet=True)
    assert calls == ["lgi_0", "lgi_scratch_0"]  # the encoder is the same
    calls.clear()
    [weights] = (cohort.home / "encoders").glob("lgi_0_*/checkpoint-1.pth")
    before, content = weights_identity(weights), weights.read_bytes()
    weights.write_bytes(content[:-1] + b"?")
    learn(replace(cohort, variants=("lgi",)), quiet=True)
    assert calls == ["lgi_0"] and weights_identity(weights) == before  # the encoder alone


def test_a_pretrained_model_starts_from_its_encoder_and_scratch_does_not(made, learnt):
    read = {
        name: read_receipt(learnt.models[name, 0].parent / "model.receipt.json").inputs
        for name in CHOSEN
    }
    assert "encoder" not in read["lgi_scratch"] and set(read["lgi"]) == {"people", "encoder"}
    assert read["lgi"]["encoder"] == read["gaze"]["encoder"] != read["joint"]["encoder"]
    assert read["combined"]["relabelled"] == read["gaze_alone"]["relabelled"]
    assert open_model(learnt.models["lgi", 0]).info.start.startswith("checkpoint-1")
    assert open_model(learnt.models["lgi_scratch", 0]).info.start == "random weights"


def test_combined_models_learn_from_what_relabelling_said(learnt):
    folder = learnt.relabelled[0]
    table = relabelled_frames(learnt, 0).set_index(["clip", "frame"])
    for where, angles in ((folder, ["said_pitch", "said_yaw"]), (None, None)):
        folder = where or folder.parent / f"{folder.name}_still"
        lists = read_lists([folder / "train"], "combined", learnt.people.root)
        assert len(lists) == 7
        for listing in lists:
            clip = listing.written[0].rpartition("/")[0]
            values = listing.column("pitch", "yaw")
            wanted = table.loc[clip, angles].to_numpy() if angles else np.zeros((16, 2))
            assert np.allclose(values, wanted, atol=1e-8)


def test_relabelled_frames_stand_beside_their_truth(learnt):
    table = relabelled_frames(learnt, 0)
    truth = pd.concat([truth_of(learnt, p)[EXPRESSION_SET] for p in ("train", "val", "test")])
    assert len(table) == len(truth) == (1 + 1 + 2) * 7 * 16
    both = table.merge(truth, on=["clip", "frame"], suffixes=("", "_true"))
    assert (
        np.allclose(both["yaw"], both["yaw_true"])
        and (both["emotion"] == both["emotion_true"]).all()
    )
    assert table["said_yaw"].std() > 0 and not np.allclose(table["said_yaw"], table["yaw"])


def test_gaze_is_asked_of_every_frame_and_its_error_is_the_angle(made, learnt):
    gaze = made[1].objects["gaze_synthetic"]
    truth = truth_of(learnt)
    sizes = gaze.groupby(["variant", "part"]).size()
    assert sizes["gaze", GAZE_SET] == len(truth[GAZE_SET])
    assert set(gaze["part"]) == {GAZE_SET}  # those of expression clips count in rows and ablation
    assert not {"combined", "expression_alone"} & set(gaze["variant"])
    assert np.allclose(gaze["error"], gaze_errors(gaze))
    one = gaze.iloc[0]
    turned = np.array([one.said_pitch, one.said_yaw]), np.array([one.pitch, one.yaw])
    ways = [np.array([np.cos(p) * np.sin(y), np.sin(p), np.cos(p) * np.cos(y)]) for p, y in turned]
    assert np.isclose(np.degrees(np.arccos(ways[0] @ ways[1])), one["error"], atol=1e-5)


def test_the_middle_is_the_best_constant_answer(learnt):
    truth = truth_of(learnt)[GAZE_SET]
    best = constant_gaze(truth, middle_of(truth), MIDDLE)["error"].mean()
    for pitch in np.linspace(-0.4, 0.4, 9):
        for yaw in np.linspace(-0.4, 0.4, 9):
            assert best <= constant_gaze(truth, (pitch, yaw), CONSTANT)["error"].mean() + 1e-6


def test_controls_are_what_they_should_be(made):
    rows = made[1].rows
    mean = rows.groupby(["variant", "measure"])["value"].mean()
    assert mean[CHANCE, "accuracy"] == pytest.approx(1 / 7)
    assert mean[CHANCE, "probability"] == pytest.approx(1 / 7)
    assert mean[NOTHING, "appearance"] == pytest.approx(1, abs=0.02)
    assert mean[MIDDLE, "gaze error"] <= mean[CONSTANT, "gaze error"]
    assert set(rows["measure"]) == set(MEASURES)


def test_hidden_parts_are_the_same_for_all_encoders(made):
    rows = made[1].rows
    hidden = rows[rows["measure"] == "appearance"]
    counts = hidden.groupby("variant").size()
    assert counts.to_dict() == {"lgi": 14, "joint": 14, NOTHING: 14}


def test_the_same_cohort_gives_the_same_results(made):
    cohort, outcome, _ = made
    again = run_cohort(cohort, quiet=True)
    assert again.inputs == outcome.inputs and again.rows.equals(outcome.rows)
    for name in ("summary_synthetic", "claims_synthetic", "ablation_synthetic"):
        assert again.objects[name].equals(outcome.objects[name])


def test_results_have_a_receipt_each_that_verifies_and_say_that_they_are_synthetic(made):
    cohort, outcome, folder = made
    for name in (*RESULTS, "cohort"):
        path = folder / f"{name}.receipt.json"
        assert output_faults(path) == [] and read_receipt(path).data == "synthetic"
    receipt = read_receipt(folder / "cohort.receipt.json")
    assert {"people", "encoder_lgi_0", "encoder_joint_0", "combined_0", "relabelled_0"} <= set(
        receipt.inputs
    )
    assert receipt.parameters["variants"] == ",".join(CHOSEN) and "work" not in receipt.parameters
    assert str(cohort.home) not in (folder / "cohort.receipt.json").read_text()
    assert read_pickle(folder / "gaze_synthetic.pickle").equals(outcome.objects["gaze_synthetic"])


def test_objects_have_the_agreed_columns_and_shapes(made):
    objects, size = made[1].objects, made[0].size
    columns = {
        "pretraining_synthetic": "encoder seed epoch loss appearance motion",
        "predictions_synthetic": "variant seed clip person label said happy sad neutral angry surprise disgust fear",
        "relabelled_synthetic": "clip frame person emotion pitch yaw said_pitch said_yaw",
        "ablation_synthetic": "variant seed uar war gaze_error parameters gmacs",
    }
    for name, text in columns.items():
        assert list(objects[name].columns) == text.split()
    losses = objects["pretraining_synthetic"]
    assert (
        list(losses["encoder"]) == ["lgi", "lgi", "joint", "joint"] and losses["loss"].notna().all()
    )
    assert np.allclose(losses["loss"], (losses["appearance"] + losses["motion"]) / 2, atol=1e-6)
    assert len(objects["reconstruction_synthetic"]) == len(objects["attention_synthetic"]) == 2
    for shown in objects["reconstruction_synthetic"].values():
        assert list(shown) == ["original", "masked", "first", "difference", "second"]
        assert all(x.shape == (8, size, size, 3) and x.dtype == np.uint8 for x in shown.values())
        same = (shown["first"] == shown["original"]).all(-1)
        assert same.any() and not same.all()  # what was seen stays
    for shown in objects["attention_synthetic"].values():
        assert shown["frames"].shape == (16, size, size, 3)
        assert shown["scores"].shape == (8, 4, 4) and shown["scores"].dtype == np.float32
    features = objects["features_synthetic"]["lgi"]
    assert features["features"].shape == (14, 16) and len(features["people"]) == 14
    assert sorted(set(features["labels"])) == list(range(7))


def test_costs_are_counted(made):
    table = made[1].objects["ablation_synthetic"].set_index("variant")
    assert table.loc["lgi", "gmacs"] == table.loc["lgi_scratch", "gmacs"]
    assert table.loc["lgi", "parameters"] == table.loc["lgi_scratch", "parameters"]
    assert np.isnan(table.loc["gaze", "uar"]) and np.isnan(table.loc["lgi", "gaze_error"])
    assert table.loc["combined", ["uar", "war", "gaze_error"]].notna().all()
    assert not set(table.index) & {CHANCE, CONSTANT, MIDDLE, NOTHING}


# ------------------------------------------------------------------ claims


def rows_of(measure, values, people=6):
    """A value for each variant, a little different for each person."""
    return pd.DataFrame(
        [
            (name, measure, 0, f"S{k}", f"S{k}_1", value + 0.01 * k)
            for name, value in values.items()
            for k in range(people)
        ],
        columns=["variant", "measure", "seed", "person", "clip", "value"],
    )


def test_claims_hold_only_where_the_whole_interval_does():
    found = claims(rows_of("accuracy", {"lgi": 0.5, "joint": 0.6, "lgi_scratch": 0.3}))
    found = found.set_index("claim")
    assert found.loc["pre-training helps LGI to recognise expressions", "verdict"] == "holds"
    row = found.loc["LGI recognises more than joint does"]
    assert row["verdict"] == "does not hold" and row["difference"] == pytest.approx(-0.1)
    assert (
        found.loc["LGI recognises at most 5 points less than joint", "verdict"] == "does not hold"
    )
    near = claims(rows_of("accuracy", {"lgi": 0.5, "joint": 0.53})).set_index("claim")
    assert near.loc["LGI recognises at most 5 points less than joint", "verdict"] == "holds"
    mixed = rows_of("gaze error", {"gaze": 3.0, "gaze_scratch": 3.0})
    mixed.loc[mixed["variant"] == "gaze", "value"] += [0.5, -0.5] * 3
    assert claims(mixed).set_index("claim").loc["pre-training helps gaze", "verdict"] == "open"


def test_a_smaller_error_is_a_gain():
    found = claims(rows_of("gaze error", {"gaze": 3.0, MIDDLE: 9.0})).set_index("claim")
    row = found.loc["gaze of every frame is nearer than any constant answer"]
    assert row["difference"] == pytest.approx(6) and row["verdict"] == "holds"


def test_starts_are_averaged_and_do_not_narrow_the_interval():
    one = rows_of("accuracy", {"lgi": 0.5, CHANCE: 1 / 7})
    two = pd.concat([one, one.assign(seed=1)])
    name = "LGI, pre-trained, recognises expressions of people it has not seen"
    a, b = (claims(x).set_index("claim").loc[name, ["low", "high", "clips"]] for x in (one, two))
    assert a.tolist() == b.tolist()


def test_a_claim_compares_the_same_clips():
    rows = rows_of("accuracy", {"lgi": 0.5, "lgi_scratch": 0.3})
    rows = rows[~((rows["variant"] == "lgi_scratch") & (rows["person"] == "S5"))]
    rows.loc[(rows["variant"] == "lgi") & (rows["person"] == "S5"), "value"] = 100.0
    row = claims(rows).set_index("claim").loc["pre-training helps LGI to recognise expressions"]
    assert row["clips"] == 5 and row["difference"] == pytest.approx(0.2)


def test_a_claim_whose_measure_has_no_value_is_shown_as_such():
    rows = pd.concat(
        [rows_of("accuracy", {"lgi": 0.5}), rows_of("probability", {"lgi_scratch": 0.3})]
    )
    found = claims(rows).set_index("claim")
    row = found.loc["pre-training helps LGI to recognise expressions"]
    assert row["verdict"] == "no value" and row["clips"] == 0 and np.isnan(row["difference"])
    assert "LGI recognises more than joint does" not in found.index  # nobody ran it


def test_every_claim_is_about_variants_and_measures_that_can_be_there():
    known = {*VARIANTS, *ENCODERS, CHANCE, CONSTANT, MIDDLE, NOTHING}
    for claim in CLAIMS.values():
        assert claim.measure in MEASURES and set(claim.variants) <= known and claim.margin >= 0
        assert claim.variants and isinstance(claim.second, str | float)
    assert set(SMALL) < set(MEASURES) and {v.task for v in VARIANTS.values()} == set(TASKS)


# ------------------------------------------------------------------ the notebook


def test_the_notebook_runs_and_its_receipt_names_its_parameters(made, tmp_path):
    cohort = made[0]
    given = {name: getattr(cohort, name) for name in TINY}
    text = {"variants": "lgi,gaze", "out": str(tmp_path / "out"), "work": cohort.work}
    names = run_cells("run_cohort", "dfer", **given, **text)
    receipt = read_receipt(tmp_path / "out" / "cohort.receipt.json")
    parameters = {k: v for k, v in receipt.parameters.items() if k in names}
    assert parameters == {k: names[k] for k in parameters} and len(parameters) > 15
