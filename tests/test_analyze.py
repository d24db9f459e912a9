"""`facecomp analyze` from end to end: one page, killed and started again, settings, videos, models, faults."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import drive

from facecomp.analyze.frames import read_rows
from facecomp.analyze.page import page_faults
from facecomp.analyze.run import analyze
from facecomp.analyze.settings import ANSWERED, STAGES, Settings, steps_of
from facecomp.cli import main
from facecomp.dfer.blocks import ClipSize
from facecomp.dfer.lgi import EncoderSettings
from facecomp.dfer.models import ModelInfo, save_model
from facecomp.dfer.recognition_network import HeadSettings, RecognitionNetwork
from facecomp.faces.synthetic import participant, record
from facecomp.faces.writing import write_frames, write_video
from facecomp.records.receipts import output_faults, read_receipt

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("quick_training")
FRAMES, FPS = 20, 10.0
SMALL = {"epochs": 2, "shown": 1, "width": 16, "device": "cpu", "data": "synthetic"}


def settings(**more) -> Settings:
    return Settings(**{"participant": "SYN004", **SMALL, **more})


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> list[Path]:
    """Two videos of one synthetic person."""
    folder = tmp_path_factory.mktemp("films")
    return [
        write_video(
            folder / f"{name}.mp4",
            record(participant(4), FRAMES, FPS, 160, seed, "happiness").frames(),
            FPS,
        )
        for seed, name in enumerate(("monday", "friday"))
    ]


@pytest.fixture(scope="module")
def finished(films, tmp_path_factory) -> Path:
    """A whole run on one video."""
    return analyze(films[:1], tmp_path_factory.mktemp("done") / "out", settings()).parent


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of the whole run."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def said_by(videos, out, **more) -> dict[str, str]:
    """What each stage said."""
    lines = []
    analyze(videos, out, settings(**more), say=lines.append)
    return dict(line.split(": ", 1) for line in lines)


def redone(said: dict[str, str]) -> list[str]:
    """Stages that were made; preparing says how long it took, or nothing."""
    return [s for s, words in said.items() if re.search(r"\(\d+ s\)$", words)]


def test_the_page_is_whole_by_itself_and_says_what_it_is(finished):
    html = (finished / "report.html").read_text()
    assert page_faults(html) == []
    assert html.count("<img") >= 4 and html.count("<video") == 1 and html.count('class="plot"') == 3
    for words in (
        "Synthetic data: rendered",
        "loss network: random weights",
        "not a validated measure",
        "no checkpoint was given",
        "every k-th frame",
        f"{FRAMES} (every 1)",
    ):
        assert words in html, words
    assert html.count(">synthetic · loss network: random weights<") == 2  # map, clusters over time
    assert html.count(">synthetic<") == 1  # motion
    assert "prefers-color-scheme: dark" in html and "currentColor" in html
    assert str(finished) not in html


def test_tables_read_back_and_the_receipt_proves_them(finished):
    tables = {p.stem: pd.read_parquet(p) for p in (finished / "tables").glob("*.parquet")}
    assert set(tables) == {"faces", "map", "clusters", "motion"}
    for name, table in tables.items():
        path = finished / "tables" / f"{name}.csv"
        text = read_rows(path) if "reason" in table else pd.read_csv(path)
        pd.testing.assert_frame_equal(text, table, check_dtype=False)
    assert len(tables["faces"]) == len(tables["map"]) == len(tables["motion"]) == FRAMES
    assert tables["clusters"]["frames"].sum() == FRAMES
    assert np.allclose(tables["map"]["time"], np.arange(FRAMES) / FPS)
    receipt = finished / "analysis.receipt.json"
    made = read_receipt(receipt)
    assert output_faults(receipt) == [] and made.data == "synthetic"
    assert {"report.html", "tables/map.parquet"} <= made.outputs.keys()
    assert set(made.inputs) == {*("video/monday", "prepared/monday", "train", "map", "flow/monday")}


DRIVER = """
import importlib, json, signal, sys
from children import dies_before, forked, print_ends, quietly
from facecomp.analyze.run import analyze
from facecomp.analyze.settings import Settings

def analyzed(job):
    if job["die"]:
        module, where, call = job["die"]
        dies_before(importlib.import_module(module), where, signal.SIGKILL, call)
    analyze(job["videos"], job["out"], Settings(**job["how"]))

quietly()
for job in json.load(sys.stdin):
    print_ends([forked(analyzed, job)])
