"""Detection: boxes, points and reasons for every frame; landmark tables on disk; dlib on real clips."""

import os
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecomp.faces import detection
from facecomp.faces.csv_tables import read_numbers
from facecomp.faces.detection import (
    BOX,
    COLUMNS,
    POINTS,
    XY,
    DlibDetector,
    Face,
    FaceDetector,
    MediaPipeDetector,
    PointsDetector,
    PointSource,
    boxes_of,
    detect_rows,
    landmark_table,
    make_table,
    points_of,
    predictor_path,
    read_landmark_table,
    write_landmark_table,
)
from facecomp.faces.video import Frame, open_video, read_image, write_frames
from facecomp.records.files import InputError

GREY = np.full((40, 60, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def clips() -> Path:
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("FACECOMP_CLIPS", root.parent / "shared" / "clips"))
    if not (folder / "single_face.mp4").is_file():
        pytest.skip(f"no real clips in {folder} (set FACECOMP_CLIPS)")
    return folder


class Bright:
    """Takes each value above 200 of the red channel for a face of its own, in the image's order."""

    name = "bright"

    def __call__(self, image):
        return [
            Face((x, y, x + 4, y + 4), np.full((POINTS, 2), (x, y), float), float(image[y, x, 0]))
            for y, x in zip(*np.nonzero(image[..., 0] > 200), strict=True)
        ]


def frames(*values: int, step: int = 1) -> list[Frame]:
    return [
        Frame(i * step, i * step / 10, np.full((8, 8, 3), v, np.uint8))
        for i, v in enumerate(values)
    ]


def random_table(seed: int, length: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    points = rng.normal(100, 1e3, (length, POINTS, 2)) * 10.0 ** rng.integers(-8, 8, (length, 1, 1))
    points[rng.random(length) < 0.3] = np.nan
    reasons = ["no face found, says 'dlib'", "black frame", 'a "quoted" one', "zwei\nZeilen, ü"]
    return make_table(
        points,
        times=rng.random(length) * 100,
        scores=rng.normal(size=length),
        reasons=[reasons[i] for i in rng.integers(0, 4, length)],
        frames=np.cumsum(rng.integers(1, 4, length)),
        faces=rng.integers(0, 5, length),
    )


# --- rows ----------------------------------------------------------------------------------------


def test_every_frame_has_a_row_with_points_or_a_reason():
    shown = frames(100, 2, 100)
    shown[0].image[3, 5] = 255
    shown[2] = Frame(2, 0.2, np.zeros((0, 8, 3), np.uint8))
    table = landmark_table(shown, Bright())
    assert list(table.columns) == COLUMNS and len(COLUMNS) == 145
    assert table["frame"].tolist() == [0, 1, 2] and table["time"].tolist() == [0, 0.1, 0.2]
    assert table["reason"].tolist() == ["", "black frame", "image unreadable"]
    assert table["faces"].tolist() == [1, 0, 0]
    assert table.loc[0, [*BOX, "score", "x_0", "y_67"]].tolist() == [5, 3, 9, 7, 255, 5, 3]
    assert table.loc[1:, [*BOX, "score", *XY]].isna().all(axis=None)


@pytest.mark.parametrize(
    "image", [None, GREY.astype(float), GREY[..., :2], np.zeros((3, 0, 3), np.uint8)]
)
def test_what_is_no_image_gets_a_row_too(image):
    table = landmark_table([Frame(0, 0.0, image)], Bright())
    assert table["reason"].tolist() == ["image unreadable"]


def test_the_first_face_is_kept_and_all_are_counted():
    shown = frames(100)
    shown[0].image[1, 1], shown[0].image[4, 6] = 230, 255
    table = landmark_table(shown, Bright())
    assert table["faces"].tolist() == [2] and table["left"].tolist() == [1]


def test_detect_rows_streams_frame_by_frame():
    taken = []

    def source():
        for frame in frames(*[100] * 5):
            taken.append(frame.index)
            yield frame

    rows = detect_rows(source(), Bright())
    for index in range(3):
        frame, found = next(rows)
        assert frame.index == found.frame == index and taken == list(range(index + 1))


def test_an_unreadable_image_of_a_folder_has_a_row_and_no_frame(tmp_path):
    write_frames(tmp_path, [GREY] * 5)
    names = sorted(tmp_path.iterdir())
    for index in (0, 2, 3):
        names[index].write_bytes(b"not a png")
    pairs = list(detect_rows(open_video(tmp_path, fps=10, skip_unreadable=True), Bright()))
    assert [found.frame for _, found in pairs] == [0, 1, 2, 3, 4]
    assert [frame is None for frame, _ in pairs] == [True, False, True, True, False]
    assert [found.reason for _, found in pairs][2] == "image unreadable"
    np.testing.assert_allclose([found.time for _, found in pairs], [0, 0.1, 0.2, 0.3, 0.4])


def test_a_choice_of_frames_is_not_taken_for_a_loss(tmp_path):
    write_frames(tmp_path, [GREY] * 7)
    table = landmark_table(islice(open_video(tmp_path), 0, None, 3), Bright())
    assert table["frame"].tolist() == [0, 3, 6]


def test_no_frames_give_an_empty_table():
    table = landmark_table([], Bright())
    assert list(table.columns) == COLUMNS and len(table) == 0
    assert points_of(table).shape == (0, POINTS, 2)


# --- arrays and tables ---------------------------------------------------------------------------


def test_make_table_boxes_and_half_known_faces():
    points = np.zeros((3, POINTS, 2))
    points[0, :, 0], points[0, :, 1] = np.linspace(-2.5, 7, POINTS), np.linspace(3, 9.25, POINTS)
    points[1, 5, 1] = np.nan
    table = make_table(points, times=[0, 1, 2])
    assert boxes_of(table)[0].tolist() == [-3, 3, 8, 10]
    assert np.isnan(points_of(table)[1]).all() and table.loc[1, "reason"] == "no points"
    assert table["faces"].tolist() == [1, 0, 1] and np.array_equal(points_of(table)[0], points[0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(0, 12))
def test_landmark_tables_come_back_bit_by_bit(tmp_path_factory, seed, length):
    table = random_table(seed, length)
    path = write_landmark_table(tmp_path_factory.mktemp("t") / "tabelle ü.csv", table)
    pd.testing.assert_frame_equal(read_landmark_table(path), table, check_exact=True)


def test_a_table_may_have_a_byte_order_mark_and_windows_line_ends(tmp_path):
    table = random_table(3, 6).replace({"reason": {"zwei\nZeilen, ü": "ü"}})
    path = write_landmark_table(tmp_path / "t.csv", table)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    pd.testing.assert_frame_equal(read_landmark_table(path), table, check_exact=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["x_3", "y_9"]), "column x_3, y_9 is missing"),
        (lambda t: t.drop(columns=XY), "column x_0, x_1, x_2 and 133 more is missing"),
        (lambda t: t.assign(frame=[0, 2, 1]), "column frame: the numbers must rise"),
        (lambda t: t.assign(frame=[0, 0, 1]), "column frame: the numbers must rise"),
        (lambda t: t.assign(frame=[0, 0.5, 1]), "column frame: 0.5 is not a whole number"),
        (lambda t: t.assign(faces=[1, -1, 0]), "column faces: -1.0 is not a whole number"),
        (lambda t: t.assign(faces=[1, np.nan, 0]), "column faces: nan is not a whole number"),
        (lambda t: t.assign(reason=""), "frame 1 has neither points nor reason"),
        (lambda t: t.assign(reason="why"), "frame 0 has points and reason"),
        (lambda t: t.assign(y_7=[1.0, 2.0, 3.0]), "frame 1 has only some of its points"),
        (lambda t: t.assign(x_1=["1", "nan", "1,5"]), "line 4, column x_1: '1,5' is not a number"),
        (lambda t: t.assign(x_1=["1", "nan", "inf"]), "line 4, column x_1: 'inf' is not a finite"),
    ],
)
def test_a_bad_table_is_named_in_one_line(tmp_path, change, message):
    points = np.ones((3, POINTS, 2))
    points[1] = np.nan
    path = tmp_path / "table.csv"
    change(make_table(points, [0, 1, 2])).to_csv(path, index=False)
    with pytest.raises(InputError) as error:
        read_landmark_table(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_without_all_columns_is_not_written(tmp_path):
    with pytest.raises(InputError, match="column reason is missing"):
        write_landmark_table(tmp_path / "t.csv", random_table(1, 2).drop(columns="reason"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a,b\n1,2,3\n", "line 2 has 3 values, the header 2"),
        (b"a,b\n1,2\n1\n", "line 3 has 1 values, the header 2"),
        (b"a, a\n1,2\n", "column 'a' occurs twice"),
        (b"a,b\n\n1,2\n1,1e\n", "line 4, column b: '1e' is not a number"),
        (b"a,b\n1,-inf\n", "line 2, column b: '-inf' is not a finite number"),
        (b"a,b\n1,\xff\xfe\n", "is not a CSV text file"),
        (b"a,b\n1,\x00\n", "column b"),
        (b'a,b\n1,"2\n3,4\n', "is not a CSV text file"),
        (b"a,b\n1,1_0\n", "column b: '1_0' is not a number"),
    ],
)
def test_read_numbers_says_where(tmp_path, data, message):
    path = tmp_path / "a b.csv"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_numbers(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_read_numbers_of_nothing(tmp_path):
    with pytest.raises(InputError, match="no.csv: cannot be read"):
        read_numbers(tmp_path / "no.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_numbers(tmp_path)


# --- known points --------------------------------------------------------------------------------


def test_points_that_are_known_answer_by_frame_index():
    table = random_table(5, 8)
    source = PointsDetector(table)
    assert isinstance(source, PointSource) and not isinstance(source, FaceDetector)
    asked = [
        Frame(int(i), float(t), GREY) for i, t in zip(table["frame"], table["time"], strict=True)
    ]
    again = landmark_table(asked[::-1], source)
    expected = table[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, expected, check_exact=True)
    assert source.at(Frame(10_000, 1.0, GREY)).reason == "no row for this frame"


def test_points_of_a_resized_copy_are_scaled_to_the_frame():
    points = np.stack([np.linspace(10, 50, POINTS), np.linspace(20, 100, POINTS)], axis=1)
    source = PointsDetector(make_table(points[None], [0.0]), measured_at=(512, 384))
    face = source.at(Frame(0, 0.0, np.zeros((256, 768, 3), np.uint8))).face
    np.testing.assert_allclose(face.points, points * (2, 0.5))
    assert face.box == (20, 10, 102, 51)


# --- dlib's shell, without dlib ------------------------------------------------------------------


class Rectangle:
    def __init__(self, left, top, right, bottom):
        self.edges = left, top, right, bottom

    def left(self):
        return self.edges[0]

    def top(self):
        return self.edges[1]

    def right(self):
        return self.edges[2]

    def bottom(self):
        return self.edges[3]


def pretend_dlib(monkeypatch, boxes, parts=POINTS):
    seen = {}

    def run(image, upsample, threshold):
        seen.update(shape=image.shape, upsample=upsample, threshold=threshold)
        kept = [(box, score) for box, score in boxes if score >= threshold]
        return [Rectangle(*box) for box, _ in kept], [score for _, score in kept], []

    def predictor(image, box):
        points = [SimpleNamespace(x=box.left() + i, y=box.top()) for i in range(parts)]
        return SimpleNamespace(num_parts=parts, parts=lambda: points)

    monkeypatch.setattr(
        detection, "_dlib_models", lambda path: (SimpleNamespace(run=run), predictor)
    )
    return seen


BOXES = [((10, 20, 49, 59), 0.5), ((-5, 0, 94, 99), 0.2), ((0, 0, 19, 29), 2.0)]


@pytest.mark.parametrize(
    ("choose", "scores"),
    [
        ("largest", [0.2, 0.5, 2.0]),
        ("surest", [2.0, 0.5, 0.2]),
        ("first", [0.5, 0.2, 2.0]),
        ("last", [2.0, 0.2, 0.5]),
    ],
)
def test_which_face_comes_first(monkeypatch, choose, scores):
    pretend_dlib(monkeypatch, BOXES)
    assert [face.score for face in DlibDetector(choose=choose)(GREY)] == scores


def test_boxes_exclude_their_last_row_and_column_and_may_reach_outside(monkeypatch):
    seen = pretend_dlib(monkeypatch, BOXES)
    faces = DlibDetector(choose="first", upsample=1, min_score=0.3)(GREY)
    assert [face.box for face in faces] == [(10, 20, 50, 60), (0, 0, 20, 30)]
    assert all(type(edge) is int for edge in faces[0].box)
    assert faces[0].points.dtype == np.float64 and faces[0].points[3].tolist() == [13, 20]
    assert seen == {"shape": (40, 60, 3), "upsample": 1, "threshold": 0.3}
    assert DlibDetector()(GREY)[0].box == (-5, 0, 95, 100)


def test_small_faces_can_be_left_out(monkeypatch):
    pretend_dlib(monkeypatch, BOXES)
    assert [face.side for face in DlibDetector(min_size=21)(GREY)] == [100, 40]


def test_large_images_can_be_searched_in_a_smaller_copy(monkeypatch):
    seen = pretend_dlib(monkeypatch, [((10, 20, 49, 59), 1.0)])
    image = np.zeros((300, 800, 3), np.uint8)
    assert DlibDetector(max_side=200)(image)[0].box == (40, 80, 200, 240)
    assert seen["shape"] == (75, 200, 3)
    assert DlibDetector(max_side=800)(image)[0].box == (10, 20, 50, 60)


def test_a_model_with_another_number_of_points_is_refused(monkeypatch):
    pretend_dlib(monkeypatch, BOXES, parts=5)
    with pytest.raises(InputError, match="gives 5 points: must give 68"):
        DlibDetector()(GREY)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"upsample": 2}, "upsample=2: must be 0 or 1"),
        ({"choose": "biggest"}, "choose='biggest': must be one of largest, surest, first, last"),
        ({"max_side": 60}, "max_side=60: must be at least 80"),
    ],
)
def test_bad_settings(settings_, message):
    with pytest.raises(InputError, match=message):
        DlibDetector(**settings_)


