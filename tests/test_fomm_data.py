"""FOMM's clips, key points and training pairs: from videos to batches, whatever is broken, in any number of processes."""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facecomp import cli
from facecomp.data.keypoints import default_points, points_of_landmarks
from facecomp.data.sampling import EpochSampler, Item, legacy_order
from facecomp.faces.alignment import fomm_points, grey, mirror_fomm_points
from facecomp.faces.detection import Face
from facecomp.faces.images import read_image
from facecomp.faces.synthetic import participant
from facecomp.faces.writing import write_frames, write_gif, write_video
from facecomp.fomm.augmentation import AugmentationSettings, augment_pair
from facecomp.fomm.clips import Clip, clips_in, find_clips, pairs_of, read_pairs_csv
from facecomp.fomm.pair_sets import LegacyDraws, PairSet, collate
from facecomp.fomm.people import EXPRESSIONS, PAIRS, make_dataset, recording_of
from facecomp.fomm.points import (
    find_points,
    load_points,
    make_points,
    read_frame_points,
    read_landmarks,
    read_points,
    write_points,
)
from facecomp.records.files import InputError
from facecomp.training.loop import make_loader

OVAL = np.stack([32 + 20 * np.cos(np.arange(68)), 32 + 25 * np.sin(np.arange(68))], 1).round()


@dataclass(frozen=True)
class Bright:
    """Finds a face where the upper left pixel is bright, moved by that pixel's value."""

    shift: int = 0
    name: str = "bright"

    def __call__(self, image: np.ndarray) -> list[Face]:
        value = int(image[0, 0, 0])
        points = OVAL + value % 7 + self.shift
        return [Face((12, 7, 52, 57), points, 1.0)] if value > 50 else []


def pictures(values, size: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (size, size, 3), np.uint8) for _ in values]
    for frame, value in zip(frames, values, strict=True):
        frame[0, 0] = value
    return frames


def some_clips(root: Path, **values) -> list[Clip]:
    for name, numbers in values.items():
        write_frames(root / name, pictures(numbers))
    return [Clip(name, root / name) for name in values]


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("people") / "micro"
    return make_dataset(root, 2, expressions=EXPRESSIONS[:2], frames=5, quiet=True)


def pair_set(root: Path, **more) -> PairSet:
    clips = find_clips(root)
    settings = {"augmentation": AugmentationSettings(), "num_repeats": 3, "size": 64}
    return PairSet(clips, load_points(root / "keypoint_folder", clips), **(settings | more))


# clips


