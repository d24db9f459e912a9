"""Methods behind one call, and their errors pair by pair: scalings, regions, resumption, files and pictures."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from golden.fill import make_input
from PIL import Image

from facecomp.flow import evaluation as module
from facecomp.flow.evaluation import (
    COLUMNS,
    TRUTH,
    differences,
    evaluate,
    evaluated_pairs,
    key_of,
    pair_errors,
    part_path,
    predictions,
    read_case,
    read_part,
    summarise,
    write_crops,
    write_text_files,
)
from facecomp.flow.files import Flow, convert, write_flo, write_flow
from facecomp.flow.methods import (
    METHOD_NAMES,
    TVL1,
    cached_weights,
    find_method,
    find_methods,
    published_factors,
    trained_with,
    unbiased,
)
from facecomp.flow.metrics import angular_text, endpoint_text, farneback
from facecomp.flow.networks import SMALL, FlowNetwork
from facecomp.flow.pair_lists import PairFiles
from facecomp.flow.pictures import (
    bias_table,
    choose_examples,
    deformed,
    evaluate_receipt,
    example_of,
    legacy_picture,
    rendered_pairs,
    write_results,
)
from facecomp.paper.statistics import grouped_interval
from facecomp.records.files import InputError, write_json
from facecomp.records.pickles import read_pickle
from facecomp.records.receipts import Receipt, output_faults, write_receipt

SIZE = (64, 128)  # of crops, small: half of it is 32 x 64
GOLDEN = ROOT / "tests" / "golden" / "flow"


# --- golden numbers through the evaluation ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "prediction", "shape", "reach"),
    [
        ("FacialOF", "net_uv", (24, 32, 2), 3),
        ("farneback", "classic_uv", (48, 64, 2), 6),
        ("flownet2", "tiny_uv", (12, 16, 2), 3),
    ],
)
def test_the_evaluation_writes_the_published_numbers_and_pictures(name, prediction, shape, reach):
    truth = make_input("flow.eval.gt_rowcol", (24, 32, 2), -3, 3, "").astype(np.float64)
    truth = convert(truth, "crop", "motion")
    made = make_input(f"flow.eval.{prediction}", shape, -reach, reach, "")
    found = [("F001_T1_0001", pair_errors(truth, made, np.ones((24, 32), bool))["whole"])]
    with np.load(GOLDEN / "evaluation.npz") as golden:
        for kind, text in (("epe", endpoint_text(found)), ("aae", angular_text(found))):
            wanted = str(golden[f"{name}.{kind}_text"])
            numbers = [
                [float(w.strip(",")) for w in t.split() if w[:1].isdigit()] for t in (text, wanted)
            ]
            assert np.allclose(*numbers, rtol=1e-6) and len(numbers[0]) >= 1
            assert text.split("error:")[0] == wanted.split("error:")[0]
        if name == "FacialOF":
            stored = golden["FacialOF.pred0_png_rgb"]
            assert np.abs(legacy_picture(made).astype(int) - stored).max() <= 1


# --- methods ------------------------------------------------------------------------------------------


def texture(shift: tuple[int, int], size: tuple[int, int] = (100, 140)) -> np.ndarray:
    """A picture (H, W, 3) uint8 moved by (dx, dy) px."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(
        rng.uniform(0, 255, (size[0] + 20, size[1] + 20, 3)).astype(np.float32), (0, 0), 2
    )
    wide = np.uint8(255 * (wide - wide.min()) / np.ptp(wide))
    dx, dy = shift
    return wide[10 - dy : 10 - dy + size[0], 10 - dx : 10 - dx + size[1]]


@pytest.mark.parametrize("name", ["farneback", "dis"])
@pytest.mark.parametrize("move", [(3, 0), (0, -2), (-2, 3)])
def test_a_method_gives_dx_then_dy_in_px_of_what_it_is_given(name, move):
    flow = find_method(name).estimate(texture((0, 0)), texture(move))
    assert flow.dtype == np.float32 and flow.shape == (100, 140, 2)
    middle = np.median(flow[25:-25, 25:-25], axis=(0, 1))
    assert np.abs(middle - move).max() < 0.25


