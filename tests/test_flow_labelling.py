"""`facecomp flow label` and `split`: from a tree to labels, whatever is wrong in it and whenever it is ended."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from facecomp import cli
from facecomp.data.prepare import prepare_video
from facecomp.data.schema import SYNTHETIC
from facecomp.data.twins import write_layout
from facecomp.faces.detection import XY
from facecomp.faces.openface import write_points
from facecomp.faces.synthetic import participant, record
from facecomp.faces.writing import write_frames
from facecomp.flow.colours import flow_colours
from facecomp.flow.files import read_flo, read_flow
from facecomp.flow.label_jobs import Labelled
from facecomp.flow.labelling import label_sequences, label_tree
from facecomp.flow.labels import SIZE, compat_flows, corrected_flow
from facecomp.flow.landmarks import openface_points, openface_points_compat, text_points
from facecomp.flow.pair_lists import read_pairs
from facecomp.flow.splits import PARTS, flat_folders, split_pairs
from facecomp.records.files import InputError
from facecomp.records.receipts import read_receipt

SOURCE_SIZE = (96, 72)
FRAMES = 4


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    try:
        code = cli.main(["flow", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that must not depend on time or number of processes."""
    skip = (".receipt.json", ".log", ".lock", ".holder")
    names = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(skip)]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


def write_tree(root: Path, subjects=("S005", "S006"), sequences=("001",), frames=FRAMES) -> Path:
    """A CK+ tree of synthetic people with their true key points."""
    for k, subject in enumerate(subjects):
        for q, sequence in enumerate(sequences):
            video = record(participant(k), frames, size=SOURCE_SIZE, seed=q, expression="happiness")
            names = [f"{subject}_{sequence}_{t + 1:08d}" for t in range(frames)]
            folder = root / "cohn-kanade-images" / subject / sequence
            folder.mkdir(parents=True)
            for t, image in enumerate(video.frames()):
                cv2.imwrite(str(folder / f"{names[t]}.png"), image[..., ::-1])
                own = root / "Landmarks" / subject / sequence / f"{names[t]}_landmarks.txt"
                write_points(own, video.landmarks[t])
    (root / SYNTHETIC).write_text("made for a test")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("trees") / "ck")


@pytest.fixture
def own(tree, tmp_path) -> Path:
    """A copy of the tree that may be damaged."""
    return Path(shutil.copytree(tree, tmp_path / "own"))


@pytest.fixture(scope="module")
def labelled(tree, tmp_path_factory) -> dict[str, Path]:
    """The tree labelled in both modes."""
    out = tmp_path_factory.mktemp("labels")
    return {mode: label_tree(tree, out / mode, mode, quiet=True) for mode in ("corrected", "compat")}


@pytest.fixture
def alone(own) -> Path:
    """The same of one subject only."""
    shutil.rmtree(own / "cohn-kanade-images" / "S006")
    return own


def key_points(tree: Path, subject: str, sequence: str = "001") -> np.ndarray:
    files = sorted((tree / "Landmarks" / subject / sequence).iterdir())
    return np.stack([text_points(path, SOURCE_SIZE) for path in files])


def images_of(tree: Path, subject: str = "S005") -> list[Path]:
    return sorted((tree / "cohn-kanade-images" / subject / "001").iterdir())


def points_of_image(tree: Path, image: Path) -> Path:
    parts = image.relative_to(tree / "cohn-kanade-images").parent
    return tree / "Landmarks" / parts / f"{image.stem}_landmarks.txt"


def label(source: Path, out: Path, mode: str = "corrected", **more) -> dict[str, Labelled]:
    more = {"previews": False, "quiet": True} | more
    return {o.name: o for o in label_sequences(source, out, mode, **more)}


# what comes out


@pytest.mark.parametrize("subject", ["S005", "S006"])
def test_labels_equal_those_of_the_same_key_points(tree, labelled, subject):
    points = key_points(tree, subject)
    stored = [pair.stored for pair in compat_flows(points)]
    pairs = {m: [p for p in read_pairs(o / "all.csv") if p.subject == subject] for m, o in labelled.items()}
    assert len(pairs["compat"]) == len(pairs["corrected"]) == len(points) - 1 == len(stored)
    for k, (old, new) in enumerate(zip(pairs["compat"], pairs["corrected"], strict=True)):
        assert np.array_equal(read_flo(old.label), stored[k], equal_nan=True)
        wanted, found = corrected_flow(points[k], points[k + 1]), read_flow(new.label)
        assert np.array_equal(found.motion, wanted.flow) and np.array_equal(found.mask, wanted.mask)


