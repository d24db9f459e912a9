"""Lists of all data sets on twins in their layouts, Gaze360's head crops, and synthetic people with known emotion and gaze."""

import csv
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, published_folder
from test_layouts import copy, fake_recording, twins  # noqa: F401  # fixtures
from threadpoolctl import threadpool_limits

from facecomp.data.layouts import find_layout
from facecomp.data.twins import finished_clips
from facecomp.dfer import gaze360, lists, people
from facecomp.dfer.annotations import read_lists
from facecomp.dfer.clip_frames import ClipFrames, Stretched, clip_sources
from facecomp.dfer.gaze360 import CropSettings, crop_head, prepare_gaze360
from facecomp.dfer.lists import cli_lists, clip_fields, held_out, make_lists, published_counts
from facecomp.dfer.people import EXPRESSIONS, Take, identity, make_people, people_set
from facecomp.faces.detection import Face
from facecomp.faces.openface import points_path, write_points
from facecomp.faces.rig import gaze_direction
from facecomp.records.files import InputError

FOLDS = {"dfew": 5, "mafw": 5, "ferv39k": 1, "ravdess": 6, "cremad": 5, "enterface05": 5}


# --- lists --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDS)
def test_lists_of_all_folds_of_a_twin_can_be_read_by_training(name, twins, tmp_path):  # noqa: F811
    layout, root = find_layout(name), twins(name)
    made = make_lists(name, root, tmp_path)
    assert len(made.files) == 3 * FOLDS[name] and sorted({*made.counts.fold}) == [*range(1, FOLDS[name] + 1)]
    clips = len(finished_clips(root))
    for fold in range(1, FOLDS[name] + 1):
        folder = tmp_path / name / f"fold_{fold}" if FOLDS[name] > 1 else tmp_path / name
        texts = {s: (folder / f"{s}.csv").read_text().splitlines() for s in ("train", "val", "test")}
        assert texts["val"] == texts["test"] and len(texts["train"]) + len(texts["test"]) == clips
        assert not {*texts["train"]} & {*texts["test"]}
        given = [folder / f"{s}.csv" for s in ("train", "test") if texts[s]]
        endings = (".png",) if name == "mafw" else (".jpg",)
        found = read_lists(given, "clips", root, len(layout.lists.labels), endings)
        rows = made.counts[(made.counts.fold == fold) & (made.counts.subset == "train")]
        assert rows.entries.sum() == len(texts["train"])
        assert all(x.labels.min() >= 0 and x.labels.max() < len(layout.lists.labels) for x in found)
    assert "val is a copy of test" in str(made) and "not as published" in str(made)
    assert not made.missing


@pytest.mark.parametrize("name", ["ravdess", "cremad", "enterface05"])
def test_held_out_people_are_in_no_other_list(name, twins, tmp_path):  # noqa: F811
    """Fold 2 tests nobody of the twin, so both people are in its training list; one is held out."""
    layout = find_layout(name)
    make_lists(name, twins(name), tmp_path, fold=2, share=0.5, seed=3)
    folder = tmp_path / name / "fold_2" / "held_out"
    who = [
        {clip_fields(layout, line.split()[0])[layout.person] for line in (folder / f"{s}.csv").read_text().splitlines()}
        for s in ("train", "val")
    ]
    assert [len(x) for x in who] == [1, 1] and not who[0] & who[1]


def test_held_out_clips_of_films_keep_the_classes_and_the_seed():
    layout = find_layout("mafw")
    train = [(f"frames/{k:05d}", k % 11) for k in range(1, 221)]
    rest, held = held_out(layout, train, 0.1, seed=1)
    assert sorted(rest + held) == train and np.bincount([x for _, x in held]).tolist() == [2] * 11
    assert held_out(layout, train, 0.1, seed=1) == (rest, held) != held_out(layout, train, 0.1, seed=2)


