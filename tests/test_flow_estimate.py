"""Motion of the face in a video: px of the original frame, energies where they belong, and the same bytes after a kill."""

import argparse
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from facecomp.cli_flow_estimate import add_estimate, run_estimate
from facecomp.faces.actions import AUS
from facecomp.faces.detection import make_table, write_landmark_table
from facecomp.faces.performance import minimum_jerk
from facecomp.faces.synthetic import Recording, participant, record
from facecomp.faces.video import open_video
from facecomp.faces.writing import write_frames
from facecomp.flow.estimate import estimate
from facecomp.flow.files import read_flo
from facecomp.flow.measuring import METHODS, Settings, open_method, read_estimate
from facecomp.flow.methods import METHOD_NAMES
from facecomp.flow.networks import SMALL, FlowNetwork
from facecomp.flow.outputs import key_moments
from facecomp.flow.regions import hull_area
from facecomp.records.files import InputError, read_json

SIDE = 128


def acted(frames: int, blink_at: int | None = None, open_at: int | None = None) -> Recording:
    """A person whose head is still, who blinks at one frame and opens the mouth (AU 25, 26) at another."""
    recording = record(participant(3), frames, size=SIDE, seed=26)
    p, t = recording.performance, np.arange(frames, dtype=float)
    blink, aus = np.zeros(frames), np.zeros_like(p.aus)
    if blink_at is not None:
        blink = minimum_jerk((t - blink_at) / 3) - minimum_jerk((t - blink_at - 4) / 4)
    if open_at is not None:
        for au in (25, 26):
            aus[:, AUS.index(au)] = 5 * minimum_jerk((t - open_at) / 4)
    still = {"turn": p.turn * 0, "shift": p.shift * 0, "lean": p.lean * 0, "gaze": p.gaze * 0}
    recording.performance = replace(p, aus=aus, blink=blink, **still)
    recording.aus = aus
    return recording


def settings(points: Path, **more) -> Settings:
    return Settings(**{"detector": "files", "points": points, "data": "synthetic"} | more)


def written(folder: Path, frames, points: np.ndarray) -> tuple[Path, Path]:
    """A folder of images and the table of their points."""
    write_frames(folder / "film", frames)
    table = make_table(points, np.arange(len(points)) / 25)
    return folder / "film", write_landmark_table(folder / "points.csv", table)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory) -> tuple[Path, Path, np.ndarray]:
    """A face that moves as a whole, by (3, -2) px a frame, in frames larger than it."""
    person = acted(1)
    rng = np.random.default_rng(0)
    picture, points = person.frame(0).astype(np.int16), person.landmarks[0]
    picture = np.clip(picture + rng.integers(-6, 7, picture.shape), 0, 255).astype(np.uint8)
    frames, places = [], []
    for k in range(4):
        corner = np.array([30 + 3 * k, 25 - 2 * k])
        frame = np.zeros((170, 190, 3), np.uint8)
        frame[corner[1] : corner[1] + SIDE, corner[0] : corner[0] + SIDE] = picture
        frames.append(frame)
        places.append(points + corner)
    film, table = written(tmp_path_factory.mktemp("shifted"), frames, np.array(places))
    return film, table, np.array(places)


@pytest.mark.parametrize("method", ["dis", "farneback", "labels"])
def test_a_known_shift_comes_back_in_px_of_the_original_frame(method, shifted, tmp_path):
    film, points, places = shifted
    done = estimate(
        film, tmp_path, settings(points, method=method, video=False, npz=True, smooth=0)
    )
    flow = read_estimate(done.folder, 1)
    face = hull_area(places[1], (170, 190)) & flow.mask
    assert flow.size == (170, 190) and face.sum() > 2000
    assert np.abs(np.median(flow.motion[face], axis=0) - (3, -2)).max() < 0.05
    raw = read_flo(done.folder / "flow" / "000001.flo")
    left, top, right, bottom = read_json(done.folder / "flow.json")["frames"][1]["box"]
    inside = np.zeros((170, 190), bool)
    inside[top:bottom, left:right] = True
    assert (raw[~inside] == np.float32(1e10)).all() and np.array_equal(
        (raw < 1e9).all(-1), flow.mask
    )


