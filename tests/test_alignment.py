"""Alignment rules: exact geometry on pictures whose pixels are known, reference arrays, and refusals."""

import os
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from facecomp.faces import alignment as al
from facecomp.faces.detection import DlibDetector, Face, box_of_points
from facecomp.faces.video import open_video
from facecomp.records.files import InputError

GOLDEN = Path(__file__).parent / "golden"
CLIPS = Path(os.environ.get("FACECOMP_CLIPS", ROOT.parent / "shared" / "clips"))


def clip(name: str) -> Path:
    if not (CLIPS / name).exists():
        pytest.skip(f"real clip {name} is not at hand (FACECOMP_CLIPS)")
    return CLIPS / name


def ramp(height: int = 240, width: int = 320) -> np.ndarray:
    """Red rises with x, green with y, half a level a pixel: any warp of it can be computed by hand."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x / 2 + 20, y / 2 + 20, np.full_like(x, 99)], 2).round().astype(np.uint8)


def similar(turn: float, zoom: float, x: float, y: float) -> np.ndarray:
    c, s = zoom * np.cos(np.radians(turn)), zoom * np.sin(np.radians(turn))
    return np.array([[c, -s, x], [s, c, y]])


def face_at(matrix: np.ndarray, mouth: float = 0.0) -> Face:
    """68 points of a plain face of about 80 pixels, carried by a similarity."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-40, 40, (68, 2))
    for k, place in {
        36: (-28, -12), 39: (-12, -12), 42: (12, -12), 45: (28, -12), 30: (0, 8), 48: (-16, 24), 54: (16, 24),
        27: (0, -12), 41: (-22, -9), 46: (22, -9), 31: (-6, 10), 35: (6, 10), 8: (0, 50),
    }.items():  # fmt: skip
        points[k] = place
    points[55:68] += [0, mouth]
    points[8] += [0, mouth]
    points = al.transform(points, matrix)
    return Face(box_of_points(points), points, 1.0)


FINITE = {"allow_nan": False, "allow_infinity": False}
SIMILAR = st.builds(
    similar,
    st.floats(-180, 180, **FINITE),
    st.floats(0.05, 20, **FINITE),
    st.floats(-500, 500, **FINITE),
    st.floats(-500, 500, **FINITE),
)


@settings(max_examples=60, deadline=None)
@given(SIMILAR, st.integers(2, 68), st.integers(0, 2**31))
def test_a_similarity_is_found_again(matrix, n, seed):
    points = np.random.default_rng(seed).normal(size=(n, 2)) * 30
    found = al.similarity(points, al.transform(points, matrix))
    assert np.allclose(found, matrix, atol=1e-8 * max(1, np.abs(matrix).max()))


def test_the_fit_is_the_least_squares_one():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    x, y = source.T
    one, nil = np.ones(20), np.zeros(20)
    equations = np.concatenate([np.stack([x, -y, one, nil], 1), np.stack([y, x, nil, one], 1)])
    a, b, tx, ty = np.linalg.lstsq(equations, target.T.ravel(), rcond=None)[0]
    assert np.allclose(al.similarity(source, target), [[a, -b, tx], [b, a, ty]])
    mirrored = al.similarity(source, source * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) >= 0  # never a mirror image


@pytest.mark.parametrize(
    "points", [np.zeros((2, 2)), np.full((5, 2), 7.0), np.full((3, 2), np.nan)]
)
def test_points_without_extent_are_refused(points):
    with pytest.raises(InputError, match="one place"):
        al.similarity(points, np.ones_like(points))