"""


def test_killed_in_any_stage_and_started_again_it_gives_the_same_files(films, finished, tmp_path):
    places = [
        ("facecomp.data.outputs", "encode", 12),
        ("facecomp.analyze.frames", "write_atomic", 1),
        ("facecomp.psm.training", "average_gradients", 4),
        ("facecomp.analyze.model", "neutral_picture", 1),
        ("facecomp.flow.estimate", "estimate_pair", 9),
        ("facecomp.analyze.run", "write_page", 1),
        None,
    ]
    job = {"videos": [str(films[0])], "out": str(tmp_path / "out")}
    job["how"] = {"participant": "SYN004", **SMALL}
    assert drive(DRIVER, [job | {"die": die} for die in places]) == [-9] * 6 + [0]
    names = ["report.html", *(f"tables/{p.name}" for p in (finished / "tables").glob("*.*"))]
    names += ["flow/monday/flow.mp4", "map/codes.parquet", "map/neutral.png"]
    for name in names:
        if not name.endswith(".receipt.json"):
            assert (tmp_path / "out" / name).read_bytes() == (finished / name).read_bytes(), name
    made = [read_receipt(f / "analysis.receipt.json") for f in (tmp_path / "out", finished)]
    assert made[0].inputs == made[1].inputs  # weights among them


def test_what_is_done_is_found_and_a_setting_redoes_only_what_it_touches(films, copy):
    assert redone(said_by(films[:1], copy)) == []
    said = said_by(films[:1], copy, flow_method="farneback")
    assert redone(said) == ["flow", "report"]
    said = said_by(films[:1], copy, flow_method="farneback", seed=1)
    assert redone(said) == ["train", "map", "report"]
    (copy / "map" / "map.csv").write_text("changed")
    assert redone(said_by(films[:1], copy, flow_method="farneback", seed=1)) == ["map"]


def test_named_stages_come_with_what_they_need_and_the_page_says_what_is_left_out(films, tmp_path):
    said = said_by(films[:1], tmp_path / "out", stages=("flow",))
    assert list(said) == ["prepare", "flow", "report"]
    html = (tmp_path / "out" / "report.html").read_text()
    assert "the stage map was not asked for" in html and page_faults(html) == []


def test_a_second_video_may_come_but_none_may_go(films, copy, capsys):
    said = said_by(films, copy, every=2)
    assert "friday" in said["prepare"]
    html, tables = (copy / "report.html").read_text(), copy / "tables"
    assert page_faults(html) == [] and html.count("<video") == 2
    for name in ("faces", "map", "motion"):
        assert set(pd.read_parquet(tables / f"{name}.parquet")["video"]) == {"monday", "friday"}
    assert list(pd.read_parquet(tables / "map.parquet")["frame"]) == [*range(0, FRAMES, 2)] * 2
    line = ["analyze", str(films[1]), "--participant", "SYN004", "--out", str(copy)]
    assert main(line) == 2
    assert "'monday', it is not given now" in capsys.readouterr().err


def model_file(path: Path, head: HeadSettings, classes=()) -> str:
    torch.manual_seed(1)
    encoder = EncoderSettings(ClipSize(32, 16, 16), width=32, heads=2, depth=1, region=(2, 1, 2))
    network = RecognitionNetwork(encoder, head)
    return str(save_model(path, network, ModelInfo(classes, data="synthetic")))


def test_with_models_the_page_tells_expression_and_gaze(films, copy, tmp_path):
    names = ("happy", "sad", "fear")
    first = model_file(tmp_path / "e.pt", HeadSettings(classes=3, init_scale=50.0), names)
    second = model_file(tmp_path / "g.pt", HeadSettings(head="gaze"))
    said = said_by(films[:1], copy, checkpoint=first, gaze_checkpoint=second)
    assert said["expression"].startswith("1 of 1 videos read")
    assert redone(said) == ["expression", "report"]
    html = (copy / "report.html").read_text()
    assert page_faults(html) == [] and "no checkpoint was given" not in html
    assert "synthetic · synthetic model" in html
    table = pd.read_parquet(copy / "tables" / "expression.parquet")
    assert {"p_happy", "p_sad", "p_fear", "pitch", "yaw"} <= set(table)
    assert len(table) == FRAMES and table["p_happy"].notna().sum() > 0
    found, read = (
        pd.read_csv(next(copy.glob(f"{part}/landmarks.csv")))
        for part in ("prepared/reports/*/*", "expression/*")
    )
    pd.testing.assert_frame_equal(found[["frame", "x_0", "y_67"]], read[["frame", "x_0", "y_67"]])


def test_a_long_video_is_answered_in_few_windows_evenly_over_it():
    usual, asked = Settings("P01"), Settings("P01", every=12)
    for frames in (72, 3000, 15000, 90_000):
        stride = steps_of(usual, frames, 25.0).answers
        assert stride >= 4 and frames // stride <= ANSWERED
        assert stride == 4 or (frames - 1) // (stride - 1) >= ANSWERED, "no fewer than there may be"
        assert steps_of(asked, frames, 25.0).answers == 12


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["absent.mp4"], "absent.mp4: does not exist"),
        (["text.mp4"], "text.mp4"),
        (["noise"], "no face in any of 3 frames"),
        (["noise", "--participant", "a/b"], "participant 'a/b'"),
        (["noise", "--stages", "maps"], "stage 'maps': must be one of"),
        (["noise", "--checkpoint", "absent.pt"], "absent.pt"),
        (["noise", "--flow-method", "ours"], "needs a checkpoint"),
        (["noise", "--out", "file"], "is a file; --out must be a folder"),
        (["noise", "--out", "other"], "holds the analysis of 'P02', not 'P01'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, given, words):
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("no video")
    Path("file").write_text("")
    Path("other").mkdir()
    Path("other/analysis.json").write_text(json.dumps({"participant": "P02", "videos": {}}))
    noise = np.random.default_rng(0).integers(0, 255, (3, 96, 96, 3), np.uint8)
    write_frames("noise", noise)
    line = ["analyze", "--participant", "P01", "--out", "report", *given]
    assert main(line) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.err.startswith("facecomp: ")


def test_the_command_has_the_stages_of_the_package():
    from facecomp import cli_analyze

    assert cli_analyze.STAGES == STAGES