def test_frames_are_resized_and_kept_as_the_mode_says(tree, labelled):
    source = [cv2.imread(str(path)) for path in images_of(tree)]
    for mode, ending in (("corrected", "png"), ("compat", "jpg")):
        paths = sorted((labelled[mode] / "S005" / "flow_001").glob(f"*.{ending}"))
        assert [p.stem for p in paths] == [p.stem for p in images_of(tree)]
        for image, path in zip(source, paths, strict=True):
            small = cv2.resize(image, (384, 512), interpolation=cv2.INTER_LINEAR)
            wanted = small if mode == "corrected" else cv2.imdecode(cv2.imencode(".jpg", small)[1], 1)
            assert np.array_equal(cv2.imread(str(path)), wanted)


def test_previews_are_the_colours_of_the_labels_and_say_synthetic(labelled):
    for mode, out in labelled.items():
        pair = read_pairs(out / "all.csv")[1]
        viz = out / "S005" / "flow_viz_001"
        picture = cv2.imread(str(viz / f"{pair.name}.png"))
        if mode == "compat":
            wanted = flow_colours(read_flo(pair.label), "compat")
        else:
            wanted = flow_colours(read_flow(pair.label).motion)[..., ::-1]
        assert np.array_equal(picture[20:], wanted[20:]) and not np.array_equal(picture[:20], wanted[:20])
        names = sorted(p.name for p in viz.iterdir())
        stems = [p.stem for p in sorted(pair.label.parent.glob("*.???")) if p.suffix in (".png", ".jpg")]
        assert names == sorted([f"{s}.png" for s in stems[:-1]] + [f"{s}_tri.png" for s in stems[1:]])
        drawn, frame = cv2.imread(str(viz / f"{pair.second.stem}_tri.png")), cv2.imread(str(pair.second))
        changed = (np.abs(drawn.astype(int) - frame) > 60).any(-1).mean()
        assert 0.005 < changed < 0.2


def test_the_key_points_that_are_kept_fit_the_resized_frames(tree, labelled):
    for out in labelled.values():
        for k, pair in enumerate(p for p in read_pairs(out / "all.csv") if p.subject == "S006"):
            assert np.allclose(text_points(pair.points, SIZE), key_points(tree, "S006")[k], rtol=1e-7)


def test_receipts_say_that_the_data_is_synthetic_and_what_went_in(labelled):
    receipt = read_receipt(labelled["compat"] / "S006" / "flow_001.receipt.json")
    assert (receipt.data, receipt.mode) == ("synthetic", "compat")
    assert receipt.inputs.keys() == {"images", "points"} and len(receipt.outputs) == 2 + 2 * FRAMES + 3 * 3


def test_twin_of_ckplus_from_the_command_line(capsys, tmp_path):
    write_layout("ckplus", None, tmp_path / "twin", participants=1, frames=6, size=48)
    code, out, error = run(capsys, "label", tmp_path / "twin", "--out", tmp_path / "out", "--no-previews")
    assert (code, error) == (0, "") and out.count("done: S005/") == 7
    pairs = read_pairs(tmp_path / "out" / "all.csv")
    assert len(pairs) == pd.read_csv(tmp_path / "out" / "report.csv")["pairs"].sum() > 7
    assert not list((tmp_path / "out").rglob("flow_viz_*"))
    again = run(capsys, "label", tmp_path / "twin", "--out", tmp_path / "out", "--no-previews")
    assert again[0] == 0 and again[1].count("skipped: S005/") == 7


# processes, and being ended


def test_one_and_two_processes_write_the_same_bytes(tree, labelled, tmp_path):
    two = label_tree(tree, tmp_path / "two", jobs=2, quiet=True)
    assert hashes(two) == hashes(labelled["corrected"])


COMMAND = "import sys; from facecomp.cli import main; sys.exit(main())"