def whole_dfew(root: Path, fold: int) -> None:
    """Official files of a fold with as many clips of each class as were published; no frames."""
    number = 0
    for subset, counts in published_counts("dfew")[str(fold)].items():
        if subset == "val":
            continue
        folder, lines = root / f"EmoLabel_DataSplit/{subset}(single-labeled)", ["video_name,label"]
        for label, count in enumerate(counts, 1):
            lines += [f"{number + k + 1},{label}" for k in range(count)]
            number += count
        folder.mkdir(parents=True)
        (folder / f"set_{fold}.csv").write_text("\n".join(lines) + "\n")


def test_a_whole_data_set_has_the_published_counts_and_one_clip_less_is_told(tmp_path):
    whole_dfew(tmp_path / "dfew", 3)
    made = make_lists("DFEW", tmp_path / "dfew", tmp_path / "lists", fold=3, prefix="data/dfew")
    assert made.differences.empty and "all 21 counts as published" in str(made)
    assert made.counts.groupby("subset").entries.sum().to_dict() == {"train": 9357, "val": 2340, "test": 2340}
    assert len(made.missing) == 11697  # no frames there: told, the lists are whole all the same
    assert "11697 clips are not on the disk" in str(made)
    assert (tmp_path / "lists/dfew/missing.txt").read_text().count("\n") == 11697
    file = tmp_path / "dfew/EmoLabel_DataSplit/train(single-labeled)/set_3.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))  # a fear clip is lost
    less = make_lists("DFEW", tmp_path / "dfew", tmp_path / "lists", fold=3)
    assert less.differences[["subset", "name", "difference"]].values.tolist() == [["train", "fear", -1]]
    assert "not as published: 1 of 21 counts" in str(less)


def test_published_counts_are_those_of_the_published_table():
    folder = published_folder()
    places = [ROOT / "results/published/dfer", ROOT.parent / "shared/published/dfer"]
    places += [folder.parent / "dfer"] if folder else []
    table = next((p / "splits.csv" for p in places if (p / "splits.csv").is_file()), None)
    if table is None:
        pytest.skip("published files are not at hand")
    names, rows = {"crema-d": "cremad", "enterface": "enterface05"}, list(csv.DictReader(table.open()))
    for row in rows:
        fold = "1" if row["fold"] == "all" else str(int(row["fold"][5:]))
        counts = published_counts(names.get(row["dataset"], row["dataset"]))[fold][row["subset"]]
        assert counts[int(row["label"])] == int(row["clips"]) and sum(counts) == int(row["subset_total"])
    ours = sum(len(c) for name in FOLDS for f in published_counts(name).values() for c in f.values())
    assert ours == len(rows) == 445


def test_dfew_is_found_where_it_was_unpacked_and_in_16_frames(twins, tmp_path):  # noqa: F811
    root = tmp_path / "dfew"
    shutil.copytree(twins("dfew"), root)
    (root / "jpg_256").rename(root / "Clip/jpg_256")
    made = make_lists("dfew", root, tmp_path / "lists", fold=1)
    assert not made.missing and (tmp_path / "lists/dfew/fold_1/test.csv").read_text().startswith("Clip/jpg_256/")
    sixteen = make_lists("dfew", root, tmp_path / "lists", fold=1, sixteen=True)
    file = tmp_path / "lists/dfew_16f/fold_1/train.csv"
    listing = read_lists([file], "clips", root, 7)[0]
    assert not sixteen.missing and all(len(list(Path(p).iterdir())) == 16 for p in listing.paths)
    with pytest.raises(InputError, match="no folders of 16 frames"):
        make_lists("mafw", twins("mafw"), tmp_path / "lists", sixteen=True)


def test_laboratory_videos_without_frames_are_listed_and_told(twins, tmp_path):  # noqa: F811
    root = tmp_path / "ravdess"
    shutil.copytree(twins("ravdess"), root)
    shutil.rmtree(root / "face_aligned")
    made = make_lists("ravdess", root, tmp_path / "lists", fold=1)
    assert len(made.missing) == 16 and made.missing[0].startswith("face_aligned/Actor_01/02-01-01-")
    assert made.counts[made.counts.subset == "test"].entries.tolist() == [2] * 8