def test_the_predictor_is_found_without_importing_its_package(monkeypatch, tmp_path):
    assert predictor_path().is_file() and "face_recognition_models" not in sys.modules
    monkeypatch.setattr(detection, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="install face_recognition_models"):
        predictor_path()
    (tmp_path / "half.dat").write_bytes(b"not a model")
    with pytest.raises(InputError, match="half.dat: is not a dlib shape predictor"):
        DlibDetector(predictor=tmp_path / "half.dat")(GREY)


def test_dlib_finds_nothing_where_nothing_is():
    detector = DlibDetector()
    assert isinstance(detector, FaceDetector) and not isinstance(detector, PointSource)
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3)).astype(np.uint8)
    for image in (GREY, GREY[..., 0], GREY[:1, :1], noise, noise[:, ::-1], noise[..., ::-1]):
        assert detector(image) == []
    with pytest.raises(InputError, match=r"must be \(H, W, 3\) uint8 RGB"):
        detector(GREY / 255)


# --- MediaPipe's shell ---------------------------------------------------------------------------


def pretend_mediapipe(monkeypatch, meshes):
    def create(options):
        if b"bad" in Path(options.base_options.model_asset_path).read_bytes():
            raise RuntimeError("Unable to open zip archive.")
        return SimpleNamespace(
            detect=lambda image: SimpleNamespace(
                face_landmarks=[
                    [SimpleNamespace(x=x, y=y, z=0) for x, y in mesh] for mesh in meshes
                ]
            )
        )

    module = SimpleNamespace(
        Image=SimpleNamespace,
        ImageFormat=SimpleNamespace(SRGB=1),
        tasks=SimpleNamespace(
            BaseOptions=SimpleNamespace,
            vision=SimpleNamespace(
                FaceLandmarkerOptions=SimpleNamespace,
                FaceLandmarker=SimpleNamespace(create_from_options=create),
            ),
        ),
    )
    monkeypatch.setitem(sys.modules, "mediapipe", module)
    detection._landmarker.cache_clear()