def test_the_heads_motion_is_removed_from_energies_and_kept_in_files(shifted, tmp_path):
    film, points, _ = shifted
    away = estimate(film, tmp_path / "a", settings(points, video=False))
    kept = estimate(film, tmp_path / "b", settings(points, video=False, head_motion="keep"))
    away_table, kept_table = (pd.read_csv(done.folder / "motion.csv")[:3] for done in (away, kept))
    assert (away_table["face_px"] < 0.12).all() and (away_table["head_dx"] - 3).abs().max() < 0.05
    assert (kept_table["face_px"] - np.hypot(3, 2)).abs().max() < 0.2
    bodies = [read_flo(done.folder / "flow" / "000000.flo") for done in (away, kept)]
    assert np.array_equal(*bodies)


def test_the_network_sees_the_crop_and_answers_in_px_of_the_frame(shifted, tmp_path):
    film, points, _ = shifted
    network = FlowNetwork(SMALL)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.zero_()
        network.predict1.bias.copy_(torch.tensor([2.0, -1.0]))
    torch.save(network.state_dict(), tmp_path / "constant.pth")
    weights = {"checkpoint": str(tmp_path / "constant.pth"), "device": "cpu"}
    done = estimate(film, tmp_path, settings(points, video=False, **weights))
    about = read_json(done.folder / "flow.json")
    left, top, right, bottom = about["frames"][0]["box"]
    found = read_estimate(done.folder, 0).motion[top:bottom, left:right]
    assert about["method"] == "ours" and len(about["weights"]) == 64
    assert np.allclose(found, (4 * (right - left) / 512, -2 * (bottom - top) / 384), rtol=1e-4)
    again = estimate(film, tmp_path, settings(points, video=False, **weights))
    assert again.state == "skipped"


def test_eyes_peak_at_the_blink_and_the_mouth_at_au_25_and_26(tmp_path):
    person = acted(26, blink_at=4, open_at=17)
    film, points = written(tmp_path, person.frames(), person.landmarks)
    table = pd.read_csv(estimate(film, tmp_path, settings(points)).folder / "motion.csv")
    eyes, mouth = table[["eye_left", "eye_right"]].mean(axis=1), table["mouth"]
    closing = np.abs(np.diff(person.performance.blink)).argmax()
    opening = np.abs(np.diff(person.aus.sum(axis=1))).argmax()
    assert abs(int(eyes.argmax()) - closing) <= 1 and abs(int(mouth.argmax()) - opening) <= 1
    assert eyes.max() > 5 * eyes[15:].max() and mouth.max() > 5 * mouth[:12].max()
    assert (table[["nose", "brow_left", "brow_right"]].max() < 0.5 * mouth.max()).all()
    moments = key_moments(table)
    assert {kind for row, kind in moments if row < 13} == {"eyes"}
    assert {kind for row, kind in moments if row >= 15} == {"mouth"}
    assert table["mouth"][5] * table["eye_distance"][5] * table["seconds"][5] == pytest.approx(
        table["mouth_px"][5]
    )


KILLED = """
import os, signal, sys
import facecomp.flow.estimate as module
from facecomp.cli_flow_estimate import add_estimate, run_estimate
import argparse

moment, arguments = sys.argv[1], sys.argv[2:]
count = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "faces":  # a line is half written
    real = module.track
    def track(frames, detector, table, part, started, tick):
        def ticking(*a):
            global count
            count += 1
            if count == 5:
                with open(part, "a") as file:
                    file.write("5,0.2,1,")
                die()
            return tick(*a)
        return real(frames, detector, table, part, started, ticking)
    module.track = track
elif moment == "flow":  # the file of a pair is there, its line is not; a part of another one lies about
    save = module.Store.save
    def saving(self, frame, flow, box):
        global count
        count += 1
        sums = save(self, frame, flow, box)
        if count == 6:
            (self.folder / "flow" / ".000007.abc.flo").write_bytes(b"PIEH")
            die()
        return sums
    module.Store.save = saving
else:  # in the video
    real_compose = module.compose
    def composing(*a):
        global count
        count += 1
        return die() if count == 7 else real_compose(*a)
    module.compose = composing

parser = argparse.ArgumentParser()
add_estimate(parser)
sys.exit(run_estimate(parser.parse_args(arguments)))
"""