def start(tree: Path, out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-c", COMMAND, "flow", "label", str(tree), "--out", str(out), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_for(out: Path, pattern: str, process: subprocess.Popen) -> None:
    while not any(out.rglob(pattern)) and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.parametrize("moment", ["S005_001_00000002.npz", "flow_001.receipt.json", "S006*_00000003.png"])
def test_killed_at_any_moment_the_same_command_goes_on(tree, labelled, tmp_path, moment):
    process = start(tree, tmp_path / "out")
    wait_for(tmp_path / "out", moment, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    found = label(tree, tmp_path / "out", previews=True)
    assert {o.state for o in found.values()} <= {"done", "skipped"}
    assert hashes(tmp_path / "out") == hashes(labelled["corrected"])


def living(group: int) -> list[str]:
    """Processes of a group that still run, after a moment to end."""
    for _ in range(50):
        stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
        found = [stat for stat in stats if stat[2] == str(group) and stat[0] != "Z"]
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.mark.parametrize(("number", "code", "jobs"), [(signal.SIGTERM, 143, "1"), (signal.SIGINT, 130, "2")])
def test_asked_to_stop_it_stops_in_one_line_and_goes_on_later(tmp_path, number, code, jobs, long_tree):
    process = start(long_tree, tmp_path / "out", "--jobs", jobs, "--no-previews")
    wait_for(tmp_path / "out", "S005_001_00000002.png", process)
    with pytest.raises(InputError, match="already worked on"):
        label(long_tree, tmp_path / "out")
    os.kill(process.pid, number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in error
    assert "start the same command again to go on" in error
    assert (tmp_path / "out" / "all.csv").is_file()
    assert not living(process.pid)


@pytest.fixture(scope="module")
def long_tree(tmp_path_factory) -> Path:
    """One frame many times: long enough to be stopped in the middle."""
    root = write_tree(tmp_path_factory.mktemp("trees") / "long", frames=1)
    for subject in ("S005", "S006"):
        image = images_of(root, subject)[0]
        points = points_of_image(root, image)
        for k in range(2, 200):
            name = image.name.replace("00000001", f"{k:08d}")
            os.link(image, image.with_name(name))
            os.link(points, points.with_name(name.replace(".png", "_landmarks.txt")))
    return root


# done again only where something changed


def states(found: dict[str, Labelled]) -> dict[str, str]:
    return {name: outcome.state for name, outcome in found.items()}


@pytest.mark.parametrize("what", ["image", "points", "label", "receipt", "setting", "same content"])
def test_a_sequence_is_made_again_if_and_only_if_something_changed(own, tmp_path, what):
    out = tmp_path / "out"
    label(own, out)
    before, image = hashes(out), images_of(own)[1]
    if what == "image":
        cv2.imwrite(str(image), cv2.imread(str(image)) // 2)
    elif what == "points":
        path = points_of_image(own, image)
        write_points(path, text_points(path, SIZE)[:, ::-1] * 0.99)
    elif what == "label":
        (out / "S005" / "flow_001" / f"{image.stem}.npz").write_bytes(b"broken")
    elif what == "receipt":
        (out / "S005" / "flow_001.receipt.json").write_text("{")
    elif what == "same content":
        image.touch()
    found = label(own, out, frames="jpg" if what == "setting" else "png")
    both = "done" if what == "setting" else "skipped"
    assert states(found) == {"S005/001": "skipped" if what == "same content" else "done", "S006/001": both}
    assert (hashes(out) == before) == (what in ("label", "receipt", "same content"))


def test_files_of_an_image_that_is_gone_do_not_stay(own, tmp_path):
    label(own, tmp_path / "out", previews=True)
    images_of(own)[-1].unlink()
    label(own, tmp_path / "out", previews=True)
    again = label_tree(own, tmp_path / "fresh", quiet=True)
    assert hashes(tmp_path / "out") == hashes(again)


# what is wrong with a frame


def damage(own: Path, what: str) -> str:
    """Damage the second frame of S005; returns words of the reason that must be given."""
    image = images_of(own)[1]
    points = points_of_image(own, image)
    if what == "no landmark file":
        points.unlink()
        return "is not there"
    if what == "67 points":
        points.write_text("1 2\n" * 67)
        return "has 67 points"
    if what == "NaN":
        points.write_text("1 2\n" * 67 + "nan 3\n")
        return "is not two numbers"
    if what == "cut off":
        image.write_bytes(image.read_bytes()[:200])
        return "cannot be read as an image"
    if what == "empty":
        image.write_bytes(b"")
        return "is empty"
    cv2.imwrite(str(image), np.zeros((64, 64, 3), np.uint8))
    return "is 64 x 64 px, the first of the sequence 72 x 96"


BAD_FRAMES = ["no landmark file", "67 points", "NaN", "cut off", "empty", "another size"]


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_a_bad_frame_is_reported_and_the_rest_is_done(capsys, own, tmp_path, what):
    words = damage(own, what)
    code, out, error = run(capsys, "label", own, "--out", tmp_path / "out", "--no-previews")
    assert (code, error) == (0, "")
    bad = images_of(own)[1].name
    assert any(bad in line and words in line for line in out.splitlines() if "dropped: " in line)
    drops = pd.read_csv(tmp_path / "out" / "drops.csv", dtype=str)
    assert list(drops["what"]) == ["frame", "pair"] and words in drops["reason"][0]
    assert "was dropped" in drops["reason"][1]
    report = json.loads((tmp_path / "out" / "S005" / "flow_001" / "report.json").read_text())
    assert (report["frames"], report["with_points"], report["pairs"]) == (4, 3, 1)
    pairs = read_pairs(tmp_path / "out" / "all.csv")
    assert [p.name for p in pairs if p.subject == "S005"] == ["S005_001_00000003"]
    assert sum(p.subject == "S006" for p in pairs) == 3
    assert words in (tmp_path / "out" / "label.log").read_text()


def test_compat_names_a_flow_over_a_missing_frame_after_it_and_warns(alone, tmp_path):
    damage(alone, "no landmark file")
    found = label(alone, tmp_path / "out", "compat")["S005/001"].report
    points = key_points(alone, "S005")
    stored = [pair.stored for pair in compat_flows(points)]
    pairs = [p for p in read_pairs(tmp_path / "out" / "all.csv") if p.subject == "S005"]
    assert [p.label.stem[-1] for p in pairs] == ["2", "3"]
    assert [p.first.stem[-1] for p in pairs] == ["1", "3"] and pairs[0].second.stem[-1] == "3"
    for pair, wanted in zip(pairs, stored, strict=True):
        assert np.array_equal(read_flo(pair.label), wanted, equal_nan=True)
    assert len(found.warnings) == 1 and "named S005_001_00000002.flo" in found.warnings[0]["reason"]


@pytest.mark.parametrize("mode", ["corrected", "compat"])
def test_without_points_in_the_first_frame_no_frame_is_paired_with_itself(alone, tmp_path, mode):
    points_of_image(alone, images_of(alone)[0]).unlink()
    report = label(alone, tmp_path / "out", mode)["S005/001"].report
    names = [p.name[-1] for p in read_pairs(tmp_path / "out" / "all.csv") if p.subject == "S005"]
    assert names == ["2", "3"]
    reasons = [d["reason"] for d in report.drops]
    assert ("with itself" in reasons[-1]) == (mode == "compat")


@pytest.mark.parametrize("mode", ["corrected", "compat"])
def test_frames_whose_numbers_are_not_adjacent(alone, tmp_path, mode):
    image = images_of(alone)[1]
    points_of_image(alone, image).unlink()
    image.unlink()
    report = label(alone, tmp_path / "out", mode)["S005/001"].report
    notes = report.drops if mode == "corrected" else report.warnings
    assert "frame numbers 1 and 3 are not adjacent" in notes[0]["reason"]
    assert report.pairs == (1 if mode == "corrected" else 2)


@pytest.mark.parametrize("still", [1, 2])
def test_a_degenerate_triangle_stops_a_compat_sequence_and_no_other(capsys, own, tmp_path, still):
    """Whole-number key points that do not move (O7); pairs before them stand."""
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(9), indexing="ij"), axis=-1)
    whole = grid.reshape(-1, 2)[:68] * 32.0 + 32
    for k, image in enumerate(images_of(own)):
        moved = whole + min(k, still - 1)
        write_points(points_of_image(own, image), moved[:, ::-1] * 72 / 384)  # whole numbers once resized
    code, out, error = run(capsys, "label", own, "--out", tmp_path / "out", "--no-previews", "--mode", "compat")
    table = pd.read_csv(tmp_path / "out" / "report.csv", keep_default_na=False).set_index("subject")
    assert table.loc["S006", "pairs"] == 3
    if still == 1:
        assert code == 2 and error.count("\n") == 1 and "S005/001: DegenerateTriangle" in error
        assert table.loc["S005", "state"] == "failed"
    else:
        assert code == 0 and "stopped: DegenerateTriangle" in out and table.loc["S005", "pairs"] == 1
    corrected = label(own, tmp_path / "new")["S005/001"].report
    assert corrected.pairs == 3 and not corrected.error
    flow = read_flow(read_pairs(tmp_path / "new" / "all.csv")[2].label)
    assert flow.mask.any() and not flow.motion.any()


@pytest.mark.parametrize("mode", ["corrected", "compat"])
def test_points_outside_of_the_picture_are_counted(alone, tmp_path, mode):
    for k, image in enumerate(images_of(alone)):
        points = key_points(alone, "S005")[k][:, ::-1] * 72 / 384
        write_points(points_of_image(alone, image), points - (points[:, 0].min() + 1, 0))
    report = label(alone, tmp_path / "out", mode)["S005/001"].report
    assert report.outside >= 3 and "outside of the picture" in report.warnings[0]["reason"]


# what is wrong with a sequence, or with all


def test_sequences_of_which_nothing_can_come_are_a_line_each_and_code_2(capsys, own, tmp_path):
    images = own / "cohn-kanade-images"
    (images / "S007" / "001").mkdir(parents=True)
    (images / "S008" / "001").mkdir(parents=True)
    shutil.copy(images_of(own)[0], images / "S008" / "001" / "S008_001_00000001.png")
    shutil.copytree(images / "S005" / "001", images / "S009" / "001")
    shutil.copytree(images / "S005" / "001", images / "S010" / "001")
    shutil.copy(images_of(own)[0], images / "S010" / "001" / "S005_001_00000001.b.png")
    code, out, error = run(capsys, "label", own, "--out", tmp_path / "out", "--no-previews")
    lines = error.splitlines()
    assert code == 2 and len(lines) == 4 and all(line.startswith("facecomp: ") for line in lines)
    for line, words in zip(lines, ["no image", "1 image", "is not there", "would both be"], strict=True):
        assert words in line
    assert out.count("done: ") == 2
    table = pd.read_csv(tmp_path / "out" / "report.csv")
    assert dict(table["state"].value_counts()) == {"failed": 4, "done": 2}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--points", "files"], "need the folder"),
        (["--points", "files", "--points-folder", "nowhere"], "nowhere: the folder of key points does not exist"),
        (["--points", "openface", "--openface-binary", "nowhere"], "is no program"),
        (["--images", "elsewhere"], "looked for elsewhere/<subject>"),
        (["--face", "1"], "only for points of OpenFace"),
        (["--mode", "compat", "--frames", "png"], "compat writes jpg"),
    ],
)
def test_settings_that_do_not_fit_are_one_line_and_code_2(capsys, tree, tmp_path, more, words):
    code, out, error = run(capsys, "label", tree, "--out", tmp_path / "out", *more)
    assert code == 2 and words in error and error.count("\n") == 1 and out == ""
    assert not (tmp_path / "out").exists()