def test_mediapipe_mesh_becomes_68_points_in_pixels(monkeypatch, tmp_path):
    (tmp_path / "m.task").write_bytes(b"good")
    mesh = np.random.default_rng(1).random((478, 2))
    pretend_mediapipe(monkeypatch, [mesh / 2, mesh])
    faces = MediaPipeDetector(tmp_path / "m.task")(GREY)
    chin, tip = 152, 4
    np.testing.assert_allclose(faces[0].points[8], mesh[chin] * (60, 40))
    np.testing.assert_allclose(faces[0].points[30], mesh[tip] * (60, 40))
    np.testing.assert_allclose(faces[1].points * 2, faces[0].points)
    assert np.isnan(faces[0].score) and faces[0].points.shape == (POINTS, 2)
    table = landmark_table([Frame(0, 0.0, GREY)], MediaPipeDetector(tmp_path / "m.task"))
    path = write_landmark_table(tmp_path / "t.csv", table)  # a score may be unknown
    pd.testing.assert_frame_equal(read_landmark_table(path), table, check_exact=True)


def test_mediapipe_says_what_is_missing(monkeypatch, tmp_path):
    (tmp_path / "bad.task").write_bytes(b"bad")
    pretend_mediapipe(monkeypatch, [])
    with pytest.raises(InputError, match="bad.task: is not a face landmarker of MediaPipe"):
        MediaPipeDetector(tmp_path / "bad.task")(GREY)
    with pytest.raises(InputError, match="no.task: no such model file"):
        MediaPipeDetector(tmp_path / "no.task")(GREY)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    detection._landmarker.cache_clear()
    with pytest.raises(InputError, match="pip install mediapipe"):
        MediaPipeDetector(tmp_path / "bad.task")(GREY)