def same_files(folder: Path) -> dict[str, bytes]:
    names = ["landmarks.csv", "motion.csv", "flow.json", "flow.mp4", "motion.png", "strip.png"]
    paths = [folder / name for name in names] + sorted((folder / "flow").iterdir())
    return {path.name: path.read_bytes() for path in paths}


def test_killed_three_times_it_makes_the_same_bytes(tmp_path):
    person = acted(12, blink_at=3)
    film, points = written(tmp_path, person.frames(), person.landmarks)
    (tmp_path / "killed.py").write_text(KILLED)
    line = [str(film), "--detector", "files", "--points", str(points), "--synthetic"]
    folder = tmp_path / "killed" / "film"
    for moment in ("faces", "flow", "pictures"):
        command = [sys.executable, str(tmp_path / "killed.py"), moment, *line]
        done = subprocess.run([*command, "--out", str(folder.parent)], capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not list(folder.glob("*.receipt.json")) and not (folder / "flow.mp4").exists()
        lines = (
            len((folder / ".estimate" / "pairs.jsonl").read_text().splitlines())
            if moment != "faces"
            else -1
        )
        assert lines == {"faces": -1, "flow": 5, "pictures": 12}[moment]
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "flow").glob("0*.flo")}
    last = estimate(film, folder.parent, settings(points))
    assert "going on with the faces and flow of an earlier run" in last.notes
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "flow").glob("*.flo")} == before
    whole = estimate(film, tmp_path / "whole", settings(points))
    assert same_files(folder) == same_files(whole.folder)
    assert len(list((folder / "flow").iterdir())) == 11  # no leftovers


def test_a_finished_one_is_left_alone_until_something_changes(tmp_path):
    person = acted(6, blink_at=1)
    film, points = written(tmp_path, person.frames(), person.landmarks)
    out = tmp_path / "out"
    first = estimate(film, out, settings(points, video=False))
    stamp = (first.folder / "flow" / "000002.flo").stat().st_mtime_ns
    assert estimate(film, out, settings(points, video=False)).state == "skipped"
    redrawn = estimate(film, out, settings(points, video=False, max_radius=2.5))
    assert redrawn.state == "done" and read_json(first.folder / "flow.json")["max_radius"] == 2.5
    assert (first.folder / "flow" / "000002.flo").stat().st_mtime_ns == stamp
    (first.folder / "flow" / "000003.flo").unlink()
    mended = estimate(film, out, settings(points, video=False, max_radius=2.5))
    assert mended.state == "done" and (first.folder / "flow" / "000003.flo").exists()
    assert (first.folder / "flow" / "000002.flo").stat().st_mtime_ns == stamp
    other = estimate(film, out, settings(points, video=False, method="farneback"))
    assert (
        other.state == "done" and (first.folder / "flow" / "000002.flo").stat().st_mtime_ns != stamp
    )
    estimate(film, out, settings(points, video=False, flo=False))
    assert not list((first.folder / "flow").iterdir()) and not (first.folder / "flow.mp4").exists()
    write_frames(tmp_path / "elsewhere" / "film", person.frames())
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "elsewhere" / "film" / "00000.png")
    with pytest.raises(InputError, match="was made from .*; give another --out"):
        estimate(tmp_path / "elsewhere" / "film", out, settings(points))