@pytest.mark.parametrize("zoom", [3.0, 1.0, 0.7, 0.4, 0.13, 0.03])
@pytest.mark.parametrize("turn", [0, 33, 180])
def test_warp_puts_every_pixel_where_the_matrix_says(zoom, turn):
    image = ramp()
    matrix = similar(turn, zoom, 0, 0)
    size = (40, 48)
    middle = al.transform(np.array([[159.5, 119.5]]), matrix)[0]
    matrix[:, 2] += np.array([23.5, 19.5]) - middle
    out = al.warp(image, matrix, size).astype(float)
    y, x = np.mgrid[: size[0], : size[1]]
    seen = al.transform(np.stack([x.ravel(), y.ravel()], 1), cv2.invertAffineTransform(matrix))
    expected = (seen / 2 + 20).reshape(*size, 2)
    margin = 1 / zoom + 1
    inside = ((seen > margin) & (seen < np.array([319, 239]) - margin)).all(1).reshape(size)
    assert inside.any()
    assert np.abs(out[..., :2] - expected)[inside].max() <= 1.01


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::4] = 255  # one column in four
    small = al.warp(stripes, similar(0, 0.25, -0.375, -0.375), (64, 64))
    assert np.abs(small[2:-2, 2:-2].astype(int) - 64).max() <= 1
    plain = cv2.warpAffine(stripes, similar(0, 0.25, -0.375, -0.375), (64, 64))
    assert np.abs(plain[2:-2, 2:-2].astype(int) - 64).max() > 60  # what the block mean repairs


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(2, 90),
    st.integers(2, 90),
    st.integers(8, 99),
)
def test_crop_is_resize_and_its_matrix_carries_the_points(left, top, w, h, side):
    image, box = ramp(), al.Box(left, top, left + w, top + h)
    out = al.crop(image, box, (side, side + 3))
    part = image[top : top + h, left : left + w]
    assert (out == cv2.resize(part, (side + 3, side), interpolation=cv2.INTER_LINEAR)).all()


def test_the_matrix_of_a_crop_carries_points_to_their_pixels():
    y, x = np.mgrid[:30, :40]
    steep = np.stack([x * 6, y * 8, 0 * x], 2).astype(np.uint8)  # half a pixel is 3 or 4 levels
    for box, size in ((al.Box(5, 3, 25, 23), (90, 140)), (al.Box(0, 0, 40, 30), (60, 40))):
        out = al.crop(steep, box, size).astype(float)
        points = np.array([[10.25, 9.5], [17.0, 12.0], [20.5, 20.75]])
        for (px, py), (u, v) in zip(
            points, al.transform(points, al.crop_matrix(box, size)), strict=True
        ):
            value = cv2.getRectSubPix(out.astype(np.float32), (1, 1), (u, v))[0, 0]
            assert np.abs(value[:2] - [px * 6, py * 8]).max() < 1.2


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-60, 60),
    st.floats(0.5, 2),
    st.floats(90, 200),
    st.floats(80, 160),
    st.sampled_from([64, 128]),
)
def test_psm_puts_the_eyes_in_the_same_places(turn, zoom, x, y, size):
    aligned = al.PsmRule(size)(ramp(), face_at(similar(turn, zoom, x, y)))
    eyes = al.eye_centres(aligned.points)
    assert np.allclose(eyes, np.array([[0.375, 0.48], [0.625, 0.48]]) * size - 0.5)
    assert aligned.image.shape == (size, size, 3)


def test_psm_does_not_see_expressions():
    image, rule = ramp(), al.PsmRule()
    calm = face_at(similar(10, 1, 150, 110))
    for moved in (range(48, 68), range(17, 27), (37, 38, 40, 41, 43, 44, 46, 47), range(17)):
        points = calm.points.copy()
        points[list(moved)] += [3, 9]
        other = rule(image, Face(calm.box, points, 1.0))
        assert (other.image == rule(image, calm).image).all()


def test_psm_smoothing_is_off_unless_asked_for_and_starts_anew_with_each_clip():
    rule = al.PsmRule()
    assert rule.start("a", None, (240, 320)) is rule
    smooth = al.PsmRule(smoothing=0.8)
    here, there = face_at(similar(0, 1, 150, 110)), face_at(similar(0, 1, 160, 110))
    clips = [smooth.start("a", None, (240, 320)) for _ in range(2)]
    for aligner in clips:
        aligner(ramp(), here)
        later = aligner(ramp(), there)
        x = al.eye_centres(later.points)[:, 0].mean()
        assert np.isclose(x, 31.5 + 8 * 64 / 4 / 40)  # 8 of 10 pixels behind, 40 between the eyes
    assert later.image.shape == (64, 64, 3)