def test_the_mesh_table_is_mirror_symmetric_where_the_mesh_is():
    left = list(detection.MESH_TO_IBUG)
    mirrored = [*range(16, -1, -1), *range(26, 16, -1)]
    assert len(set(left)) == POINTS and max(left) < 468
    pairs = {left[i]: left[j] for i, j in zip(range(27), mirrored, strict=True)}
    assert all(pairs[pairs[index]] == index for index in pairs)
    assert [left[i] for i in (8, 33, 51, 57, 62, 66)] == [152, 2, 0, 17, 13, 14]  # the mid-line


# --- a face whose points are known ---------------------------------------------------------------


@pytest.fixture(scope="module")
def synthetic():
    from facecomp.faces.synthetic import participant, record

    recording = record(participant(1), frames=1, size=320)
    return recording.frame(0), recording.landmarks[0]


def test_dlib_finds_the_points_of_a_synthetic_face(synthetic):
    image, truth = synthetic
    (face,) = DlibDetector()(image)
    apart = np.linalg.norm(face.points - truth, axis=1) / np.linalg.norm(truth[36] - truth[45])
    assert apart.mean() < 0.05 and face.score > 0.5
    left, top, right, bottom = face.box
    assert (left < truth[27:36, 0]).all() and (truth[27:36, 0] < right).all()
    assert (top < truth[36:48, 1]).all() and (truth[48:68, 1] < bottom).all()