def test_the_forms_of_a_clip_give_the_same_frames(tmp_path):
    frames = pictures(range(4), size=32)
    write_frames(tmp_path / "folder", frames, "f{}.png")
    Image.fromarray(np.concatenate(frames, 1)).save(tmp_path / "strip.png")
    write_video(tmp_path / "movie.mov", frames, 25, lossless=True)
    flat = [np.full((32, 32, 3), 60 * k, np.uint8) for k in range(4)]
    write_gif(tmp_path / "moving.gif", flat, 25)
    clips = {clip.name: clip for clip in clips_in(tmp_path, size=32)}
    assert list(clips) == ["folder", "movie", "moving", "strip"]
    for name in ("folder", "movie", "strip"):
        assert len(clips[name]) == 4 and clips[name].shape == (32, 32)
        for k, frame in enumerate(clips[name].frames()):
            assert np.array_equal(frame, frames[k]) and np.array_equal(clips[name].frame(k), frame)
    assert [int(f.mean().round()) // 10 * 10 for f in clips["moving"].frames()] == [0, 60, 120, 180]
    with pytest.raises(IndexError, match="there are 4"):
        clips["strip"].frame(4)


def test_grey_and_transparent_frames_and_strips_become_rgb(tmp_path):
    grey_values = np.arange(16 * 48, dtype=np.uint16).reshape(16, 48)
    Image.fromarray((grey_values % 256).astype(np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([np.full((16, 16, 3), 9, np.uint8), np.zeros((16, 16), np.uint8)])).save(tmp_path / "alpha.png")
    grey_clip, alpha = (Clip(n, tmp_path / f"{n}.png", 16) for n in ("grey", "alpha"))
    assert len(grey_clip) == 3 and grey_clip.frame(1).shape == (16, 16, 3)
    assert grey_clip.frame(1)[0, 0].tolist() == [16, 16, 16]
    assert len(alpha) == 1 and (alpha.frame(0) == 9).all()


def test_a_strip_that_was_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "strip.png"
    for value in (10, 20):
        Image.fromarray(np.full((8, 16, 3), value, np.uint8)).save(path)
        assert Clip("strip", path, 8).frame(1)[0, 0, 0] == value


def test_what_is_no_clip_is_one_line(tmp_path):
    Image.fromarray(np.zeros((16, 40, 3), np.uint8)).save(tmp_path / "strip.png")
    (tmp_path / "empty").mkdir()
    write_frames(tmp_path / "mixed", [np.zeros((8, 8, 3), np.uint8)])
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "mixed/00001.png")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/0.png").write_bytes(b"\x89PNG")
    cases = {
        "strip.png": "strip of 40x16 px; must be 16 px high and a multiple of it wide",
        "empty": "no image in this folder",
        "mixed": "frame 1 is 9x8 pixels",
        "torn": "cannot be read as an image",
        "absent.png": "No such file",
    }
    for name, line in cases.items():
        with pytest.raises(InputError, match=line) as error:
            list(Clip("x", tmp_path / name, 16).frames())
        assert name in str(error.value) and "\n" not in str(error.value)


def test_published_folders_are_found_and_others_divided(tmp_path):
    some_clips(tmp_path / "a/train", x2=[1, 2], x10=[3, 4])
    some_clips(tmp_path / "a/test", face=[5])
    (tmp_path / "a/test/.DS_Store").write_bytes(b"")
    (tmp_path / "a/train/notes.txt").write_text("mine")
    assert [c.name for c in find_clips(tmp_path / "a")] == ["x2", "x10"]
    assert [c.name for c in find_clips(tmp_path / "a", "test")] == ["face"]
    names = [f"c{k}" for k in range(10)]
    some_clips(tmp_path / "b", **{name: [1, 2] for name in names})
    train, test = ([c.name for c in find_clips(tmp_path / "b", part)] for part in ("train", "test"))
    assert len(train) == 8 and sorted(train + test) == names
    assert test == ["c2", "c8"]  # scikit-learn's train_test_split(10 names, random_state=0)


@pytest.mark.parametrize(
    ("make", "part", "line"),
    [
        ([], "train", "no such folder"),
        (["train/a"], "test", "has train/ but no test/"),
        (["train/a"], "train", "no frame in this clip; at least one image is needed"),
        (["train"], "train", "no clips"),
        ([], "val", "must be one of train, test"),
    ],
)
def test_a_data_set_that_cannot_be_is_one_line(tmp_path, make, part, line):
    for folder in make:
        (tmp_path / "set" / folder).mkdir(parents=True)
    with pytest.raises(InputError, match=line):
        find_clips(tmp_path / "set", part)


def test_two_clips_of_one_name_are_refused(tmp_path):
    some_clips(tmp_path, a=[1])
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="two clips are named 'a'"):
        clips_in(tmp_path)


def test_pairs_follow_the_list_and_absent_ones_are_said(tmp_path):
    clips = some_clips(tmp_path, m=[1], f=[2], a=[3, 4], b=[5, 6])
    path = tmp_path / "pairs.csv"
    path.write_text("distance,source,driving,frame\n0,f,a,0\n0,f,lost,0\n0,gone,a,0\n0,m,b,0\n0,m,a,0\n")
    with pytest.warns(UserWarning, match="2 of 5 pairs left out: no clip gone, lost"):
        pairs = pairs_of(clips, path, num_pairs=2)
    assert [(s.name, d.name) for s, d in pairs] == [("f", "a"), ("m", "b")]
    path.write_text("source,driving\ngone,lost\n")
    with pytest.raises(InputError, match="no pair names two"), pytest.warns(UserWarning):
        pairs_of(clips, path)
    for text, line in (("source,frame\nf,0\n", "column driving is missing"), ("source,driving\nf,\n", "row 1")):
        path.write_text(text)
        with pytest.raises(InputError, match=line):
            read_pairs_csv(path)


