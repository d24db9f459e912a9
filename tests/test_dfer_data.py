"""DFER's lists, clips, augmentation, mixing, gaze and scores: refusals, equal results however loaded, exact measures."""

import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import f1_score, recall_score

from facecomp.data.sampling import EpochSampler, Item, dense_indices
from facecomp.dfer.annotations import BadAnnotations, data_set, hold_out, read_lists, write_list
from facecomp.dfer.augmentation import AugmentationSettings, Draws, augment_clip
from facecomp.dfer.clip_frames import (
    ClipFrames,
    Stretched,
    Whole,
    Window,
    clip_sources,
    pretraining_prepare,
)
from facecomp.dfer.clips import (
    MIRROR,
    Changes,
    FrameWindows,
    LostLimit,
    PretrainClips,
    TrainClips,
    ViewClips,
    collate,
    run_windows,
)
from facecomp.dfer.frame_runs import clip_frame, frame_runs, gaze360_frame, head_crop, split_list
from facecomp.dfer.gaze import AngularMean, angles_of, angular_error, mirrored_gaze
from facecomp.dfer.mixing import MixingSettings, mix
from facecomp.dfer.scores import Scores, View, confusion, merge_views, read_views, write_views
from facecomp.records.files import InputError
from facecomp.training.loop import make_loader