def constant_network(folder: Path, motion=(2.0, -1.0), name="constant.pth") -> Path:
    """A checkpoint whose network answers one motion, px of its half grid, whatever it sees."""
    network = FlowNetwork(SMALL)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.zero_()
        network.predict1.bias.copy_(torch.tensor(motion))
    torch.save(network.state_dict(), folder / name)
    return folder / name


@pytest.mark.parametrize("size", [(384, 512), (96, 64), (200, 333), (33, 40)])
def test_the_networks_motion_comes_out_in_px_of_the_picture(tmp_path, size):
    method = find_method("ours", str(constant_network(tmp_path)), seen=(64, 128))
    flow = method.estimate(np.zeros((*size, 3), np.uint8), np.zeros((*size, 3), np.uint8))
    assert flow.shape == (*size, 2)
    assert np.allclose(flow, (2 * 2 * size[1] / 128, -1 * 2 * size[0] / 64), rtol=1e-5)


def test_the_network_is_read_from_files_of_three_kinds_with_its_own_widths(tmp_path):
    frames = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    answers = []
    for place in ("keras_hdf5/cp.ckpt", "tf_object/cp.ckpt", "tf_object/cp.ckpt.index"):
        method = find_method("ours", str(GOLDEN / "ckpt" / place))
        assert method.scaling == "published" and len(method.weights) == 64
        answers.append(method.half(*frames))
    assert answers[0].shape == (32, 32, 2) and np.abs(answers[0]).max() > 0
    assert all(np.array_equal(answers[0], other) for other in answers[1:])
    torch.save({"network": FlowNetwork((4, 4, 8, 8, 8, 8, 4)).state_dict()}, tmp_path / "a.pth")
    assert find_method("ours", str(tmp_path / "a.pth")).scaling == "unbiased"


def test_a_training_receipt_tells_scaling_and_size(tmp_path):
    path = constant_network(tmp_path, name="cp.pt")
    assert trained_with(path) == ("unbiased", (384, 512))
    made = Receipt("train", "flow", "run_train", "synthetic", {"size": [64, 128]}, mode="compat")
    write_receipt(tmp_path, made, [path])
    assert trained_with(path) == ("published", (64, 128))
    write_receipt(tmp_path, replace(made, parameters={"scaling": "unbiased"}), [path])
    assert trained_with(path) == ("unbiased", (384, 512))
    assert find_method("exp3I", str(path)).name == "exp3I"
    assert find_method("ours", str(path), trained_scaling="published").scaling == "published"
    write_json(tmp_path / "train.receipt.json", [1])
    with pytest.raises(InputError, match="receipt"):
        find_method("ours", str(path))


@pytest.fixture(scope="module")
def raft():
    return find_method("raft_small", "random:3")