def test_unreadable_videos_are_dropped_counted_and_looked_at_once(twins, tmp_path, monkeypatch):  # noqa: F811
    root = tmp_path / "vox"
    shutil.copytree(twins("voxceleb2"), root)
    videos = sorted(root.glob("dev/mp4/*/*/*.mp4"))
    videos[1].write_bytes(videos[1].read_bytes()[:300])
    looked, count = [], lists.count_frames

    def stopped(path, quick):
        looked.append(path.name)
        if len(looked) == 3:
            raise KeyboardInterrupt
        return count(path, quick)

    monkeypatch.setattr(lists, "count_frames", stopped)
    with pytest.raises(KeyboardInterrupt):
        make_lists("voxceleb2", root, tmp_path / "lists")
    monkeypatch.setattr(lists, "count_frames", lambda path, quick: looked.append(path.name) or count(path, quick))
    made = make_lists("VoxCeleb2", root, tmp_path / "lists", jobs=2)
    assert len(looked) == len(videos) + 1 == 5  # only the one that was stopped is looked at twice
    assert "1 of 4 videos cannot be read and are left out" in str(made)
    listing = read_lists([tmp_path / "lists/voxceleb2/train.csv"], "videos", root)[0]
    assert listing.paths == tuple(str(v) for v in videos if v != videos[1]) and not listing.labels.any()
    assert made.differences.difference.tolist() == [3 - 1_091_726]


def test_lists_refuse_what_they_cannot_do(twins, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="has no clip lists"):
        make_lists("samm", twins("samm"), tmp_path)
    with pytest.raises(InputError, match="fold 6; rule: 1 to 5"):
        make_lists("dfew", twins("dfew"), tmp_path, fold=6)
    with pytest.raises(InputError, match="holds a blank"):
        make_lists("dfew", twins("dfew"), tmp_path, fold=1, prefix="my data")
    with pytest.raises(InputError, match="held-out share 2 of DFEW"):
        make_lists("dfew", twins("dfew"), tmp_path, fold=1, share=2)
    with pytest.raises(InputError, match=re.escape("no clip of MAFW; rule: frames/{clip}")):
        clip_fields(find_layout("mafw"), "frames/7")


def test_frames_of_a_list_come_from_the_store_as_from_the_files(twins, tmp_path):  # noqa: F811
    root = twins("mafw")
    make_lists("mafw", root, tmp_path, fold=1)
    listing = read_lists([tmp_path / "mafw/fold_1/test.csv"], "clips", root, 11, (".png",))[0]
    sources = clip_sources(listing, (".png",))
    files, stored = ClipFrames(sources, Stretched(24), memory=0), ClipFrames(sources, Stretched(24), tmp_path / "s")
    for k in range(len(sources)):
        numbers = [3, 0, files.count(k) - 1, 3]
        assert stored.count(k) == files.count(k) and np.array_equal(stored(k, numbers), files(k, numbers))
    written = (tmp_path / "s").stat().st_mtime_ns, sorted((f.name, f.stat().st_mtime_ns) for f in (tmp_path / "s").iterdir())
    ClipFrames(sources, Stretched(24), tmp_path / "s")  # made once
    assert written == ((tmp_path / "s").stat().st_mtime_ns, sorted((f.name, f.stat().st_mtime_ns) for f in (tmp_path / "s").iterdir()))


# --- Gaze360 ------------------------------------------------------------------------------------


@pytest.fixture
def gaze_root(twins, tmp_path):  # noqa: F811
    """A twin without head crops, and the points of its faces but those of one image."""
    root, points = tmp_path / "gaze360", tmp_path / "points"
    shutil.copytree(twins("gaze360"), root)
    shutil.rmtree(root / "normalized_imgs")
    for clip in finished_clips(root):
        unit = f"rec_{clip.fields['rec']}/head/{clip.fields['person']}"
        (points / unit).mkdir(parents=True)
        for k, image in enumerate(sorted((root / "imgs" / unit).iterdir())):
            row = clip.truth.iloc[k]
            xy = np.stack([row[[f"{c}_{i}" for i in range(68)]].to_numpy(float) for c in "xy"], 1)
            if (unit, k) != ("rec_001/head/000000", 3):
                write_points(points_path(points / unit, image), xy)
    return root, points


