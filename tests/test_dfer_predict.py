"""Videos read from end to end: every head, killed and started again, bad input; and test runs by two processes."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import drive

from facecomp.cli import main
from facecomp.dfer import prediction_job
from facecomp.dfer.annotations import data_set, read_lists
from facecomp.dfer.blocks import ClipSize
from facecomp.dfer.checkpoints import read_weights_file
from facecomp.dfer.evaluation import TestRun, evaluate, read_scores
from facecomp.dfer.lgi import EncoderSettings
from facecomp.dfer.models import ModelInfo, save_model
from facecomp.dfer.predict import film_pictures, predict
from facecomp.dfer.prediction_job import Prediction, make_work, open_readers
from facecomp.dfer.pretraining_network import DecoderSettings, PretrainingNetwork
from facecomp.dfer.reading import Slider
from facecomp.dfer.recognition_network import HeadSettings, RecognitionNetwork
from facecomp.faces.detection import make_table, write_landmark_table
from facecomp.faces.video import open_video
from facecomp.faces.writing import write_frames, write_video

torch.set_num_threads(1)
SMALL = EncoderSettings(ClipSize(32, 16, 16), width=32, heads=2, depth=1, region=(2, 1, 2))
FRAMES = 30
BY_FRAME = {"tokens": "org", "frame_level": True, "frame_order": "corrected"}
HEADS = {  # file: head, columns, answers of 30 frames by windows of 16, every four
    "classes": ({"classes": 3, "init_scale": 50.0}, 3, 0, 5),
    "gaze": ({"head": "gaze"}, 0, 2, 5),
    "frames": ({"head": "gaze", **BY_FRAME}, 0, 2, FRAMES),
    "l2cs": ({"head": "l2cs"}, 0, 2, 5),
    "combined": ({"head": "combined", "classes": 3, **BY_FRAME}, 3, 2, FRAMES),
}


def model_file(path: Path, data: str = "real", names=("happy", "sad", "fear"), **head) -> Path:
    torch.manual_seed(1)
    settings = HeadSettings(**head)
    told = settings.head in ("classes", "combined")
    return save_model(
        path, RecognitionNetwork(SMALL, settings), ModelInfo(names if told else (), data=data)
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A clip of noise with given points, and a model of each head."""
    root, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    write_frames(root / "clip", rng.integers(0, 255, (FRAMES, 48, 64, 3), np.uint8))
    points = rng.uniform(8, 40, (FRAMES, 68, 2))
    write_landmark_table(root / "points.csv", make_table(points, np.arange(FRAMES) / 25))
    for name, (head, *_) in HEADS.items():
        model_file(root / f"{name}.pt", **head)
    return root


def settings(home: Path, **more) -> Prediction:
    given = {"detector": "files", "points": str(home / "points.csv"), "device": "cpu", "batch": 2}
    return Prediction(**given | more)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_says_what_it_knows_of_the_frames_that_it_answers(home, tmp_path, name):
    _, classes, angles, answers = HEADS[name]
    readers = open_readers(home / f"{name}.pt")
    done = predict(home / "clip", readers, tmp_path, settings(home, film=False))
    table = pd.read_csv(done.folder / "predictions.csv")
    chances = [c for c in table if c.startswith("p_")]
    assert (len(chances), len({"pitch", "yaw"} & {*table})) == (classes, angles)
    told = table[(chances or ["pitch"])[0]].notna()
    assert told.sum() == answers and table["reason"].notna().sum() == FRAMES - answers
    if classes:
        assert np.allclose(table.loc[told, chances].sum(axis=1), 1)
        assert (
            table.loc[told, "expression"] == table.loc[told, chances].idxmax(axis=1).str[2:]
        ).all()
    reasons = set(table["reason"].dropna())
    assert reasons == ({"fewer than 16 faces so far", "between windows"} if answers == 5 else set())