@settings(max_examples=30, deadline=None)
@given(st.floats(-90, 90), st.floats(0.4, 2.5), st.floats(50, 250), st.floats(50, 200))
def test_dfer_does_not_depend_on_where_the_head_was(turn, zoom, x, y):
    rule = al.DferRule()
    base = rule(ramp(), face_at(similar(0, 1, 150, 110)))
    moved = rule(ramp(), face_at(similar(turn, zoom, x, y)))
    assert np.allclose(base.points, moved.points) and moved.image.shape == (160, 160, 3)
    eyes = al.five_points(moved.points)[:2]
    assert eyes[0, 0] < 80 < eyes[1, 0]


def test_dfer_without_margin_is_the_published_template():
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = al.TEMPLATE[:2].repeat(6, axis=0).reshape(2, 6, 2)
    points[[30, 48, 54]] = al.TEMPLATE[2:]
    face = Face((0, 0, 112, 112), points, 1.0)
    out = al.DferRule(size=112, margin=0.0)(ramp(112, 112), face)
    assert np.allclose(out.points, points, atol=1e-9) and (out.image == ramp(112, 112)).all()


def test_whether_all_of_it_was_seen():
    rule = al.PsmRule()
    assert rule(ramp(), face_at(similar(0, 1, 160, 120))).inside
    assert not rule(ramp(), face_at(similar(0, 1, 20, 120))).inside
    assert not rule(ramp(), face_at(similar(0, 2, 160, 120))).inside


def test_gaze360_boxes_are_the_published_ones():
    golden = np.load(GOLDEN / "dfer" / "face_crop_boxes.npz")
    width, height = map(int, golden["image_wh"])
    for box, crop in zip(golden["boxes_xywh"], golden["crop_xyxy"], strict=True):
        got = al.gaze360_box(tuple(map(int, box)), height, width)
        assert [got.left, got.top, got.right, got.bottom] == crop.tolist()


def test_gaze360_crops_the_box_and_says_when_it_is_cut():
    image = ramp()
    face = Face((100, 50, 151, 101), np.full((68, 2), 120.0), 1.0)
    out = al.Gaze360Rule()(image, face)
    assert (out.image == cv2.resize(image[50:100, 100:150], (224, 224))).all() and out.inside
    assert not al.Gaze360Rule()(image, Face((280, 50, 340, 110), face.points, 1.0)).inside
    with pytest.raises(InputError, match="no pixel"):
        al.Gaze360Rule()(image, Face((500, 50, 560, 110), face.points, 1.0))


def test_fomm_points_are_the_published_ones():
    golden = np.load(GOLDEN / "fomm" / "points.npz")
    for these, those in (
        ("landmarks68", "keypoints18"),
        ("portrait_landmarks68", "portrait_keypoints18"),
    ):
        for landmarks, expected in zip(golden[these], golden[those], strict=True):
            points = al.fomm_points(landmarks)
            assert points.dtype == np.float32 and (points == expected).all()
    assert (golden["default18"] == al.FOMM_DEFAULT).all()
    with pytest.raises(InputError, match=r"\(68, 2\)"):
        al.fomm_points(np.zeros((66, 2)))


def test_mirrored_points_are_the_points_of_the_mirrored_face():
    rng = np.random.default_rng(0)
    half = rng.uniform(0, 127, (68, 2))
    pairs = {**{k: 16 - k for k in range(17)}, **{k: 43 - k for k in range(17, 27)}}
    pairs |= {k: k for k in range(27, 31)} | {k: 66 - k for k in range(31, 36)}
    pairs |= {36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46} | {48 + k: 54 - k for k in range(7)}
    pairs |= {55: 59, 56: 58, 57: 57} | {60 + k: 64 - k for k in range(5)} | {65: 67, 66: 66}
    pairs |= {v: k for k, v in pairs.items()}
    mirrored = np.stack(
        [255 - half[[pairs[k] for k in range(68)], 0], half[[pairs[k] for k in range(68)], 1]], 1
    )
    assert np.allclose(
        al.fomm_points(mirrored), al.mirror_fomm_points(al.fomm_points(half)), atol=1e-4
    )