def test_pairs_without_a_list_are_those_of_numpys_seed(tmp_path):
    clips = some_clips(tmp_path, **{f"c{k}": [1] for k in range(5)})
    np.random.seed(0)  # noqa: NPY002
    grid = np.mgrid[:3, :3].reshape(2, -1).T
    drawn = np.random.choice(9, 3, replace=False)  # noqa: NPY002
    wanted = grid.take(drawn, axis=0).tolist()  # driving, source
    pairs = pairs_of(clips, num_pairs=3)
    assert [[int(d.name[1]), int(s.name[1])] for s, d in pairs] == wanted
    assert len({(s.name, d.name) for s, d in pairs_of(clips, num_pairs=50)}) == 25


# key points


def test_published_files_and_ours_are_read_alike(tmp_path):
    points = default_points(256) + np.float32(0.5)
    write_points(tmp_path / "ours.pt", points)
    torch.save(torch.tensor(points, requires_grad=True), tmp_path / "published.pt")
    torch.save(torch.tensor(points), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("ours", "published", "old"):
        read = read_points(tmp_path / f"{name}.pt")
        assert read.dtype == np.float32 and np.array_equal(read, points)
    raw = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert raw.shape == (18, 2) and raw.dtype == torch.float32 and not raw.requires_grad
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"kp": torch.zeros(18, 2)}, "holds a dict"),
        (torch.zeros(17, 2), r"shape \(17, 2\)"),
        (torch.zeros(2, 18, 2), "one set of points for a clip is needed"),
        (torch.full((18, 2), torch.inf), "point 0 .* not finite"),
        (torch.zeros(18, 2, dtype=torch.complex64), "complex64"),
        (None, "holds a NoneType"),
    ],
)
def test_a_point_file_with_other_content_is_one_line(tmp_path, content, line):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError, match=line) as error:
        read_points(tmp_path / "c.pt")
    assert "c.pt" in str(error.value) and "\n" not in str(error.value)


def test_a_cut_or_foreign_point_file_is_one_line(tmp_path):
    path = write_points(tmp_path / "c.pt", default_points())
    for data in (path.read_bytes()[:300], b"", b"no points"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"c\.pt"):
            read_points(path)
    with pytest.raises(InputError, match="no such key-point file"):
        read_points(tmp_path / "absent.pt")


def test_the_name_is_exact_and_the_published_match_takes_the_last(tmp_path):
    for k, name in enumerate(("006_1_2", "006_1_20", "006_1_3")):
        write_points(tmp_path / f"{name}.pt", default_points() + k)
    assert find_points(tmp_path, "006_1_2").points[0, 0] == 71
    assert find_points(tmp_path, "006_1_2", "substring").file.name == "006_1_20.pt"
    assert find_points(tmp_path, "006_1", "substring").file.name == "006_1_20.pt"  # natural order: 2, 3, 20
    with pytest.raises(InputError, match=r"no key points of the clip '006_1' \(006_1.pt\)"):
        find_points(tmp_path, "006_1")
    with pytest.warns(UserWarning, match="'006_1'; the default points are taken"):
        found = find_points(tmp_path, "006_1", missing="default", size=64)
    assert found.default and found.file is None and np.array_equal(found.points, default_points(64))
    for wrong in ({"mode": "near"}, {"missing": "skip"}):
        with pytest.raises(InputError, match="must be one of"):
            find_points(tmp_path, "x", **wrong)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_point_job_takes_first_frames_or_all(tmp_path):
    clips = some_clips(tmp_path / "clips", a=[60, 61], b=[0, 70], c=[90, 0, 0, 95])
    made = make_points(clips, tmp_path / "one", Bright(), quiet=True)
    assert len(files_of(tmp_path / "one")) == 6 and made.defaults == ("b",)
    each = make_points(clips, tmp_path / "each", Bright(), per_frame=True, quiet=True)
    assert each.defaults == ()
    assert np.array_equal(read_points(tmp_path / "one/a.pt"), fomm_points(OVAL + 60 % 7))
    assert np.array_equal(read_points(tmp_path / "one/b.pt"), default_points(64))
    table = read_landmarks(tmp_path / "one/b.csv")
    assert not table.detected[0] and np.isnan(table.points).all() and table.detector == "bright"
    every = read_frame_points(tmp_path / "each/c.pt")
    assert np.array_equal(every[1], fomm_points(OVAL + 90 % 7))  # frame 0 is nearest
    assert np.array_equal(every[2], fomm_points(OVAL + 95 % 7)) and len(every) == 4
    assert read_landmarks(tmp_path / "each/c.csv").detected.tolist() == [True, False, False, True]