def crops_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.jpg")}


def test_gaze360_is_prepared_after_a_stop_as_without_one_and_by_two_workers(gaze_root, tmp_path, monkeypatch):
    root, points = gaze_root
    (root / "imgs/rec_000/head/000000/000005.jpg").write_bytes(b"broken")
    options = {"detector": "files", "points": points, "min_size": 8, "size": 32, "length": 4}
    prepare, calls = gaze360.prepare_unit, []

    def stopped(images, crops, unit, names, settings):
        calls.append(unit)
        if len(calls) == 3:
            (crops / unit).mkdir(parents=True)
            (crops / unit / names[0]).write_bytes(b"half")
            raise KeyboardInterrupt
        return prepare(images, crops, unit, names, settings)

    monkeypatch.setattr(gaze360, "prepare_unit", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare_gaze360(root, tmp_path / "a", **options)
    monkeypatch.setattr(gaze360, "prepare_unit", prepare)
    made = prepare_gaze360(root, tmp_path / "a", **options)
    assert made.worked == 4  # of 6 folders: 2 were done
    assert pickle.loads(pickle.dumps((prepare, CropSettings()))) == (prepare, CropSettings())  # for processes
    monkeypatch.setattr(gaze360, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(jobs))
    whole = prepare_gaze360(root, tmp_path / "b", crops=tmp_path / "x/normalized_imgs", jobs=2, **options)
    assert whole.worked == 6 and crops_of(root / "normalized_imgs") == crops_of(tmp_path / "x/normalized_imgs")
    for file in ("train.csv", "val.csv", "test.csv", "left_out.csv"):
        assert (tmp_path / "a/gaze360" / file).read_bytes() == (tmp_path / "b/gaze360" / file).read_bytes()
    left = {(r.subset, r.image): r.reason for r in made.left_out.itertuples()}
    assert left == {
        ("train", "rec_000/head/000000/000005.jpg"): "cannot be read",
        ("val", "rec_001/head/000000/000003.jpg"): "no face",
    }
    assert made.counts.kept.tolist() == [15, 15, 16] and made.counts.difference.tolist() == ["-", 15 - 9119, 16 - 14786]


def test_gaze360_lists_are_as_written_sorted_and_cut_into_runs(gaze_root, tmp_path):
    root, points = gaze_root
    official = (root / "validation.txt").read_text().splitlines()
    (root / "validation.txt").write_text("\n".join(reversed(official)) + "\n")
    text = cli_lists("Gaze360", root, tmp_path / "l", detector="files", points=points)
    assert "no face of 80 px or more" in text and "another detector" in text
    made = prepare_gaze360(root, tmp_path / "l", "files", points, min_size=8, size=32, length=4, gap=2, prefix="data/g")
    lines = (tmp_path / "l/gaze360/val.csv").read_text().splitlines()
    want = [f"data/g/normalized_imgs/{line}" for line in official if "rec_001/head/000000/000003" not in line]
    assert lines == sorted(want)  # other settings: made again, in the official numbers
    assert [run.kept for run in made.runs] == [2, 2, 2]
    filled = (tmp_path / "l/gaze360T/val/val_rec_001_000000_0.csv").read_text().splitlines()
    assert len(filled) == 8 and filled[3] == filled[4] and "000004.jpg" in filled[3]  # 3 is missing
    same = make_lists("gaze360", root, tmp_path / "m", prefix="data/g")
    assert same.counts.groupby("subset").entries.sum().to_dict() == {"train": 16, "val": 15, "test": 16}
    ours = read_lists([tmp_path / "m/gaze360/val.csv"], "gaze", check_files=False)[0]
    theirs = read_lists([tmp_path / "l/gaze360/val.csv"], "gaze", check_files=False)[0]
    assert ours.written == theirs.written and np.allclose(ours.values, theirs.values, atol=1e-12)


def test_crops_beyond_the_rim_are_padded_and_squeezed_only_as_legacy():
    image = np.arange(100 * 100 * 3, dtype=np.uint32).reshape(100, 100, 3).astype(np.uint8)
    face = Face((60, 20, 120, 80), np.zeros((68, 2)), 1.0)  # 20 px of 60 lie beyond the right rim
    padded, _ = crop_head(image, [face], CropSettings(min_size=10, size=60))
    assert np.array_equal(padded[:, :40], image[20:80, 60:100])
    assert np.array_equal(padded[:, 40:], np.repeat(image[20:80, 99:100], 20, 1))
    squeezed, _ = crop_head(image, [face], CropSettings(min_size=10, size=60, legacy=True))
    assert np.array_equal(squeezed, cv2.resize(image[20:80, 60:100], (60, 60), interpolation=cv2.INTER_LINEAR))
    assert crop_head(image, [Face((200, 20, 260, 80), face.points, 1.0)], CropSettings())[1]


def test_the_first_face_that_is_large_enough_is_taken():
    faces = [Face((0, 0, side, side + 9), np.zeros((68, 2)), 1.0) for side in (30, 80, 90)]
    assert gaze360.chosen_face(faces, 80) == (faces[1], "")
    assert gaze360.chosen_face(faces[:1], 80)[1] == "no face of 80 px or more"


# --- synthetic people ---------------------------------------------------------------------------

SMALL = {"learn": 2, "test": 1, "unlabelled": 1, "clips": 1, "frames": 16, "gaze_clips": 1, "size": 32, "quiet": True}
SMALL |= {"gaze_frames": 20, "unlabelled_frames": 16, "unlabelled_clips": 1, "expressions": ("happiness", "anger")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with threadpool_limits(1):
        return make_people(tmp_path_factory.mktemp("people") / "p", **SMALL)


def test_people_are_the_same_after_a_stop(small, tmp_path, monkeypatch):
    encode, calls = people.encode, []

    def stopped(image, rule):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return encode(image, rule)

    monkeypatch.setattr(people, "encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        make_people(tmp_path / "p", **SMALL)
    assert not people_set(tmp_path / "p").truth.exists()
    made = make_people(tmp_path / "p", **SMALL)
    assert identity(made.root) == identity(small.root)
    frames = sum(len(list(Path(made.root, top).rglob("*.jpg"))) for top in ("clips", "gaze360", "unlabelled"))
    assert len(calls) == 40 + frames - 32  # two whole clips were kept
    with pytest.raises(InputError, match="size is 32; rule: the same settings"):
        make_people(tmp_path / "p", **(SMALL | {"size": 64}))


def test_lists_of_people_are_read_by_training_and_nobody_is_in_two(small):
    table = small.truth_table()
    who = {part: {*rows.person} for part, rows in table.groupby("part")}
    assert {part: len(x) for part, x in who.items()} == {"pretraining": 1, "test": 1, "train": 2, "val": 1}
    assert sum(map(len, who.values())) == len(set.union(*who.values()))
    for part, clips in (("train", 4), ("val", 2), ("test", 2)):
        listing = read_lists([getattr(small, part)], "clips", small.root, 7)[0]
        assert len(listing) == clips and sorted({*listing.labels}) == [0, 3]
        labels = table.drop_duplicates("clip").set_index("clip").label
        assert labels[list(listing.written)].tolist() == listing.labels.tolist()
        frames = read_lists([getattr(small, f"gaze360_{part}")], "gaze", small.root)[0]
        rows = table.set_index("frame").loc[list(frames.written)]
        assert np.allclose(frames.values, gaze_direction(rows[["pitch", "yaw"]].to_numpy()), atol=1e-8)
        runs = read_lists([getattr(small, f"gaze_{part}")], "gaze", small.root)
        assert sum(map(len, runs)) == len(frames) == 20 * clips // 2
        combined = read_lists([getattr(small, f"combined_{part}")], "combined", small.root, 7)
        assert len(combined) == clips and all(len(x) == 16 for x in combined)
        rows = table.set_index("frame").loc[list(combined[0].written)]
        assert np.allclose(combined[0].values, rows[["label", "pitch", "yaw"]].to_numpy(float), atol=1e-8)
    assert len(read_lists([small.pretraining], "clips", small.root)[0]) == 1


def test_true_gaze_is_where_the_eyes_look_and_varies_within_30_degrees():
    spread = []
    for seed in range(3):
        take = Take("x", "train", 20 + seed, "", 30, 64, seed)
        made, truth = take.recording(), take.truth()
        for t in (0, 15, 29):
            eye = made.rig.iris_direction(made.vertices(t), "left")
            assert np.allclose(eye, gaze_direction(made.gaze[t]), atol=1e-6)
        angles = np.rad2deg(truth[["pitch", "yaw"]].to_numpy())
        assert np.abs(angles - np.rad2deg(made.gaze)).max() < 4  # alignment turns pictures a little
        assert np.abs(np.rad2deg(made.gaze)).max() < 30
        assert np.abs(np.diff(angles, axis=0)).max() < 9  # degrees from frame to frame
        head = np.rad2deg(made.pose[:, 1])
        assert np.abs(head - angles[:, 1]).max() > 2  # the head alone does not tell
        spread.append(angles)
    assert (np.concatenate(spread).std(0) > 5).all()


def test_emotions_follow_from_action_units_and_differ_between_people():
    """Nearest mean of others' strongest units: right for nearly all clips of people who were never seen."""

    def strongest(person: int, k: int) -> np.ndarray:
        takes = [Take("x", "train", person, e, 24, 64, 100 * i + k) for i, e in enumerate(EXPRESSIONS)]
        return np.stack([t.recording().aus.max(0) for t in takes])

    known = np.mean([strongest(p, 0) for p in range(30, 38)], axis=0)  # (7, 12)
    others = np.stack([strongest(p, k) for p in range(50, 56) for k in (0, 1)])  # (12, 7, 12)
    said = ((others[:, :, None] - known) ** 2).sum(-1).argmin(-1)
    right = (said == np.arange(7)).mean()
    assert right > 0.85
    assert others.std(0)[3].max() > 0.3  # anger is not shown by all alike


def test_frames_are_aligned_alike_in_all_clips():
    from facecomp.faces.alignment import TEMPLATE, DferRule, five_points, similarity, transform

    take = Take("x", "train", 60, "surprise", 16, 64, 0)
    made, rule = take.recording(), DferRule(size=64)
    target = (TEMPLATE + 14.5) * (64 / 140) - 0.5
    points = five_points(made.landmarks[8])
    moved = transform(points, similarity(points, target))
    assert np.abs(moved[:2] - target[:2]).max() < 4 and rule.shape == (64, 64)
    image = list(take.images([8]))[0]
    left, right = (image[int(y) - 1 : int(y) + 2, int(x) - 3 : int(x) + 4] for x, y in moved[:2])
    skin = image[int(target[2, 1]) - 8, 32].astype(int)  # between the eyes
    assert min(left.min(), right.min()) < skin.min() - 15  # pupils are where the eyes should be


def test_impossible_people_are_refused(tmp_path):
    for wrong, said in (
        ({"frames": 8}, "frames 8: must be 16 to 1000"),
        ({"expressions": ("joy",)}, "expression 'joy': must be one of happiness"),
        ({"size": 16}, "size 16: must be 32 to 512"),
        ({"learn": 0}, "learn 0: must be 1"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            make_people(tmp_path / "p", **wrong)
    (tmp_path / "q").mkdir()
    (tmp_path / "q/mine.txt").write_text("")
    with pytest.raises(InputError, match="holds something else"):
        make_people(tmp_path / "q")
    assert pd.Series([f.name for f in (tmp_path / "q").iterdir()]).tolist() == ["mine.txt"]