def test_frames_without_a_face_have_a_reason_and_no_flow_and_are_in_the_video(tmp_path):
    person = acted(8)
    places = person.landmarks.copy()
    places[3] = np.nan
    film, _ = written(tmp_path, person.frames(), places)
    table = make_table(places, np.arange(8) / 25, faces=[1, 1, 2, 0, 1, 1, 1, 1])
    points = write_landmark_table(tmp_path / "points.csv", table)
    done = estimate(film, tmp_path / "out", settings(points))
    rows = pd.read_csv(done.folder / "motion.csv", keep_default_na=False, na_values=[""])
    reasons = rows["reason"].fillna("").tolist()
    assert reasons == ["", "", "next frame: no points", "no points", "", "", "", "last frame"]
    names = [p.name for p in sorted((done.folder / "flow").iterdir())]
    assert names == [f"{k:06d}.flo" for k in (0, 1, 4, 5, 6)]
    assert rows["mouth"].isna().tolist() == [False, False, True, True, False, False, False, True]
    assert sum(1 for _ in open_video(done.folder / "flow.mp4")) == 8
    assert any(
        "1 frame with more than one face, first 2: the largest" in note for note in done.notes
    )
    assert any("1 frame of 8 without a face" in note for note in done.notes)
    nobody = write_landmark_table(
        tmp_path / "none.csv", make_table(places * np.nan, np.arange(8) / 25)
    )
    empty = estimate(film, tmp_path / "none", settings(nobody))
    assert (empty.pairs, empty.frames) == (0, 8) and (empty.folder / "flow.mp4").exists()
    assert not (empty.folder / "strip.png").exists()


def test_with_a_step_pairs_are_further_apart(shifted, tmp_path):
    film, points, _ = shifted
    done = estimate(film, tmp_path, settings(points, step=2))
    rows = pd.read_csv(done.folder / "motion.csv")
    assert rows["frame"].tolist() == [0, 2] and rows["next"].tolist() == [2, -1]
    assert rows["seconds"][0] == pytest.approx(0.08) and abs(rows["head_dx"][0] - 6) < 0.1
    video = open_video(done.folder / "flow.mp4")
    assert video.fps == pytest.approx(12.5) and len(list(video)) == 2


def command(*arguments) -> int:
    parser = argparse.ArgumentParser()
    add_estimate(parser)
    return run_estimate(parser.parse_args(list(map(str, arguments))))


def test_bad_input_is_one_clear_line_and_the_others_are_done(shifted, tmp_path, capsys):
    film, points, _ = shifted
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.mp4").write_text("no video")
    Image.new("RGB", (64, 64)).save(bad / "single.png")
    write_frames(bad / "tiny", [np.zeros((20, 40, 3), np.uint8)] * 2)
    files = [bad / "text.mp4", bad / "single.png", bad / "tiny", bad / "none.mp4"]
    out = ["--out", tmp_path / "out", "--no-video"]
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("film", "text", "single", "tiny", "none"):
        (tables / f"{name}.csv").write_bytes(points.read_bytes())
    assert command(*files, film, *out, "--detector", "files", "--points", tables) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 4 and "Traceback" not in said.err and "film: done: 3 pairs" in said.out
    for line, rule in zip(
        lines, ("not a video", "two frames", "32 px", "does not exist"), strict=True
    ):
        assert line.startswith("facecomp: ") and rule in line
    log = (tmp_path / "out" / "estimate.log").read_text()
    assert log.count(" failed: ") == 4 and log.count(" done: ") == 1


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        (["--method", "ours"], "needs a checkpoint"),
        (["--method", "labels", "--checkpoint", "x.pth"], "has no weights"),
        (["--checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["--detector", "files"], "needs a path"),
        (["--detector", "files", "--points", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_wrong_settings_end_with_code_2(more, rule, shifted, tmp_path, capsys):
    assert command(shifted[0], "--out", tmp_path / "out", *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and rule in said[0]


def test_two_videos_of_one_name_and_a_file_as_folder_are_refused(shifted, tmp_path, capsys):
    film = shifted[0]
    write_frames(tmp_path / "film", [np.zeros((64, 64, 3), np.uint8)] * 2)
    assert command(film, tmp_path / "film", "--out", tmp_path / "out") == 2
    assert "rename one" in capsys.readouterr().err
    (tmp_path / "taken").write_text("")
    assert command(film, "--out", tmp_path / "taken") == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_all_methods_of_the_comparison_can_be_asked_for():
    assert set(METHODS) == {*METHOD_NAMES, "labels"}
    with pytest.raises(InputError, match="nowhere.raft.pth: cannot be read"):
        open_method(Settings(method="raft_small", checkpoint="/nowhere/raft.pth"))
