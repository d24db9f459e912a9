"""Animation on the command line: the published numbers in the files, one line for bad input, and whole files or none."""

import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from PIL import Image

from facecomp import cli
from facecomp.data.keypoints import KEYPOINTS, PER_FRAME
from facecomp.faces.alignment import FOMM_DEFAULT, fomm_points
from facecomp.faces.detection import make_table, write_landmark_table
from facecomp.faces.openface import write_points as write_landmarks
from facecomp.faces.synthetic import Recording, participant, record, still
from facecomp.faces.video import open_video, read_image
from facecomp.faces.writing import write_frames, write_gif, write_video
from facecomp.fomm.animate import Animation, Output, animate_files, planned
from facecomp.fomm.animation import reference_animation
from facecomp.fomm.checkpoints import ModelSettings, Networks, build_networks, import_model
from facecomp.fomm.modes import ModeSettings, animate_pairs, reconstruct_clips
from facecomp.fomm.outputs import as_uint8
from facecomp.fomm.people import make_dataset
from facecomp.fomm.points import write_points
from facecomp.fomm.portraits import Framing, open_driving, read_portrait
from facecomp.fomm.relative import RelativeSettings
from facecomp.fomm.writing import hidden_until_whole, write_all
from facecomp.records.files import InputError
from facecomp.records.receipts import output_faults, read_receipt, receipt_path

CLIPS = Path(os.environ.get("FACECOMP_CLIPS", ROOT.parent / "shared" / "clips"))
SIDE = 64
RELATIVE = RelativeSettings()
SMALL = {"block_expansion": 4, "max_features": 16, "num_blocks": 3}
PAINTER = {"block_expansion": 4, "num_bottleneck_blocks": 1, "dense_motion_params": SMALL}