def test_a_source_or_output_that_does_not_fit_is_one_line(capsys, tree, own, tmp_path, labelled):
    empty = tmp_path / "empty"
    empty.mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for source, out, words in (
        (empty, tmp_path / "out", "no sequence found; looked for"),
        (tmp_path / "nowhere", tmp_path / "out", "does not exist"),
        (tree, other, "holds something else"),
        (own, own, "the images of S005/001"),
        (own, own / "cohn-kanade-images" / "S005", "the images of S005/001"),
        (tree, labelled["compat"], "holds labels of mode compat"),
    ):
        code, _, error = run(capsys, "label", source, "--out", out)
        assert code == 2 and words in error and error.count("\n") == 1
    assert (other / "thesis.txt").read_text() == "mine"


def test_another_tree_does_not_replace_a_sequence_of_the_same_name(own, tmp_path):
    label(own, tmp_path / "out")
    before = hashes(tmp_path / "out")
    other = write_tree(tmp_path / "other", subjects=("S006",), frames=3)
    found = label(other, tmp_path / "out")
    assert found["S006/001"].state == "failed" and "label it into another folder" in found["S006/001"].line
    assert {k: v for k, v in hashes(tmp_path / "out").items() if k != "report.csv"} == {
        k: v for k, v in before.items() if k != "report.csv"
    }