def test_an_image_beside_itself_has_two_faces(synthetic):
    image, _ = synthetic
    wide = np.concatenate([image, cv2.resize(image, (160, 320))], axis=1)
    wide[:, 320:] = np.pad(cv2.resize(image, (160, 160)), ((0, 160), (0, 0), (0, 0)))
    faces = DlibDetector()(wide)
    assert len(faces) == 2 and faces[0].area > faces[1].area and faces[0].box[2] < 330
    assert DlibDetector(min_size=faces[1].side + 1)(wide)[0].box == faces[0].box
    table = landmark_table([Frame(0, 0.0, wide)], DlibDetector())
    assert table["faces"].tolist() == [2]
    assert np.array_equal(points_of(table)[0], faces[0].points)


def test_a_face_in_64_pixels_needs_upsampling(synthetic):
    small = cv2.resize(synthetic[0], (64, 64), interpolation=cv2.INTER_AREA)
    assert DlibDetector()(small) == []
    assert len(DlibDetector(upsample=1)(small)) == 1


def test_max_side_changes_the_points_little(synthetic):
    image = cv2.resize(synthetic[0], (960, 960), interpolation=cv2.INTER_CUBIC)
    full, quick = DlibDetector()(image)[0].points, DlibDetector(max_side=320)(image)[0].points
    assert np.linalg.norm(full - quick, axis=1).mean() < 0.03 * np.linalg.norm(full[36] - full[45])