@torch.no_grad()
def drawn(seed: int = 0, **more) -> Networks:
    """Small networks with Jacobians that depend on the frame."""
    torch.manual_seed(seed)
    parts = {
        "kp_detector_params": SMALL,
        "generator_params": PAINTER,
        "discriminator_params": SMALL,
    }
    networks = build_networks(ModelSettings(**parts | more))
    torch.nn.init.normal_(networks.kp_detector.jacobian.weight, std=0.1)
    torch.nn.init.normal_(networks.generator.final.weight, std=0.05)
    frames = [still(participant(k), size=SIDE) / np.float32(255) for k in range(2)]
    seen = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
    points = torch.from_numpy(FOMM_DEFAULT * np.float32(SIDE / 256)).expand(2, -1, -1)
    for module in (m for n in networks.by_key().values() for m in n.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics become those of these pictures
    found = networks.kp_detector(seen, points)
    networks.generator(seen, found, found)
    return networks


def saved(path: Path, networks: Networks, **options) -> Path:
    content = {key: network.state_dict() for key, network in networks.by_key().items()}
    torch.save(content | {"options": {"data": "synthetic", **options}}, path)
    return path


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record(participant(2), 7, fps=50, size=200, expression="surprise", micro=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory, recording) -> Path:
    """A model, a face, and a clip with its 68 landmarks; also both as prepared frames with 18 points."""
    folder = tmp_path_factory.mktemp("animate")
    saved(folder / "model.pt", drawn())
    saved(folder / "every.pt", drawn(), per_frame=True)
    saved(folder / "grey.pt", drawn(), gray="luma")
    Image.fromarray(still(participant(5), size=200)).save(folder / "face.png")
    write_frames(folder / "clip", recording.frames())
    table = make_table(recording.landmarks, np.arange(7) / 50)
    write_landmark_table(folder / "clip.csv", table)
    frames = [np.asarray(Image.fromarray(x).resize((SIDE, SIDE))) for x in recording.frames()]
    write_frames(folder / "prepared", frames)
    points = np.stack([fomm_points(x) for x in recording.landmarks]) * np.float32(SIDE / 200)
    write_points(folder / "clip.pt", points[0])
    write_points(folder / "clips.pt", points)
    Image.fromarray(frames[0][:, ::-1].copy()).save(folder / "small.png")
    write_points(folder / "small.pt", points[3] + 1)
    return folder


HOW = Animation(Framing(SIDE), device="cpu", data="synthetic", fps=25)


def animate(home: Path, *outs: Path, how: Animation = HOW, **more):
    """Animate by the prepared clip and its 18 points."""
    given = {
        "source": home / "small.png",
        "driving": home / "prepared",
        "checkpoint": home / "model.pt",
    }
    points = {"points_source": home / "small.pt", "points_driving": home / "clip.pt"}
    return animate_files(**given | {"outs": outs, "how": how} | points | more)


def expected(home: Path, order: list[int], relative: RelativeSettings = RELATIVE) -> np.ndarray:
    """Strip by the published order of computations, of the frames after the first of `order`."""
    networks, _ = import_model(home / "model.pt")
    clip = [read_image(home / "prepared" / f"{k:05d}.png") for k in order]
    own, other = (torch.load(home / n, weights_only=True) for n in ("small.pt", "clip.pt"))
    made = reference_animation(networks, read_image(home / "small.png"), own, clip, other, relative)
    return np.hstack([as_uint8(one.image) for one in made])


def near(strip: np.ndarray, wanted: np.ndarray) -> bool:
    """Equal but for truncation of numbers next to a whole one; wrong strips are 8 levels apart or more."""
    apart = np.abs(strip.astype(int) - wanted)
    return strip.shape == wanted.shape and apart.max() <= 1 and (apart > 0).mean() < 0.02


def test_strip_and_movie_hold_the_published_numbers(home, tmp_path):
    done = animate(home, tmp_path / "out.png", tmp_path / "out.mkv", tmp_path / "out.gif")
    strip = read_image(tmp_path / "out.png")
    assert done.frames == 7 and near(strip, expected(home, list(range(7))))
    frames = np.split(strip, 7, 1)
    assert np.abs(np.diff([x.astype(int) for x in frames], axis=0)).mean() > 0.01  # it moves
    for name in ("out.mkv", "out.gif"):
        video = open_video(tmp_path / name)
        assert (
            video.fps == pytest.approx(25) and len(list(video)) == 7 and video.size == (SIDE, SIDE)
        )


def test_flags_of_relative_motion_reach_the_model(home, tmp_path):
    strips = {}
    for name, flags in {
        "absolute": RelativeSettings(False, False, False),
        "movement": RelativeSettings(False, True, False),
    }.items():
        path = tmp_path / f"{name}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = animate(home, path, how=replace(HOW, relative=flags))
            strips[name] = read_image(path)
            assert near(strips[name], expected(home, list(range(7)), flags))
        assert any("absolute" in note for note in done.notes) == (name == "absolute")
    assert not np.array_equal(*strips.values())
    scaled = replace(HOW, relative=RelativeSettings(adapt_movement_scale=True))
    done = animate(home, tmp_path / "scaled.png", how=scaled)
    assert any("no effect" in note for note in done.notes)


def test_motion_is_measured_from_the_frame_asked_for(home, tmp_path):
    done = animate(home, tmp_path / "out.png", how=replace(HOW, best_frame="4"))
    wanted = expected(home, [4, *range(7)])[:, SIDE:]
    assert near(read_image(tmp_path / "out.png"), wanted) and "frame 4" in done.notes[-1]
    assert not near(wanted, expected(home, list(range(7))))


def test_the_best_frame_is_the_one_most_like_the_source(home, tmp_path, recording):
    Image.fromarray(recording.frame(3)).save(tmp_path / "same.png")
    write_landmarks(tmp_path / "same_landmarks.txt", recording.landmarks[3])
    points = {"points_source": tmp_path / "same_landmarks.txt", "points_driving": home / "clip.csv"}
    given = {"source": tmp_path / "same.png", "driving": home / "clip"} | points
    animate(home, tmp_path / "out.png", how=replace(HOW, best_frame="auto"), **given)
    receipt = read_receipt(receipt_path(tmp_path, "out.png"))
    assert receipt.parameters["start"] == 3 and receipt.data == "synthetic"
    with pytest.raises(InputError, match="needs 68 points"):
        animate(home, tmp_path / "out.png", how=replace(HOW, best_frame="auto"))


def test_face_and_points_are_found_in_any_picture_and_carried_into_the_crop(home, recording):
    portrait = read_portrait(home / "face.png", Framing(128))
    assert portrait.notes == () and portrait.placed.image.shape == (128, 128, 3)
    clip = open_driving(home / "clip", Framing(256))
    box = clip.framer.rule.box
    truth = (recording.landmarks[0] - (box.left, box.top)) * 256 / (box.right - box.left)
    inner = np.abs(clip.first.landmarks - truth)[17:]
    assert np.median(inner) < 12  # px of 256: found by dlib, against those of the mesh
    assert np.allclose(clip.first.points, fomm_points(clip.first.landmarks))
    assert len(list(clip.frames())) == 7


def test_alpha_grey_and_other_sizes_are_accepted_and_said(home, tmp_path):
    face = Image.open(home / "face.png")
    face.convert("LA").resize((260, 200)).save(tmp_path / "face.png")
    placed = read_portrait(tmp_path / "face.png", Framing(SIDE, crop="none"))
    words = ("alpha channel dropped", "is grey", "260 x 200 px: stretched to 64 x 64")
    assert all(word in note for word, note in zip(words, placed.notes, strict=True))
    clear = face.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    seen = read_portrait(tmp_path / "clear.png", Framing(200, crop="none")).placed.image
    assert np.array_equal(seen, np.asarray(face))
    done = animate(home, tmp_path / "grey.png", checkpoint=home / "grey.pt")
    assert "made grey (luma), as the model was trained" in done.notes


def test_all_forms_of_a_clip_give_the_same_strip(home, tmp_path):
    frames = [read_image(p) for p in sorted((home / "prepared").glob("*.png"))]
    Image.fromarray(np.hstack(frames)).save(tmp_path / "strip.png")
    write_video(tmp_path / "clip.mkv", frames, 25, lossless=True)
    animate(home, tmp_path / "folder_out.png")
    for name in ("strip.png", "clip.mkv"):
        animate(home, tmp_path / "other_out.png", driving=tmp_path / name)
        assert (tmp_path / "other_out.png").read_bytes() == (
            tmp_path / "folder_out.png"
        ).read_bytes()


def test_a_model_of_every_frames_points_gets_them_and_no_other_does(home, tmp_path):
    every = {"checkpoint": home / "every.pt", "points_driving": home / "clips.pt"}
    animate(home, tmp_path / "a.png", **every)
    animate(home, tmp_path / "b.png", how=replace(HOW, per_frame=True, best_frame="2"), **every)
    rest, other = (read_image(tmp_path / f"{name}.png") for name in "ab")
    plain = tmp_path / "plain.png"
    animate(home, plain)
    assert not near(rest, read_image(plain)) and not near(rest, other)
    for wrong in ({"checkpoint": home / "every.pt"}, {"points_driving": home / "clips.pt"}):
        with pytest.raises(InputError, match="set of points"):
            animate(home, tmp_path / "c.png", **wrong)


def test_landmarks_of_every_frame_serve_a_model_of_every_frame(home, tmp_path):
    given = {"checkpoint": home / "every.pt", "points_driving": home / "clip.csv"}
    given |= {"source": home / "face.png", "points_source": None, "driving": home / "clip"}
    assert animate(home, tmp_path / "a.png", **given).frames == 7


def test_fomm_itself_finds_its_own_points_and_needs_no_face_to_be_found(home, tmp_path):
    fomm = drawn(num_kp=10, prior=False, keypoint_source="network")
    weights = {key: network.state_dict() for key, network in fomm.by_key().items()}
    torch.save(weights, tmp_path / "vox.pt")  # as published: without options
    given = {"checkpoint": tmp_path / "vox.pt", "points_source": None, "points_driving": None}
    how = replace(HOW, framing=Framing(SIDE, crop="none"))
    assert animate(home, tmp_path / "a.png", how=how, **given).frames == 7
    networks, _ = import_model(tmp_path / "vox.pt")
    clip = [read_image(p) for p in sorted((home / "prepared").glob("*.png"))]
    made = reference_animation(networks, read_image(home / "small.png"), None, clip, None)
    assert near(read_image(tmp_path / "a.png"), np.hstack([as_uint8(one.image) for one in made]))


def test_side_by_side_shows_source_clip_result_and_change_marked_synthetic(home, tmp_path):
    animate(home, beside=[tmp_path / "both.mkv", tmp_path / "both.png"])
    frames = [frame.image for frame in open_video(tmp_path / "both.mkv")]
    assert len(frames) == 7 and frames[0].shape == (SIDE + 36, 4 * SIDE, 3)
    panels = np.split(frames[0][:SIDE].astype(int), 4, 1)
    for panel, path in zip(panels, ("small.png", "prepared/00000.png"), strict=False):
        assert np.abs(panel - read_image(home / path)).mean() < 6  # h264
    assert np.abs(panels[3] - 128).max() <= 3  # the first frame has not changed
    assert (frames[0][SIDE + 18 :] < 128).any()  # words in the second line
    assert read_image(tmp_path / "both.png").shape[1] == 7 * SIDE


@pytest.fixture(scope="module")
def wrong(home, tmp_path_factory) -> Path:
    """Files that cannot be used."""
    folder = tmp_path_factory.mktemp("wrong")
    pair = np.hstack([still(participant(k), size=200) for k in (0, 1)])
    Image.fromarray(pair).save(folder / "two.png")
    wall = np.full((200, 200, 3), 90, np.uint8)
    write_video(folder / "wall.mp4", [wall] * 3, 25)
    write_video(folder / "one.mp4", [pair], 25)
    write_gif(folder / "one.gif", [pair[:, :200]], 25)
    write_video(folder / "face.mp4", [pair[:, :200]] * 2, 25)
    Image.fromarray(wall).save(folder / "wall.png")
    (folder / "text.mp4").write_text("no video")
    (folder / "text.png").write_text("no picture")
    content = torch.load(home / "model.pt", weights_only=True)
    torch.save({"fc.weight": torch.zeros(2)}, folder / "net.pt")
    torch.save({"generator": content["generator"]}, folder / "half.pt")
    rest = {k: v for k, v in content["generator"].items() if "bottleneck" not in k}
    torch.save(content | {"generator": rest | {"odd": torch.zeros(1)}}, folder / "cut.pt")
    write_points(folder / "ten.csv", np.zeros((18, 2)))
    return folder


BAD = [  # options in place of the good ones, and what the line says
    ({"--driving": "{}/wall.mp4"}, "wall.mp4, first frame: no face found"),
    ({"--source": "{}/wall.png"}, "wall.png: no face found"),
    ({"--source": "{}/two.png"}, "two.png: 2 faces"),
    ({"--source": "{}/text.png"}, "text.png: cannot be read as an image"),
    ({"--source": "{}/none.png"}, "none.png: does not exist"),
    ({"--driving": "{}/text.mp4"}, "text.mp4: is not a video"),
    ({"--driving": "{}/one.mp4"}, "one.mp4: has 1 frame"),
    ({"--driving": "{}/one.gif"}, "one.gif: is one picture"),
    ({"--driving": "{}/wall.png"}, "wall.png: is one picture"),
    ({"--checkpoint": "{}/net.pt"}, "net.pt: has no part named kp_detector, only fc.weight"),
    ({"--checkpoint": "{}/half.pt"}, "half.pt: has no part named kp_detector, only generator"),
    ({"--checkpoint": "{}/cut.pt"}, "cut.pt, generator: tensors do not fit: 1 extra (odd)"),
    ({"--checkpoint": "{}/text.mp4"}, "text.mp4"),
    ({"--out": "{}/out.avi"}, "out.avi: format '.avi': must be one of"),
    ({"--out": "{}/text.png/out.mp4"}, "cannot be written to"),
    ({"--out": "{}"}, "format ''"),
    ({"--points-source": "{}/none.pt"}, "none.pt: does not exist"),
    ({"--points-driving": "{}/ten.csv"}, "ten.csv"),
    ({"--points-source": "{}/text.png"}, "text.png: points are a .pt"),
    ({"--size": "100"}, "size 100: frames of model.pt are a multiple of 32 px"),
    ({"--per-frame": None}, "model.pt: trained with the points of the first frame alone"),
    ({"--best-frame": "99"}, "clip: has no frame 99"),
    ({"--best-frame": "best"}, "must be auto or the number of a frame"),
    ({"--device": "cuda:77"}, "device 'cuda:77': cannot be used here"),
    (
        {"--out": "{}/out.gif", "--fps": "200"},
        "out.gif: 200 frames per second: a GIF shows at most",
    ),
    ({"--driving": "{}/face.mp4", "--audio": None, "--fps": "10"}, "own frame rate"),
]


def command(home: Path, out: Path, more: dict[str, str | None]) -> list[str]:
    given = {"--source": home / "face.png", "--driving": home / "clip", "--size": SIDE}
    given |= {"--checkpoint": home / "model.pt", "--out": out / "out.mp4", "--device": "cpu"}
    named = [(key, value) for key, value in (given | more).items()]
    return ["fomm", "animate", *(str(x) for pair in named for x in pair if x is not None)]


@pytest.mark.parametrize(("more", "line"), BAD, ids=lambda x: str(x)[:40])
def test_bad_input_is_one_line_code_2_and_leaves_nothing(more, line, home, wrong, tmp_path, capsys):
    more = {key: value and value.format(wrong) for key, value in more.items()}
    before = set(wrong.iterdir())
    assert cli.main(command(home, tmp_path, more)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("facecomp: ") and line in said[0]
    left = {p.name for p in (*tmp_path.iterdir(), *(set(wrong.iterdir()) - before))}
    assert left <= {"animate.log"}
    (wrong / "animate.log").unlink(missing_ok=True)


def test_of_several_faces_the_largest_is_taken_where_that_is_asked_for(
    home, wrong, tmp_path, capsys
):
    more = {"--source": wrong / "two.png", "--largest-face": None}
    assert cli.main(command(home, tmp_path, more)) == 0
    assert "out.mp4: done: 7 frames" in capsys.readouterr().out


@pytest.mark.skipif(not (CLIPS / "multi_face.jpg").is_file(), reason="no recordings at hand")
def test_a_photograph_of_several_people_is_asked_back(home, tmp_path, capsys):
    assert cli.main(command(home, tmp_path, {"--source": CLIPS / "multi_face.jpg"})) == 2
    assert "multi_face.jpg: 4 faces" in capsys.readouterr().err


def test_files_may_not_be_read_and_written_or_named_twice(tmp_path):
    for outs, beside, read, rule in (
        (["a.mp4"], ["./a.mp4"], [], "named twice"),
        (["a.png"], [], [Path("a.png")], "is read"),
        ([], [], [], "no file to write"),
    ):
        with pytest.raises(InputError, match=rule):
            planned(outs, beside, read)
    assert planned(["a.PNG"], ["b.gif"], []) == [Output(Path("a.PNG")), Output(Path("b.gif"), True)]


def test_what_is_done_is_left_alone_until_something_changes(home, tmp_path):
    out = tmp_path / "out.mp4"
    assert animate(home, out).state == "done"
    stamp = out.stat().st_mtime_ns
    assert animate(home, out).state == "skipped" and out.stat().st_mtime_ns == stamp
    assert animate(home, out, how=replace(HOW, batch_size=4, device="auto")).state == "skipped"
    assert animate(home, out, again=True).state == "done"
    for more in (
        {"how": replace(HOW, fps=30)},
        {"points_source": home / "clip.pt"},
        {"source": home / "prepared" / "00002.png"},
        {"checkpoint": home / "grey.pt"},
    ):
        assert (
            animate(home, out, **more).state == "done"
            and animate(home, out, **more).state == "skipped"
        )
    out.write_bytes(b"")
    assert animate(home, out).state == "done" and not output_faults(
        receipt_path(tmp_path, "out.mp4")
    )
    log = (tmp_path / "animate.log").read_text()
    assert log.count(" done: out.mp4: 7 frames") == 7


KILLED = """
import os, signal, sys
import facecomp.fomm.animate as module
from facecomp import cli

real = module.generated

def generated(scene, start=0):
    for index, pair in enumerate(real(scene, start)):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        yield pair

module.generated = generated
sys.exit(cli.main(sys.argv[1:]))
"""


def test_killed_half_way_it_leaves_no_file_and_starts_again_cleanly(home, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    out, whole = tmp_path / "out", tmp_path / "whole"
    outputs = {"--points-driving": str(home / "clip.csv"), "--data": "synthetic", "--fps": "25"}
    line = command(home, out, outputs)
    line += ["--out", str(out / "out.gif"), "--out", str(out / "out.png")]
    killed = subprocess.run(
        [sys.executable, str(tmp_path / "killed.py"), *line], capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [p.name for p in out.iterdir() if not p.name.startswith(".")] == []
    assert {p.name for p in out.iterdir()} >= {".out.mp4.part", ".out.gif.part", ".out.png.part"}
    assert cli.main(line) == 0
    assert cli.main([x.replace(str(out), str(whole)) for x in line]) == 0
    names = ["out.gif", "out.mp4", "out.png"]
    assert [(out / n).read_bytes() for n in names] == [(whole / n).read_bytes() for n in names]
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_a_stream_waits_for_its_writers_and_a_failure_ends_all(tmp_path):
    made = []

    def source():
        for k in range(100):
            made.append(k)
            yield k

    def slow(items):
        return [len(made) - item for item in items]

    ahead = write_all(source(), [slow, slow], ahead=2)
    assert (
        len(ahead[0]) == 100 and max(ahead[0] + ahead[1]) <= 5
    )  # never far ahead: constant memory
    with (
        pytest.raises(InputError, match="frame 3"),
        hidden_until_whole([tmp_path / "a.txt"]) as (part,),
    ):

        def failing(items):
            part.write_text("half")
            raise InputError("frame 3")

        write_all(range(100), [failing, sum])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    return make_dataset(
        folder / "data", 1, True, size=SIDE, frames=4, expressions=("surprise", "AU4")
    )


def modes(home: Path, tmp_path: Path, *arguments: str) -> list[str]:
    model = ["--checkpoint", str(home / "model.pt"), "--size", str(SIDE), "--device", "cpu"]
    return ["fomm", arguments[0], *model, "--out", str(tmp_path / "out"), *arguments[1:]]


def test_pairs_are_animated_with_the_published_files(home, dataset, tmp_path, capsys):
    line = modes(home, tmp_path, "pairs", str(dataset))
    assert cli.main(line) == 0
    assert capsys.readouterr().out.count(": done: 4 frames") == 4
    out, clips = tmp_path / "out", dataset / "test"
    faces = sorted(p.name for p in clips.glob("normalized_*"))
    movies = [p.stem for p in clips.iterdir() if p.name not in faces]
    names = {f"{movie}-{face}" for movie in movies for face in faces}
    assert {p.stem for p in (out / "png").iterdir()} == names == {p.stem for p in out.glob("*.mp4")}
    assert open_video(out / f"{min(names)}.mp4").fps == 100
    networks, _ = import_model(home / "model.pt")
    face = read_image(clips / faces[0] / "00000.png")
    frames = [read_image(clips / movies[0] / f"{k:05d}.png") for k in range(4)]
    points = [
        torch.load(dataset / KEYPOINTS / f"{n}.pt", weights_only=True)
        for n in (faces[0], movies[0])
    ]
    made = reference_animation(networks, face, points[0], frames, points[1])
    wanted = np.hstack([as_uint8(one.image) for one in made])
    assert near(read_image(out / "png" / f"{movies[0]}-{faces[0]}.png"), wanted)
    assert cli.main(line) == 0 and capsys.readouterr().out.count(": skipped: 4 frames") == 4


def test_pairs_go_on_past_a_clip_without_points_and_wrong_sizes_are_said(
    home, dataset, tmp_path, capsys
):
    points = tmp_path / "points"
    points.mkdir()
    for file in (dataset / KEYPOINTS).glob("*.pt"):
        if "AU4" not in file.name:
            (points / file.name).write_bytes(file.read_bytes())
    assert cli.main(modes(home, tmp_path, "pairs", str(dataset), "--points", str(points))) == 2
    said = capsys.readouterr()
    errors = said.err.strip().splitlines()
    assert len(errors) == 2 and all("no key points of the clip 'AU4" in line for line in errors)
    assert said.out.count(": done: ") == 2
    more = ["--points", str(points), "--missing", "default"]
    assert cli.main(modes(home, tmp_path, "pairs", str(dataset), *more)) == 0
    said = capsys.readouterr()
    assert "the default points are taken" in said.err and "Traceback" not in said.err
    line = modes(home, tmp_path / "large", "pairs", str(dataset))
    line[line.index("--size") + 1] = "128"
    assert cli.main(line) == 2
    assert "frames of 64 x 64 px; 128 x 128 is needed" in capsys.readouterr().err.splitlines()[0]


def test_pairs_of_a_list_that_names_absent_clips_warn_in_a_line(home, dataset, tmp_path, capsys):
    names = [p.name for p in (dataset / "test").iterdir()]
    face = next(name for name in names if name.startswith("normalized"))
    clip = next(name for name in names if not name.startswith("normalized"))
    rows = ["distance,source,driving,frame", f"0,{face},{clip},0", f"0,{face},gone,0"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    listed = ["--pairs", str(tmp_path / "list.csv"), "--format", ".gif", "--fps", "20"]
    assert cli.main(modes(home, tmp_path, "pairs", str(dataset), *listed)) == 0
    said = capsys.readouterr()
    assert said.err.startswith("facecomp: ") and "no clip gone" in said.err
    assert open_video(tmp_path / "out" / f"{clip}-{face}.gif").fps == pytest.approx(20)


def test_reconstruction_gives_the_mean_over_all_frames_and_keeps_it(
    home, dataset, tmp_path, capsys
):
    line = modes(home, tmp_path, "reconstruct", str(dataset), "--num-videos", "2")
    assert cli.main(line) == 0
    said = capsys.readouterr().out.splitlines()
    table = pd.read_csv(tmp_path / "out" / "reconstruction.csv")
    assert len(table) == 3 and float(
        said[-1].removeprefix("Reconstruction loss: ")
    ) == pytest.approx(table["l1"].iloc[-1], rel=1e-12)
    networks, _ = import_model(home / "model.pt")
    absolute, losses = RelativeSettings(False, False, False), []
    for clip in table["clip"][:-1]:
        frames = [read_image(p) for p in sorted((dataset / "test" / clip).glob("*.png"))]
        own = torch.load(dataset / KEYPOINTS / f"{clip}.pt", weights_only=True)
        made = list(reference_animation(networks, frames[0], own, frames, own, absolute))
        losses += [one.l1() for one in made]
        assert near(
            read_image(tmp_path / "out" / "png" / f"{clip}.png"),
            np.hstack([as_uint8(one.image) for one in made]),
        )
    assert len(losses) == table["frames"].iloc[-1]
    assert table["l1"].iloc[-1] == pytest.approx(np.mean(losses), abs=2e-5)
    assert cli.main(line) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[-1] == said[-1] and all(": skipped: " in text for text in again[:-1])


def test_modes_of_a_model_with_points_of_every_frame(home, dataset, tmp_path):
    how = ModeSettings(tmp_path / "a", size=SIDE, device="cpu")
    ended = list(animate_pairs(dataset, home / "every.pt", num_pairs=1, how=how))
    assert [e.state for e in ended] == ["done"]
    wrong = replace(how, points=dataset / KEYPOINTS)
    failed = list(reconstruct_clips(dataset, home / "every.pt", 1, wrong))
    assert failed[0].state == "failed" and "points" in failed[0].line
    plain = replace(how, per_frame=False)
    with pytest.raises(InputError, match="every frame"):
        list(animate_pairs(dataset, home / "every.pt", how=plain))
    assert (dataset / PER_FRAME).is_dir()


def test_the_key_point_job_runs_from_the_command_line(dataset, tmp_path, capsys):
    line = ["fomm", "points", str(dataset), "--out", str(tmp_path / "points"), "--size", str(SIDE)]
    assert cli.main(line) == 0 and "made, 0 were there" in capsys.readouterr().out
    assert len(list((tmp_path / "points").glob("*.pt"))) == len(
        list((dataset / KEYPOINTS).glob("*.pt"))
    )
    assert cli.main(line) == 0 and "0 made" in capsys.readouterr().out
    assert cli.main(["fomm", "points", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