def test_the_point_job_makes_again_what_is_damaged_or_of_something_else(tmp_path):
    clips = some_clips(tmp_path / "clips", a=[60, 61], b=[0, 70])
    out = tmp_path / "out"
    make_points(clips, out, Bright(), quiet=True)
    whole = files_of(out)
    (out / "a.csv").unlink()
    (out / "b.pt").write_bytes(b"cut")
    assert make_points(clips, out, Bright(), quiet=True).made == ("a", "b")
    assert files_of(out) == whole
    assert make_points(clips, out, Bright(), quiet=True).there == ("a", "b")
    assert make_points(clips, out, Bright(shift=1), quiet=True).made == ("a", "b")
    frame = clips[0].path / "00000.png"
    picture = read_image(frame)
    picture[5, 5] ^= 1
    Image.fromarray(picture).save(frame)
    assert make_points(clips[:1], out, Bright(shift=1), quiet=True).made == ("a",)


def test_points_come_from_any_source_of_landmarks_in_any_number_of_processes(people, tmp_path):
    clips = find_clips(people)
    truth = recording_of(clips[0])
    for clip in clips:
        lines = [f"{x:.7e} {y:.7e}\n" for x, y in recording_of(clip).landmarks[0]]
        (tmp_path / "text" / clip.name).mkdir(parents=True)
        (tmp_path / "text" / clip.name / "00000_landmarks.txt").write_text("".join(lines))
    made = make_points(clips, tmp_path / "out", "files", tmp_path / "text", quiet=True)
    assert made.defaults == () and len(made.made) == len(clips)
    spread = make_points(clips, tmp_path / "two", "files", tmp_path / "text", jobs=2, quiet=True)
    assert spread == made and files_of(tmp_path / "out") == files_of(tmp_path / "two")
    found = read_points(tmp_path / "out" / f"{clips[0].name}.pt")
    assert np.abs(found - fomm_points(truth.landmarks[0])).max() < 1e-4
    with pytest.raises(InputError, match="no points for the video"):
        make_points(clips, tmp_path / "out", "files", tmp_path, quiet=True)


def test_frames_without_a_face_take_the_nearest_and_else_the_default():
    seen = np.full((3, 68, 2), np.nan)
    assert np.array_equal(points_of_landmarks(seen, 128), np.stack([default_points(128)] * 3))
    seen[2] = OVAL
    assert np.array_equal(points_of_landmarks(seen, 128), np.stack([fomm_points(OVAL)] * 3))


# preparing