@pytest.mark.parametrize("size", [(32, 32), (128, 128), (129, 131)])
def test_raft_takes_any_size_and_continues_the_picture_beyond_its_border(raft, size):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    flow = raft.estimate(*frames)
    assert flow.shape == (*size, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
    full = [max(128, -(-side // 8) * 8) for side in size]
    more = [(0, 0), *((0, f - s) for f, s in zip(full, size, strict=True)), (0, 0)]
    outer = raft.estimate(*np.pad(frames, more, "edge"))
    assert outer.shape == (*full, 2)
    assert np.array_equal(outer[: size[0], : size[1]], flow)


def test_random_weights_are_named_seeded_and_never_taken_silently(raft, monkeypatch, tmp_path):
    assert (raft.name, raft.weights, raft.drawn) == ("raft_small_random", "random:3", True)
    frames = texture((0, 0), (40, 40)), texture((2, 1), (40, 40))
    state = torch.random.get_rng_state()
    again, other = (find_method("raft_small", f"random:{seed}") for seed in (3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(raft.estimate(*frames), again.estimate(*frames))
    assert not np.array_equal(raft.estimate(*frames), other.estimate(*frames))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for asked, word in (("", "no weights raft_small"), ("download", "FACECOMP_OFFLINE")):
        with pytest.raises(InputError, match=word):
            find_method("raft_small", asked)


def test_raft_weights_are_found_in_the_caches_and_checked(monkeypatch, tmp_path):
    from torchvision.models.optical_flow import raft_small

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    state = raft_small(weights=None).state_dict()
    path = tmp_path / "hub" / "checkpoints" / "raft_small_C_T_V2-01064c6d.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    assert cached_weights("raft_small") == path
    method = find_method("raft_small")
    assert method.name == "raft_small" and len(method.weights) == 64 and not method.drawn
    own = tmp_path / "cache" / "weights" / path.name  # FACECOMP_CACHE of the tests
    own.parent.mkdir(parents=True)
    torch.save({k: v for k, v in state.items() if k != next(iter(state))}, own)
    assert cached_weights("raft_small") == own
    with pytest.raises(InputError, match="1 missing"):
        find_method("raft_small")


def test_tvl1_gets_the_published_parameters_in_opencvs_order(monkeypatch):
    calls = []

    class Contrib:
        @staticmethod
        def DualTVL1OpticalFlow_create(*values):
            calls.append(values)

            class Made:
                @staticmethod
                def calc(first, second, flow):
                    assert first.dtype == second.dtype == np.uint8 and first.ndim == 2
                    return np.ones((*first.shape, 2), np.float32)

            return Made

    monkeypatch.setattr(cv2, "optflow", Contrib, raising=False)
    assert find_method("tvl1").estimate(texture((0, 0)), texture((1, 0))).shape == (100, 140, 2)
    assert calls == [(0.25, 0.15, 0.3, 5, 5, 0.01, 30, 10, 0.8, 0.0, 5, False)]
    assert list(TVL1.values()) == list(calls[0])
    monkeypatch.delattr(cv2, "optflow", raising=False)
    with pytest.raises(InputError, match="opencv-contrib-python-headless"):
        find_method("tvl1")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("farnback", "must be one of farneback"),
        ("", "none given"),
        ("dis,farneback,dis", "dis is there twice"),
        ("dis=weights.pth", "has no weights"),
        ("ours", "give ours=PATH"),
        ("ours=nowhere.ckpt", "nowhere.ckpt"),
        ("raft_large=random:x", "seed must be a number"),
        ("raft_small=nowhere.pth", "nowhere.pth"),
        ("files:", "is not a folder"),
        ("files:nowhere", "is not a folder"),
    ],
)
def test_a_method_that_is_not_to_be_had_says_so_in_one_line(text, word):
    with pytest.raises(InputError, match=word) as error:
        find_methods(text)
    assert "\n" not in str(error.value)


def test_devices_scalings_and_sizes_that_cannot_be_are_refused(tmp_path):
    path = str(constant_network(tmp_path))
    for word, options in (
        ("device 'gpu'", {"device": "gpu"}),
        ("scaling 'other'", {"trained_scaling": "other"}),
        ("multiples of 64", {"seen": (64, 100)}),
    ):
        with pytest.raises(InputError, match=word):
            find_method("ours", path, **options)
    assert find_method("ours", path, device="auto").name == "ours"
    torch.save({"a": torch.zeros(1)}, tmp_path / "b.pth")
    (tmp_path / "c.pth").write_text("hello")
    for name in ("b.pth", "c.pth"):
        with pytest.raises(InputError, match=name):
            find_method("ours", str(tmp_path / name))


@pytest.mark.parametrize(
    "frames",
    [
        (np.zeros((31, 40, 3)), np.zeros((31, 40, 3))),
        (np.zeros((40, 40)), np.zeros((40, 40))),
        (np.zeros((40, 40, 3)), np.zeros((40, 41, 3))),
        (np.full((40, 40, 3), np.nan), np.zeros((40, 40, 3))),
        (np.zeros((40, 40, 3), bool), np.zeros((40, 40, 3), bool)),
    ],
)
def test_frames_that_no_method_can_use_are_refused_by_all(frames, tmp_path):
    for name in ("farneback", "dis", "ours"):
        weights = str(constant_network(tmp_path)) if name == "ours" else ""
        with pytest.raises(InputError, match="frame"):
            find_method(name, weights).estimate(*frames)
    assert set(METHOD_NAMES) == {"farneback", "dis", "tvl1", "raft_small", "raft_large", "ours"}


def test_flows_made_elsewhere_are_found_by_sequence_first_and_only_there(tmp_path):
    for path, value in (("S1/1/a.flo", 1), ("a.flo", 2)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        write_flo(tmp_path / path, np.full((4, 6, 2), value, np.float32))
    method = find_method(f"files:{tmp_path}")
    assert method.stored("S1", "1", "a")[0, 0].tolist() == [1, 1]
    assert method.stored("S2", "1", "a")[0, 0].tolist() == [2, 2]
    for call in (lambda: method.stored("S1", "1", "b"), lambda: method.estimate(None, None)):
        with pytest.raises(InputError, match="files:|no flow of"):
            call()
    write_flo(tmp_path / "b.flo", np.zeros((4, 6, 2)))
    assert (
        find_method(f"files:{tmp_path}").weights != method.weights
    )  # kept errors are of the old ones


# --- pairs of a moving texture with known motion ------------------------------------------------------


def smooth_motion(scale: float) -> np.ndarray:
    """(512, 384, 2) float32, a few px, smooth."""
    r, c = np.mgrid[:512, :384].astype(np.float32)
    dx = scale * (1.5 + np.sin(r / 80) + 0.004 * c)
    return np.stack([dx, scale * (np.cos(c / 90) - 0.5)], -1)


def make_pair(home: Path, subject: str, frame: int, reach: float, scale: float) -> PairFiles:
    """Two frames, motion and key points on an ellipse of `reach` px."""
    stem = f"{subject}_1_{frame}"
    for name, moved in ((stem, 0), (f"{subject}_1_{frame + 1}", 2)):
        if not (home / f"{name}.png").is_file():
            cv2.imwrite(str(home / f"{name}.png"), texture((moved, 0), (512, 384))[..., ::-1])
    ring = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack([192 + 0.9 * reach * np.cos(ring), 256 + reach * np.sin(ring)], 1)
    text = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points)
    (home / f"{stem}_landmarks.txt").write_text(text)
    r, c = np.mgrid[:512, :384]
    mask = ((c - 192) / (0.9 * reach)) ** 2 + ((r - 256) / reach) ** 2 < 1
    label = write_flow(home / f"{stem}.npz", Flow(smooth_motion(scale), mask))
    files = [home / f"{subject}_1_{k}.png" for k in (frame, frame + 1)]
    return PairFiles(subject, "1", *files, label, home / f"{stem}_landmarks.txt")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[PairFiles]:
    home = tmp_path_factory.mktemp("pairs")
    plan = [("A", 1, 100, 1.0), ("A", 2, 110, 1.5), ("B", 1, 140, 0.8), ("B", 2, 160, 1.2)]
    return [make_pair(home, *each) for each in plan]


@pytest.mark.parametrize("mode", ["corrected", "compat"])
def test_true_motion_has_no_error_in_the_unbiased_scaling_only(pairs, mode):
    for pair in pairs:
        case = read_case(pair, mode)
        made = predictions(TRUTH, pair, case)
        errors = {s: pair_errors(case.truth[s], made[s], case.known) for s in made}
        length = np.linalg.norm(case.truth["unbiased"], axis=-1)
        assert errors["unbiased"]["face"].epe < 0.01 * length[case.known].mean()
        factors = published_factors(case.box, case.whole)
        low, high = (1 - factors.max()) * length.mean(), (1 - factors.min()) * length.mean()
        assert 0.98 * low < errors["published"]["whole"].epe < 1.02 * high
        scaled = case.truth["unbiased"] * factors
        assert np.allclose(scaled, case.truth["published"], atol=1e-5)


def test_the_true_motion_is_that_of_the_label_cut_and_resized_by_hand(pairs):
    case = read_case(pairs[0])
    rows, columns = case.box
    top, left = (256 - 100 - 10, 192 - 90 - 10)  # from the ellipse and the margin
    cut = smooth_motion(1.0)[top : top + rows, left : left + columns]
    by_hand = cv2.resize(cut, (512, 384)) * np.float32([512 / columns, 384 / rows])
    middle = np.s_[100:-100, 100:-100]
    assert np.abs(case.motion[middle] - by_hand[middle]).max() < 0.02


def test_a_network_taught_published_motion_is_divided_by_the_factors_of_the_crop(pairs, tmp_path):
    case = read_case(pairs[0], size=SIZE)
    path = str(constant_network(tmp_path))
    for scaling in ("published", "unbiased"):
        method = find_method("ours", path, trained_scaling=scaling)
        made = predictions(method, pairs[0], case)
        assert np.allclose(made["published"], (2, -1)) and made["published"].shape == (32, 64, 2)
        factors = published_factors(case.box, case.whole) if scaling == "published" else 1.0
        assert np.allclose(made["unbiased"] * factors, (2, -1), rtol=1e-6)
    assert np.array_equal(published_factors((256, 96)), [0.25, 0.5])  # dx by columns, dy by rows
    assert unbiased(np.ones((1, 1, 2)), "published", (256, 96)).tolist() == [[[4, 2]]]
    for box in ((0, 10), (513, 10), (10, 385)):
        with pytest.raises(InputError, match="crop"):
            published_factors(box)


def test_classical_methods_see_the_prepared_crops_as_they_are(pairs):
    case = read_case(pairs[0])
    made = predictions(find_method("farneback"), pairs[0], case)["published"]
    assert np.array_equal(made, farneback(case.first, case.second))
    assert case.first.dtype == np.float32 and made.shape == (384, 512, 2)


def test_errors_of_all_pairs_are_tidy_and_equal_to_those_of_each(pairs, tmp_path):
    methods = [TRUTH, find_method("dis")]
    found = evaluate(pairs, methods, tmp_path, size=SIZE)
    errors = found.errors
    assert tuple(errors.columns) == COLUMNS and len(errors) == 4 * 2 * 2 * 2
    assert errors.columns.dtype == object and errors["subject"].dtype == object
    row = errors.query("pair == 'B_1_1' and method == 'dis' and region == 'face'")
    case = read_case(pairs[2], size=SIZE)
    made = predictions(methods[1], pairs[2], case)
    for each in row.itertuples():
        one = pair_errors(case.truth[each.scaling], made[each.scaling], case.known)["face"]
        assert (each.epe_sum, each.epe, each.aae) == (one.epe_sum, one.epe, one.aae)
        assert each.pixels == case.known.sum() < 32 * 64
    assert found.crops["motion"].gt(0).all() and (found.crops["of_rows"] == 512).all()


def test_flows_made_elsewhere_are_compared_at_their_own_size(pairs, tmp_path):
    for pair in pairs:
        case = read_case(pair, size=SIZE)
        home = tmp_path / "made" / pair.subject / "1"
        home.mkdir(parents=True, exist_ok=True)
        truth = case.truth["unbiased"]
        small = cv2.resize(truth, (32, 16)) * np.float32(0.5)  # coarser than the truth
        write_flo(home / f"{pair.name}.flo", small)
    found = evaluate(pairs, find_methods(f"files:{tmp_path / 'made'}"), tmp_path / "o", size=SIZE)
    part = found.errors.query("scaling == 'unbiased'")
    assert part["epe"].max() < 1e-5 and set(part["method"]) == {"made"}
    assert part.query("region == 'whole'")["pixels"].unique().tolist() == [16 * 32]
    (tmp_path / "made" / "A" / "1" / "A_1_2.flo").unlink()
    with pytest.raises(InputError, match=r"no flow of A, 1, A_1_2 \(\.flo\)"):
        evaluate(pairs, find_methods(f"files:{tmp_path / 'made'}"), tmp_path / "o", size=SIZE)


# --- resumption -----------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stopped_after(count: int, monkeypatch) -> list[str]:
    """From now on reading a pair is counted, and the one after `count` ends the run."""
    calls, real = [], read_case

    def reading(pair, *arguments):
        if len(calls) == count:
            raise Stop
        calls.append(key_of(pair))
        return real(pair, *arguments)

    monkeypatch.setattr(module, "read_case", reading)
    return calls


def parts_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "parts").iterdir()}


def test_a_killed_run_goes_on_and_leaves_the_same_bytes(pairs, tmp_path, monkeypatch):
    methods = [TRUTH, find_method("dis")]
    whole = evaluate(pairs, methods, tmp_path / "whole", size=SIZE)
    stopped_after(2, monkeypatch)
    with pytest.raises(Stop):
        evaluate(pairs, methods, tmp_path / "cut", size=SIZE)
    path = part_path(tmp_path / "cut", methods[1], "corrected", SIZE)
    assert len(read_part(path)) == 2
    with path.open("a") as file:
        file.write('{"pair": "B/1/B_1_1", "mark": "12')  # killed in the middle of a line
    calls = stopped_after(9, monkeypatch)
    again = evaluate(pairs, methods, tmp_path / "cut", size=SIZE)
    assert calls == ["B/1/B_1_1", "B/1/B_1_2"]
    assert parts_of(tmp_path / "cut") == parts_of(tmp_path / "whole")
    pd.testing.assert_frame_equal(again.errors, whole.errors, check_exact=True)


def test_only_what_is_new_or_changed_is_measured_again(pairs, tmp_path, monkeypatch):
    evaluate(pairs, [TRUTH], tmp_path, size=SIZE)
    calls = stopped_after(9, monkeypatch)
    evaluate(pairs, [TRUTH], tmp_path, size=SIZE, limit=3)
    assert calls == []
    before = parts_of(tmp_path)
    evaluate(pairs, [TRUTH, find_method("dis")], tmp_path, size=SIZE)
    assert len(calls) == 4 and before.items() <= parts_of(tmp_path).items()
    calls.clear()
    evaluate(pairs, [TRUTH], tmp_path, "compat", SIZE)  # another mode: other numbers, other file
    assert calls == ["A/1/A_1_1", "A/1/A_1_2", "B/1/B_1_1"]
    calls.clear()
    pairs[1].label.touch()
    evaluate(pairs, [TRUTH], tmp_path, size=SIZE)
    assert calls == ["A/1/A_1_2"]
    kept = read_part(part_path(tmp_path, TRUTH, "corrected", SIZE))
    assert set(kept) == {key_of(p) for p in pairs}


def test_other_weights_under_the_same_name_are_measured_anew(pairs, tmp_path):
    found = []
    for motion in ((2.0, -1.0), (0.0, 0.0)):
        method = find_method("ours", str(constant_network(tmp_path, motion)))
        found.append(evaluate(pairs[:1], [method], tmp_path / "out", size=SIZE).errors["epe"])
    assert (found[0] != found[1]).all()


def test_a_pair_that_cannot_be_read_is_left_out_of_all_methods_and_named(pairs, tmp_path):
    bad = replace(pairs[1], label=tmp_path / "nowhere.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK")
    worse = replace(pairs[2], label=broken)
    methods = [TRUTH, find_method("dis")]
    found = evaluate([pairs[0], bad, worse, pairs[3]], methods, tmp_path / "out", size=SIZE)
    assert list(found.skipped) == ["A/1/A_1_2", "B/1/B_1_1"]
    assert "nowhere.npz" in found.skipped["A/1/A_1_2"]
    assert set(found.errors["pair"]) == {"A_1_1", "B_1_2"} and len(found.crops) == 2
    assert "left out: B/1/B_1_1" in (tmp_path / "out" / "evaluate.log").read_text()
    with pytest.raises(InputError, match="no pair can be read"):
        evaluate([bad], methods, tmp_path / "out", size=SIZE)


def test_a_method_that_gives_no_number_stops_the_run(pairs, tmp_path):
    nothing = replace(find_method("dis"), estimate=lambda a, b: np.full((64, 128, 2), np.nan))
    with pytest.raises(InputError, match="dis: A/1/A_1_1: its motion is not finite"):
        evaluate(pairs, [nothing], tmp_path, size=SIZE)


def test_lists_and_settings_that_cannot_be_are_refused(pairs, tmp_path):
    for word, call in (
        ("mode 'other'", lambda: evaluated_pairs(pairs, "other")),
        ("limit -1", lambda: evaluated_pairs(pairs, limit=-1)),
        ("is there twice", lambda: evaluated_pairs([*pairs, pairs[0]])),
        ("none to evaluate", lambda: evaluated_pairs([])),
        ("none to evaluate", lambda: evaluated_pairs(pairs[:1], "compat")),
        ("at least one", lambda: evaluate(pairs, [], tmp_path)),
        ("each name once", lambda: evaluate(pairs, [TRUTH, TRUTH], tmp_path)),
        ("size", lambda: evaluate(pairs, [TRUTH], tmp_path, size=(10, 10))),
    ):
        with pytest.raises(InputError, match=word):
            call()


def test_compat_leaves_out_the_last_two_names_and_sorts():
    files = [Path(f"{n}.png") for n in "cab"]
    three = [PairFiles("S", "1", f, Path(f"{f.stem}2.png"), Path("x.npz"), None) for f in files]
    assert [p.name for p in evaluated_pairs(three, "compat")] == [
        "a",
        "b",
    ]  # names a a2 b b2 | c c2
    assert [p.name for p in evaluated_pairs(three, "compat", 1)] == ["a"]
    assert [p.name for p in evaluated_pairs(three)] == ["c", "a", "b"]


# --- statistics ----------------------------------------------------------------------------------------


def table(values: dict[tuple[str, str, str], float]) -> pd.DataFrame:
    """Errors from {(method, subject, pair): epe}."""
    rows = [
        (s, "1", p, m, scaling, region, e, e, e / 10, 1)
        for (m, s, p), e in values.items()
        for scaling in ("published", "unbiased")
        for region in ("whole", "face")
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_intervals_are_over_subjects_not_over_their_many_pairs():
    rng = np.random.default_rng(0)
    near = {f"p{k}": 1 + 0.01 * rng.standard_normal() for k in range(50)}
    values = {("m", s, p): level + v for s, level in (("A", 0), ("B", 4)) for p, v in near.items()}
    row = summarise(table(values)).iloc[0]
    assert (row["over"], row["pairs"], row["subjects"]) == ("subjects", 100, 2)
    assert row["epe"] == pytest.approx(3, abs=0.01)
    assert row["epe_low"] == pytest.approx(1, abs=0.01) and row["epe_high"] == pytest.approx(
        5, abs=0.01
    )
    assert row["aae_degrees"] == pytest.approx(np.degrees(row["aae"]))
    alone = summarise(table({k: v for k, v in values.items() if k[1] == "A"})).iloc[0]
    assert alone["over"] == "pairs" and alone["epe_high"] - alone["epe_low"] < 0.01
    assert np.isnan(grouped_interval(np.array([1.0]), np.array(["A"]))[0])


def test_the_interval_of_a_mean_has_the_width_of_its_standard_error():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high, _ = grouped_interval(values, np.zeros(400), 2000)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.03)


def test_pairs_without_a_known_pixel_have_no_error_in_the_face():
    errors = table({("m", "A", "p1"): 1.0, ("m", "A", "p2"): np.nan, ("n", "A", "p1"): 3.0})
    row = summarise(errors).iloc[0]
    assert (row["pairs"], row["epe"]) == (1, 1.0)
    gap = differences(errors).iloc[0]
    assert (gap["first"], gap["second"], gap["epe"], gap["pairs"]) == ("m", "n", -2.0, 1)
    assert gap["first_closer"] == 1.0


def test_text_files_hold_whole_pictures_of_each_method_and_scaling(tmp_path):
    errors = table({("m", "A", "p1"): 1.0, ("m", "A", "p2"): 2.5, ("n", "A", "p1"): 3.0})
    errors.loc[errors["region"] == "face", "epe"] = 99.0
    paths = write_text_files(errors, tmp_path)
    assert len(paths) == 8
    text = (tmp_path / "m" / "published" / "endpoint_errors.txt").read_text()
    assert (
        text
        == "Average endpoint errors:\np1 error: 1.0,\t average error: 1.0\np2 error: 2.5,\t average error: 2.5"
    )
    text = (tmp_path / "n" / "unbiased" / "angular_errors.txt").read_text()
    assert text == "Average angular errors:\np1 average angular error: 0.3"


# --- crops, pictures, result files ----------------------------------------------------------------------


def test_crops_for_other_programs_are_what_our_methods_see(pairs, tmp_path):
    listed = pd.read_csv(write_crops(pairs[:2], tmp_path, size=SIZE))
    assert listed["flow"].tolist() == ["A/1/A_1_1.flo", "A/1/A_1_2.flo"]
    picture = np.asarray(Image.open(tmp_path / listed["second"][1]))
    case = read_case(pairs[1], size=SIZE)
    assert np.abs(picture - case.second).max() <= 0.5 + 1e-4


def test_the_deformed_frame_is_the_first_one_moved_along_the_motion():
    image = np.zeros((64, 96, 3), np.float32)
    image[:, :48] = 100
    moved = deformed(image, np.tile(np.float32([3, 0]), (32, 48, 1)))  # 6 px to the right
    assert moved.shape == image.shape
    assert moved[32, 51].min() > 90 and moved[32, 57].max() < 10  # the edge was at 48
    assert np.allclose(moved[32, 45], 100, atol=0.1) and np.allclose(moved[32, 64], 0, atol=0.1)


def test_result_files_have_receipts_and_come_out_the_same_again(pairs, tmp_path):
    methods = [TRUTH, *find_methods("dis")]
    digests = []
    for name in ("one", "two"):
        out = tmp_path / name
        found = evaluate(pairs, methods, out, "compat", SIZE)
        chosen = choose_examples(found, pairs, 2)
        assert [p.subject for p in chosen] == ["A", "B"]
        drawn = [example_of(pair, methods, "compat", SIZE) for pair in chosen]
        assert set(drawn[0]["predictions"]) == {"dis"}  # the truth is no prediction
        parameters = {"mode": "compat", "methods": "dis"}
        path = write_results(found, drawn, out, "synthetic", parameters, {}, legacy_colors=True)
        for receipt in ("evaluate", "errors_own", "crops_own", "examples_own"):
            assert not output_faults(out / f"{receipt}.receipt.json")
        digests.append(json.loads(path.read_text())["outputs"])
    assert digests[0] == digests[1] and len(digests[0]) > 15
    assert read_pickle(out / "errors_own.pickle").equals(found.errors)
    example = read_pickle(out / "examples_own.pickle")[key_of(chosen[0])]
    assert example["truth"]["published"].shape == (32, 64, 2)
    picture = np.asarray(Image.open(out / "pictures" / "dis" / f"{chosen[0].name}_gt.png"))
    assert np.array_equal(picture[:32], legacy_picture(example["truth"]["published"]))
    assert picture.shape == (46, 64, 3)  # the word "synthetic" is below
    bias = bias_table(found)
    assert (
        bias["published"] > 1 - bias[["factor_rows", "factor_columns"]].max(axis=1) - 0.02
    ).all()
    with pytest.raises(InputError, match="'truth' is missing"):
        bias_table(replace(found, errors=found.errors.query("method == 'dis'")))


def test_rendered_pairs_are_found_with_their_true_motion(tmp_path):
    from facecomp.flow.people import make_sequences
    from facecomp.flow.training import kind_of_pairs

    make_sequences(tmp_path / "people", ("P1",), 1, 2, size=(64, 48))
    made = rendered_pairs(tmp_path / "people")
    assert kind_of_pairs(made) == "synthetic"
    assert [key_of(pair) for pair in made] == ["P1/001/P1_001_00000001"]
    assert made[0].second.name == "P1_001_00000002.png" and made[0].label.is_file()
    with pytest.raises(InputError, match="holds no true motion"):
        rendered_pairs(tmp_path)
    path = evaluate_receipt({"out": "results/flow/evaluation"})
    assert path == ROOT / "results/flow/evaluation/evaluate.receipt.json"