GOLDEN = Path(__file__).parent / "golden" / "dfer"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Clips a (40 frames), b (12), c (80), in each frame a stripe that moves; and an empty folder."""
    folder = tmp_path_factory.mktemp("clips")
    for name, count in (("a", 40), ("b", 12), ("c", 80)):
        (folder / name).mkdir()
        for k in range(count):
            image = np.full((20, 24, 3), 3 * k, np.uint8)
            image[:, k % 24] = (200, 40 * ord(name) % 255, 9)
            Image.fromarray(image).save(folder / name / f"{k + 1}.png")
    (folder / "empty").mkdir()
    (folder / "empty" / "readme.txt").touch()
    return folder


def listed(root, text, kind="clips", name="list.csv", **options):
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_lists([root / name], kind, root, **options)[0]


# ---------------------------------------------------------------- lists

BAD = {
    "separated by a comma": "a,0",
    "separated by a tabulator": "a\t0",
    "separated by a semicolon": "a;0",
    "1 field, not 2": "a",
    "3 fields, not 2": "a 0 1",
    "path holds a blank": "my clips/a 0",
    "label 7; rule: whole number, 0 to 6": "a 7",
    "label -1; rule: whole number": "a -1",
    "label 1.5; rule: whole number": "a 1.5",
    "no such folder": "nobody 0",
    "no frame (": "empty 0",
    "is no image": "empty/readme.txt 0",
}


def test_every_kind_of_fault_is_reported_at_once_with_its_line(root):
    first, second = root / "first.csv", root / "second.csv"
    first.write_text("\n".join(["a 0", *BAD.values(), "b 6"]) + "\n")
    second.write_bytes(b"\xef\xbb\xbfa 0\nb 9\n")
    (root / "latin.csv").write_bytes(b"a 0\n\xe9 1\n")
    (root / "blank.csv").write_text("\n \n")
    files = [first, second, root / "latin.csv", root / "blank.csv", root / "absent.csv"]
    with pytest.raises(BadAnnotations) as caught:
        read_lists(files, "clips", root, classes=7)
    faults = caught.value.faults
    in_first = [fault for fault in faults if fault.file == str(first)]
    assert [fault.line for fault in in_first] == list(range(2, 2 + len(BAD)))
    for fault, what in zip(in_first, BAD, strict=True):
        assert what in str(fault), str(fault)
    others = [(Path(fault.file).name, fault.line) for fault in faults[len(BAD) :]]
    wanted = [("second.csv", 1), ("second.csv", 2), ("latin.csv", 2), ("blank.csv", 0)]
    assert others == [*wanted, ("absent.csv", 0)]
    message, again = str(caught.value), pickle.loads(pickle.dumps(caught.value))
    assert message.startswith("17 faults in 5 lists: ") and "\n" not in message
    assert again.faults == faults and again.report.count("\n") == 17
    for line in caught.value.report.splitlines():
        assert re.match(r".+\.csv(:\d+)?: .+; rule: .+", line), line


def test_what_must_be_read_is_read(root):
    text = f"a 0\r\n\r\n.\\b 1\r\n{root}/c 2\n  a/3.png 4  \n"
    listing = listed(root, text, classes=7)
    assert listing.labels.tolist() == [0, 1, 2, 4] and listing.lines.tolist() == [1, 3, 4, 5]
    assert listing.written == ("a", "./b", f"{root}/c", "a/3.png")
    assert listing.paths[2] == f"{root}/c" and "1 lines with back-slashes" in listing.notes[0]
    unchecked = {"check_files": False}
    videos = listed(root, "v1/00001.mp4 0 x\nv1/00002 0\n", "videos", **unchecked)
    assert videos.written == ("v1/00001.mp4", "v1/00002.mp4")
    gaze = listed(root, "x/1.jpg 0.6 0 -0.8\n", "gaze", **unchecked)
    assert gaze.column("z", "x").tolist() == [[-0.8, 0.6]]
    with pytest.raises(InputError, match="no label"):
        gaze.labels  # noqa: B018
    with pytest.raises(BadAnnotations, match=r"pitch 20\.5; rule: .*radians"):
        listed(root, "x/1.jpg 3 20.5 0\n", "combined", **unchecked)
    with pytest.raises(BadAnnotations, match="vector of length 1"):
        listed(root, "x/1.jpg 0 0 0\n", "gaze", **unchecked)


def test_a_split_folder_stands_for_its_lists_and_an_empty_one_is_a_fault(root, tmp_path):
    for name in ("train_b_1", "train_a_0"):
        write_list(tmp_path / f"{name}.csv", [("a/1.png", (3,))])
    lists = read_lists([tmp_path], "labels", root)
    assert [listing.file.stem for listing in lists] == ["train_a_0", "train_b_1"]
    with pytest.raises(BadAnnotations, match="no list in this folder"):
        read_lists([tmp_path, root / "b"], "labels", root)
    with pytest.raises(InputError, match="holds a blank"):
        write_list(tmp_path / "x.csv", [("a b/1.png", (3,))])
    assert not (tmp_path / "x.csv").exists()


def test_classes_of_a_data_set_are_in_label_order():
    assert data_set("dfew").classes == (
        "happy",
        "sad",
        "neutral",
        "angry",
        "surprise",
        "disgust",
        "fear",
    )
    assert data_set("MAFW_combine").ending == ".png" and len(data_set("ravdess").classes) == 8
    with pytest.raises(InputError, match="dataset_name 'dfw'"):
        data_set("dfw")


def test_what_is_held_out_has_every_class_and_is_the_same_again(root):
    text = "".join(f"x{k} {k % 7}\n" for k in range(210))
    listing = listed(root, text, check_files=False)
    rest, held = hold_out(listing, 0.2, seed=3)
    assert np.bincount(held.labels).tolist() == [6] * 7
    assert sorted([*rest.written, *held.written]) == sorted(listing.written)
    assert hold_out(listing, 0.2, seed=3)[1].written == held.written
    assert hold_out(listing, 0.2, seed=4)[1].written != held.written
    with pytest.raises(InputError, match="to hold out"):
        hold_out(listing.take([0, 1, 2]))


# ---------------------------------------------------------------- clips


def same(one, other) -> bool:
    equal = torch.equal(one.videos, other.videos) and torch.equal(one.targets, other.targets)
    return equal and (one.names, one.views, one.lost) == (other.names, other.views, other.lost)


def some_mask(draws):
    return draws.permutation(np.arange(40) >= 4)


def data_sets(root, store=""):
    """One of each kind, by name."""
    listing = listed(root, "a 0\nb 1\nc 2\na/7.png 3\n", classes=7)
    sources = clip_sources(listing)
    frames = ClipFrames(sources, Stretched(20), store and f"{store}/clips")
    changes = Changes(AugmentationSettings(input_size=16, num_sample=2))
    (root / "train_c_0.csv").write_text(
        "".join(f"c/{n}.png 1 0.1 {n / 100}\n" for n in range(1, 40))
    )
    windows = run_windows(read_lists([root / "train_c_0.csv"], "combined", root), stride=4)
    gaze = Changes(AugmentationSettings.for_gaze(input_size=16), mirror=MIRROR["combined"])
    window_frames = ClipFrames(windows.sources, Stretched(20), store and f"{store}/windows")
    whole = ClipFrames(sources[:3], Whole(), store and f"{store}/whole")
    return {
        "train": TrainClips(frames, listing.labels, changes),
        "views": ViewClips(frames, listing.labels),
        "windows": FrameWindows(windows, window_frames, gaze),
        "pretrain": PretrainClips(whole, some_mask, size=16, copies=2),
    }


@pytest.mark.parametrize("kind", ["train", "views", "windows", "pretrain"])
def test_batches_are_equal_for_all_workers_from_the_store_and_after_a_resume(root, tmp_path, kind):
    from_files, stored = data_sets(root)[kind], data_sets(root, tmp_path)[kind]
    batches = []
    for data, workers, start in (
        (from_files, 0, 0),
        (from_files, 2, 0),
        (stored, 1, 0),
        (stored, 0, 1),
    ):
        sampler = EpochSampler(len(data), seed=5, batch_size=2, epoch=3, start_step=start)
        batches.append(list(make_loader(data, sampler, workers, collate)))
    assert len(batches[0]) == len(batches[3]) + 1 >= 2
    for others in (batches[1], batches[2], [batches[0][0], *batches[3]]):
        assert all(same(one, other) for one, other in zip(batches[0], others, strict=True))
    assert same(
        collate([pickle.loads(pickle.dumps(stored))[Item(5, 3, 1)]]),
        collate([from_files[Item(5, 3, 1)]]),
    )


def test_legacy_draws_are_those_of_the_global_generators(root):
    changes = Changes(AugmentationSettings(input_size=16))
    listing = listed(root, "a 0\nc 2\n")
    frames = ClipFrames(clip_sources(listing), Stretched(20))
    data = TrainClips(frames, listing.labels, changes, legacy=Draws.legacy(7))
    ours = [data[k] for k in (1, 0, 1)]
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    torch.manual_seed(7)
    everywhere = Draws(np.random.mtrand._rand, random._inst, torch.default_generator)
    for k, sample in zip((1, 0, 1), ours, strict=True):
        numbers = dense_indices(frames.count(k), np.random.mtrand._rand)[0]
        clip, _ = augment_clip(frames(k, numbers), changes.augmentation, everywhere)
        assert torch.equal(sample.videos[0], clip)
    assert not torch.equal(ours[0].videos, ours[2].videos)


def answers(data) -> list[View]:
    """A made-up network's views: two numbers of the pixels as logits."""
    samples = [data[k] for k in range(len(data))]
    return [
        View(
            s.name,
            torch.stack([s.videos.mean(), s.videos[0, 0, 3].mean()]).numpy() * 9,
            int(s.targets),
            *s.view,
        )
        for s in samples
    ]