# OpenFace


def openface_csvs(tree: Path, folder: Path, style: str, kind: str) -> Path:
    """OpenFace's files for a tree, points of the resized images: one an image or one a sequence."""
    for subject in ("S005", "S006"):
        rows = []
        for k, points in enumerate(key_points(tree, subject)):
            values = [f"{v:.1f}" for v in points[:, ::-1].T.ravel()]
            decoy = [f"{float(v) + 5:.1f}" for v in values]
            if kind == "image":
                head = style.join(["face", "confidence", *XY])
                lines = [["0", "0.100", *decoy], ["1", "0.900", *values]]
                path = folder / subject / "001" / f"{subject}_001_{k + 1:08d}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join([head, *map(style.join, lines)]) + "\n")
            rows.append([str(k + 1), "0", "0.000", "0.98", "1", *values])
        if kind == "sequence":
            head = style.join(["frame", "face_id", "timestamp", "confidence", "success", *XY])
            folder.mkdir(exist_ok=True)
            (folder / f"{subject}_001.csv").write_text("\n".join([head, *map(style.join, rows)]) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["image", "sequence"])
@pytest.mark.parametrize("style", [", ", ","])
def test_openface_files_of_both_styles_and_both_kinds(alone, tmp_path, style, kind):
    csvs = openface_csvs(alone, tmp_path / "csv", style, kind)
    options = {"points": "openface", "points_folder": csvs}
    label(alone, tmp_path / "out", **options)
    pairs = read_pairs(tmp_path / "out" / "all.csv")
    assert len(pairs) == 3 and pairs[0].points.suffix == ".csv"
    points = [openface_points(p.points) for p in pairs if p.subject == "S005"]
    assert np.allclose(points, np.round(key_points(alone, "S005")[:3], 1))  # the surer face
    found = read_flow(pairs[1].label)
    assert np.array_equal(found.motion, corrected_flow(*points[1:]).flow)
    if kind == "image" and style == ",":
        label(alone, tmp_path / "old", "compat", **options)
        path = csvs / "S005" / "001"
        first = np.stack([openface_points_compat(p) for p in sorted(path.iterdir())])  # the first face
        assert first.shape[1:] == (66, 2)
        old = read_pairs(tmp_path / "old" / "all.csv")[0]
        assert np.array_equal(read_flo(old.label), next(compat_flows(first)).stored, equal_nan=True)
        assert old.points.read_bytes() == next(iter(sorted(path.iterdir()))).read_bytes()
        chosen = label(alone, tmp_path / "face", face=0, **options)["S005/001"]
        assert chosen.state == "done"
        other = openface_points(read_pairs(tmp_path / "face" / "all.csv")[0].points)
        assert np.allclose(other, points[0] + 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.write_text(p.read_text().splitlines()[0] + "\n"), "no face found"),
        (lambda p: p.write_text(p.read_text().replace("1, 0.900, ", "1, 0.900, nan, ", 1).rpartition(",")[0]), "points are not numbers"),
        (lambda p: p.write_text(p.read_text().replace("x_0", "z_0")), "column x_0 is missing"),
        (lambda p: p.write_text("no csv"), "neither column frame nor face"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00"), "is not a CSV text file"),
        (lambda p: p.unlink(), "is not there"),
    ],
)
def test_a_bad_openface_file_costs_its_frame_and_is_named(tree, tmp_path, change, words):
    csvs = openface_csvs(tree, tmp_path / "csv", ", ", "image")
    path = csvs / "S005" / "001" / "S005_001_00000002.csv"
    change(path)
    found = label(tree, tmp_path / "out", points="openface", points_folder=csvs)
    drop = found["S005/001"].report.drops[0]
    assert words in drop["reason"] or words == "neither column frame nor face" and "no face found" in drop["reason"]
    assert drop["file"] == "S005_001_00000002.png" and found["S005/001"].report.pairs == 1
    assert str(path) in drop["reason"] and found["S006/001"].report.pairs == 3