def test_a_window_has_the_same_answer_whatever_the_stride_and_the_second_model(home, tmp_path):
    alone = open_readers(home / "classes.pt")
    both = open_readers(home / "classes.pt", home / "l2cs.pt")
    runs = {"a": (alone, {"stride": 1}), "b": (both, {"stride": 4}), "c": (alone, {"batch": 1})}
    tables = {}
    for place, (readers, more) in runs.items():
        how = settings(home, film=False, **more)
        folder = predict(home / "clip", readers, tmp_path / place, how).folder
        tables[place] = pd.read_csv(folder / "predictions.csv", index_col="frame")
    known = tables["b"].index[tables["b"]["p_sad"].notna()]
    assert known.tolist() == [15, 19, 23, 27, 29] and tables["a"]["p_sad"].notna().sum() == 15
    for other in ("a", "c"):
        assert np.allclose(
            tables["b"].loc[known, "p_sad"], tables[other].loc[known, "p_sad"], atol=1e-6
        )
    assert tables["b"].loc[known, "yaw"].abs().max() < np.pi / 2


def test_names_come_from_the_one_table_of_the_data_set(home, tmp_path):
    torch.manual_seed(0)
    published = RecognitionNetwork(SMALL, HeadSettings(classes=11))
    torch.save({"model": published.state_dict()}, tmp_path / "checkpoint-99.pth")
    given = {"image": 32, "frames": 16, "region": SMALL.region}
    monkey = pytest.MonkeyPatch()
    first = prediction_job.open_model
    monkey.setattr(prediction_job, "open_model", lambda *a: first(*a, **given))
    readers = open_readers(tmp_path / "checkpoint-99.pth", labels="MAFW")
    monkey.undo()
    done = predict(home / "clip", readers, tmp_path, settings(home, film=False))
    columns = (done.folder / "predictions.csv").read_text().splitlines()[0].split(",")
    names = [c[2:] for c in columns if c.startswith("p_")]
    assert names == list(data_set("MAFW").classes) and names[4:6] == ["neutral", "sadness"]


def test_a_synthetic_model_is_marked_on_every_picture(home, tmp_path, monkeypatch):
    made = model_file(tmp_path / "made.pt", "synthetic", **HEADS["classes"][0])
    titles = []
    draw = prediction_job.Work.__init__

    def kept(self, *given, **more):
        draw(self, *given, **more)
        titles.append(self.marks)

    monkeypatch.setattr(prediction_job.Work, "__init__", kept)
    films = {}
    for name, file in (("real", home / "classes.pt"), ("made", made)):
        readers, how = open_readers(file), settings(home)
        folder = predict(home / "clip", readers, tmp_path / name, how).folder
        work = make_work(home / "clip", tmp_path / name, readers, how)
        films[name] = next(film_pictures(work, open_video(home / "clip")))
        assert len(list(open_video(folder / "overlay.mp4"))) == FRAMES
    assert titles == [(), (), ("synthetic model",), ("synthetic model",)]
    rows = np.flatnonzero((films["real"] != films["made"]).any(axis=(1, 2)))
    assert len(rows) and rows[0] > 48, "the words below the frame, and nothing else"
    for name in ("predictions.png", "faces.png"):
        both = [(tmp_path / n / "clip" / name).read_bytes() for n in ("real", "made")]
        assert both[0] != both[1]


DRIVER = """
import json, signal, sys
from children import dies_before, forked, print_ends, quietly
from facecomp.dfer import predict as work
from facecomp.dfer.prediction_job import Prediction, open_readers

def predicted(job):
    if job["die"]:
        where, call = job["die"]
        dies_before(work, where, signal.SIGKILL, call)
    readers = open_readers(*job["files"])
    work.predict(job["clip"], readers, job["out"], Prediction(**job["how"]))

quietly()
for job in json.load(sys.stdin):
    print_ends([forked(predicted, job)])
"""


def test_killed_anywhere_and_started_again_it_gives_the_same_files(home, tmp_path):
    files = [str(home / "combined.pt"), str(home / "frames.pt")]
    how = {"detector": "files", "points": str(home / "points.csv"), "device": "cpu", "batch": 2}
    places = (["batch_line", 3], ["film_picture", 20], ["draw_course", 1], None)
    job = {"clip": str(home / "clip"), "files": files, "how": how}
    jobs = [job | {"out": str(tmp_path / "killed"), "die": die} for die in places]
    codes = drive(DRIVER, [*jobs, job | {"out": str(tmp_path / "whole"), "die": None}])
    assert codes == [-9, -9, -9, 0, 0]
    both = [tmp_path / name / "clip" for name in ("killed", "whole")]
    names = [
        sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) for folder in both
    ]
    assert names[0] == names[1] and len(names[0]) == 6
    for name in set(names[0]) - {"predict.receipt.json"}:
        assert (both[0] / name).read_bytes() == (both[1] / name).read_bytes(), name
    assert list(both[0].glob(".*.part")) == []