def test_fomm_takes_the_first_box_for_the_whole_clip():
    image = ramp()
    first = Face((-5, 20, 101, 121), np.full((68, 2), 50.0), 1.0)
    rule = al.FommRule().start("EP01", first, image.shape[:2])
    assert rule.box == al.Box(0, 20, 100, 120)  # one row and one column less, clipped at the left
    elsewhere = Face((150, 100, 250, 200), np.full((68, 2), 170.0), 1.0)
    for face in (first, elsewhere, None):
        out = rule(image, face)
        assert (out.image == cv2.resize(image[20:120, 0:100], (256, 256))).all()
    with pytest.raises(InputError, match="^EP02: no face in the first frame"):
        al.FommRule().start("EP02", None, image.shape[:2])
    with pytest.raises(InputError, match="no box yet"):
        al.FommRule()(image, first)


def test_fomm_grey_formulas():
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert al.grey(rgb, "luma")[0, :, 0].tolist() == [76, 150, 29]
    assert al.grey(rgb, "upstream")[0, :, 2].tolist() == [29, 150, 76]
    assert al.grey(rgb, "none") is rgb
    with pytest.raises(InputError, match="none, luma, upstream"):
        al.FommRule(gray="grey")


def test_flow_is_resize_with_scaled_points():
    image, face = ramp(240, 320), face_at(similar(0, 1, 160, 120))
    out = al.FlowRule()(image, face)
    assert (out.image == cv2.resize(image, (384, 512), interpolation=cv2.INTER_LINEAR)).all()
    assert np.allclose(out.points, face.points * [384 / 320, 512 / 240])


@pytest.mark.parametrize("name", al.RULES)
def test_every_rule_is_a_frozen_setting_that_travels(name):
    rule = al.rule_named(name)
    assert pickle.loads(pickle.dumps(rule)) == rule and hash(rule) == hash(al.rule_named(name))
    with pytest.raises(FrozenInstanceError):
        rule.size = 3
    image, face = ramp(), face_at(similar(5, 1, 160, 120))
    started = rule.start("clip", face, image.shape[:2])
    before = image.copy()
    out = started(image, face)
    assert out.image.shape == (*rule.shape, 3) and out.image.dtype == np.uint8
    assert out.points.shape == (68, 2) and (image == before).all()
    assert (started(image, face).image == out.image).all()
    data = cv2.imdecode(np.frombuffer(al.encode(out.image, rule), np.uint8), cv2.IMREAD_COLOR)[
        ..., ::-1
    ]
    error = np.abs(data.astype(int) - out.image)
    assert error.max() == 0 if rule.file.endswith(".png") else error.mean() < 2
    assert rule.file.format(7) != rule.file.format(8)


@pytest.mark.parametrize("side", [1, 2, 5])
@pytest.mark.parametrize("name", al.RULES)
def test_tiny_and_thin_pictures(name, side):
    image = np.full((side, 40, 3), 50, np.uint8)
    points = face_at(similar(0, 0.2, 20, 1)).points
    face = Face((2, 0, 30, side + 1), points, 1.0)
    rule = al.rule_named(name).start("clip", face, image.shape[:2])
    assert (rule(image, face).image == 50).all()


def test_a_real_face_stands_still_in_its_crop():
    detector, rule = DlibDetector(), al.PsmRule(size=128)
    noses, crops = [], []
    for frame in open_video(clip("single_face.mp4")):
        if frame.index % 12 == 0:
            aligned = rule(frame.image, detector(frame.image)[0])
            noses.append(aligned.points[27])
            crops.append(aligned.image[45:70, 35:93].astype(float))
    assert len(noses) == 6
    assert np.ptp(np.array(noses), axis=0).max() < 6  # the root of the nose, in a smile too
    assert np.abs(np.array(crops) - np.mean(crops, axis=0)).mean() < 12