def test_a_sequence_file_with_more_rows_than_images_is_not_used(tree, tmp_path):
    csvs = openface_csvs(tree, tmp_path / "csv", ",", "sequence")
    path = csvs / "S005_001.csv"
    path.write_text(path.read_text().replace("\n4,", "\n9,"))
    found = label(tree, tmp_path / "out", points="openface", points_folder=csvs)
    assert found["S005/001"].state == "failed" and "frame 9: the sequence has 4 images" in found["S005/001"].line
    assert found["S006/001"].state == "done"


def test_openface_program_is_run_on_the_resized_image_and_leaves_nothing(tree, tmp_path, monkeypatch):
    csvs = openface_csvs(tree, tmp_path / "csv", ", ", "image")
    (csvs / "S005" / "001" / "S005_001_00000003.csv").unlink()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    fake = tmp_path / "FaceLandmarkImg"
    fake.write_text(
        f"""#!{sys.executable}
import pathlib, shutil, sys
assert sys.argv[1] == "-f" and len(sys.argv) == 3
head = pathlib.Path(sys.argv[2]).read_bytes()[16:24]
assert (int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")) == (384, 512)
stem = pathlib.Path(sys.argv[2]).stem
pathlib.Path("processed").mkdir()
found = list(pathlib.Path({str(csvs)!r}).rglob(stem + ".csv"))
if stem == "S006_001_00000002":
    sys.exit("no model")
for path in found:
    shutil.copy(path, "processed")
"""
    )
    fake.chmod(0o755)
    found = label(tree, tmp_path / "out", openface_binary=fake)
    reasons = {name: outcome.report.drops[0]["reason"] for name, outcome in found.items()}
    assert reasons == {"S005/001": "OpenFace found no face", "S006/001": "OpenFace ended with code 1 (no model)"}
    made = read_pairs(tmp_path / "out" / "all.csv")[0]
    assert np.allclose(openface_points(made.points), np.round(key_points(tree, "S005")[0], 1))
    assert not list(temporary.iterdir())