def test_what_is_kept_does_not_grow_with_the_video():
    slider, face, windows = Slider(16, 4, 2), np.zeros((1, 1, 3), np.uint8), 0
    for row in range(2000):
        windows += sum(1 for _ in slider.add(row, face))
        assert len(slider.kept) <= 31
    assert windows == (2000 - 31) // 4 + 1


def said_of(capsys, *line: str) -> list[str]:
    assert main(["dfer", "predict", *line, "--device", "cpu"]) == 2
    return capsys.readouterr().err.strip().splitlines()


def test_bad_input_is_one_line_and_exit_code_2(home, tmp_path, capsys):
    model, out = ("--checkpoint", str(home / "classes.pt")), ("--out", str(tmp_path / "out"))
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), np.uint8)
    nobody = str(write_video(tmp_path / "nobody.mp4", noise, 25))
    assert "nobody.mp4: no face found in 20 frames" in said_of(capsys, nobody, *model, *out)[0]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    lines = said_of(capsys, str(tmp_path / "broken.mp4"), *model, *out)
    assert len(lines) == 1 and "broken.mp4: is not a video" in lines[0]
    torch.manual_seed(0)
    network = PretrainingNetwork(SMALL, DecoderSettings(16, 2, 1))
    torch.save({"model": network.state_dict()}, tmp_path / "pre.pth")
    assert read_weights_file(tmp_path / "pre.pth").kind == "pretraining"
    lines = said_of(capsys, str(home / "clip"), "--checkpoint", str(tmp_path / "pre.pth"), *out)
    assert len(lines) == 1 and "pre.pth" in lines[0] and "fine-tune it first" in lines[0]
    lines = said_of(capsys, str(home / "clip"), *model, "--gaze-checkpoint", model[1], *out)
    assert len(lines) == 1 and "tells expression alone" in lines[0]
    lines = said_of(capsys, str(home / "clip"), *model, "--labels", "MAFW", *out)
    assert len(lines) == 1 and "11 names" in lines[0]


def test_two_processes_test_every_view_once_and_agree_with_one(tmp_path):
    rng, lines = np.random.default_rng(0), []
    for k in range(5):
        frames = rng.integers(0, 255, (17 + k, 32, 32, 3), np.uint8)
        write_frames(tmp_path / "clips" / str(k), frames, "{:05d}.jpg")
        lines.append(f"clips/{k} {k}\n")
    made = tmp_path / "test.csv"
    made.write_text("".join(lines))
    head = {"classes": 7, "init_scale": 50.0}
    names = data_set("DFEW").classes
    file = model_file(tmp_path / "best.pt", "synthetic", names, **head)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(random.SystemRandom().randint(20000, 60000))]
    command += ["-m", "facecomp.dfer.evaluation", "--checkpoint", str(file), "--device", "cpu"]
    command += ["--list", str(made), "--root", str(tmp_path), "--rate", "1", "--batch", "3"]
    answer = subprocess.run(
        [*command, "--out", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    listing = read_lists([made], "clips", tmp_path)[0]
    evaluate(file, listing, tmp_path / "one", TestRun(rate=1, batch=3, device="cpu"))
    texts = [(tmp_path / "two" / f"{rank}.txt").read_text().splitlines()[1:] for rank in (0, 1)]
    clips = [line.split(" [")[0] + line.rpartition("]")[2] for text in texts for line in text]
    assert len(clips) == len(set(clips)) == 2 * len(listing) and all(texts)
    one, two = (np.load(tmp_path / name / "features.npz") for name in ("one", "two"))
    for name in ("names", "labels"):
        assert (one[name] == two[name]).all()
    assert np.allclose(one["features"], two["features"], atol=1e-5)
    results = [
        json.loads((tmp_path / n / "final_results.json").read_text()) for n in ("one", "two")
    ]
    assert results[0] == results[1]
    scores = read_scores(tmp_path / "two" / "pred.csv", 7)
    assert results[0]["final_uar"] == scores.uar and results[0]["final_war"] == scores.war