@pytest.mark.parametrize("segments", [1, 2, 3])
@pytest.mark.parametrize("crops", [1, 2])
def test_leaving_out_equal_views_changes_no_answer(root, segments, crops):
    listing = listed(root, "a 0\nb 1\nc 0\na/7.png 1\n")
    frames = ClipFrames(clip_sources(listing), Stretched(16))
    given = {"segments": segments, "crops": crops}
    few = ViewClips(frames, listing.labels, rate=2, **given)
    every = ViewClips(frames, listing.labels, rate=2, **given, every=True)
    assert len(every) == 4 * segments * crops and len(few) <= 2 * segments + 2
    merged = [merge_views(answers(data)) for data in (few, every)]
    assert np.allclose(merged[0].probabilities, merged[1].probabilities, atol=1e-12)


def test_an_unreadable_clip_is_replaced_the_same_way_everywhere_and_counted(root, tmp_path):
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        for k in range(20):
            Image.new("RGB", (16, 16), (5 * k + 5,) * 3).save(tmp_path / name / f"{k}.png")
    for k in range(20):
        (tmp_path / "bad" / f"{k}.png").write_bytes(b"no")
    listing = listed(tmp_path, "good 0\nbad 1\n")
    frames = ClipFrames(clip_sources(listing), Stretched(16), memory=0)
    data = TrainClips(frames, listing.labels, Changes(size=16), rate=1)
    item = Item(0, 0, 1)
    assert data[item].name == "good" and int(data[item].targets) == 0
    assert data[item].lost == data[item].lost >= 1 and data[Item(0, 0, 0)].lost == 0
    limit = LostLimit(most=data[item].lost)
    limit.add(collate([data[item]]))
    with pytest.raises(InputError, match="could not be read, more than"):
        limit.add(collate([data[item]]))
    strict = TrainClips(frames, listing.labels, Changes(size=16), rate=1, tries=1)
    with pytest.raises(InputError, match=r"bad/\d+\.png: cannot be read as an image"):
        strict[item]
    rows = "".join(f"bad/{k}.png 0\n" if k in (3, 9) else f"good/{k}.png 0\n" for k in range(20))
    windows = run_windows([listed(tmp_path, rows, "labels", check_files=False)])
    dark = ClipFrames(windows.sources, Stretched(16), black=True)
    sample = FrameWindows(windows, dark, Changes(size=16))[0]
    black = sample.videos[0, 0, :, 0, 0] < -2.1
    assert sample.lost == 2 and black.nonzero().ravel().tolist() == [3, 9]