# other trees


def test_bp4d_frames_get_the_names_that_training_expects(tree, tmp_path):
    folder = tmp_path / "bp" / "F001" / "T1"
    folder.mkdir(parents=True)
    for k, image in enumerate(images_of(tree), 1):
        shutil.copy(image, folder / f"{k:04d}.png")
        points = tmp_path / "points" / "F001" / "T1" / f"{k:04d}_landmarks.txt"
        points.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(points_of_image(tree, image), points)
    found = label(tmp_path / "bp", tmp_path / "out", points_folder=tmp_path / "points")
    assert states(found) == {"F001/T1": "done"}
    pairs = read_pairs(tmp_path / "out" / "all.csv")
    assert [p.name for p in pairs] == ["F001_T1_0001", "F001_T1_0002", "F001_T1_0003"]
    assert pairs[0].points == tmp_path / "out" / "F001" / "T1" / "F001_T1_0001_landmarks.txt"


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("casme2", "sub01/flow_EP02_01f/sub01_EP02_01f_46"),
        ("samm", "006/flow_006_1_1/006_1_1_05562"),
        ("smic", "s1/flow_s1_ne_01/s1_ne_01_130592"),
    ],
)
def test_micro_expression_trees_with_points_of_dlib(tmp_path, layout, name):
    twin = tmp_path / "twin"
    write_layout(layout, None, twin, participants=1, frames=3, size=112)
    keep = name.split("/")[1].removeprefix("flow_")
    for folder in [p for p in twin.rglob("*") if p.is_dir() and any(p.glob("*.jpg"))]:
        if folder.name != keep:
            shutil.rmtree(folder)
    found = label(twin, tmp_path / "out")
    assert set(states(found).values()) == {"done"} and len(found) == 1
    assert (tmp_path / "out" / f"{name}.npz").is_file()
    assert json.loads((tmp_path / "out" / f"{name.rpartition('/')[0]}/report.json").read_text())["points"] == "dlib"


def test_what_data_prepare_wrote_for_flow(tree, tmp_path):
    video = record(participant(3), 3, size=160)
    write_frames(tmp_path / "clip", list(video.frames()))
    prepare_video(tmp_path / "clip", "P01", "flow", tmp_path / "prepared", quiet=True)
    found = label(tmp_path / "prepared", tmp_path / "out", data="synthetic")
    assert states(found) == {"P01/clip": "done"}
    pairs = read_pairs(tmp_path / "out" / "all.csv")
    assert len(pairs) == 2 and pairs[0].name.startswith("P01_clip_")
    source = next((tmp_path / "prepared" / "flow" / "Landmarks").rglob(f"{pairs[0].name}_landmarks.txt"))
    assert np.allclose(text_points(source, SIZE), text_points(pairs[0].points, SIZE), rtol=1e-6)


# splits


@pytest.fixture
def many(tmp_path, labelled) -> Path:
    """Labels of twelve subjects: copies of one, under other names."""
    out = tmp_path / "many"
    rows = pd.read_csv(labelled["compat"] / "all.csv", dtype=str)
    rows = rows[rows["subject"] == "S005"]
    tables = []
    for k in range(12):
        name = f"S{100 + k}"
        shutil.copytree(labelled["compat"] / "S005", out / name)
        for path in sorted((out / name).rglob("S005*")):
            path.rename(path.with_name(path.name.replace("S005", name)))
        tables.append(rows.replace("S005", name, regex=True))
    pd.concat(tables).to_csv(out / "all.csv", index=False)
    return out