# --- real clips ----------------------------------------------------------------------------------


def test_single_face_is_found_in_all_72_frames(clips):
    table = landmark_table(open_video(clips / "single_face.mp4"), DlibDetector())
    assert len(table) == 72 and (table["reason"] == "").all() and (table["faces"] == 1).all()
    assert not table[XY].isna().any(axis=None) and table["score"].min() > 0.4
    points = points_of(table)
    eyes = np.linalg.norm(points[:, 36] - points[:, 45], axis=1)
    assert (eyes > 50).all() and (eyes < 150).all()
    assert (points[:, 8, 1] > points[:, 27, 1]).all()  # the chin is below the nose
    jumps = np.linalg.norm(np.diff(points.mean(axis=1), axis=0), axis=1)
    assert jumps.max() < 0.1 * eyes.min()  # the face does not jump


def test_no_face_is_found_where_there_is_none_and_each_frame_says_so(clips):
    video = open_video(clips / "no_face.mp4")
    table = landmark_table(video, DlibDetector())
    assert len(table) == sum(1 for _ in video) >= 90
    assert (table["reason"] == "no face found").all() and (table["faces"] == 0).all()
    assert table[[*BOX, "score", *XY]].isna().all(axis=None)


def test_rows_are_nan_where_the_face_is_gone(clips, tmp_path):
    table = landmark_table(open_video(clips / "face_noface.mov"), DlibDetector())
    assert len(table) == 169 and table["frame"].tolist() == list(range(169))
    assert (np.diff(table["time"]) > 0).all()
    gone = table["reason"] != ""
    assert gone.tolist() == [False] * 72 + [True] * 97
    assert table.loc[72, "reason"] == "black frame"
    assert set(table.loc[73:, "reason"]) == {"no face found"}
    assert table.loc[gone, XY].isna().all(axis=None) and table.loc[~gone, XY].notna().all(axis=None)
    path = write_landmark_table(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(read_landmark_table(path), table, check_exact=True)


def test_the_largest_of_several_faces_is_taken(clips):
    image = read_image(clips / "multi_face.jpg")
    table = landmark_table([Frame(0, 0.0, image)], DlibDetector())
    faces = DlibDetector(choose="first")(image)
    assert table["faces"].tolist() == [len(faces)] and len(faces) >= 3
    largest = max(faces, key=lambda face: face.area)
    assert boxes_of(table)[0].tolist() == list(largest.box) and largest is not faces[0]