def test_pretraining_cuts_the_window_of_voxceleb2_and_nothing_of_others(root):
    wide = listed(root, "x/1 0\n", "videos", "VoxCeleb2_list.csv", check_files=False)
    assert pretraining_prepare(wide, 192) == Window(192)
    assert pretraining_prepare(listed(root, "x/1 0\n", "videos", check_files=False)) == Whole()
    with pytest.raises(InputError, match="224x224"):
        Window()(np.zeros((160, 160, 3), np.uint8))


# ---------------------------------------------------------------- augmentation, mixing


def test_a_mirrored_clip_has_mirrored_gaze_and_no_geometry():
    clip = np.random.default_rng(0).integers(0, 256, (16, 20, 20, 3), dtype=np.uint8)
    target = torch.tensor([2.0, 0.3, 0.4])
    seen = set()
    for k in range(12):
        changes = Changes(AugmentationSettings.for_gaze(input_size=20), mirror=MIRROR["combined"])
        item = Item(0, 0, k)
        _, mirrored = augment_clip(clip, changes.augmentation, Draws.of(item))
        _, targets = changes(clip, target, Draws.of(item))
        wanted = [2.0, 0.3, -0.4 if mirrored else 0.4]
        assert torch.equal(targets[0], torch.tensor(wanted))
        seen.add(mirrored)
    assert seen == {True, False} and torch.equal(target, torch.tensor([2.0, 0.3, 0.4]))
    assert (
        not AugmentationSettings.for_gaze().geometric
        and AugmentationSettings.for_gaze(legacy=True).geometric
    )


@given(st.integers(0, 10**6), st.sampled_from(["batch", "elem", "pair"]), st.booleans())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_mixed_targets_say_how_much_of_a_clip_is_its_own(seed, mode, cutmix):
    clips = torch.rand(6, 3, 2, 10, 14, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(6)
    chosen = MixingSettings(mixup_mode=mode, mixup_switch_prob=float(cutmix), label_smoothing=0.0)
    mixed, targets = mix(clips, labels, 6, chosen, Item(1, 2, seed).numpy("mix"))
    own = targets.diagonal()
    assert torch.allclose(targets.sum(1), torch.ones(6))
    if cutmix:
        share = (mixed == clips).flatten(1).float().mean(1)
    else:
        other = clips.flip(0) - clips
        share = 1 - ((mixed - clips) * other).flatten(1).sum(1) / other.square().flatten(1).sum(1)
    assert torch.allclose(share, own, atol=1e-5)
    if mode == "pair":
        assert torch.equal(own, own.flip(0))


def test_an_odd_batch_is_refused():
    with pytest.raises(InputError, match="must be even"):
        mix(
            torch.zeros(3, 3, 2, 4, 4),
            torch.zeros(3, dtype=torch.int64),
            7,
            MixingSettings(),
            Item(0, 0, 0).numpy(),
        )


# ---------------------------------------------------------------- gaze


def test_the_meaningless_mean_of_a_later_version_is_not_reproduced():
    golden = np.load(GOLDEN / "gaze_losses.npz")
    truth, predicted = (torch.from_numpy(golden[k]) for k in ("pitch_yaw", "pred_pitch_yaw"))
    mean = AngularMean()
    mean.add(predicted, truth)
    right, wrong = (float(golden[f"angular_error_mean{k}"]) for k in ("", "_renormalised_variant"))
    assert abs(mean.degrees - right) < 2e-5 and abs(mean.degrees - wrong) > 1.9
    scaled = [torch.nn.functional.normalize(x, dim=-1) for x in (predicted, truth)]
    assert (
        abs(float(angular_error(*scaled).mean()) - wrong) < 1e-3
    )  # it is what that version computes


def test_the_mean_error_does_not_depend_on_batches():
    vectors = torch.randn(103, 16, 3, generator=torch.Generator().manual_seed(0))
    truth, predicted = angles_of(vectors), angles_of(vectors.flip(0))
    whole, parts = AngularMean(), AngularMean()
    whole.add(predicted, truth)
    for k in range(0, 103, 10):
        parts.add(predicted[k : k + 10], truth[k : k + 10])
    assert whole.count == parts.count == 103 * 16 and abs(whole.degrees - parts.degrees) < 1e-9


def test_mirroring_twice_and_the_angle_between_mirror_images():
    angles = angles_of(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)))
    others = angles_of(torch.randn(50, 3, generator=torch.Generator().manual_seed(2)))
    assert torch.equal(mirrored_gaze(mirrored_gaze(angles)), angles)
    both = angular_error(mirrored_gaze(angles), mirrored_gaze(others))
    assert torch.allclose(both, angular_error(angles, others), atol=1e-3)


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("absent", [(), (2,), (0, 4)])
def test_scores_are_those_of_scikit_learn_and_absent_classes_are_named(absent):
    rng = np.random.default_rng(len(absent))
    there = [k for k in range(6) if k not in absent]
    truth, said = rng.choice(there, 300), rng.integers(0, 6, 300)
    scores = Scores(confusion(truth, said, 6))
    assert np.isclose(scores.uar, recall_score(truth, said, labels=there, average="macro"))
    assert np.isclose(scores.war, (truth == said).mean())
    for average in ("weighted", "macro", "micro"):
        wanted = f1_score(truth, said, average=average, zero_division=0)
        assert np.isclose(scores.table()[f"{average}_f1"], wanted), average
    names = list("abcdef")
    assert scores.absent == list(absent)
    assert scores.note(names) == (
        f"UAR without {', '.join(names[k] for k in absent)} (no clips)" if absent else ""
    )