@pytest.mark.parametrize("parts", [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1)])
def test_a_split_shares_no_subject_and_loses_no_pair(many, parts):
    lists = {part: read_pairs(path) for part, path in split_pairs(many, parts, seed=3).items()}
    subjects = {part: {p.subject for p in pairs} for part, pairs in lists.items()}
    assert sum(map(len, subjects.values())) == 12 == len(set.union(*subjects.values()))
    both = [p.label for pairs in lists.values() for p in pairs]
    assert sorted(both) == sorted(p.label for p in read_pairs(many / "all.csv")) and len(set(both)) == 36
    assert [bool(subjects[part]) for part in PARTS] == [share > 0 for share in parts]
    facts = json.loads((many / "split.json").read_text())
    assert facts["seed"] == 3 and {k: set(v) for k, v in facts["subjects"].items()} == subjects


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_list(many):
    first = {part: path.read_text() for part, path in split_pairs(many).items()}
    table = pd.read_csv(many / "all.csv", dtype=str, keep_default_na=False)
    table.iloc[::-1].to_csv(many / "all.csv", index=False)
    again = split_pairs(many)
    assert {p.subject for p in read_pairs(again["test"])} == {
        line.split(",")[0] for line in first["test"].splitlines()[1:]
    }
    others = {split_pairs(many, seed=s)["test"].read_text() for s in range(1, 6)}
    assert len(others) > 1


def test_split_on_the_command_line_with_the_published_folders(capsys, many, tmp_path):
    code, out, error = run(capsys, "split", many, "--parts", "0.5,0.25,0.25", "--seed", 1, "--flat", tmp_path)
    assert (code, error) == (0, "") and "train.csv: 18 pairs of 6 subjects" in out
    flat = tmp_path / "single_directory"
    for part, subjects in zip(PARTS, (6, 3, 3), strict=True):
        assert len(list((flat / part).glob("*.jpg"))) == 4 * subjects
        assert len(list((flat / part).glob("*.flo"))) == 3 * subjects == len(read_pairs(many / f"{part}.csv"))
        for pair in read_pairs(many / f"{part}.csv"):
            assert (flat / part / pair.label.name).samefile(pair.label)
    run(capsys, "split", many, "--parts", "0.5,0.25,0.25", "--seed", 2, "--flat", tmp_path)
    names = {p.name[:4] for p in (flat / "test").iterdir()}
    assert names == {p.subject for p in read_pairs(many / "test.csv")}


def test_flat_folders_of_corrected_labels_hold_the_published_convention(labelled, tmp_path):
    out = Path(shutil.copytree(labelled["corrected"], tmp_path / "out"))
    split_pairs(out, (0.5, 0.0, 0.5))
    pair = read_pairs(out / "test.csv")[0]
    stored = read_flo(flat_folders(out, tmp_path) / "test" / f"{pair.name}.flo")
    flow = read_flow(pair.label)
    assert np.array_equal(np.isnan(stored[..., 0]), ~flow.mask)
    assert np.array_equal(-stored[flow.mask], flow.motion[flow.mask])


def test_a_split_that_cannot_be_is_one_line_and_code_2(capsys, many, labelled, tmp_path):
    for arguments, words in (
        ([labelled["compat"]], "2 subjects: too few for 3 parts"),
        ([tmp_path / "nowhere"], "cannot be read"),
        ([many, "--parts", "0.5,0.2"], "three shares that add up to 1"),
    ):
        code, _, error = run(capsys, "split", *arguments)
        assert code == 2 and words in error and "Traceback" not in error
    clash = next((many / "S100" / "flow_001").glob("*.flo"))
    shutil.copytree(many / "S100" / "flow_001", many / "S100" / "flow_002")
    table = pd.read_csv(many / "all.csv", dtype=str)
    more = table[table["subject"] == "S100"].replace("flow_001", "flow_002", regex=True)
    pd.concat([table, more]).to_csv(many / "all.csv", index=False)
    code, _, error = run(capsys, "split", many, "--flat", tmp_path / "flat")
    assert code == 2 and clash.stem[:4] in error and "names must differ" in error
    assert error.count("\n") == 1 and not (tmp_path / "flat").exists()