def run(capsys, *arguments):
    try:
        code = cli.main(["data", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_prepared_clips_are_a_data_set_with_points(people, tmp_path, capsys):
    videos = tmp_path / "in"
    for k, clip in enumerate(find_clips(people)[:3]):
        frames = list(clip.frames())
        write_frames(videos / f"EP{k}", [np.pad(f, ((9, 3), (5, 7), (0, 0))) for f in frames], "img_{}.png")
        landmarks = recording_of(clip).landmarks + (5, 9)
        for name, points in zip((f"img_{i}" for i in range(len(frames))), landmarks, strict=True):
            text = "".join(f"{x:.7e} {y:.7e}\n" for x, y in points)
            path = tmp_path / "marks" / f"EP{k}" / f"{name}_landmarks.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    known = ("--detector", "files", "--points", tmp_path / "marks", "--participant", "sub 1")
    fomm = ("prepare", videos, "--for", "fomm", "--quiet", *known)
    code, out, error = run(capsys, *fomm, "--out", tmp_path / "out", "--size", 64, "--gray", "upstream")
    assert code == 0 and "3 done" in out and not error
    root = tmp_path / "out/fomm"
    clips = clips_in(root)
    assert [clip.name for clip in clips] == ["sub 1_EP0", "sub 1_EP1", "sub 1_EP2"]
    points = load_points(root / "keypoint_folder", clips)
    frame, mark = clips[1].frame(0), points["sub 1_EP1"]
    assert frame.shape == (64, 64, 3) and np.ptp(frame, axis=2).max() == 0
    rows = list(csv.DictReader((root / "manifest.csv").open()))
    left, top, right, bottom = (int(rows[1][side]) for side in ("left", "top", "right", "bottom"))
    seen = recording_of(find_clips(people)[1]).landmarks[0] + (5, 9)
    scale = 64 / np.array([right - left, bottom - top])
    assert np.abs(fomm_points((seen + 0.5 - (left, top)) * scale - 0.5) - mark).max() < 1e-3
    table = read_landmarks(root / "keypoint_folder/sub 1_EP1.csv")
    assert table.detector == "files" and np.array_equal(points_of_landmarks(table.points, 64)[0], mark)
    first = read_image(videos / "EP1/img_0.png")[top:bottom, left:right]
    swapped = grey(first, "upstream")[..., 0].mean() - grey(first, "luma")[..., 0].mean()
    assert abs(swapped) > 1 and abs(frame.mean() - grey(first, "upstream").mean()) < 0.5
    assert len(find_clips(root)) == 2 and len(find_clips(root, "test")) == 1
    pairs = PairSet(find_clips(root), points, size=64)
    assert collate([pairs[Item(0, 0, 0)]]).keypoints.shape == (1, 18, 2)

    assert "3 skipped" in run(capsys, *fomm, "--out", tmp_path / "out", "--size", 64, "--gray", "upstream")[1]
    (root / "keypoint_folder/sub 1_EP1.pt").unlink()
    code, out, _ = run(capsys, *fomm, "--out", tmp_path / "out", "--size", 64, "--gray", "upstream")
    assert code == 0 and "1 done, 2 skipped" in out and "keypoint_folder/sub 1_EP1.pt is gone" in out
    assert np.array_equal(read_points(root / "keypoint_folder/sub 1_EP1.pt"), mark)


def test_bad_options_of_fomm_are_one_line(capsys, tmp_path):
    write_frames(tmp_path / "v", pictures([1]))
    for more, line in (
        (["--gray", "green"], "invalid choice"),
        (["--size", "0"], "not a number of 1 or more"),
        (["--for", "psm", "--gray", "luma"], "settings for 'fomm', which is not among the studies"),
    ):
        code, out, error = run(capsys, "prepare", tmp_path / "v", "--out", tmp_path / "o", *more)
        assert code == 2 and line in error and "Traceback" not in error + out


# synthetic people


def test_the_synthetic_data_set_is_published_in_form_and_true(people):
    train, test = find_clips(people), find_clips(people, "test")
    assert len(train) == 4 and {len(c) for c in train} == {5}
    faces = [c for c in test if len(c) == 1]
    assert len(faces) == 2 and all(c.name.startswith("normalized_") for c in faces)
    persons = [{c.name.split("_")[1] for c in part} for part in (train, [c for c in test if len(c) > 1], faces)]
    assert not (persons[0] & persons[1] or persons[0] & persons[2] or persons[1] & persons[2])
    pairs = pairs_of(test, people / PAIRS)
    assert len(pairs) == 2 * 2 and all(len(s) == 1 and len(d) == 5 for s, d in pairs)
    for clip in (train[0], faces[0]):
        truth, points = recording_of(clip), read_points(people / "keypoint_folder" / f"{clip.name}.pt")
        assert all(np.array_equal(a, b) for a, b in zip(clip.frames(), truth.frames(), strict=True))
        assert np.array_equal(points, fomm_points(truth.landmarks[0]))
        assert ((points > 0) & (points < 64)).all()
        every = read_frame_points(people / "keypoints_per_frame" / f"{clip.name}.pt")
        assert np.array_equal(every, np.stack([fomm_points(p) for p in truth.landmarks]))


def test_the_flow_of_a_synthetic_clip_carries_its_frames(people):
    truth = recording_of(find_clips(people)[0])
    motion, known = truth.flow(0, truth.recording.apex)
    first, apex = (truth.frame(t).astype(np.float32) for t in (0, truth.recording.apex))
    y, x = np.nonzero(known)
    rows, columns = (y + motion[y, x, 1]).round().astype(int), (x + motion[y, x, 0]).round().astype(int)
    inside = (rows >= 0) & (rows < 64) & (columns >= 0) & (columns < 64)
    moving = inside & (np.abs(motion[y, x]).max(1) > 0.5)
    y, x, rows, columns = (v[moving] for v in (y, x, rows, columns))
    assert moving.sum() > 20
    along = np.abs(apex[rows, columns] - first[y, x]).mean()
    still = np.abs(apex[y, x] - first[y, x]).mean()
    assert along < 0.8 * still


def test_the_same_people_are_made_again(people, tmp_path):
    participant.cache_clear()
    make_dataset(tmp_path / "m", 2, expressions=EXPRESSIONS[:2], frames=5, quiet=True)
    for part in ("train", "test", "keypoint_folder", "keypoints_per_frame"):
        names = sorted(p.relative_to(people).as_posix() for p in (people / part).rglob("*") if p.is_file())
        assert names == sorted(p.relative_to(tmp_path / "m").as_posix() for p in (tmp_path / "m" / part).rglob("*") if p.is_file())
        assert all((people / n).read_bytes() == (tmp_path / "m" / n).read_bytes() for n in names)


# pairs


def batches(pairs: PairSet, workers: int = 0, seed: int = 5, **where) -> list:
    sampler = EpochSampler(len(pairs), seed, batch_size=3, drop_last=True, **where)
    return list(make_loader(pairs, sampler, workers, collate))


def same(a, b) -> bool:
    values = zip(vars(a).values(), vars(b).values(), strict=True)
    return all(x is y is None or torch.equal(x, y) for x, y in values)


def test_batches_are_the_same_for_every_number_of_workers_and_after_every_stop(people):
    whole = batches(pair_set(people), epoch=2)
    assert len(whole) == 4 and all(b.source.shape == (3, 3, 64, 64) for b in whole)
    spread = batches(pair_set(people), workers=2, epoch=2)
    assert all(same(a, b) for a, b in zip(whole, spread, strict=True))
    late = batches(pair_set(people), epoch=2, start_step=3)
    assert len(late) == 1 and same(late[0], whole[3])
    assert not same(batches(pair_set(people), epoch=3)[0], whole[0])
    assert not same(batches(pair_set(people), epoch=2, seed=6)[0], whole[0])


def test_frames_from_memory_store_and_disk_are_the_same(people, tmp_path):
    plain = batches(pair_set(people))
    for more in ({"memory": 0}, {"store": tmp_path / "store"}, {"store": tmp_path / "store"}):
        assert all(same(a, b) for a, b in zip(plain, batches(pair_set(people, **more)), strict=True))
    again = pair_set(people, store=tmp_path / "store")
    assert same(batches(again, workers=1)[0], plain[0])


def test_the_published_draws_are_those_of_the_global_generators(people):
    clips = find_clips(people)
    points = load_points(people / "keypoint_folder", clips)
    settings = AugmentationSettings(brightness=0.1)
    pairs = PairSet(clips, points, settings, num_repeats=2, size=64, legacy=LegacyDraws.seeded(4))
    np.random.seed(4)  # noqa: NPY002
    random.seed(4)
    for index in legacy_order(len(pairs), 4, 0):
        clip = clips[index % len(clips)]
        numbers = np.sort(np.random.choice(len(clip), replace=True, size=2))  # noqa: NPY002
        frames = np.stack([clip.frame(int(k)) for k in numbers]).astype(np.float32) / np.float32(255)
        wanted, _ = augment_pair(frames, points[clip.name], settings, random)
        made = pairs[int(index)]
        assert made.name == clip.name and np.array_equal(made.keypoints, points[clip.name])
        assert np.array_equal(np.stack([made.source, made.driving]), wanted)


def test_points_of_every_frame_go_with_their_frames(people):
    clips = find_clips(people)
    every = load_points(people / "keypoints_per_frame", clips, per_frame=True)
    settings = AugmentationSettings(hue=0, flip_keypoints=True)
    pairs = PairSet(clips, every, settings, num_repeats=10, size=64, per_frame=True)
    turned = mirrored = 0
    for k in range(len(pairs)):
        pair, clip = pairs[Item(0, 0, k)], clips[k % len(clips)]
        frames = [frame.astype(np.float32) / np.float32(255) for frame in clip.frames()]
        flipped = not any(np.array_equal(pair.source, frame) for frame in frames)
        look = [frame[:, ::-1] for frame in frames] if flipped else frames
        places = [next(t for t, f in enumerate(look) if np.array_equal(f, side)) for side in (pair.source, pair.driving)]
        wanted = every[clip.name][places]
        wanted = mirror_fomm_points(wanted, 64).astype(np.float32) if flipped else wanted
        assert np.array_equal(np.stack([pair.keypoints, pair.driving_keypoints]), wanted)
        turned, mirrored = turned + (places[0] > places[1]), mirrored + flipped
    assert turned > 5 and mirrored > 3


def test_an_item_of_a_person_draws_one_of_the_clips(tmp_path):
    clips = some_clips(tmp_path, **{"p#a": [1, 2], "p#b": [3, 4, 5], "q#c": [6, 7]})
    points = {clip.name: default_points(64) + k for k, clip in enumerate(clips)}
    pairs = PairSet(clips, points, num_repeats=20, size=64, id_sampling=True)
    drawn = [pairs[Item(1, 0, k)] for k in range(len(pairs))]
    assert len(pairs) == 40 and {p.name for p in drawn[1::2]} == {"q#c"}
    assert 4 < sum(p.name == "p#b" for p in drawn[::2]) < 16
    assert all(np.array_equal(p.keypoints, points[p.name]) for p in drawn)


def test_what_cannot_be_trained_with_is_one_line(tmp_path):
    [two, one] = some_clips(tmp_path, two=[1, 2], one=[3])
    usual = default_points(64)
    cases = [
        ([], {}, {}, "no clips"),
        ([one], {"one": usual}, {}, "1 frame; a clip to train with needs 2 or more"),
        ([two], {}, {}, "no key points of the clip 'two'"),
        ([two], {"two": usual[:3]}, {}, r"\(3, 2\); must be numbers \(18, 2\)"),
        ([two], {"two": usual * np.nan}, {}, "not finite"),
        ([two], {"two": np.stack([usual] * 3)}, {"per_frame": True}, r"must be \(2, 18, 2\), one set a frame"),
        ([two], {"two": np.stack([usual] * 2)}, {}, r"must be \(18, 2\)"),
        ([two], {"two": usual}, {"size": 256}, "frames of 64x64 px; size is 256"),
        ([two], {"two": usual}, {"num_repeats": 0}, "num_repeats 0"),
        ([two], {"two": usual}, {"gray": "red"}, "none, luma, upstream"),
    ]
    for clips, points, more, line in cases:
        with pytest.raises(InputError, match=line) as error:
            PairSet(clips, points, **({"size": 64} | more))
        assert "\n" not in str(error.value)
    assert PairSet([two], None, size=64)[Item(0, 0, 0)].keypoints is None