def test_views_written_by_several_processes_merge_as_from_one(tmp_path):
    rng = np.random.default_rng(0)
    views = [
        View(f"p/clip{k}", rng.normal(size=7), k % 7, c, s)
        for k in range(9)
        for c in range(12)
        for s in range(2)
    ]
    files = [write_views(tmp_path / f"{rank}.txt", views[rank::3] + views[:2]) for rank in range(3)]
    one, many = merge_views(views), merge_views(read_views(files))
    order = [many.clips.index(clip) for clip in one.clips]
    assert np.allclose(many.probabilities[order], one.probabilities, atol=1e-12)
    (tmp_path / "bad.txt").write_text("0, 0\nclip [1.0, 2.0] 3 0\n")
    with pytest.raises(InputError, match=r"bad\.txt:2: "):
        list(read_views([tmp_path / "bad.txt"]))


# ---------------------------------------------------------------- runs of frames


@given(
    st.sets(st.tuples(st.sampled_from("ab"), st.integers(0, 80)), min_size=1, max_size=60),
    st.integers(1, 6),
    st.integers(1, 20),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_runs_have_no_holes_and_lose_no_frame(places, gap, length):
    frames = [(recording, "", number) for recording, number in places]
    kept, discarded = frame_runs(frames, gap, length)
    assert {k for run in kept + discarded for k in run} == set(range(len(frames)))
    for run in kept + discarded:
        numbers = [frames[k][2] for k in run]
        assert len({frames[k][0] for k in run}) == 1 and numbers == sorted(numbers)
        assert len(run) == numbers[-1] - numbers[0] + 1  # as many as without holes
    assert all(len(run) >= length for run in kept) and all(len(run) < length for run in discarded)


def test_split_lists_are_read_back_line_by_line(tmp_path):
    rng = np.random.default_rng(0)
    entries = [
        (f"/data/c{c}/{n}.jpg", (c, *rng.normal(size=2).tolist()))
        for c in range(3)
        for n in range(1, 21)
    ]
    path = write_list(tmp_path / "all.csv", entries)
    listing = read_lists([path], "combined", check_files=False)[0]
    made = split_list(listing, tmp_path, "train", clip_frame)
    runs = read_lists([made.folder], "combined", check_files=False)
    assert [run.file.name for run in runs] == [f"train_c{c}_{c}.csv" for c in range(3)]
    assert np.array_equal(np.concatenate([run.values for run in runs]), listing.values)
    assert (made.kept, made.discarded, made.lines, made.lost) == (3, 0, 60, 0)
    with pytest.raises(InputError, match="no frame of Gaze360"):
        split_list(listing, tmp_path, "test", gaze360_frame)


def test_a_head_at_the_rim_keeps_its_shape():
    image = np.random.default_rng(0).integers(0, 256, (200, 260, 3), dtype=np.uint8)
    inside, rim = (40, 50, 61, 80), (200, 150, 61, 80)
    assert np.array_equal(head_crop(image, inside), head_crop(image, inside, legacy=True))
    padded = head_crop(image, rim, size=80)
    assert np.array_equal(padded[:50, :70], image[150:200, 190:260])
    assert (padded[50:, :70] == padded[49, :70]).all() and (
        padded[:, 70:] == padded[:, 69:70]
    ).all()
