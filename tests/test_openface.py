"""OpenFace, py-feat and point files: read whatever their writers wrote, name what is wrong, write the same form."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecomp.faces.detection import (
    COLUMNS,
    POINTS,
    XY,
    DlibDetector,
    MediaPipeDetector,
    boxes_of,
    landmark_table,
    make_table,
    points_of,
    read_landmark_table,
    write_landmark_table,
)
from facecomp.faces.openface import (
    GROUPS,
    RECT,
    open_detector,
    openface_columns,
    points_path,
    points_source,
    read_openface,
    read_points,
    table_from_folder,
    table_from_openface,
    table_from_pyfeat,
    write_openface,
    write_points,
)
from facecomp.faces.video import Frame, write_frames
from facecomp.records.files import InputError

GOLDEN = Path(__file__).parent / "golden" / "flow"
IMAGE = np.zeros((512, 384, 3), np.uint8)


@pytest.fixture(scope="module")
def clip_csv() -> Path:
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("FACECOMP_CLIPS", root.parent / "shared" / "clips"))
    if not (folder / "OpenFace_Test.csv").is_file():
        pytest.skip(f"no OpenFace_Test.csv in {folder} (set FACECOMP_CLIPS)")
    return folder / "OpenFace_Test.csv"


def points(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(10, 300, (POINTS, 2)).round(1)


def row(seed: int, **head) -> dict:
    """One row of an OpenFace file with 2-D points alone; sequence mode unless `face` is given."""
    start = {} if "face" in head else {"frame": 1, "face_id": 0, "timestamp": 0.0}
    end = {"confidence": 0.98} | ({} if "face" in head else {"success": 1})
    return start | end | head | dict(zip(XY, points(seed).T.ravel(), strict=True))


def write_rows(path: Path, *rows: dict, separator: str = ", ") -> Path:
    lines = [separator.join(rows[0])]
    lines += [separator.join(str(value) for value in each.values()) for each in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


# --- golden files --------------------------------------------------------------------------------


def test_the_columns_are_those_of_the_specification():
    names = json.loads((GOLDEN / "openface" / "columns.json").read_text())
    assert list(openface_columns("image")) == names and len(names) == 711
    sequence = list(openface_columns("sequence"))
    assert sequence[5:] == names[2:] and len(sequence) == 714
    assert sequence[:5] == ["frame", "face_id", "timestamp", "confidence", "success"]
    assert [len(names) for names in GROUPS.values()] == [6, 2, 112, 168, 6, 136, 204, 40, 17, 18]
    with pytest.raises(InputError, match="mode='video': must be one of image, sequence"):
        openface_columns("video")


@pytest.mark.parametrize("name", ["face_v20_spaces", "face_v22"])
@pytest.mark.parametrize(("face", "key"), [(0, "points_xy"), (1, "points_xy_face1")])
def test_golden_points_of_both_styles_and_faces(name, face, key):
    golden = np.load(GOLDEN / "openface.npz")
    table = table_from_openface(GOLDEN / "openface" / f"{name}.csv", face=face)
    assert np.array_equal(points_of(table)[0], golden[f"face_v20_spaces.{key}"])
    assert table["faces"].tolist() == [2] and table["reason"].tolist() == [""]


def test_the_surest_face_is_the_default():
    path = GOLDEN / "openface" / "face_v22.csv"
    best = int(read_openface(path).set_index("face")["confidence"].idxmax())
    table = table_from_openface(path)
    pd.testing.assert_frame_equal(table, table_from_openface(path, face=best))
    assert table["score"].tolist() == [read_openface(path)["confidence"].max()]
    missing = table_from_openface(path, face=7)
    assert missing["reason"].tolist() == ["face 7 is not in this image"]


def test_a_coordinate_of_zero_is_a_coordinate():
    table = table_from_openface(GOLDEN / "openface" / "face_zero_x20_v20_spaces.csv")
    assert table["x_20"].tolist() == [0.0] and points_of(table).shape == (1, POINTS, 2)
    normal = table_from_openface(GOLDEN / "openface" / "face_v22.csv")
    assert (points_of(table) != points_of(normal)).sum() == 1


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("face_v20_spaces", ", "),
        ("face_v22", ","),
        ("face_zero_x20_v20_spaces", ", "),
        ("F001_T1_0001", ", "),
    ],
)
def test_what_was_read_is_written_byte_for_byte(tmp_path, name, style):
    source = GOLDEN / "openface" / f"{name}.csv"
    path = write_openface(tmp_path / "x.csv", read_openface(source), style=style, mode="image")
    assert path.read_bytes() == source.read_bytes()


def test_the_styles_are_one_style_apart(tmp_path):
    data = read_openface(GOLDEN / "openface" / "face_v20_spaces.csv")
    path = write_openface(tmp_path / "x.csv", data, style=",", mode="image")
    assert path.read_bytes() == (GOLDEN / "openface" / "face_v22.csv").read_bytes()


# --- sequence mode -------------------------------------------------------------------------------


@pytest.mark.parametrize("style", [",", ", "])
def test_all_714_columns_come_back(tmp_path, style):
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {
            name: rng.integers(0, 2, 4) if decimals == 0 else rng.normal(0, 50, 4).round(decimals)
            for name, decimals in openface_columns().items()
        }
    ).assign(frame=[1, 2, 3, 4], success=1, confidence=[0.5, 0.75, 1, 0.98], face_id=0)
    path = write_openface(tmp_path / "x.csv", data, style=style)
    assert path.read_text().split("\n")[0] == style.join(openface_columns())
    again = read_openface(path)
    assert list(again) == list(openface_columns())
    pd.testing.assert_frame_equal(again, data, check_exact=True, check_dtype=False)


def test_rows_reasons_and_gaps(tmp_path):
    path = write_rows(
        tmp_path / "x.csv",
        row(1, frame=1, timestamp=0.0),
        row(2, frame=2, timestamp=0.04, success=0),
        row(3, frame=4, timestamp=0.12, confidence=0.6),
        row(4, frame=5, timestamp=0.16) | {"x_9": "-nan(ind)"},
    )
    table = table_from_openface(path, min_confidence=0.7)
    assert list(table.columns) == COLUMNS and table["frame"].tolist() == [0, 1, 2, 3, 4]
    assert table["reason"].tolist() == [
        "",
        "OpenFace: tracking failed",
        "no row for this frame",
        "OpenFace: confidence < 0.7",
        "OpenFace: points are not numbers",
    ]
    assert table["faces"].tolist() == [1, 0, 0, 0, 0] and table["time"].isna().sum() == 1
    assert np.array_equal(points_of(table)[0], points(1)) and np.isnan(points_of(table)[1:]).all()
    assert table_from_openface(path)["reason"].tolist()[3] == ""
    low, high = points(1).min(axis=0), points(1).max(axis=0)
    assert boxes_of(table)[0].tolist() == [*np.floor(low), *(np.floor(high) + 1)]


def test_one_person_throughout_a_file_of_several(tmp_path):
    path = write_rows(
        tmp_path / "x.csv",
        row(1, frame=1, face_id=0),
        row(11, frame=1, face_id=1, confidence=0.7),
        row(2, frame=2, face_id=0, success=0),
        row(12, frame=2, face_id=1),
        row(13, frame=3, face_id=1),
        row(4, frame=4, face_id=0),
    )
    table = table_from_openface(path)
    assert table["reason"].tolist() == ["", "", "", "face 1 is not here"]
    assert table["faces"].tolist() == [2, 1, 1, 1]
    assert np.array_equal(points_of(table)[0], points(11))
    first = table_from_openface(path, face=0)
    assert first["reason"].tolist() == ["", "OpenFace: tracking failed", "face 0 is not here", ""]
    assert set(table_from_openface(path, face=5)["reason"]) == {"face 5 is not here"}


def test_a_tie_goes_to_the_lower_face(tmp_path):
    path = write_rows(tmp_path / "x.csv", row(11, face_id=3), row(1, face_id=2))
    assert np.array_equal(points_of(table_from_openface(path))[0], points(1))


def test_the_same_row_twice_counts_once_and_another_row_is_an_error(tmp_path):
    path = write_rows(tmp_path / "x.csv", row(1), row(1), row(2, frame=2))
    assert len(table_from_openface(path)) == 2
    path = write_rows(tmp_path / "x.csv", row(1), row(2, frame=2), row(3, frame=2))
    with pytest.raises(InputError, match="x.csv: frame 2 occurs twice, with different values"):
        table_from_openface(path)


def test_frames_counted_from_zero(tmp_path):
    path = write_rows(tmp_path / "x.csv", row(1, frame=0), row(2, frame=1))
    table = table_from_openface(path)
    assert table["frame"].tolist() == [0, 1] and np.array_equal(points_of(table)[1], points(2))


def test_rows_need_not_be_in_order(tmp_path):
    path = write_rows(tmp_path / "x.csv", row(3, frame=3), row(1, frame=1), row(2, frame=2))
    table = table_from_openface(path)
    assert [points_of(table)[i, 0, 0] for i in range(3)] == [points(i)[0, 0] for i in (1, 2, 3)]


def test_older_files_without_face_id_success_or_confidence(tmp_path):
    old = {k: v for k, v in row(1).items() if k not in ("face_id", "success", "confidence")}
    table = table_from_openface(write_rows(tmp_path / "x.csv", old))
    assert table["reason"].tolist() == [""] and table["score"].isna().all()


def test_byte_order_mark_windows_lines_blanks_and_blank_lines(tmp_path):
    path = write_rows(tmp_path / "x.csv", row(1), row(2, frame=2))
    expected = table_from_openface(path)
    text = path.read_text().replace(", ", " ,\t ").replace("\n", "\r\n\r\n")
    odd = tmp_path / "ödd name.csv"
    odd.write_bytes(b"\xef\xbb\xbf" + text.encode())
    pd.testing.assert_frame_equal(table_from_openface(odd), expected)


def test_a_header_alone_means_no_face(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(", ".join(openface_columns("image")))
    table = table_from_openface(path)
    assert table["reason"].tolist() == ["no face found"] and table["faces"].tolist() == [0]
    path.write_text(",".join(openface_columns("sequence")) + "\n")
    table = table_from_openface(path)
    assert len(table) == 0 and list(table.columns) == COLUMNS
    rows = landmark_table([Frame(0, 0.0, IMAGE)], points_source(path))
    assert rows["reason"].tolist() == ["no row for this frame"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.replace("0.98", "O.98", 1),
            "line 2, column confidence: 'O.98' is not a number",
        ),
        (
            lambda t: t.replace(", x_0,", ", xx_0,"),
            "column x_0 is missing; run OpenFace with -2Dfp",
        ),
        (lambda t: t.replace(", y_", ", yy_"), "column y_0, y_1, y_2 and 65 more is missing"),
        (lambda t: t.replace("frame, ", "fram, "), "has neither column frame nor face"),
        (lambda t: t.replace("\n2, ", "\n2.5, "), "column frame: 2.5 is not a whole number"),
        (lambda t: t.replace("\n2, ", "\n-2, "), "column frame: -2.0 is not a whole number"),
        (lambda t: t.replace("\n2, ", "\n, "), "column frame: nan is not a whole number"),
        (lambda t: t.replace("\n2, ", "\n999999999, "), "999999999 is too large for 2 rows"),
        (lambda t: t.replace("\n2, 0, ", "\n2, 0, 0, "), "line 3 has 142 values, the header 141"),
        (lambda t: t[:-200], "line 3 has"),
        (lambda t: t.replace(", x_1,", ", x_0,"), "column 'x_0' occurs twice"),
        (lambda t: "", "is empty"),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path, change, message):
    path = write_rows(tmp_path / "x.csv", row(1), row(2, frame=2))
    text = path.read_text()
    changed = change(text)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(InputError) as error:
        table_from_openface(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400), junk=st.binary(max_size=12))
def test_damage_gives_a_table_or_one_line(tmp_path_factory, cut, junk):
    path = write_rows(tmp_path_factory.mktemp("f") / "x.csv", row(1), row(2, frame=2))
    data = path.read_bytes()
    path.write_bytes(data[:-cut] + junk if cut % 2 else data[:cut] + junk + data[cut + len(junk) :])
    for read in (table_from_openface, table_from_pyfeat, points_source, read_points):
        try:
            read(path)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", [",", ", "])
def test_landmark_table_to_openface_and_back(tmp_path, style):
    track = np.stack([points(i) for i in range(4)])
    track[2] = np.nan
    table = make_table(track, times=np.arange(4) / 25, scores=[2.4, -0.2, np.nan, 0.5])
    again = table_from_openface(write_openface(tmp_path / "x.csv", table, style=style))
    assert np.array_equal(points_of(again), track, equal_nan=True)  # these have one decimal
    assert again["time"].tolist() == table["time"].tolist()
    assert again["score"].tolist()[:2] == [1, 0] and again["score"].tolist()[3] == 0.5
    assert again["reason"].tolist() == ["", "", "OpenFace: tracking failed", ""]
    data = read_openface(tmp_path / "x.csv")
    assert data["frame"].tolist() == [1, 2, 3, 4] and data["success"].tolist() == [1, 1, 0, 1]
    assert not data.isna().any(axis=None)


def test_image_mode_holds_one_image(tmp_path):
    table = make_table(points(1)[None], [0.0])
    path = write_openface(tmp_path / "x.csv", table, mode="image")
    assert read_openface(path)["face"].tolist() == [0]
    assert np.array_equal(points_of(table_from_openface(path)), points_of(table))
    none = make_table(np.full((1, POINTS, 2), np.nan), [0.0])
    path = write_openface(tmp_path / "none.csv", none, mode="image")
    assert len(path.read_text().splitlines()) == 1
    assert table_from_openface(path)["reason"].tolist() == ["no face found"]
    with pytest.raises(InputError, match="image mode is for one image, the table has 2"):
        write_openface(path, pd.concat([table, table]), mode="image")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda d: d, {"style": ";"}, "style=';': must be ',' or ', '"),
        (lambda d: d, {"mode": "video"}, "mode='video': must be one of image, sequence"),
        (lambda d: d, {"mode": "image"}, r"column face is missing \(image mode\)"),
        (
            lambda d: d.drop(columns=["x_3"]),
            {},
            r"x_3 is missing, though others of its group \(2-D",
        ),
        (
            lambda d: d.copy().assign(AU01_r=1.0),
            {},
            r"others of its group \(AU intensity\) are there",
        ),
        (
            lambda d: d.copy().assign(smile=1.0),
            {},
            "column 'smile' does not belong to OpenFace's sequence",
        ),
    ],
)
def test_what_openface_would_not_write_is_refused(tmp_path, change, options, message):
    data = read_openface(write_rows(tmp_path / "x.csv", row(1)))
    with pytest.raises(InputError, match=message):
        write_openface(tmp_path / "y.csv", change(data), **options)
    assert not (tmp_path / "y.csv").exists()


# --- text files of points ------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-3, 5))
def test_point_files_keep_nine_digits(tmp_path_factory, seed, power):
    values = np.random.default_rng(seed).normal(size=(POINTS, 2)) * 10.0**power
    path = write_points(tmp_path_factory.mktemp("p") / "a_landmarks.txt", values)
    np.testing.assert_allclose(read_points(path), values, rtol=1e-7)
    again = write_points(path, read_points(path)).read_text()
    assert again == write_points(path, values).read_text() and len(again.splitlines()) == 68


def test_point_files_as_ck_plus_writes_them(tmp_path):
    path = tmp_path / "S005_001_00000001_landmarks.txt"
    line = "   2.1113760e+02   2.1632467e+02"
    path.write_bytes(("\ufeff" + "\r\n".join([line] * POINTS) + "\r\n\r\n").encode())
    assert read_points(path).tolist() == [[211.1376, 216.32467]] * POINTS
    write_points(path, read_points(path))
    assert path.read_text() == "2.1113760e+02 2.1632467e+02\n" * POINTS
    assert points_path("L", "a/S005_001_00000001.v2.png") == Path("L") / path.name


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1 2"] * 67, "has 67 points, must have 68"),
        (["1 2"] * 69, "has 69 points, must have 68"),
        ([], "has 0 points"),
        (["1 2", "", "1 2 3"], "line 3: '1 2 3' is not two numbers"),
        (["1 2", "1,2"], "line 2: '1,2' is not two numbers"),
        (["1 x"], "line 1: '1 x' is not two numbers"),
        (["1 nan"], "line 1: '1 nan' is not two numbers"),
    ],
)
def test_bad_point_files(tmp_path, lines, message):
    path = tmp_path / "a_landmarks.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        read_points(path)


def test_points_that_cannot_be_written_or_read(tmp_path):
    for bad in (np.zeros((67, 2)), np.full((POINTS, 2), np.nan), np.zeros((2, POINTS))):
        with pytest.raises(InputError, match=r"must be \(68, 2\), all finite"):
            write_points(tmp_path / "a_landmarks.txt", bad)
    with pytest.raises(InputError, match="cannot be read"):
        read_points(tmp_path / "a_landmarks.txt")
    (tmp_path / "b_landmarks.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a text file"):
        read_points(tmp_path / "b_landmarks.txt")


def test_a_folder_of_point_files_follows_the_images(tmp_path):
    images, given_ = tmp_path / "images", tmp_path / "points"
    write_frames(images, [IMAGE] * 3, pattern="S1_{:d}.png")  # S1_0, S1_1, S1_2
    for index in (0, 2):
        write_points(points_path(given_, f"S1_{index}.png"), points(index))
    table = table_from_folder(given_, images)
    assert table["reason"].tolist() == ["", "no S1_1_landmarks.txt", ""]
    np.testing.assert_allclose(points_of(table)[2], points(2))
    alone = table_from_folder(given_)
    assert alone["frame"].tolist() == [0, 1] and (alone["reason"] == "").all()
    with pytest.raises(InputError, match="belongs to one of the images"):
        table_from_folder(given_, ["other_1.png"])
    with pytest.raises(InputError, match="holds neither"):
        table_from_folder(images)


def test_point_files_are_taken_in_natural_order(tmp_path):
    for index in (10, 9, 1):
        write_points(points_path(tmp_path, f"f{index}.png"), points(index))
    table = table_from_folder(tmp_path)
    np.testing.assert_allclose(table["x_0"], [points(index)[0, 0] for index in (1, 9, 10)])


def test_a_folder_of_openface_files_one_per_image(tmp_path):
    for index in (1, 2):
        rows = row(index, face=0, confidence=0.5), row(index + 10, face=1, confidence=0.9)
        write_rows(tmp_path / f"F001_T1_000{index}.csv", *rows)
    table = points_source(tmp_path).table
    assert np.array_equal(points_of(table), [points(11), points(12)])
    assert table["faces"].tolist() == [2, 2] and table["frame"].tolist() == [0, 1]
    first = points_source(tmp_path, face=0).table
    assert np.array_equal(points_of(first), [points(1), points(2)])
    write_rows(tmp_path / "F001_T1_0003.csv", row(1), row(2, frame=2))
    with pytest.raises(InputError, match="0003.csv: is not the file of one image, it has 2 frames"):
        points_source(tmp_path)


# --- py-feat -------------------------------------------------------------------------------------


def feat_row(seed: int, frame: int, box=(10.2, 20, 30.5, 40), score: float | str = 0.99) -> dict:
    face = {"": 0, **dict(zip(RECT, box, strict=True)), "FaceScore": score}
    face |= dict(zip(XY, points(seed).T.ravel(), strict=True))
    return face | {"AU12": 0.3, "input": '"a, b.mp4"', "frame": frame, "approx_time": "00:01"}


def test_pyfeat_faces_boxes_and_gaps(tmp_path):
    empty = feat_row(9, 1) | dict.fromkeys([*RECT, "FaceScore", *XY], "")
    path = write_rows(
        tmp_path / "feat.csv",
        feat_row(1, 0),
        feat_row(2, 0, box=(0, 0, 100, 100), score=0.8),
        empty,
        feat_row(4, 3),
        separator=",",
    )
    table = table_from_pyfeat(path, fps=25)
    assert table["reason"].tolist() == ["", "py-feat: no face found", "no row for this frame", ""]
    assert table["faces"].tolist() == [2, 0, 0, 1]
    assert np.array_equal(points_of(table)[[0, 3]], [points(2), points(4)])
    assert boxes_of(table)[[0, 3]].tolist() == [[0, 0, 100, 100], [10, 20, 41, 60]]
    assert table["score"].tolist()[0] == 0.8 and table["time"].tolist()[3] == 0.12
    assert table_from_pyfeat(path)["time"].isna().all()


def test_pyfeat_errors(tmp_path):
    path = write_rows(tmp_path / "feat.csv", feat_row(1, 0) | {"x_3": "left"}, separator=",")
    with pytest.raises(InputError, match="line 2, column x_3: 'left' is not a number"):
        table_from_pyfeat(path)
    path = write_rows(tmp_path / "x.csv", row(1))
    with pytest.raises(
        InputError, match="FaceRectX, FaceRectY, FaceRectWidth and 1 more is missing"
    ):
        table_from_pyfeat(path)
    path.write_text(",".join(feat_row(1, 0)) + "\n")
    assert len(table_from_pyfeat(path)) == 0


# --- by name -------------------------------------------------------------------------------------


def test_files_are_told_apart_by_their_columns(tmp_path):
    mine = make_table(points(1)[None], [0.0])
    paths = {
        "files": write_landmark_table(tmp_path / "a.csv", mine),
        "openface": write_openface(tmp_path / "b.csv", mine),
    }
    for name, path in paths.items():
        source = points_source(path)
        assert source.name == name and np.array_equal(points_of(source.table), points_of(mine))
    feat = write_rows(tmp_path / "c.csv", feat_row(1, 0), separator=",")
    assert points_source(feat).table["score"].tolist() == [0.99]
    pd.testing.assert_frame_equal(read_landmark_table(paths["files"]), mine)


def test_points_of_a_resized_image_come_back_to_the_frame(tmp_path):
    path = write_rows(tmp_path / "x.csv", row(1))
    source = points_source(path, measured_at=(512, 384))
    frame = Frame(0, 0.0, np.zeros((1024, 192, 3), np.uint8))
    table = landmark_table([frame], source)
    np.testing.assert_allclose(points_of(table)[0], points(1) * (0.5, 2))


def test_open_detector(tmp_path):
    path = write_rows(tmp_path / "x.csv", row(1))
    assert open_detector() == DlibDetector()
    assert open_detector("dlib", path, min_score=0.2).predictor == path
    assert open_detector("mediapipe", path) == MediaPipeDetector(path)
    assert open_detector("openface", path, min_confidence=0.5).name == "openface"
    for arguments, message in (
        ({"kind": "haar"}, "detector 'haar': must be one of dlib, mediapipe, openface, files"),
        ({"kind": "files"}, "detector 'files': needs a path"),
        ({"kind": "mediapipe", "path": "m", "upsample": 1}, "mediapipe: no setting 'upsample'"),
        ({"min_scor": 1}, "dlib: no setting 'min_scor'; 'min_score'?"),
    ):
        with pytest.raises(InputError) as error:
            open_detector(**arguments)
        assert message in str(error.value)


# --- a real file ---------------------------------------------------------------------------------


def test_the_real_file(clip_csv, tmp_path):
    data = read_openface(clip_csv)
    table = table_from_openface(clip_csv)
    assert len(table) == len(data) == 100 and (table["reason"] == "").all()
    assert table["frame"].tolist() == list(range(100)) and "face_id" not in data
    assert table.loc[0, ["x_0", "y_0", "score"]].tolist() == [277.276, 181.19, 0.883333]
    assert data["AU28_c"].isin([0, 1]).all() and data["p_scale"].gt(0).all()
    again = table_from_openface(write_openface(tmp_path / "x.csv", data, style=", "))
    np.testing.assert_allclose(points_of(again), points_of(table), atol=0.05001)
    ours = table_from_openface(write_openface(tmp_path / "y.csv", table))
    np.testing.assert_allclose(points_of(ours), points_of(table), atol=0.05001)
    assert (np.diff(table["time"]) >= 0).all()
