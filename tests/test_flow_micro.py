"""Micro-expressions: strain, STSTNet, reading the three sets, leave one subject out, scores."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, recall_score

from facecomp.data.twins import write_layout
from facecomp.faces.detection import Face
from facecomp.flow import micro, micro_clips, micro_folds
from facecomp.flow.methods import find_method
from facecomp.flow.micro import Experiment, run_experiment, write_micro
from facecomp.flow.micro_clips import Looking, all_maps, class_of, keep_listed, read_set
from facecomp.flow.micro_folds import Clips, Settings, leave_one_out
from facecomp.flow.micro_scores import confusion, score_table, uar, uf1
from facecomp.flow.stsnet import SIDE, STSTNet, in_range, strain, three_maps
from facecomp.records.files import InputError, run_lock
from facecomp.records.pickles import read_pickle
from facecomp.records.receipts import output_faults, read_receipt

QUICK = Settings(epochs=3, lrate=0.01)


class Middle:
    """A detector that sees the same face in every image, and does not look."""

    name = "middle"

    def __call__(self, image):
        x, y = np.meshgrid(np.linspace(0.3, 0.7, 17), np.linspace(0.3, 0.7, 4))
        points = np.stack([x.ravel(), y.ravel()], axis=1) * image.shape[0]
        return [Face((0, 0, 9, 9), points, 1.0)]


def toy(people=3, each=6, seed=0):
    rng, labels = np.random.default_rng(seed), np.tile(np.arange(3), people * each // 3)
    maps = rng.normal(0, 0.3, (people * each, 3, SIDE, SIDE)).astype(np.float32)
    maps[:, 0, 10:20] += (labels - 1)[:, None, None]
    return Clips(maps, labels, tuple(f"smic/s{k // each + 1}" for k in range(people * each)))


# ---- strain, maps, network


@pytest.mark.parametrize(
    ("u", "v", "wanted"),
    [
        ((0.2, 0), (0, 0), 0.2),  # stretch along x: u = 0.2 x
        ((0, 0), (0, 0.3), 0.3),  # stretch along y
        ((0, 0.2), (0, 0), 0.2 / 2**0.5),  # shear
        ((0, 0.2), (0.2, 0), 0.4 / 2**0.5),  # shear both ways
        ((0, -0.2), (0.2, 0), 0),  # rotation
        ((0.2, 0.1), (0.4, -0.3), (0.04 + 0.09 + 0.25 / 2) ** 0.5),
    ],
)
def test_strain_of_a_linear_flow_is_what_the_formula_gives(u, v, wanted):
    y, x = np.mgrid[:6, :7].astype(float)
    flow = np.dstack([1 + u[0] * x + u[1] * y, -2 + v[0] * x + v[1] * y])
    assert np.allclose(strain(flow), wanted, atol=1e-12)


def test_maps_keep_motion_in_pixels_of_the_crop_and_come_in_the_order_u_v_strain():
    y, x = np.mgrid[:56, :56].astype(float)
    maps = three_maps(np.dstack([0.1 * x, np.full_like(x, -2)]))
    assert maps.shape == (3, 28, 28) and maps.dtype == np.float32
    assert np.allclose(maps[0, 4], 0.1 * (2 * np.arange(28) + 0.5), atol=1e-5)
    assert np.allclose(maps[1], -2) and np.allclose(maps[2], 0.1, atol=1e-5)
    assert in_range(maps) is maps
    scaled = in_range(maps, "minmax")
    assert scaled[0].min() == 0 and scaled[0].max() == 1 and not scaled[1].any()


@pytest.mark.parametrize(
    "flow", [np.full((8, 8, 2), np.nan), np.zeros((1, 8, 2)), np.zeros((8, 8, 3))]
)
def test_a_flow_without_maps_is_refused(flow):
    with pytest.raises(InputError):
        three_maps(flow)


def test_the_network_is_three_branches_400_numbers_and_1683_weights():
    network = STSTNet().eval()
    maps = torch.randn(2, 3, 28, 28)
    assert [b(maps).shape[1:] for b in network.branches] == [(3, 10, 10), (5, 10, 10), (8, 10, 10)]
    assert network.scores.weight.shape == (3, 400) and network(maps).shape == (2, 3)
    assert sum(p.numel() for p in network.parameters()) == 1683
    kinds = ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d", "Dropout"]
    assert [type(layer).__name__ for layer in network.branches[2]] == kinds
    pooled = torch.nn.functional.avg_pool2d(torch.cat([b(maps) for b in network.branches], 1), 2)
    assert torch.equal(network(maps), network.scores(pooled.flatten(1)))


# ---- scores


def test_scores_are_those_of_scikit_learn_and_of_a_calculation_by_hand():
    counts = np.array([[5, 1, 0], [2, 3, 0], [0, 1, 4]])
    assert np.isclose(uf1(counts), (10 / 13 + 6 / 10 + 8 / 9) / 3)
    assert np.isclose(uar(counts), (5 / 6 + 3 / 5 + 4 / 5) / 3)
    rng = np.random.default_rng(1)
    for _ in range(20):
        truth, said = rng.integers(0, 3, (2, 30))
        made = confusion(truth, said)
        assert np.isclose(uf1(made), f1_score(truth, said, average="macro"))
        assert np.isclose(uar(made), recall_score(truth, said, average="macro"))


def test_the_table_pools_clips_and_draws_people():
    rows = [
        ("m", s, p, "c", t, t if p != "b" else 0)
        for s in ("smic", "samm")
        for p in "abc"
        for t in range(3)
    ]
    table = score_table(
        pd.DataFrame(rows, columns=["method", "set", "subject", "clip", "truth", "said"])
    )
    assert table["set"].tolist() == ["full", "smic", "samm"]
    assert table["clips"].tolist() == [18, 9, 9] and table["subjects"].tolist() == [6, 3, 3]
    assert np.allclose(table["uar"], (1 + 2 / 3 + 2 / 3) / 3)
    assert (table["uar_low"] < table["uar"]).all() and (table["uar"] < table["uar_high"]).all()
    assert np.isclose(table["uar_low"][1], 1 / 3) and table["uar_high"][1] == 1  # all b, or none
    with pytest.raises(InputError, match="none"):
        score_table(pd.DataFrame())


@pytest.mark.parametrize(("truth", "said"), [([0, 1], [0]), ([0, 3], [0, 0]), ([0, 1], [-1, 0])])
def test_answers_that_do_not_fit_are_refused(truth, said):
    with pytest.raises(InputError):
        confusion(truth, said)


# ---- classes


def test_classes_of_the_emotions_are_those_of_the_composite_set():
    sheets = {
        "casme2": {
            "happiness": 32,
            "surprise": 25,
            "disgust": 63,
            "repression": 27,
            "others": 99,
            "sadness": 7,
            "fear": 2,
        },
        "samm": {
            "Anger": 57,
            "Contempt": 12,
            "Disgust": 9,
            "Fear": 8,
            "Sadness": 6,
            "Happiness": 26,
            "Surprise": 15,
            "Other": 26,
        },
        "smic": {"negative": 70, "positive": 51, "surprise": 43},
    }
    wanted = {"casme2": [90, 32, 25], "samm": [92, 26, 15], "smic": [70, 51, 43]}
    for name, sheet in sheets.items():
        counts = Counter()
        for emotion, clips in sheet.items():
            try:
                counts[class_of(name, emotion)] += clips
            except InputError as error:
                assert "has no class in the composite set" in str(error)
        assert [counts[k] for k in range(3)] == wanted[name]


# ---- leave one subject out


def test_a_fold_never_learns_from_the_person_left_out():
    clips = toy()
    others, own = clips.rows("smic/s2")
    assert own.tolist() == list(range(6, 12)) and not set(others) & set(own)
    scores, loss = micro_folds.answer(clips, "smic/s2", QUICK)
    poisoned = replace(clips, maps=clips.maps.copy(), labels=clips.labels.copy())
    poisoned.maps[own], poisoned.labels[own] = np.nan, 2
    assert micro_folds.answer(poisoned, "smic/s2", QUICK)[1] == loss
    poisoned.maps[own] = clips.maps[own]  # only the labels differ: the same answers
    assert np.array_equal(micro_folds.answer(poisoned, "smic/s2", QUICK)[0], scores)
    with pytest.raises(InputError, match="loss is nan"):  # whom it does learn from
        micro_folds.answer(
            replace(poisoned, maps=np.full_like(clips.maps, np.nan)), "smic/s2", QUICK
        )


def test_separable_clips_are_learnt_and_labels_dealt_anew_are_not(tmp_path):
    clips = toy(people=4)
    settings = Settings(epochs=30, lrate=0.01)
    right = [
        (leave_one_out(c, settings, tmp_path).argmax(1) == c.labels).mean()
        for c in (clips, micro.shuffled(clips, 3))
    ]
    assert right[0] > 0.95 and right[1] < 0.7


def test_order_resumption_processes_and_the_seed_before_change_nothing(tmp_path):
    clips = toy()
    first = leave_one_out(clips, QUICK, tmp_path / "a")
    identity = micro_folds.run_identity(clips, QUICK)
    folder = tmp_path / "b" / identity[:16]
    torch.manual_seed(99)  # what was drawn before does not count
    for person in reversed(clips.people[1:]):
        micro_folds.make_fold(clips, person, QUICK, folder, identity, "cpu")
    before = torch.get_rng_state()
    (folder / "smic_s3.json").write_text('{"identity": 1')  # cut off
    assert np.array_equal(leave_one_out(clips, QUICK, tmp_path / "b"), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(leave_one_out(clips, QUICK, tmp_path / "c", jobs=2), first)
    assert not np.array_equal(leave_one_out(clips, replace(QUICK, seed=1), tmp_path / "a"), first)


def test_kept_folds_are_not_made_again_and_those_of_other_clips_not_taken(tmp_path, monkeypatch):
    clips = toy()
    first = leave_one_out(clips, QUICK, tmp_path)
    made = []
    real = micro_folds.answer
    monkeypatch.setattr(micro_folds, "answer", lambda c, p, *a: made.append(p) or real(c, p, *a))
    assert np.array_equal(leave_one_out(clips, QUICK, tmp_path), first) and made == []
    other = replace(clips, labels=1 - np.minimum(clips.labels, 1))
    leave_one_out(other, QUICK, tmp_path)
    assert made == clips.people
    one = tmp_path / micro_folds.run_identity(clips, QUICK)[:16] / "smic_s1.json"
    one.write_text(json.dumps(json.loads(one.read_text()) | {"identity": "another"}))
    assert np.array_equal(leave_one_out(clips, QUICK, tmp_path), first) and made[3:] == ["smic/s1"]


def test_a_second_run_on_the_same_folds_stops(tmp_path):
    clips = toy()
    folder = tmp_path / micro_folds.run_identity(clips, QUICK)[:16]
    with run_lock(folder / ".lock"), pytest.raises(InputError, match="already worked on"):
        leave_one_out(clips, QUICK, tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Settings(epochs=0),
        lambda: Settings(lrate=-1),
        lambda: Settings(range="std"),
        lambda: toy(people=1),
        lambda: replace(toy(), labels=np.zeros(3, int)),
        lambda: leave_one_out(toy(), QUICK, "/nowhere", jobs=0),
        lambda: read_set("bp4d", "/nowhere"),
        lambda: read_set("smic", "/nowhere"),
        lambda: read_set("smic", "/nowhere", pictures="small"),
        lambda: read_set("samm", "/nowhere", apex="last"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make):
    with pytest.raises(InputError) as caught:
        make()
    assert "\n" not in str(caught.value)


# ---- reading the sets


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name in micro_clips.SETS:
        write_layout(name, None, root / name, participants=2, frames=8, size=64)
    return root


def reasons(unused):
    return {(u.subject, u.clip): u.reason for u in unused}


def test_twins_of_all_sets_are_read_with_onset_apex_and_class(twins):
    truth = {p.name: pd.read_csv(p) for p in (twins / "casme2" / "synthetic_truth").rglob("*.csv")}
    assert truth
    counts = {}
    for name in micro_clips.SETS:
        used, unused = read_set(name, twins / name)
        counts[name] = [Counter(c.label for c in used)[k] for k in range(3)], len(unused)
        assert all(c.onset.is_file() and c.apex.is_file() and c.onset < c.apex for c in used)
    assert counts == {"smic": ([2, 2, 2], 0), "casme2": ([4, 2, 2], 6), "samm": ([10, 2, 2], 2)}
    sheet = pd.read_csv(next((twins / "casme2").glob("*.csv")), dtype=str)
    used, unused = read_set("casme2", twins / "casme2")
    row = sheet[(sheet["Subject"] == "2") & (sheet["Filename"] == used[-1].name)].iloc[0]
    assert (used[-1].onset.name, used[-1].apex.name) == (
        f"img{row['OnsetFrame']}.jpg",
        f"img{row['ApexFrame']}.jpg",
    )
    cropped, _ = read_set("casme2", twins / "casme2", pictures="cropped")
    assert len(cropped) == 8 and all(
        c.cropped and c.apex.name.startswith("reg_img") for c in cropped
    )


def test_every_clip_that_cannot_be_used_is_listed_with_its_reason(twins, tmp_path):
    root = shutil.copytree(twins / "casme2", tmp_path / "casme2")
    path = next(root.glob("*.csv"))
    sheet = pd.read_csv(path, dtype=str)
    used, _ = read_set("casme2", root)
    good = [c for c in used if c.subject == "sub01"]
    at = {
        c.name: sheet.index[(sheet["Subject"] == "1") & (sheet["Filename"] == c.name)][0]
        for c in good
    }
    bliss, slash, gone, back = (c.name for c in good)
    sheet.loc[at[bliss], "Estimated Emotion"] = "bliss"
    sheet.loc[at[slash], "ApexFrame"] = "/"
    good[2].apex.unlink()
    sheet.loc[at[back], "ApexFrame"] = sheet.loc[at[back], "OnsetFrame"]
    kept = next(c for c in used if c.subject == "sub02")
    twice = sheet[(sheet["Subject"] == "2") & (sheet["Filename"] == kept.name)]
    odd = twice.assign(Filename="EP99_09"), twice.assign(Subject="one")
    sheet = sheet[~((sheet["Subject"] == "2") & (sheet["Estimated Emotion"] == "others"))]
    pd.concat([sheet, twice, *odd]).to_csv(path, index=False)
    used, unused = read_set("casme2", root)
    why = reasons(unused)
    assert why["sub01", bliss].startswith("emotion 'bliss': must be one of happiness")
    assert why["sub01", slash] == "no apex is coded"
    assert why["sub01", gone] == f"image {good[2].apex.stem[3:]} (apex) is not there"
    assert "must come after the onset" in why["sub01", back]
    assert why["sub02", kept.name] == "the sheet names the clip again"
    assert why["sub02", "EP99_09"] == "no images of this clip"
    assert why["one", kept.name] == "the row does not name a clip"
    assert [w for (s, _), w in why.items() if s == "sub02"].count(f"not in {path.name}") == 1
    assert {c.subject for c in used} == {"sub02"} and len(used) == 4


def test_smic_takes_the_middle_or_the_most_different_image_and_s1_is_s01(twins, tmp_path):
    root = shutil.copytree(twins / "smic", tmp_path / "smic")
    (clip,) = [c for c in read_set("smic", root)[0] if c.name == "s1_ne_01"]
    images = sorted(clip.onset.parent.iterdir())
    assert (clip.onset, clip.apex) == (images[0], images[4])
    black = np.zeros((64, 64, 3), np.uint8)
    cv2.imwrite(str(images[6]), black)
    (clip,) = [c for c in read_set("smic", root, apex="most")[0] if c.name == "s1_ne_01"]
    assert clip.apex == images[6]
    home = clip.onset.parents[4]  # <home>/s1/micro/negative/s1_ne_01/image130592.jpg
    (home / "s1").rename(home / "s01")
    assert {c.subject for c in read_set("smic", root)[0]} == {"s1", "s2"}
    for image in images[1:]:
        (home / "s01" / image.relative_to(home / "s1")).unlink()
    assert "onset and apex are two" in reasons(read_set("smic", root)[1])["s1", "s1_ne_01"]


def test_a_list_keeps_what_it_names_and_reports_the_rest(twins, tmp_path):
    used, unused = read_set("smic", twins / "smic")
    (tmp_path / "l.csv").write_text("set,subject,clip\nsmic,s1,s1_ne_01\nsmic,s9,s9_ne_01\n")
    kept, rest = keep_listed(used, unused, tmp_path / "l.csv")
    assert [c.name for c in kept] == ["s1_ne_01"]
    assert Counter(u.reason for u in rest) == {"not listed": 5, "listed, but not found": 1}
    (tmp_path / "bad.csv").write_text("set,clip\n")
    with pytest.raises(InputError, match="no column subject"):
        keep_listed(used, unused, tmp_path / "bad.csv")


# ---- maps and the whole


def test_maps_are_kept_by_content_and_bad_images_reported(twins, tmp_path):
    root = shutil.copytree(twins / "smic", tmp_path / "smic")
    clips, _ = read_set("smic", root)
    looking = Looking(find_method("farneback"), Middle(), size=64)
    maps, used, unused = all_maps(clips, looking, tmp_path / "maps", progress=False)
    assert maps.shape == (6, 3, 28, 28) and not unused and np.abs(maps[:, 2]).max() > 0
    calls = []
    method = looking.method
    counting = replace(
        looking,
        method=replace(method, estimate=lambda a, b: calls.append(1) or method.estimate(a, b)),
    )
    assert (
        np.array_equal(all_maps(clips, counting, tmp_path / "maps", progress=False)[0], maps)
        and not calls
    )
    next((tmp_path / "maps").iterdir()).write_bytes(b"PK")  # damaged
    assert (
        np.array_equal(all_maps(clips, counting, tmp_path / "maps", progress=False)[0], maps)
        and len(calls) == 1
    )
    shutil.copy(clips[1].apex, clips[0].apex)  # another picture under the old name
    changed = all_maps(clips, counting, tmp_path / "maps", progress=False)[0]
    assert (
        len(calls) == 2
        and not np.array_equal(changed[0], maps[0])
        and np.array_equal(changed[1:], maps[1:])
    )
    clips[2].onset.write_bytes(b"no image")
    nobody = replace(looking, detector=lambda image: [])
    object.__setattr__(
        nobody, "detector", type("Blind", (), {"name": "blind", "__call__": lambda s, i: []})()
    )
    _, used, unused = all_maps(clips, nobody, tmp_path / "maps", progress=False)
    why = [u.reason for u in unused]
    assert (
        not used
        and "cannot be read as an image" in why[2]
        and why[0] == "no face found in the onset image"
    )


def test_the_experiment_end_to_end_on_twins_of_all_three_sets(twins, tmp_path):
    clips, unused = micro.read_sets(str(twins))
    lookings = [Looking(find_method(name), Middle(), size=64) for name in ("farneback", "dis")]
    what = Experiment(tmp_path, Settings(epochs=1))
    predictions, used, lost = run_experiment(clips, lookings, what)
    assert len(used) == 28 and not lost
    inputs = micro.micro_inputs(used, lookings)
    scores = write_micro(predictions, [*unused, *lost], what, "synthetic", {"epochs": 1}, inputs)
    methods = ["farneback", "farneback, shuffled", "dis", "dis, shuffled", "majority"]
    assert scores["method"].unique().tolist() == methods and len(scores) == 20
    assert {str(scores[c].dtype) for c in ("method", "set")} == {"object"}
    kept = {
        n: read_pickle(tmp_path / f"micro_{n}.pickle") for n in ("scores", "predictions", "unused")
    }
    assert kept["scores"].equals(scores) and kept["predictions"].equals(predictions)
    assert len(kept["unused"]) == 8 and len(predictions) == 5 * 28
    baseline = predictions[predictions["method"] == "majority"]
    assert (baseline["said"] == 0).all()
    receipt = read_receipt(tmp_path / "micro.receipt.json")
    assert receipt.data == "synthetic" and not output_faults(tmp_path / "micro.receipt.json")
    again, _, _ = run_experiment(clips, lookings, what)
    assert again.equals(predictions)
