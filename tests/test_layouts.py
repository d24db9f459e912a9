"""Layouts of data sets: twins are written in them, the check accepts those and names every planted slip."""

import csv
import dataclasses
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facecomp.data import checking, tables
from facecomp.data.annotations import annotations, write_annotations
from facecomp.data.catalogue import DISFA_AUS
from facecomp.data.catalogue_emotions import CREMAD_SENTENCES
from facecomp.data.layouts import LAYOUTS, check_layout, find_layout, layout_tree
from facecomp.data.schema import SYNTHETIC, TRUTH
from facecomp.data.twins import Wanted, finished_clips, synthetic_recording, write_layout
from facecomp.records.files import InputError

FRAMES = 8


class FakeRecording:
    """What a recording offers, without a renderer: grey ramps, and truth that differs by seed and frame."""

    def __init__(self, wanted: Wanted):
        self.wanted, self.n_frames, self.fps = wanted, wanted.frames, wanted.fps
        self.size, self.expression = wanted.size, wanted.expression
        random = np.random.default_rng([wanted.identity, wanted.seed])
        t = np.linspace(0, 1, wanted.frames)[:, None]
        self.onset, self.apex, self.offset = 1, wanted.frames // 2, wanted.frames - 2
        self.aus = 5 * np.sin(np.pi * t) * random.uniform(0.3, 1, 12)
        self.landmarks = random.uniform(2, 30, (1, 68, 2)) + t[..., None]
        self.gaze = 0.3 * np.sin(t + random.uniform(0, 1, 2))
        self.pose = 0.1 * np.sin(t + random.uniform(0, 1, 3))
        self.labels = np.array([wanted.expression or "neutral"] * wanted.frames)

    def frame(self, t: int) -> np.ndarray:
        height, width = self.size
        ramp = np.linspace(20, 200, height * width).reshape(height, width, 1)
        return (ramp + [t % 50, 2 * t % 50, self.wanted.identity % 50]).astype(np.uint8)

    def frames(self):
        return (self.frame(t) for t in range(self.n_frames))


def fake_recording(wanted: Wanted) -> FakeRecording:
    return FakeRecording(wanted)


def write(name: str, root: Path, **more):
    asked = {"participants": 2, "frames": FRAMES, "size": 32, **more}
    return write_layout(name, asked.pop("factory", fake_recording), root, **asked)


@pytest.fixture(scope="session")
def twins(tmp_path_factory):
    """Folder of a finished twin by name; written once, never to be changed."""
    top, made = tmp_path_factory.mktemp("twins"), {}

    def twin(name: str) -> Path:
        if name not in made:
            write(name, top / name)
            made[name] = top / name
        return made[name]

    return twin


