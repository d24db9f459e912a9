"""Labels against the exact flow: hand-made truths, the same pixels for all, participants as units, runs that go on."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from facecomp.faces.actions import AUS
from facecomp.faces.synthetic import participant
from facecomp.flow import truth
from facecomp.flow.files import Flow
from facecomp.flow.labels import SIZE
from facecomp.flow.truth import (
    CHANGES,
    EXACT,
    FACE,
    MOVES,
    REGIONS,
    RISE,
    STEP,
    STILL,
    SUMS,
    Found,
    Setting,
    compare,
    jittered,
    label_flows,
    parts_of_face,
    scenes,
)
from facecomp.flow.truth_results import (
    claims,
    common_errors,
    crossing,
    noise_limits,
    per_person,
)
from facecomp.paper.statistics import interval, verdict
from facecomp.records.files import InputError
from facecomp.records.pickles import read_pickle
from facecomp.records.receipts import output_faults, read_receipt

HEIGHT, WIDTH = SIZE


@pytest.fixture(scope="module")
def filmed():
    return scenes(participant(2), 3)


def whole(motion: np.ndarray) -> Flow:
    return Flow(motion, np.ones(motion.shape[:2], bool))


def affine(points: np.ndarray) -> np.ndarray:
    return points @ np.array([[1.004, 0.006], [-0.003, 0.998]]) + (1.5, -0.75)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(("method", "most"), [("corrected", 1e-4), ("compat", 0.03)])
def test_labels_of_points_under_an_affine_map_are_that_map(filmed, method, most):
    points = filmed[STILL].landmarks[0]
    flow = next(label_flows(np.stack([points, affine(points)]), method))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x, y], axis=-1)
    truth_flow = affine(pixels) - pixels
    part = np.zeros(SIZE, np.int8)
    sums = compare(truth_flow, np.ones(SIZE, bool), part, {(method, EXACT): flow})
    line = sums["common", (method, EXACT)].sum(0)
    assert line[0] == flow.mask.sum() > 20_000
    assert line[2] / line[0] < most < 0.05 * line[4] / line[0]


def test_errors_grow_with_the_noise_of_the_key_points(filmed):
    points = filmed[STILL].landmarks[0]
    still, epe = np.zeros((*SIZE, 2)), []
    for sd in (0.0, 0.1, 0.5, 2.0):
        pair = (
            np.stack([points, points]) if sd == 0 else jittered(np.stack([points, points]), sd, [7])
        )
        flow = next(label_flows(pair, "corrected"))
        sums = compare(still, np.ones(SIZE, bool), np.zeros(SIZE, int), {("corrected", "x"): flow})
        epe.append(np.divide(*sums["common", ("corrected", "x")].sum(0)[[2, 0]]))
    assert epe[0] == 0 and 0 < 3 * epe[1] < epe[2] < epe[3] / 3


def test_where_the_published_program_stops_the_rest_of_the_sequence_has_a_reason(filmed):
    points = np.repeat(filmed[STILL].landmarks[:1], 4, axis=0)
    points[1:] += 0.37
    points[2:, :, 1] = (
        200.0  # from frame 2 on all points lie on a line: the pair 2 cannot be mapped
    )
    flows = list(label_flows(points, "compat"))
    assert [isinstance(flow, str) for flow in flows] == [False, False, True]
    assert "pair 2" in flows[2] and "area" in flows[2]
    missing = np.full((3, 68, 2), np.nan)
    for method in ("corrected", "compat"):
        assert ["not finite" in why for why in label_flows(missing, method)] == [True, True]


# ---------------------------------------------------------------- scenes and places


def test_a_still_head_keeps_the_face_and_loses_the_head_motion(filmed):
    moves, still = filmed[MOVES].performance, filmed[STILL].performance
    assert np.abs(moves.turn).max() > 0 and np.abs(moves.shift).max() > 0
    assert not still.turn.any() and not still.shift.any()
    for name in ("aus", "blink", "gaze", "lean"):
        np.testing.assert_array_equal(getattr(moves, name), getattr(still, name))


def test_each_pair_of_the_change_scenes_shows_one_action_unit():
    for scene in (STEP, RISE):
        performance = scenes(participant(2), 2, units=(4, 26))[scene].performance
        change = performance.aus[1::2] - performance.aus[::2]
        size = CHANGES[scene][1] - CHANGES[scene][0]
        assert [AUS[k] for k in change.argmax(1)] == [4, 26]
        np.testing.assert_allclose(change.sum(1), size)


def test_places_on_the_mean_head_have_the_right_part():
    places = {
        "brows": (-0.58, -0.46), "eyes": (0.5, 0.0), "nose": (0.0, 0.5), "mouth": (0.1, 1.2),
        "cheeks and jaw": (-0.7, 0.8), "forehead": (0.1, -0.8),
    }  # fmt: skip
    found = parts_of_face(np.array(list(places.values())))
    assert [FACE[k] for k in found] == list(places)
    assert parts_of_face(np.array([(0, -1.3), (1.3, 0.2), (0.95, -0.8)])).tolist() == [-1, -1, -1]


# ---------------------------------------------------------------- the same pixels


def test_all_sources_are_compared_on_the_pixels_that_all_know():
    motion = np.full((4, 6, 2), (3.0, 4.0))
    part = np.zeros((4, 6), int)
    part[:, 5] = -1  # no face
    seen = np.ones((4, 6), bool)
    seen[0, 0] = False
    left, low = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    left[:, :3], low[1:] = True, True
    flows = {
        ("a", ""): Flow(motion, left),
        ("b", ""): Flow(motion + 1, low),
        ("zero", ""): whole(0 * motion),
    }
    found = compare(motion, seen, part, flows)
    common = {s: found["common", s].sum(0) for s in flows}
    assert {line[0] for line in common.values()} == {9}  # three rows of three columns
    assert common["a", ""][2] == 0 and common["b", ""][2] == pytest.approx(9 * 2**0.5)
    assert common["zero", ""][2] == common["zero", ""][4] == 45
    face = {s: found["face", s].sum(0) for s in flows}
    assert {line[0] for line in face.values()} == {19}
    assert face["a", ""][1] == 11 and face["a", ""][2] == 5 * 8  # unknown motion counts as none
    with pytest.raises(InputError, match="size|px"):
        compare(motion, seen, part, {("a", ""): whole(np.zeros((3, 3, 2)))})


def test_error_maps_leave_out_what_is_no_skin_or_not_known():
    place = np.full((2, 2, 2), np.nan)
    place[0, 0], place[0, 1], place[1, 0] = (0, 0), (0, 0), (9, 9)
    known = np.array([[True, False], [True, True]])
    sums, counts = truth.error_map(place, np.array([[2.0, 5], [7, 7]]), known)
    assert (sums.sum(), counts.sum()) == (2, 1)


# ---------------------------------------------------------------- participants as units


def hand_made(
    values: dict[str, dict[int, dict[tuple[str, str], float]]], scene: str = MOVES
) -> pd.DataFrame:
    """A table of errors: person -> pair -> source -> EPE, ten pixels each; true motion 2 px."""
    rows = []
    for person, pairs in values.items():
        for pair, sources in pairs.items():
            for (method, points), epe in sources.items():
                n = 10 if np.isfinite(epe) else np.nan
                line = (n, n, n * epe, n * epe**2, n * 2.0, n * 4.0)
                for region in REGIONS:
                    rows.append((person, scene, pair, region, method, points, "nose", *line))
    names = ["person", "scene", "pair", "region", "method", "points", "part", *SUMS]
    return pd.DataFrame(rows, columns=names)


A, B = ("corrected", EXACT), ("compat", EXACT)


def test_a_participant_with_many_pairs_counts_as_one():
    errors = hand_made({"P1": {t: {A: 1.0} for t in range(50)}, "P2": {0: {A: 3.0}}})
    epe = per_person(errors[errors["region"] == "common"], ["method"])["epe"]
    assert sorted(epe) == [1, 3]
    mean, low, high = interval(epe)
    assert (mean, low, high) == (2, 1, 3)  # the pairs of P1 do not make its interval narrow


def test_one_participant_leaves_every_claim_open():
    assert interval([5.0]) == (5.0, -np.inf, np.inf) and verdict(-np.inf, np.inf) == "open"
    assert np.isnan(interval([])[0])


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.3, "holds"),
        (-0.3, -0.01, "does not hold"),
        (-0.1, 0.1, "open"),
        (0.0, 0.1, "open"),
        (-0.1, 0.0, "open"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(low, high, word):
    assert verdict(low, high) == word


def test_measures_of_the_control_are_one_and_zero():
    table = per_person(hand_made({"P1": {0: {("zero", ""): 2.0, A: 1.0}}}), ["method"]).set_index(
        "method"
    )
    assert table.loc["zero", ["relative", "explained"]].tolist() == [1, 0]
    assert table.loc["corrected", ["epe", "relative", "explained"]].tolist() == [1, 0.5, 0.75]


def test_pairs_that_one_source_lost_do_not_enter_the_comparison():
    errors = hand_made({"P1": {0: {A: 1.0, B: 2.0}, 1: {A: 9.0, B: np.nan}}})
    both = common_errors(errors, A, B)
    assert set(both["pair"]) == {0}
    epe = per_person(both, ["method"]).set_index("method")["epe"]
    assert epe.to_dict() == {"corrected": 1.0, "compat": 2.0}


def found_of(errors: pd.DataFrame, **setting) -> Found:
    facts = errors[["person", "scene"]].drop_duplicates().assign(jitter=0.5, distance=2.0)
    lost = pd.DataFrame(columns=["person", "scene", "pair", "method", "points", "why"])
    return Found(Setting(noise=(0.5,), compat_noise=(), **setting), errors, {}, facts, lost, {})


def test_claims_and_drift_of_a_hand_made_table():
    zero, noisy = ("zero", ""), ("corrected", "0.5 px")
    values = {
        person: {t: {A: 0.1 * k, B: 0.1 * k + 0.02 * t, zero: 1.0, noisy: 2.0} for t in range(5)}
        for k, person in enumerate(("P1", "P2", "P3"), 1)
    }
    found = found_of(hand_made(values))
    table = claims(found).set_index("claim")
    assert table.loc["labels of exact points beat no motion", "verdict"] == "holds"
    assert table.loc["labels of exact points beat no motion", "difference"] == pytest.approx(0.8)
    assert table.loc["corrected beats compat, exact points", "difference"] == pytest.approx(0.04)
    growth = table.loc["the lead over compat grows, exact points, px in ten pairs"]
    assert growth["difference"] == pytest.approx(0.2) and growth["verdict"] == "holds"
    limits = noise_limits(found, MOVES)
    assert limits["P1"] == pytest.approx(0.5 * 0.9 / 1.9)
    bears = table.loc["labels bear the jitter of dlib's points (limit - jitter, px)"]
    assert bears["verdict"] == "does not hold"


def test_the_noise_limit_lies_between_the_measured_levels():
    x = np.array([0.0, 0.5, 1.0])
    assert crossing(x, np.array([-1.0, -0.5, 0.5])) == 0.75
    assert (
        crossing(x, np.array([0.2, 1.0, 2.0])) == 0
        and crossing(x, np.array([-3.0, -2.0, -1.0])) == 1
    )


# ---------------------------------------------------------------- runs that go on


@pytest.fixture
def counted(monkeypatch):
    """`measure` in a version that costs nothing, and the names that it was called for."""
    names = []

    def measure(person, setting):
        names.append(person.name)
        size = (1, len(REGIONS), len(truth.sources_of(setting)), len(FACE), len(SUMS))
        return {
            "sums": {MOVES: np.ones(size)},
            "pairs": {MOVES: [0]},
            "maps": {},
            "facts": {},
            "lost": [],
        }

    monkeypatch.setattr(truth, "measure", measure)
    return names


def test_a_run_goes_on_where_it_stopped_and_measures_again_what_is_not_proven(counted, tmp_path):
    truth.measure_people(Setting(people=2), tmp_path)
    truth.measure_people(Setting(people=3), tmp_path)
    assert counted == ["SYN001", "SYN002", "SYN003"]
    path = tmp_path / "people" / "SYN002.pickle"
    path.write_bytes(path.read_bytes()[:-7] + b"damaged")
    truth.measure_people(Setting(people=3), tmp_path)
    assert counted[3:] == ["SYN002"]
    truth.measure_people(Setting(people=1, seed=1), tmp_path)
    assert counted[4:] == ["SYN001"]
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert len(log) == 9 and "was changed" in log[6] and "other settings" in log[8]


def test_other_code_makes_a_measurement_stale(counted, tmp_path, monkeypatch):
    truth.measure_people(Setting(people=1), tmp_path)
    assert "facecomp.flow.labels.corrected_flow" in truth._code()
    monkeypatch.setattr(truth, "_code", lambda: {"cells": "other"})
    truth.measure_people(Setting(people=1), tmp_path)
    assert counted == ["SYN001", "SYN001"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"people": 0}, {"frames": 1}, {"seed": -1}, {"noise": (0.5, 0.5)}, {"noise": (0,), "compat_noise": ()},
        {"compat_noise": (0.3,)}, {"units": ()}, {"units": (7,)},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError):
        Setting(**wrong)


def test_lists_of_numbers_name_the_parameter_that_is_wrong():
    assert truth.numbers_of("1, 12,", int, "units") == (1, 12)
    with pytest.raises(InputError, match=r"units='1.5'"):
        truth.numbers_of("1.5", int, "units")


def test_the_run_notebook_measures_draws_and_writes_proven_result_files(tmp_path, monkeypatch):
    names = {"__name__": "notebook"}
    tiny = {
        "people": 1,
        "frames": 2,
        "noise": "1",
        "compat_noise": "1",
        "units": "12",
        "out": str(tmp_path),
    }
    cells = json.loads((ROOT / "nbs" / "flow" / "run_truth.ipynb").read_text())["cells"]
    for cell in (c for c in cells if c["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), "run_truth", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert tiny.keys() <= names.keys()
            names.update(tiny)
    receipts = sorted((tmp_path / "results").glob("*.receipt.json"))
    assert [p.name.partition(".")[0] for p in receipts] == ["label_accuracy", "label_maps"]
    for path in receipts:
        assert read_receipt(path).data == "synthetic" and not output_faults(path)
    stored = read_pickle(tmp_path / "results" / "label_accuracy.pickle")
    people = stored["people"]
    assert people["method"].dtype == object and stored["setting"]["people"] == 1
    table = people.query("region == 'common'").set_index(["scene", "method", "points"])
    assert set(table.index.get_level_values(0)) == {MOVES, STILL, STEP, RISE}
    for scene in (MOVES, STILL, STEP, RISE):
        assert table.loc[(scene, "zero", ""), "explained"] == 0
        assert table.loc[(scene, *A), "epe"] < table.loc[(scene, "zero", ""), "epe"]
        assert table.loc[(scene, *A), "epe"] < table.loc[(scene, "corrected", "1 px"), "epe"]
    assert set(stored["claims"]["verdict"]) == {"open"}  # one participant decides nothing
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 6