@pytest.fixture
def copy(twins, tmp_path):
    """A copy of a twin that a test may damage."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(twins(name), tmp_path / name))

    return copied


def content(root: Path, *without: str) -> dict[str, bytes]:
    """All files of a twin but receipts (they hold the time) and locks."""
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.name.endswith((".receipt.json", ".lock", ".holder"))
    }


# --- names -----------------------------------------------------------------------------------------------------


def test_sixteen_layouts_and_their_other_names():
    assert len(LAYOUTS) == 16
    for said, name in {
        "DISFA": "disfa", "CK+": "ckplus", "cohn-kanade": "ckplus", "CASME II": "casme2", "casme-ii": "casme2",
        "SMIC-HS": "smic", "CREMA-D": "cremad", "enterface": "enterface05", "eNTERFACE05": "enterface05",
        "VoxCeleb1": "voxceleb", "vox2": "voxceleb2", "BP4D-Spontaneous": "bp4d", "megc": "megc2021",
        "FERV39k": "ferv39k", "Gaze-360": "gaze360", "MAFW": "mafw",
    }.items():  # fmt: skip
        assert find_layout(said).name == name


@pytest.mark.parametrize("name, near", [("disfaa", "disfa"), ("dfwe", "dfew"), ("voxceleb3", "voxceleb")])
def test_unknown_name_names_the_nearest(name, near):
    with pytest.raises(InputError, match=f"did you mean {near}") as caught:
        find_layout(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="did you mean"):
        check_layout(name, "/nowhere")


@pytest.mark.parametrize("name", LAYOUTS)
def test_tree_names_each_part(name):
    text = layout_tree(name)
    assert all(f"[{part.name}, " in text for part in LAYOUTS[name].parts)


# --- twins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_twin_passes_the_check(name, twins):
    report = check_layout(name, twins(name), deep=True)
    assert report.ok, report.fault
    written = [p.name for p in LAYOUTS[name].parts if p.written]
    assert [line.split(":")[0] for line in report.right] == written
    assert report.notes[0].startswith("a synthetic twin")
    if LAYOUTS[name].person:
        assert len(report.people) == 2 and (report.people > 0).all(axis=None)
    assert "\nnothing is wrong" in str(report)


@pytest.mark.parametrize("name", LAYOUTS)
def test_twin_says_what_it_is_and_keeps_its_truth(name, twins):
    root = twins(name)
    text = (root / SYNTHETIC).read_text()
    assert "synthetic" in text and "seed: 0" in text and f"layout: {name}" in text
    clips = finished_clips(root)
    assert len(clips) == 2 * len(LAYOUTS[name].takes)
    for clip in clips:
        truth = clip.truth
        assert len(truth) == clip.frames and truth["frame"].tolist() == list(range(clip.frames))
        assert 0 <= clip.onset <= clip.apex <= clip.offset < clip.frames
        media = root / clip.truth_file.relative_to(root / TRUTH).with_suffix("")
        assert media.is_dir() or list(media.parent.glob(media.name + ".*"))


def test_truth_is_that_of_the_recording(twins):
    clip = finished_clips(twins("disfa"))[0]
    person = clip.fields["subject"]
    asked = []
    write("disfa", twins("disfa").parent / "again", factory=lambda w: asked.append(w) or fake_recording(w))
    recording = fake_recording(asked[0])
    assert person == asked[0].person == "SN001"
    np.testing.assert_allclose(clip.truth[[f"AU{a:02d}" for a in DISFA_AUS]], recording.aus, rtol=1e-8)
    np.testing.assert_allclose(clip.truth["y_67"], recording.landmarks[:, 67, 1], rtol=1e-8)
    np.testing.assert_allclose(clip.truth[["gaze_pitch", "gaze_yaw"]], recording.gaze, rtol=0, atol=1e-8)
    np.testing.assert_allclose(clip.truth["time"], np.arange(FRAMES) / 20)


def test_disfa_labels_are_rounded_intensities(twins):
    root = twins("disfa")
    truth = pd.read_csv(root / TRUTH / "Videos_LeftCamera" / "LeftVideoSN002_comp.csv")
    for au in DISFA_AUS:
        lines = (root / "ActionUnit_Labels" / "SN002" / f"SN002_au{au}.txt").read_text().splitlines()
        wanted = np.rint(truth[f"AU{au:02d}"]).astype(int)
        assert lines == [f"{t},{v}" for t, v in enumerate(wanted, 1)]
    assert wanted.max() >= 2
    images = {p.name for p in (root / "individual_frames_for_analysis/SN002/face_only_aligned").iterdir()}
    assert images == {f"frame{k}.jpg" for k in range(1, FRAMES + 1)}


def test_ckplus_files_are_in_the_original_style(twins):
    root = twins("ckplus")
    folder = root / "cohn-kanade-images" / "S005" / "003"
    images = sorted(p.name for p in folder.iterdir())
    assert images == [f"S005_003_{k:08d}.png" for k in range(1, FRAMES // 2 + 2)]  # neutral to apex
    last = images[-1].removesuffix(".png")
    assert (root / f"Emotion/S005/003/{last}_emotion.txt").read_text() == "   3.0000000e+00\n"
    points = (root / f"Landmarks/S005/003/{last}_landmarks.txt").read_text().splitlines()
    assert len(points) == 68 and all(len(line.split()) == 2 and "e+0" in line for line in points)
    units = np.loadtxt(root / f"FACS/S005/003/{last}_facs.txt", ndmin=2)
    assert set(units[:, 0]) <= set(DISFA_AUS) and (units[:, 1] >= 1).all() and (units[:, 1] <= 5).all()


def test_casme2_sheet_counts_in_image_numbers(twins):
    root = twins("casme2")
    sheet = pd.read_csv(root / "CASME2-coding-20140508.csv")
    names = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]
    assert list(sheet) == names and len(sheet) == 14
    row = sheet.iloc[8]
    folder = root / "CASME2_RAW_selected" / f"sub{row.Subject:02d}" / row.Filename
    numbers = sorted(int(p.stem[3:]) for p in folder.iterdir())
    assert numbers == list(range(46, 46 + FRAMES))
    assert (row.OnsetFrame, row.ApexFrame, row.OffsetFrame) == (47, 46 + FRAMES // 2, 46 + FRAMES - 2)


def test_samm_is_grey_and_gaze_lists_hold_unit_vectors(twins):
    picture = next((twins("samm") / "006" / "006_1_1").iterdir())
    assert picture.name == "006_05562.jpg" or picture.name.startswith("006_055")
    assert cv2.imread(str(picture), cv2.IMREAD_UNCHANGED).ndim == 2
    path, *vector = (twins("gaze360") / "validation.txt").read_text().splitlines()[0].split()
    assert path == "rec_001/head/000000/000000.jpg"
    truth = pd.read_csv(twins("gaze360") / TRUTH / "imgs" / "rec_001" / "head" / "000000.csv").iloc[0]
    p, q = truth.gaze_pitch, truth.gaze_yaw
    wanted = [np.cos(p) * np.sin(q), np.sin(p), -np.cos(p) * np.cos(q)]
    np.testing.assert_allclose(list(map(float, vector)), wanted, atol=1e-12)


def test_megc_pairs_follow_the_official_order(tmp_path):
    write("megc2021", tmp_path / "megc", participants=9, frames=3)
    rows = list(csv.DictReader((tmp_path / "megc" / "MEGC2021_test.csv").open()))
    assert len(rows) == 18 and list(rows[0]) == ["distance", "source", "driving", "frame"]
    assert [r["driving"] for r in rows[:3]] == ["Surprise_007_7_1", "Positive_022_3_3", "Negative_018_3_1"]
    assert [r["source"] for r in rows[::3][:4]] == ["normalized_westernMale", "normalized_asianFemale"] * 2
    assert check_layout("megc2021", tmp_path / "megc").ok


def test_same_seed_same_bytes_whatever_the_processes(tmp_path):
    for folder, jobs in (("one", 1), ("two", 2)):
        write("voxceleb", tmp_path / folder, jobs=jobs, participants=3)
    write("voxceleb", tmp_path / "other", seed=1, participants=3)
    one, two, other = (content(tmp_path / x) for x in ("one", "two", "other"))
    assert one == two and len(one) > 40
    assert one.keys() == other.keys() and one != other


def test_a_participant_is_the_same_person_in_every_layout(tmp_path):
    asked = []
    for name in ("disfa", "voxceleb2"):
        write(name, tmp_path / name, factory=lambda w: asked.append(w) or fake_recording(w))
    people = {name: {w.identity for w in asked if w.person.startswith(name)} for name in ("SN", "id")}
    assert people["SN"] == people["id"] == {0, 1}
    assert len({w.seed for w in asked}) == len(asked)  # what happens differs from clip to clip


def test_finished_participants_are_skipped_and_damaged_ones_made_again(tmp_path):
    root = tmp_path / "twin"
    assert write("smic", root).made == ("s1", "s2")
    before = content(root)
    assert write("smic", root).there == ("s1", "s2")
    next((root / "SMIC_all_raw/HS/s2/micro/negative/s2_ne_01").iterdir()).write_bytes(b"damaged")
    again = write("smic", root)
    assert (again.made, again.there) == (("s2",), ("s1",)) and content(root) == before
    more = write("smic", root, participants=3)
    assert (more.made, more.clips) == (("s3",), 9)
    assert {k: v for k, v in content(root).items() if k in before} == before


def test_stopped_half_way_and_started_again(tmp_path):
    count = 0

    def failing(wanted):
        nonlocal count
        count += 1
        if count == 10:  # in the middle of the second participant
            raise InputError("stopped")
        return fake_recording(wanted)

    failing.__qualname__, failing.__module__ = "fake_recording", fake_recording.__module__
    with pytest.raises(InputError, match="stopped"):
        write("dfew", tmp_path / "twin", factory=failing)
    assert len(finished_clips(tmp_path / "twin")) == 7
    assert write("dfew", tmp_path / "twin").made == ("P002",)
    write("dfew", tmp_path / "whole")
    assert content(tmp_path / "twin") == content(tmp_path / "whole")


def test_a_twin_never_lands_among_other_files(tmp_path):
    (tmp_path / "mine.txt").write_text("real data")
    with pytest.raises(InputError, match="holds something else; rule: a new or empty folder"):
        write("disfa", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    write("disfa", tmp_path / "twin", participants=1)
    for more, said in (({"seed": 1}, "seed is 0"), ({"frames": 9}, "frames is 8"), ({"size": 48}, "size is 32 x 32")):
        with pytest.raises(InputError, match=said):
            write("disfa", tmp_path / "twin", **more)
    with pytest.raises(InputError, match="layout is disfa"):
        write("samm", tmp_path / "twin")


@pytest.mark.parametrize(
    "more, said",
    [
        ({"participants": 28}, "participants 28: DISFA has names for 27"),
        ({"participants": 0}, "participants 0: must be a whole number of at least 1"),
        ({"frames": 0}, "frames 0"),
        ({"jobs": 0}, "jobs 0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_impossible_requests(tmp_path, more, said):
    with pytest.raises(InputError, match=said):
        write("disfa", tmp_path / "twin", **more)
    assert not (tmp_path / "twin").exists()


def test_a_real_synthetic_participant(tmp_path):
    write("disfa", tmp_path / "twin", factory=synthetic_recording, participants=1, frames=3, size=64)
    assert check_layout("disfa", tmp_path / "twin", deep=True).ok


# --- the check -------------------------------------------------------------------------------------------------


def edit(path: Path, line: int, text: str) -> None:
    """Replace a line (from 1) of a text file."""
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


def put(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def move(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


SPLIT = "EmoLabel_DataSplit/train(single-labeled)/set_2.csv"
MAFW_SPLIT = "Train & Test Set/single/no_caption/set_1/test.txt"
CODING, SAMM_CODING = "CASME2-coding-20140508.csv", "SAMM_Micro_FACS_Codes_v2.csv"
CREMA, ENTER = "VideoFlash/1001_DFA_ANG_XX.flv", "subject 1/anger/sentence 1/s1_an_1.avi"
RAV = "Actor_01/02-01-05-01-01-01-01.mp4"
RAV_FACES = "face_aligned/Actor_01/02-01-01-01-01-01-01"
VOX = "Synthetic_Person_001/1.6/synth000000/0000001"

PLANTED = [  # data set, what is done to it, what the fault must begin with, what it must hold
    ("disfa", lambda r: edit(r / "ActionUnit_Labels/SN001/SN001_au6.txt", 4, "4,6"),
     "ActionUnit_Labels/SN001/SN001_au6.txt, line 4: intensity is '6'", "an integer from 0 to 5"),
    ("disfa", lambda r: edit(r / "ActionUnit_Labels/SN001/SN001_au6.txt", 4, "4,2.5"),
     "ActionUnit_Labels/SN001/SN001_au6.txt, line 4: intensity is '2.5'", "integer"),
    ("disfa", lambda r: edit(r / "ActionUnit_Labels/SN002/SN002_au1.txt", 3, "2,0"),
     "ActionUnit_Labels/SN002/SN002_au1.txt, line 3: frame is '2'", "counts 1, 2, 3"),
    ("disfa", lambda r: (r / "ActionUnit_Labels/SN002/SN002_au12.txt").unlink(),
     "ActionUnit_Labels/SN002: au 12 missing", "a file for each of 1, 2, 4"),
    ("disfa", lambda r: edit(r / "ActionUnit_Labels/SN002/SN002_au4.txt", FRAMES, ""),
     "ActionUnit_Labels/SN002/SN002_au4.txt: has 7 lines", "equally many"),
    ("disfa", lambda r: shutil.copytree(r / "ActionUnit_Labels/SN001", r / "ActionUnit_Labels/SN014"),
     "ActionUnit_Labels/SN014/SN001_au1.txt: says subject SN001, its folder SN014", "both say the same"),
    ("disfa", lambda r: put(r / "Videos_LeftCamera/LeftVideoSN015_comp.avi"),
     "Videos_LeftCamera/LeftVideoSN015_comp.avi: DISFA has no subject SN015", "27 that exist"),
    ("disfa", lambda r: put(r / "Videos_LeftCamera/LeftVideoSN3_comp.avi"),
     "Videos_LeftCamera/LeftVideoSN3_comp.avi: is named wrongly", "SN and three digits"),
    ("disfa", lambda r: put(r / "Videos_LeftCamera/LeftVideoSN003_comp.avi", b""),
     "Videos_LeftCamera/LeftVideoSN003_comp.avi: is empty (0 bytes)", ""),
    ("disfa", lambda r: put(r / "SN001/face_only_aligned/frame007.jpg"),
     "SN001/face_only_aligned/frame007.jpg: is named wrongly", "without leading zeros"),
    ("disfa", lambda r: (r / "SN003/face_only_aligned").mkdir(parents=True),
     "SN003/face_only_aligned: holds no images", "at least one"),
    ("disfa", lambda r: put(r / "ActionUnit_Labels/SN001/SN001_au6.txt", b"\xff\xd8\xff\xe0 a jpeg"),
     "ActionUnit_Labels/SN001/SN001_au6.txt: byte 0 is not utf-8", ""),
    ("dfew", lambda r: edit(r / SPLIT, 2, "1,8"), f"{SPLIT}, line 2: label is '8'", "an integer from 1 to 7"),
    ("dfew", lambda r: edit(r / SPLIT, 2, "1,0"), f"{SPLIT}, line 2: label is '0'", "from 1 to 7"),
    ("dfew", lambda r: edit(r / SPLIT, 3, (r / SPLIT).read_text().splitlines()[3]),
     f"{SPLIT}, line 4: ", "each video_name once (first on line 3)"),
    ("dfew", lambda r: edit(r / SPLIT, 1, "clip,class"), f"{SPLIT}, line 1: 'clip,class'", "a header with video_name, label"),
    ("dfew", lambda r: edit(r / SPLIT, 2, "99999,1"), f"{SPLIT}, line 2: video_name is '99999'", "16372"),
    ("dfew", lambda r: (r / "Clip/clip_224x224_16f/00003/16.jpg").unlink(),
     "Clip/clip_224x224_16f/00003: has 15 images", "rule: 16"),
    ("dfew", lambda r: move(r / "Clip/clip_224x224_16f/00003/16.jpg", "017.jpg"),
     "Clip/clip_224x224_16f/00003/017.jpg: is named wrongly", "1 to 16"),
    ("dfew", lambda r: put(r / "Clip/clip_224x224_16f/00003/01.jpg"),
     "Clip/clip_224x224_16f/00003: image 1 is there twice", "each number once"),
    ("dfew", lambda r: move(r / "jpg_256/00004", "4"), "jpg_256/4: is named wrongly", "clip: 5 digits"),
    ("dfew", lambda r: move(r / "jpg_256/00004", "16373"), "jpg_256/16373: DFEW has no clip 16373", "16372 that exist"),
    ("dfew", lambda r: (r / "jpg_256/00004/00001.jpg").write_bytes(b""), "jpg_256/00004/00001.jpg: is empty", ""),
    ("dfew", lambda r: shutil.rmtree(r / "EmoLabel_DataSplit"), "", "no splits; rule: EmoLabel_DataSplit"),
    ("ferv39k", lambda r: edit(r / "4_setups/All_scenes/test_All.csv", 1, "Crime/Angry/0063 Furious"),
     "4_setups/All_scenes/test_All.csv, line 1: label is 'Furious'", "one of Happy, Sad"),
    ("ferv39k", lambda r: edit(r / "4_setups/All_scenes/test_All.csv", 1, "Crime/Angry/63 Angry"),
     "4_setups/All_scenes/test_All.csv, line 1: clip is 'Crime/Angry/63'", "four digits"),
    ("ferv39k", lambda r: move(r / "2_ClipsforFaceCrop/Crime/Angry", "angry"),
     "2_ClipsforFaceCrop/Crime/angry: is named wrongly", "Angry"),
    ("mafw", lambda r: edit(r / MAFW_SPLIT, 1, "00005.mp4 joy"), f"{MAFW_SPLIT}, line 1: label is 'joy'", "anger"),
    ("mafw", lambda r: edit(r / MAFW_SPLIT, 1, "5.mp4 anger"), f"{MAFW_SPLIT}, line 1: video is '5.mp4'", "five digits"),
    ("mafw", lambda r: edit(r / MAFW_SPLIT, 1, "00005.mp4"), f"{MAFW_SPLIT}, line 1: has 1 fields", "2 (video, label)"),
    ("ravdess", lambda r: move(r / RAV, "02-01-05-01-01-01-02.mp4"),
     "Actor_01/02-01-05-01-01-01-02.mp4: says actor 02, its folder 01", ""),
    ("ravdess", lambda r: move(r / RAV, "02-01-09-01-01-01-01.mp4"),
     "Actor_01/02-01-09-01-01-01-01.mp4: RAVDESS has no emotion 09", "01, 02"),
    ("ravdess", lambda r: move(r / RAV, "02-01-01-02-01-01-01.mp4"),
     "Actor_01/02-01-01-02-01-01-01.mp4: cannot be", "never spoken with strong intensity"),
    ("ravdess", lambda r: move(r / "Actor_01", "Actor_1"), "Actor_1: is named wrongly", "actor: 2 digits"),
    ("ravdess", lambda r: move(r / RAV, "clip.mp4"), "Actor_01/clip.mp4: is named wrongly", "{modality}-{channel}"),
    ("ravdess", lambda r: put(r / RAV_FACES / "a.jpg"), f"{RAV_FACES}/a.jpg: is named wrongly", "frame: digits"),
    ("cremad", lambda r: move(r / CREMA, "1092_DFA_ANG_XX.flv"), "VideoFlash/1092_DFA_ANG_XX.flv: CREMA-D has no actor 1092", "91"),
    ("cremad", lambda r: move(r / CREMA, "1001_DFA_JOY_XX.flv"), "VideoFlash/1001_DFA_JOY_XX.flv: is named wrongly", "emotion: one of ANG"),
    ("cremad", lambda r: (r / CREMA).write_bytes(b""), f"{CREMA}: is empty", ""),
    ("enterface05", lambda r: move(r / "subject 1", "subject 45"), "subject 45/anger/sentence 1/s1_an_1.avi: eNTERFACE05 has no subject 45", ""),
    ("enterface05", lambda r: move(r / ENTER, "s1_xx_1.avi"), "subject 1/anger/sentence 1/s1_xx_1.avi: is named wrongly", "code: one of an"),
    ("voxceleb", lambda r: [p.unlink() for p in sorted((r / VOX).iterdir())[2:]],
     "Vox1.txt, line 1: " + VOX + " has 2 images", "at least 4"),
    ("voxceleb", lambda r: edit(r / "Vox1.txt", 2, "SN001/face_only_aligned"), "Vox1.txt, line 2: folder is", "<identity>/1.6/<video>"),
    ("voxceleb", lambda r: move(r / "Synthetic_Person_001/1.6/synth000000", "short"),
     "Synthetic_Person_001/1.6/short: is named wrongly", "11 letters"),
    ("voxceleb2", lambda r: move(r / "dev/mp4/id00012", "id12"), "dev/mp4/id12: is named wrongly", "id and five digits"),
    ("voxceleb2", lambda r: (r / "dev/mp4/id00012/synth000000/00001.mp4").write_bytes(b""),
     "dev/mp4/id00012/synth000000/00001.mp4: is empty", ""),
    ("gaze360", lambda r: edit(r / "test.txt", 2, "rec_002/head/000000/000001.jpg 0.5 0.5 0.5"),
     "test.txt, line 2: 0.5 0.5 0.5", "a vector of length 1 (this one has 0.866)"),
    ("gaze360", lambda r: edit(r / "test.txt", 2, "rec_002/head/000000/000001.jpg 0 0 nan"),
     "test.txt, line 2: z is 'nan'", "-1 to 1"),
    ("gaze360", lambda r: edit(r / "test.txt", 2, "rec_2/head/0/1.jpg 0 0 -1"), "test.txt, line 2: image is", "rec_<3 digits>"),
    ("casme2", lambda r: edit(r / CODING, 3, "1,EP03_01f,47,60,50,4,disgust"),
     f"{CODING}, line 3: OffsetFrame is '50'", "not below ApexFrame (60)"),
    ("casme2", lambda r: edit(r / CODING, 3, "27,EP03_01f,47,50,52,4,disgust"), f"{CODING}, line 3: Subject is '27'", "1 to 26"),
    ("casme2", lambda r: edit(r / CODING, 3, "1,EP03_01f,47,50,52,4,joy"), f"{CODING}, line 3: Estimated Emotion is 'joy'", "happiness"),
    ("casme2", lambda r: edit(r / CODING, 3, (r / CODING).read_text().splitlines()[1]), f"{CODING}, line 3: ", "each Subject and Filename once"),
    ("casme2", lambda r: (r / CODING).unlink(), "", "no coding; rule: CASME2-coding-"),
    ("casme2", lambda r: move(r / "CASME2_RAW_selected/sub01", "s1"), "CASME2_RAW_selected/s1: is named wrongly", "sub and two digits"),
    ("samm", lambda r: edit(r / SAMM_CODING, 2, "006,6_1_1,1,2,3,Happiness,12"), f"{SAMM_CODING}, line 2: Filename is '6_1_1'", "006_1_2"),
    ("samm", lambda r: move(r / "006/006_1_1", "007_1_1"), "006/007_1_1: says subject 007, its folder 006", ""),
    ("samm", lambda r: move(r / "006", "005"), "005/006_1_1: says subject 006", "both"),
    ("smic", lambda r: move(r / "SMIC_all_raw/HS/s1/micro/negative/s1_ne_01", "s1_po_01"),
     "SMIC_all_raw/HS/s1/micro/negative/s1_po_01: cannot be", "the folder negative"),
    ("smic", lambda r: move(r / "SMIC_all_raw/HS/s1", "s21"), "SMIC_all_raw/HS/s21/micro/negative/s1_ne_01: SMIC-HS has no subject s21", ""),
    ("megc2021", lambda r: move(r / "source_samples/SAMM_challenge/Surprise_007_7_1", "Negative_007_7_1"),
     "source_samples/SAMM_challenge/Negative_007_7_1: cannot be", "nine driving clips"),
    ("megc2021", lambda r: (r / "target_template_face/normalized_asianFemale.jpg").unlink(),
     "target_template_face: face asianFemale missing", "a file for each of westernMale, asianFemale"),
    ("megc2021", lambda r: edit(r / "MEGC2021_test.csv", 2, "0,normalized_martian,Surprise_007_7_1,0"),
     "MEGC2021_test.csv, line 2: source is 'normalized_martian'", "normalized_westernMale"),
    ("bp4d", lambda r: edit(r / "AUCoding/AU_OCC/F001_T1.csv", 3, ",".join(["2", *["2"] * 27])),
     "AUCoding/AU_OCC/F001_T1.csv, line 3: 1 is '2'", "0 absent, 1 present, 9 not coded"),
    ("bp4d", lambda r: edit(r / "AUCoding/AU_OCC/F001_T1.csv", 1, "frame,AU1"), "AUCoding/AU_OCC/F001_T1.csv, line 1: column 'AU1'", "AU number"),
    ("bp4d", lambda r: edit(r / "AUCoding/AU_INT/AU12/M001_T2_AU12.csv", 2, "2,7"), "AUCoding/AU_INT/AU12/M001_T2_AU12.csv, line 2: intensity is '7'", ""),
    ("bp4d", lambda r: move(r / "2D+3D/F001", "F024"), "2D+3D/F024/T1/F001_T1_0001.jpg: says subject F001", "both"),
    ("bp4d", lambda r: move(r / "2D+3D/F001/T1", "T9"), "2D+3D/F001/T9: is named wrongly", "T1"),
    ("ckplus", lambda r: edit(next((r / "Emotion/S005/001").iterdir()), 1, "   8.0000000e+00"), "Emotion/S005/001/", "an integer from 0 to 7"),
    ("ckplus", lambda r: edit(next((r / "FACS/S005/001").iterdir()), 1, "   1.0000000e+00   6.0000000e+00"), "FACS/S005/001/", "from 0 to 5"),
    ("ckplus", lambda r: edit(r / "Landmarks/S005/001/S005_001_00000001_landmarks.txt", 68, ""),
     "Landmarks/S005/001/S005_001_00000001_landmarks.txt: has 67 lines", "rule: 68"),
    ("ckplus", lambda r: move(r / "cohn-kanade-images/S005/001/S005_001_00000002.png", "S005_001_2.png"),
     "cohn-kanade-images/S005/001/S005_001_2.png: is named wrongly", "8 digits"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(PLANTED)), ids=lambda k: f"{PLANTED[k][0]}-{k}")
def test_planted_slip_is_the_fault(case, copy):
    name, damage, start, rule = PLANTED[case]
    root = copy(name)
    damage(root)
    report = check_layout(name, root)
    assert not report.ok and "\n" not in report.fault
    assert report.fault.startswith(start or str(root)) and rule in report.fault, report.fault
    assert str(report).endswith(f"wrong: {report.fault}")
    assert any(" found" in note for note in report.notes) or report.right  # still counted


def test_every_data_set_has_planted_slips():
    assert {name for name, *_ in PLANTED} == LAYOUTS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_wrong_folders(name, twins, tmp_path):
    assert check_layout(name, tmp_path / "absent").fault == f"{tmp_path / 'absent'}: does not exist"
    (tmp_path / "file").write_text("x")
    assert check_layout(name, tmp_path / "file").fault.endswith("is not a folder")
    (tmp_path / "empty").mkdir()
    fault = check_layout(name, tmp_path / "empty").fault
    assert "holds nothing of" in fault and "rule: a folder with files like" in fault
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    assert not check_layout(name, tmp_path / "link").ok


def test_the_folder_above_gets_a_hint(copy):
    root = copy("disfa")
    assert f"did you mean {root}?" in check_layout("disfa", root.parent).fault


def test_partial_copies_are_notes(copy):
    root = copy("disfa")
    shutil.rmtree(root / "Videos_LeftCamera")
    shutil.rmtree(root / "ActionUnit_Labels" / "SN001")
    report = check_layout("disfa", root)
    assert report.ok and report.people.loc["SN001", "labels"] == 0
    assert any(note.startswith("no videos (Videos_LeftCamera/") for note in report.notes)
    assert any(note.startswith("2 of 27 people: missing SN003, SN004") for note in report.notes)
    root = copy("dfew")
    shutil.rmtree(root / "jpg_256" / "00001")
    report = check_layout("dfew", root)
    assert report.ok and "5 of 70 rows of splits have no frames here" in report.notes
    put(root / "jpg_256" / "00100" / "00001.jpg")
    assert any("stand in none of the splits (first: 00100)" in n for n in check_layout("dfew", root).notes)


def test_gaps_are_noted_and_odd_names_trusted_by_folder(copy):
    root = copy("casme2")
    (root / "CASME2_RAW_selected/sub01/EP02_01f/img48.jpg").unlink()
    report = check_layout("casme2", root)
    assert report.ok and "gaps in raw: CASME2_RAW_selected/sub01/EP02_01f: image 48 is missing" in report.notes
    root = copy("enterface05")
    move(root / ENTER, "s12_an_1.avi")
    report = check_layout("enterface05", root)
    assert report.ok and any("s12, the folder is trusted" in note for note in report.notes)


@pytest.mark.parametrize("coding", ["mark", "windows", "utf-16", "semicolons", "blank lines", "leading zeros"])
def test_label_files_as_excel_and_windows_leave_them(coding, copy):
    root = copy("dfew")
    for path in root.rglob("set_*.csv"):
        text = path.read_text()
        if coding == "mark":
            path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        elif coding == "windows":
            path.write_bytes(text.replace("\n", "\r\n").encode())
        elif coding == "utf-16":
            path.write_bytes(text.encode("utf-16"))
        elif coding == "semicolons":
            path.write_text(text.replace(",", ";"))
        elif coding == "blank lines":
            path.write_text(text.replace("\n", "\n\n") + "\n\n")
        else:
            path.write_text("\n".join(x if "v" in x else x.zfill(7) for x in text.splitlines()))
    report = check_layout("dfew", root)
    assert report.ok and "10 files, 70 lines" in " ".join(report.right)
    assert not any("no frames here" in note for note in report.notes)


def test_known_variants_of_the_trees(copy):
    root = copy("disfa")
    move(root / "Videos_LeftCamera", "video_leftcamera")
    move(root / "video_leftcamera/LeftVideoSN001_comp.avi", "leftVideoSN001_Comp.avi")
    (root / "individual_frames_for_analysis/SN001").rename(root / "SN001")
    put(root / "ActionUnit_Labels/Thumbs.db")
    put(root / "notes.txt")
    report = check_layout("disfa", root)
    assert report.ok and report.people.loc["SN001"].tolist() == [1, 12, 1, FRAMES]
    root = copy("bp4d")
    for path in (root / "2D+3D/F001/T1").iterdir():
        move(path, path.name.split("_")[-1])  # names of the release
    assert check_layout("bp4d", root).ok
    path = root / "AUCoding/AU_INT/AU12/F001_T1_AU12.csv"
    path.write_text("frame,intensity\n" + path.read_text())
    assert check_layout("bp4d", root).ok
    root = copy("enterface05")
    move(root / "subject 1/anger/sentence 1", "sentence_1")
    move(root / "subject 1", "subject_1")
    assert check_layout("enterface05", root).ok


def test_samm_header_below_remarks_and_unseen_apex(copy):
    root = copy("samm")
    head, first, *rest = (root / SAMM_CODING).read_text().splitlines()
    cells = first.split(",")
    cells[3] = "/"
    remarks = ["SAMM micro-movements,,,,,,", "", "coded by three coders,,,,,,"]
    (root / SAMM_CODING).write_text("\n".join([*remarks, head, ",".join(cells), *rest]))
    assert check_layout("samm", root, deep=True).ok
    edit(root / SAMM_CODING, 5, ",".join([*cells[:2], "x", *cells[3:]]))
    assert check_layout("samm", root).fault.startswith(f"{SAMM_CODING}, line 5: Onset Frame is 'x'")


def test_excel_sheet_without_openpyxl_is_a_note(copy, monkeypatch):
    root = copy("casme2")
    put(root / "CASME2-coding-20190701.xlsx", b"PK")
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    report = check_layout("casme2", root)
    assert report.ok and any("install openpyxl" in note for note in report.notes)


def test_excel_sheet_rows_are_judged_like_csv_rows(copy, monkeypatch):
    """The reader of sheets is replaced, so that this holds where openpyxl is not installed."""
    root = copy("casme2")
    move(root / CODING, "CASME2-coding-20190701.xlsx")
    monkeypatch.setattr(tables, "find_spec", lambda name: True)
    monkeypatch.setattr(tables.pd, "read_excel", lambda path, **more: pd.read_csv(path, **more))
    assert check_layout("casme2", root).ok
    edit(root / "CASME2-coding-20190701.xlsx", 4, "1,EP04_01f,47,50,52,4,joy")
    assert "20190701.xlsx, line 4: Estimated Emotion is 'joy'" in check_layout("casme2", root).fault

    def broken(path, **more):
        raise ValueError("File is not a zip file")

    monkeypatch.setattr(tables.pd, "read_excel", broken)
    assert "is not an Excel sheet that can be read" in check_layout("casme2", root).fault


def test_excel_sheet_with_openpyxl(copy):
    openpyxl = pytest.importorskip("openpyxl")
    root = copy("casme2")
    book = openpyxl.Workbook()
    for row in csv.reader((root / CODING).open()):
        book.active.append(row)
    book.save(root / "CASME2-coding-20190701.xlsx")
    (root / CODING).unlink()
    assert check_layout("casme2", root).ok


def test_quick_reads_no_pixels_and_deep_does(copy, monkeypatch):
    root = copy("disfa")
    calls = []
    real_video, real_image = checking.open_video, checking.read_image
    monkeypatch.setattr(checking, "open_video", lambda p: calls.append(p) or real_video(p))
    monkeypatch.setattr(checking, "read_image", lambda p: calls.append(p) or real_image(p))
    assert check_layout("disfa", root).ok and calls == []
    assert check_layout("disfa", root, deep=True).ok and len(calls) == 2 + 2 * FRAMES


def cut(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


DEEP = [
    ("disfa", lambda r: cut(r / "Videos_LeftCamera/LeftVideoSN001_comp.avi", 0.05), "Videos_LeftCamera/LeftVideoSN001_comp.avi: "),
    ("disfa", lambda r: [(p, p.write_text("\n".join(p.read_text().splitlines()[:-2]))) for p in (r / "ActionUnit_Labels/SN002").iterdir()],
     "ActionUnit_Labels/SN002/SN002_au1.txt: has 6 lines, Videos_LeftCamera/LeftVideoSN002_comp.avi 8 frames; rule: equally many, give or take 1"),
    ("disfa", lambda r: (r / "individual_frames_for_analysis/SN002/face_only_aligned/frame5.jpg").write_bytes(b"no jpeg"),
     "individual_frames_for_analysis/SN002/face_only_aligned/frame5.jpg: "),
    ("voxceleb2", lambda r: cut(r / "dev/mp4/id00012/synth000000/00001.mp4"), "dev/mp4/id00012/synth000000/00001.mp4: "),
    ("casme2", lambda r: edit(r / CODING, 2, "1,EP02_01f,47,50,54,4,happiness"), f"{CODING}, line 2: OffsetFrame is 54"),
    ("megc2021", lambda r: (r / "target_template_face/normalized_asianFemale.jpg").write_bytes(b"x"), "target_template_face/normalized_asianFemale.jpg: "),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(DEEP)), ids=lambda k: f"{DEEP[k][0]}-{k}")
def test_deep_finds_what_quick_does_not(case, copy):
    name, damage, start = DEEP[case]
    root = copy(name)
    damage(root)
    assert check_layout(name, root).ok
    fault = check_layout(name, root, deep=True).fault
    assert fault.startswith(start) and "\n" not in fault, fault


def test_one_frame_more_or_less_is_allowed_in_disfa(copy):
    root = copy("disfa")
    for path in (root / "ActionUnit_Labels/SN001").iterdir():
        path.write_text(path.read_text() + f"{FRAMES + 1},0\n")
    assert check_layout("disfa", root, deep=True).ok


def test_strange_names_and_forbidden_folders(copy):
    root = copy("disfa")
    strange = os.fsdecode(b"LeftVideo\xff\xfe_comp.avi")
    put(root / "Videos_LeftCamera" / strange)
    fault = check_layout("disfa", root).fault
    assert "is named wrongly" in fault and fault.encode("utf-8")
    root = copy("voxceleb2")
    os.symlink(root / "gone", root / "dev/mp4/id00012/synth000000/00002.mp4")
    assert "00002.mp4: cannot be read" in check_layout("voxceleb2", root).fault


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80), name=st.sampled_from(["dfew", "casme2", "gaze360", "ckplus", "bp4d"]), which=st.integers(0, 30))
def test_any_label_file_gives_a_report_never_a_traceback(data, name, which, twins):
    root = twins(name)
    files = [p for p in sorted(root.rglob("*")) if p.suffix in (".csv", ".txt") and TRUTH not in p.parts and p.name != SYNTHETIC]
    path = files[which % len(files)]
    before = path.read_bytes()
    try:
        path.write_bytes(data)
        report = check_layout(name, root)
    finally:
        path.write_bytes(before)
    assert "\n" not in report.fault and str(report)
    assert report.ok or path.name in report.fault


# --- lists -----------------------------------------------------------------------------------------------------


def published(name: str) -> Path:
    path = ROOT.parent / "shared" / "published" / "dfer" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="session")
def names_only(tmp_path_factory):
    """RAVDESS, CREMA-D and eNTERFACE05 as complete trees of one-byte files, by their naming rules."""
    root = tmp_path_factory.mktemp("names")
    speech = [(e, i, s, r) for e in range(1, 9) for i in (1, 2) for s in (1, 2) for r in (1, 2) if (e, i) != (1, 2)]
    for actor in range(1, 25):
        for e, i, s, r in speech:
            for modality in ("01", "02"):
                put(root / f"ravdess/Actor_{actor:02d}/{modality}-01-{e:02d}-{i:02d}-{s:02d}-{r:02d}-{actor:02d}.mp4")
    for actor in range(1001, 1092):
        for sentence in CREMAD_SENTENCES:
            for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
                graded = sentence == "IEO" and emotion != "NEU"
                for intensity in ("LO", "MD", "HI") if graded else ("XX",):
                    put(root / f"cremad/VideoFlash/{actor}_{sentence}_{emotion}_{intensity}.flv")
    for subject in [s for s in range(1, 45) if s != 6]:
        for emotion in ("anger", "disgust", "fear", "happiness", "sadness", "surprise"):
            for n in range(1, 6):
                if (subject, emotion) != (23, "happiness") or n > 3:
                    code = f"s{12 if subject == 11 else subject}_{emotion[:2]}_{n}"
                    put(root / f"enterface05/subject {subject}/{emotion}/sentence {n}/{code}.avi")
    put(root / "enterface05/subject 6/anger/s6_an_1.avi")
    return root


@pytest.fixture(scope="session")
def counts():
    """Published number of clips: (data set, fold, subset, label) to clips."""
    rows = csv.DictReader(published("splits.csv").open())
    return {(r["dataset"], r["fold"], r["subset"], int(r["label"])): int(r["clips"]) for r in rows}


def classes(entries) -> dict[int, int]:
    return {label: sum(x == label for _, x in entries) for label in sorted({x for _, x in entries})}


def test_ravdess_folds_have_the_published_counts(names_only, counts):
    for fold in range(1, 7):
        made = annotations("ravdess", names_only / "ravdess", fold)
        assert (len(made["train"]), len(made["test"])) == (1200, 240)
        for subset in ("train", "test"):
            wanted = {label: counts["ravdess", f"split{fold:02d}", subset, label] for label in range(8)}
            assert classes(made[subset]) == wanted
    assert made.notes == ("1,440 clips of another kind left out",)
    report = check_layout("ravdess", names_only / "ravdess")
    assert report.ok and report.classes.loc["01"].tolist() == [8, *[16] * 7]


def test_enterface_folds_have_the_published_counts(names_only, counts):
    for fold in range(1, 6):
        made = annotations("enterface05", names_only / "enterface05", fold)
        for subset in ("train", "test"):
            wanted = {label: counts["enterface", f"split{fold:02d}", subset, label] for label in range(6)}
            assert classes(made[subset]) == wanted
    assert made.notes == ("1 clips of no fold left out",)
    assert ("face_aligned/subject_11/anger/sentence_1/s12_an_1", 0) in made["train"]


def test_cremad_folds_have_the_published_counts(names_only, counts):
    """By rule 82 clips an actor; the release lacks 13, 6 and 1 clips of folds 1, 2 and 5."""
    for fold, lacking in enumerate((13, 6, 0, 0, 1), 1):
        made = annotations("cremad", names_only / "cremad", fold)
        wanted = {label: counts["crema-d", f"split{fold:02d}", "test", label] for label in range(6)}
        assert len(made["test"]) == sum(wanted.values()) + lacking
        assert len(made["train"]) + len(made["test"]) == 7442 + 20
        if not lacking:
            assert classes(made["test"]) == wanted


def test_a_partial_copy_keeps_its_folds(names_only, tmp_path):
    for actor in ("03", "09", "24"):
        shutil.copytree(names_only / "ravdess" / f"Actor_{actor}", tmp_path / f"Actor_{actor}")
    tested = [{x[0].split("/")[1] for x in annotations("ravdess", tmp_path, k)["test"]} for k in range(1, 7)]
    assert tested == [{"Actor_03"}, set(), {"Actor_09"}, set(), set(), {"Actor_24"}]


SAMPLES = {
    "ravdess": ("ravdess_split01_test.csv", "data/ravdess"),
    "cremad": ("crema-d_split01_test.csv", "data/crema-d"),
    "enterface05": ("enterface_split01_test.csv", "data/enterface"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_published_samples_stand_in_our_lists(name, names_only, tmp_path):
    file, prefix = SAMPLES[name]
    lines = published(f"samples/{file}").read_text().splitlines()
    write_annotations(tmp_path, annotations(name, names_only / name, 1), prefix)
    ours = (tmp_path / "test.csv").read_text().splitlines()
    assert lines and set(lines) <= set(ours) and ours[0] == lines[0]


def test_dfew_lists_from_the_official_form(tmp_path):
    folder = tmp_path / "EmoLabel_DataSplit"
    for subset in ("train", "test"):
        (folder / f"{subset}(single-labeled)").mkdir(parents=True)
    shutil.copy(published("samples/dfew_set_1_labels.csv"), folder / "train(single-labeled)/set_1.csv")
    (folder / "test(single-labeled)/set_1.csv").write_text("video_name,label\n1,1\n")
    made = annotations("dfew", tmp_path, 1)
    write_annotations(tmp_path / "lists", made, "data/dfew")
    lines = published("samples/dfew_split01_train.csv").read_text().splitlines()
    assert (tmp_path / "lists/train.csv").read_text().splitlines() == lines[: len(made["train"])]
    assert made["val"] == made["test"] == [("jpg_256/00001", 0)]
    with pytest.raises(InputError, match=r"no EmoLabel_DataSplit/train\(single-labeled\)/set_2.csv"):
        annotations("dfew", tmp_path, 2)


def test_mafw_and_ferv39k_lists_have_the_published_form(tmp_path):
    folder = tmp_path / "mafw/Train & Test Set/single/no_caption/set_1"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("03747.mp4 anger\n03785.mp4 anger\n03786.mp4 anger\n")
    (folder / "test.txt").write_text("00001.mp4 disappointment\n")
    write_annotations(tmp_path / "m", annotations("mafw", tmp_path / "mafw"), "data/mafw")
    assert (tmp_path / "m/train.csv").read_text() == published("samples/mafw_split01_train.csv").read_text()
    assert (tmp_path / "m/test.csv").read_text() == "data/mafw/frames/00001 10\n"
    folder = tmp_path / "ferv/4_setups/All_scenes"
    folder.mkdir(parents=True)
    (folder / "train_All.csv").write_text("Crime/Angry/0063 Angry\nDailyLife/Angry/0619 Angry\nArgue\\Surprise\\0196 Surprise\n")
    (folder / "test_All.csv").write_text("Crime/Angry/0001 Angry\n")
    write_annotations(tmp_path / "f", annotations("ferv39k", tmp_path / "ferv"), "data/ferv39k")
    assert (tmp_path / "f/train.csv").read_text() == published("samples/ferv39k_train.csv").read_text()


@pytest.mark.parametrize("name", ["dfew", "mafw"])
def test_each_clip_of_a_twin_is_tested_once(name, twins):
    made = [annotations(name, twins(name), fold) for fold in range(1, 6)]
    tested = [entry for x in made for entry in x["test"]]
    assert len(tested) == len(set(tested)) == len(finished_clips(twins(name)))
    assert all({*x["train"], *x["test"]} == {*tested} and not {*x["train"]} & {*x["test"]} for x in made)
    assert all((twins(name) / clip).is_dir() for clip, _ in tested)


def test_gaze_lists_hold_images_with_a_face(copy, tmp_path):
    root = copy("gaze360")
    (root / "normalized_imgs/rec_001/head/000000/000003.jpg").unlink()
    made = annotations("gaze360", root)
    assert [len(made[s]) for s in ("train", "val", "test")] == [2 * FRAMES, 2 * FRAMES - 1, 2 * FRAMES]
    assert made.notes == ("1 images without a face crop left out",)
    assert all((root / path).is_file() for s in made.lists for path, _ in made[s])
    write_annotations(tmp_path / "lists", made, "data/gaze360")
    line = (tmp_path / "lists/val.csv").read_text().splitlines()[0]
    sample = published("samples/gaze360_val.csv").read_text().splitlines()[0]
    assert len(line.split()) == len(sample.split()) == 4 and line.startswith("data/gaze360/normalized_imgs/rec_")
    shutil.rmtree(root / "normalized_imgs")
    assert annotations("gaze360", root)["train"][0][0].startswith("imgs/rec_000/")


def test_voxceleb2_list_without_what_cannot_be_read(copy):
    root = copy("voxceleb2")
    videos = [e[0] for e in annotations("voxceleb2", root)["train"]]
    assert videos[0] == "dev/mp4/id00012/synth000000/00001.mp4" and len(videos) == 4
    (root / videos[1]).write_bytes(b"not a video")
    made = annotations("voxceleb2", root, decode=True)
    assert made["train"] == [(v, 0) for v in videos if v != videos[1]]
    assert made.notes == ("1 of 4 videos cannot be read and are left out",)


def test_lists_refuse_what_they_cannot_do(twins, tmp_path):
    for name, fold, said in (("samm", 1, "has no clip lists"), ("dfew", 6, "fold 6; rule: 1 to 5"), ("ferv39k", 2, "1 to 1")):
        with pytest.raises(InputError, match=said):
            annotations(name, twins(name), fold)
    with pytest.raises(InputError, match="no clips of CREMA-D"):
        annotations("cremad", tmp_path)
    made = annotations("dfew", twins("dfew"))
    with pytest.raises(InputError, match="holds a blank"):
        write_annotations(tmp_path, made, "my data")


def test_a_catalogue_entry_that_contradicts_itself_is_refused():
    from facecomp.data.catalogue import check_entry

    wrong = dataclasses.replace(LAYOUTS["disfa"].fields["subject"], example="S1")
    layout = dataclasses.replace(LAYOUTS["disfa"], fields={**LAYOUTS["disfa"].fields, "subject": wrong})
    with pytest.raises(ValueError, match="examples do not fit"):
        check_entry(layout)
