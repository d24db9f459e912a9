"""Prepared pairs: what is cut, scaled, known and kept, with settings and files as they should not be."""

import io
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from facecomp.data.sampling import EpochSampler, Item
from facecomp.faces.openface import XY
from facecomp.flow.files import Flow, read_flo, write_flo, write_flow
from facecomp.flow.labels import Box
from facecomp.flow.pair_cache import ExactCache, LegacyCache
from facecomp.flow.pair_lists import PairFiles
from facecomp.flow.pair_sets import PairSet, collate, folder_pairs
from facecomp.flow.preparing import (
    LEVELS,
    clear_margins,
    crop_pair,
    known_target,
    prepare,
    read_crop,
    read_pair,
)
from facecomp.records.files import InputError
from facecomp.training.loop import make_loader

SHAPE = (80, 64)  # of the pictures
SIZE = (64, 96)  # of the network
POINTS = np.array([[20.0, 15.0], [60.9, 30.0], [40.0, 48.2]])


def write_image(path: Path, image: np.ndarray) -> Path:
    cv2.imencode(".png", image[..., ::-1])[1].tofile(path)
    return path


def write_points(path: Path, low: np.ndarray, high: np.ndarray) -> Path:
    xy = np.linspace(low[::-1], high[::-1], 68)
    path.write_text("".join(f"{x} {y}\n" for x, y in xy))
    return path


@pytest.fixture
def pairs(tmp_path) -> list[PairFiles]:
    """Three pairs of four frames of a sequence, boxes that differ."""
    rng = np.random.default_rng(3)
    frames = []
    for k in range(4):
        image = cv2.resize(rng.integers(0, 200, (10, 8, 3), dtype=np.uint8), SHAPE[::-1])
        frames.append(write_image(tmp_path / f"F001_T1_000{k + 1}.jpg", image))
        flow = rng.normal(size=(*SHAPE, 2)).astype(np.float32)
        flow[30:33, 25:29] = np.nan
        write_flo(tmp_path / f"F001_T1_000{k + 1}.flo", flow)
        write_points(tmp_path / f"F001_T1_000{k + 1}.txt", POINTS.min(0) + k, POINTS.max(0) - 2 * k)
    return [
        PairFiles("F001", "T1", a, b, a.with_suffix(".flo"), a.with_suffix(".txt"))
        for a, b in zip(frames[:-1], frames[1:], strict=True)
    ]


def assert_equal(one, two):
    for name in ("first", "second"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    for level in LEVELS:
        assert np.array_equal(one.targets[level], two.targets[level])
        assert np.array_equal(one.known[level], two.known[level])
    assert (one.box, one.whole) == (two.box, two.whole)


# ---------------------------------------------------------------- one pair


def test_unbiased_truth_is_the_motion_that_the_prepared_frames_show_and_the_published_one_is_too_small():
    rows, columns = np.mgrid[:160, :128].astype(np.float32)
    dy, dx = 2.0, 3.0
    ramp = [np.stack([rows, columns, 0 * rows], -1)]
    ramp.append(np.stack([rows - dy, columns - dx, 0 * rows], -1) + 10)
    flow = np.full((160, 128, 2), (-dx, -dy), np.float32)
    points = np.array([[50.0, 30.0], [110.0, 78.0]])  # crop of 80 x 68 px
    made = prepare(*ramp, flow, points, (128, 192))
    shown = made.first - (made.second - 10)
    slopes = made.first[64, 96, :2] - np.array([made.first[63, 96, 0], made.first[64, 95, 1]])
    seen = shown[64, 96, :2] / slopes  # rows, columns in px of the prepared frames
    assert seen == pytest.approx([2 * 128 / 80, 3 * 192 / 68], rel=1e-3)
    assert 2 * made.targets[2][32, 48][::-1] == pytest.approx(seen, rel=1e-3)
    old = prepare(*ramp, flow, points, (128, 192), "compat")
    assert 2 * old.targets[2][32, 48][::-1] == pytest.approx(seen * [80 / 160, 68 / 128], rel=1e-3)
    for level in LEVELS:
        scaled = made.targets[level] * np.array(made.bias[::-1], np.float32)
        assert np.allclose(old.targets[level], scaled, rtol=1e-6, atol=0)


def touched(n: int, m: int) -> np.ndarray:
    """(m, n) bool: source pixels with a weight above zero, by the half-pixel rule, exactly."""
    found = np.zeros((m, n), dtype=bool)
    for i in range(m):
        at = min(max(Fraction(2 * i + 1, 2) * Fraction(n, m) - Fraction(1, 2), 0), n - 1)
        low = int(at)
        found[i, low] = True
        if at > low:
            found[i, low + 1] = True
    return found


@pytest.mark.parametrize("size", [(16, 24), (32, 40), (80, 96), (7, 5)])
def test_a_truth_is_known_where_all_pixels_that_it_is_made_of_are(size):
    flow = np.zeros((*SHAPE, 2), np.float32)
    mask = np.random.default_rng(0).uniform(size=SHAPE) > 0.02
    frames = np.zeros((2, *SHAPE, 3), np.uint8)
    crop = crop_pair(*frames, Flow(flow, mask), np.array([[22.0, 18], [52, 46]]))
    assert crop.field.shape[:2] == (50, 48)
    rows, columns = touched(50, size[0]), touched(48, size[1])
    holes = rows.astype(int) @ (~crop.known).astype(int) @ columns.T.astype(int)
    made = known_target(crop, size)
    assert np.array_equal(made, holes == 0)
    assert made.any() and not made.all()


def test_unknown_pixels_never_change_a_truth_that_is_known():
    rng = np.random.default_rng(1)
    mask = rng.uniform(size=SHAPE) > 0.1
    flow = rng.normal(size=(*SHAPE, 2)).astype(np.float32)
    other = np.where(mask[..., None], flow, 50)
    gaps = np.where(mask[..., None], flow, np.nan)
    frames = np.zeros((2, *SHAPE, 3), np.uint8)
    one = prepare(*frames, gaps, POINTS, SIZE)
    two = prepare(*frames, other, POINTS, SIZE)
    for level in (2, 4, 8):
        known = one.known[level]
        assert 0 < known.sum() < two.known[level].sum()
        assert np.allclose(one.targets[level][known], two.targets[level][known], atol=1e-6)
        assert not np.allclose(one.targets[level], two.targets[level], atol=1e-6)


def test_a_mask_and_nans_say_the_same():
    rng = np.random.default_rng(2)
    disk = rng.normal(size=(*SHAPE, 2)).astype(np.float32)
    mask = rng.uniform(size=SHAPE) > 0.3
    disk[~mask] = np.nan
    frames = rng.integers(0, 255, (2, *SHAPE, 3), dtype=np.uint8)
    flow = Flow(np.where(mask[..., None], -disk, 7), mask)
    for mode in ("compat", "corrected"):
        pair = [prepare(*frames, given, POINTS, SIZE, mode) for given in (disk, flow)]
        assert_equal(*pair)


BOXES = [Box(4, 12, 25, 26), Box(12, 3, 25, 26), Box(12, 12, 37, 38), Box(0, 0, 40, 40)]
BOXES += [Box(-3, -12, 25, 26), Box(10, 10, 30, 30), Box(15, 20, 44, 55)]


@pytest.mark.parametrize("box", BOXES)
def test_margins_are_cleared_by_the_published_slices_or_wholly(box):
    rng = np.random.default_rng(0)
    field = rng.uniform(1, 2, (40, 40, 2))
    wanted = field.tolist()
    numbers = list(range(40))  # a list's slices have the same rule for negative numbers
    rows = numbers[box.top - 10 : box.top] + numbers[box.bottom : box.bottom + 10]
    columns = numbers[box.left - 10 : box.left] + numbers[box.right : box.right + 10]
    for r in numbers:
        for c in numbers:
            if r in rows or c in columns:
                wanted[r][c] = [0.0, 0.0]
    made = field.copy()
    clear_margins(made, box, "compat")
    assert made.tolist() == wanted
    clear_margins(field, box, "corrected")
    for r in numbers:
        for c in numbers:
            face = box.top <= r < box.bottom and box.left <= c < box.right
            assert bool(field[r, c].all()) == face


def test_near_the_border_only_compat_keeps_flow_in_the_margin_and_neither_calls_it_known():
    flow = np.full((*SHAPE, 2), -1.0, np.float32)
    frames = np.zeros((2, *SHAPE, 3), np.uint8)
    points = np.array([[6.0, 20.0], [50.0, 45.0]])
    old, new = (crop_pair(*frames, flow, points, mode) for mode in ("compat", "corrected"))
    assert old.box == new.box == Box(0, 10, 60, 55)
    assert old.field[:6, 10:35].all() and not new.field[:6].any()  # O15
    assert np.array_equal(old.field[6:], new.field[6:])
    assert np.array_equal(old.known, new.known) and new.known.sum() == 44 * 25


def test_a_face_that_is_partly_outside_is_cut_to_the_picture():
    flow = np.full((*SHAPE, 2), -1.0, np.float32)
    frames = np.random.default_rng(0).integers(0, 255, (2, *SHAPE, 3), dtype=np.uint8)
    points = np.array([[-5.5, 20.0], [50.0, 70.0]])
    crop = crop_pair(*frames, flow, points)
    assert crop.box == Box(0, 10, 60, 64)
    assert crop.known.sum() == 50 * 44 and crop.field[0, 20].all()
    assert np.array_equal(crop.second, frames[1, :60, 10:64])


def test_compat_takes_66_points_of_the_first_face_and_corrected_68_of_the_surest(pairs, tmp_path):
    rng = np.random.default_rng(0)
    faces = rng.uniform([[[20]], [[24]]], [[[40]], [[60]]], (2, 2, 68)).round(1)  # x, y
    faces[:, 1, 0] = 12.0, 14.0  # the first point of the jaw is the highest one
    rows = [",".join([str(k), sure, *map(str, f.ravel())]) for k, (f, sure) in enumerate(zip(faces, ("0.4", "0.9"), strict=True))]  # fmt: skip
    path = tmp_path / "two.csv"
    path.write_text("\n".join([",".join(["face", "confidence", *XY]), *rows]) + "\n")
    pair = replace(pairs[0], points=path)
    old, new = read_crop(pair, "compat"), read_crop(pair, "corrected")
    assert new.box.top == 4 and old.box.top == int(faces[0, 1, 2:].min()) - 10


# ---------------------------------------------------------------- bad input


def spoiled(pairs: list[PairFiles], what: str) -> tuple[PairFiles, str]:
    """A pair with something wrong, and what the message must name."""
    pair, new = pairs[0], pairs[0].first.parent / "new"
    if what.startswith("no "):
        field = what.removeprefix("no ")
        return replace(pair, **{field: new.with_suffix(".flo")}), "new.flo: cannot be read"
    if what == "picture":
        write_image(new, np.zeros((40, 64, 3), np.uint8))
        return replace(pair, second=new), "new: 40 x 64 px, its flow"
    if what == "flow":
        write_flo(pair.label, np.zeros((64, 80, 2)))
        return pair, "0001.flo 64 x 80 px: must be equal"
    if what == "truncated":
        pair.label.write_bytes(pair.label.read_bytes()[:-8])
        return pair, "0001.flo: truncated"
    if what == "nan":
        pair.points.write_text("nan 20\n" * 68)
        return pair, "0001.txt: "
    if what == "outside":
        write_points(pair.points, np.array([90.0, 5]), np.array([120.0, 40]))
        return pair, "0001.txt: rows 90 to 120, columns 5 to 40: no face in a picture of 80 x 64 px"
    if what == "one row":
        write_points(pair.points, np.array([30.0, 5]), np.array([30.5, 40]))
        return pair, "0001.txt: rows 30 to 30"
    assert what == "none"
    return replace(pair, points=None), "0001.jpg: no key points"


FAULTS = ["no first", "no second", "no label", "picture", "flow", "truncated", "nan"]
FAULTS += ["outside", "one row", "none"]


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("cache", ["", "exact"])
def test_files_that_do_not_fit_are_refused_in_one_line_that_names_them(pairs, what, cache):
    pair, named = spoiled(pairs, what)
    with pytest.raises(InputError) as caught:
        PairSet([pair], SIZE, cache=cache)[0]
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "new"}, "mode 'new'"),
        ({"cache": "fast"}, "cache 'fast'"),
        ({"scaling": "true"}, "scaling 'true'"),
        ({"cache": "legacy"}, "cache 'legacy'"),
        ({"size": (100, 64)}, "size (100, 64)"),
        ({"size": (64,)}, "size (64,)"),
        ({"batch_size": 0}, "batches of 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused_before_a_file_is_read(options, named):
    pair = PairFiles("S", "1", Path("a.jpg"), Path("b.jpg"), Path("a.flo"))
    with pytest.raises(InputError) as caught:
        PairSet([pair], **options)
    assert named in str(caught.value)


def test_points_that_are_no_numbers_and_flows_of_another_form_are_refused():
    frames, flow = np.zeros((2, *SHAPE, 3), np.uint8), np.zeros((*SHAPE, 2), np.float32)
    for points in (POINTS * np.nan, POINTS[:0], POINTS.T, np.zeros(3)):
        with pytest.raises(InputError, match="key points"):
            prepare(*frames, flow, points, SIZE)
    with pytest.raises(InputError, match="shape"):
        prepare(*frames, flow[..., :1], POINTS, SIZE)
    with pytest.raises(InputError, match="first"):
        prepare(frames[0, ..., 0], frames[1], flow, POINTS, SIZE)


# ---------------------------------------------------------------- exact cache


@pytest.mark.parametrize("mode", ["compat", "corrected"])
def test_the_exact_cache_changes_no_bit_at_any_size_and_scaling(pairs, mode, tmp_path):
    folder = tmp_path / "kept"
    for size in (SIZE, (32, 32)):
        for scaling in ("published", "unbiased"):
            kept = PairSet(pairs, size, mode, "exact", scaling, cache_folder=folder)
            for _ in ("first", "second"):
                for k, pair in enumerate(pairs):
                    assert_equal(kept[k], read_pair(pair, size, mode, scaling))
    assert len(list(folder.iterdir())) == len(pairs)  # one entry for all of them


def test_labels_with_a_mask_and_both_modes_have_entries_of_their_own(pairs):
    flow = Flow(
        np.ones((*SHAPE, 2), np.float32), np.random.default_rng(0).uniform(size=SHAPE) > 0.5
    )
    write_flow(pairs[0].label.with_suffix(".npz"), flow)
    masked = replace(pairs[0], label=pairs[0].label.with_suffix(".npz"))
    cache = ExactCache()
    for _ in ("made", "read"):
        for pair in (pairs[0], masked):
            for mode in ("compat", "corrected"):
                kept, wanted = cache.crop(pair, mode), read_crop(pair, mode)
                assert np.array_equal(kept.field, wanted.field)
                assert np.array_equal(kept.known, wanted.known)
    assert len({cache.path(p, m) for p in (pairs[0], masked) for m in ("compat", "corrected")}) == 4


def forbid_reading(monkeypatch):
    def stop(*_):
        raise AssertionError("read again")

    monkeypatch.setattr("facecomp.flow.pair_cache.read_crop", stop)


def test_an_entry_is_read_instead_of_the_files(pairs, monkeypatch):
    cache = ExactCache()
    wanted = cache.crop(pairs[0], "compat")
    forbid_reading(monkeypatch)
    assert np.array_equal(ExactCache().crop(pairs[0], "compat").first, wanted.first)


@pytest.mark.parametrize("field", ["first", "second", "label", "points"])
def test_a_changed_file_makes_its_entry_new(pairs, field):
    cache, pair = ExactCache(), pairs[1]
    old, other = cache.crop(pair, "compat"), cache.crop(pairs[0], "compat")
    path = getattr(pair, field)
    before = path.stat()
    path.write_bytes(getattr(pairs[0], field).read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the time alone would not tell
    new, wanted = cache.crop(pair, "compat"), read_crop(pair, "compat")
    for name in ("first", "second", "field", "known"):
        assert np.array_equal(getattr(new, name), getattr(wanted, name))
    same = [np.array_equal(getattr(old, n), getattr(new, n)) for n in ("first", "second", "field")]
    assert not all(same)
    assert np.array_equal(cache.crop(pairs[0], "compat").field, other.field)
    entries = list(cache.path(pair, "compat").parent.iterdir())
    assert len(entries) == 2  # replaced, not added


def test_whatever_happens_to_an_entry_the_numbers_stay(pairs):
    cache, pair = ExactCache(), pairs[0]
    wanted = cache.crop(pair, "compat")
    path = cache.path(pair, "compat")
    whole = path.read_bytes()
    damaged = [b"", whole[:100], whole[:-30], whole + b"x" * 70000, b"PK\x03\x04" + bytes(200)]
    for place in range(0, len(whole), len(whole) // 40):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    other = io.BytesIO()
    np.savez(other, a=np.zeros(3))
    damaged.append(other.getvalue())
    for content in damaged:
        path.write_bytes(content)
        found = cache.crop(pair, "compat")
        for name in ("first", "second", "field", "known"):
            assert np.array_equal(getattr(found, name), getattr(wanted, name))
        assert (found.box, found.whole) == (wanted.box, wanted.whole)


def test_without_a_place_for_the_cache_pairs_are_read_and_a_warning_says_so_once(pairs, tmp_path):
    (tmp_path / "file").write_text("")
    data = PairSet(pairs, SIZE, "compat", "exact", cache_folder=tmp_path / "file")
    with pytest.warns(UserWarning, match="no cache of pairs") as caught:
        samples = [data[k] for k in range(3)]
    assert len(caught) == 1
    assert_equal(samples[2], read_pair(pairs[2], SIZE, "compat"))


def _fill(pairs: list[PairFiles]) -> list[bytes]:
    cache = ExactCache()
    return [cache.crop(pair, "compat").field.tobytes() for pair in pairs * 3]


def test_processes_that_make_the_same_entries_at_once_do_no_harm(pairs):
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        answers = list(pool.map(_fill, [pairs, pairs[::-1], pairs[1:] + pairs[:1]]))
    wanted = {read_crop(pair, "compat").field.tobytes() for pair in pairs}
    assert all(set(answer) == wanted for answer in answers)
    folder = ExactCache().path(pairs[0], "compat").parent
    assert sorted(p.name.partition("_T1_")[2][:4] for p in folder.iterdir()) == [
        "0001",
        "0002",
        "0003",
    ]


# ---------------------------------------------------------------- published cache


def published_jpeg(image: np.ndarray) -> np.ndarray:
    """Keras 2.3's way: largest value 255, Pillow's own quality."""
    file = io.BytesIO()
    Image.fromarray((image / image.max() * 255).astype(np.uint8)).save(file, "JPEG")
    return np.array(Image.open(file)).astype(np.float32)


def test_from_the_second_pass_on_each_frame_is_cut_by_its_own_box(pairs):
    data = PairSet(pairs, SIZE, "compat", "legacy")
    fresh = [read_pair(pair, SIZE, "compat") for pair in pairs]
    for k in range(3):
        assert_equal(data[Item(0, 1, k)], fresh[k])
    later = [data[Item(0, 2, k)] for k in range(3)]
    for k, sample in enumerate(later):
        assert np.array_equal(sample.first, published_jpeg(fresh[k].first))
        own = fresh[k + 1].first if k < 2 else fresh[2].second  # nothing is cut by frame 4's box
        assert np.array_equal(sample.second, published_jpeg(own))
        for level in LEVELS:
            assert np.array_equal(sample.targets[level], fresh[k].targets[level])
            assert np.array_equal(sample.known[level], fresh[k].known[level])
    names = sorted(p.name for p in (pairs[0].first.parent / "preprocessed").iterdir())
    flows = [f"F001_T1_000{k}_{n}.flo" for k in (1, 2, 3) for n in range(1, 7)]
    assert names == sorted(flows + [f"F001_T1_000{k}.jpg" for k in (1, 2, 3, 4)])
    shapes = [read_flo(pairs[0].first.parent / "preprocessed" / n).shape[0] for n in flows[:6]]
    assert shapes == [64 // s for s in (2, 64, 32, 16, 8, 4)]


def test_the_published_cache_does_not_depend_on_order_workers_or_what_lay_there(pairs):
    def passes(workers: int, order) -> list[torch.Tensor]:
        data = PairSet(pairs, SIZE, "compat", "legacy", batch_size=2)
        seen = []
        for epoch in (1, 2):
            sampler = EpochSampler(len(data), 0, 2, order=order, epoch=epoch)
            seen += [b.second for b in make_loader(data, sampler, workers, collate)]
        return seen

    forwards = passes(0, lambda n, *_: np.arange(n))
    backwards = passes(2, lambda n, *_: np.arange(n)[::-1])  # finds the files of the pass before
    for epoch in (0, 2):
        there = torch.cat(forwards[epoch : epoch + 2])
        assert torch.equal(there, torch.cat(backwards[epoch : epoch + 2]).flip(0))
    assert not torch.equal(forwards[0], forwards[2])


def test_a_file_missing_from_the_published_cache_is_made_and_one_of_another_size_refused(pairs):
    data = PairSet(pairs, SIZE, "compat", "legacy")
    wanted = [data[Item(0, 2, k)] for k in range(3)]  # no first pass: all are missing
    for path in (pairs[0].first.parent / "preprocessed").iterdir():
        path.unlink()
        for k in range(3):
            assert_equal(data[Item(0, 2, k)], wanted[k])
    with pytest.raises(InputError, match=r"0001_1\.flo: 32 x 48 px: 16 x 16 is needed"):
        LegacyCache(pairs, (32, 32), "published").read(pairs[0])


# ---------------------------------------------------------------- data set


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 16])
def test_compat_repeats_the_last_pair_and_fills_the_last_batch_with_nothing(pairs, batch_size):
    data = PairSet(pairs, SIZE, "compat", batch_size=batch_size)
    sampler = EpochSampler(len(data), 7, batch_size, order=data.order, epoch=3)
    batches = list(make_loader(data, sampler, collate=collate))
    assert {len(b.first) for b in batches} == {batch_size}
    assert len(batches) == -(-4 // batch_size)
    first = torch.cat([b.first for b in batches])
    truth = torch.cat([b.truths[0] for b in batches])
    known = torch.cat([b.known[0] for b in batches])
    for k, source in enumerate((0, 1, 2, 2)):
        wanted = read_pair(pairs[source], SIZE, "compat")
        assert np.array_equal(first[k].permute(1, 2, 0), wanted.first)
        assert np.array_equal(truth[k].permute(1, 2, 0), wanted.targets[2])
    assert known[:4].any() and not known[4:].any()
    assert not first[4:].any() and not truth[4:].any()


def test_corrected_gives_each_pair_once_in_an_order_of_the_seed(pairs):
    data = PairSet(pairs, SIZE, batch_size=2)
    assert len(data) == 3
    with pytest.raises(IndexError):
        data[3]
    seen = []
    for epoch in range(6):
        sampler = EpochSampler(len(data), 7, 2, order=data.order, epoch=epoch)
        firsts = torch.cat([b.first for b in make_loader(data, sampler, collate=collate)])
        seen.append(firsts.flatten(1).sum(1).tolist())
    wanted = collate([read_pair(pair, SIZE) for pair in pairs]).first.flatten(1).sum(1)
    assert {tuple(sorted(s)) for s in seen} == {tuple(sorted(wanted.tolist()))}
    assert len({tuple(s) for s in seen}) > 1


def test_a_batch_is_moved_by_fabric_and_a_data_set_can_be_sent_to_another_process(pairs):
    data = PairSet(pairs, SIZE, cache="exact")
    batch = collate([data[0], data[2]])
    moved = Fabric(accelerator="cpu", devices=1).to_device(batch)
    assert type(moved) is type(batch)
    assert torch.equal(moved.truths[4], batch.truths[4])
    there = batch.to("meta")
    tensors = [there.first, there.second, *there.truths, *there.known]
    assert {t.device.type for t in tensors} == {"meta"} and len(tensors) == 12
    assert_equal(pickle.loads(pickle.dumps(data))[1], data[1])


# ---------------------------------------------------------------- published folder


def test_pairs_of_a_published_folder_stay_within_a_sequence_and_have_a_flow(tmp_path):
    train = tmp_path / "single_directory" / "train"
    train.mkdir(parents=True)
    names = ["F002_T1_0001", "F001_T2_0001", "F001_T2_0002", "F001_T1_0009", "F001_T1_0010"]
    names += ["F001_T1_0011", "F001_T1_0012"]
    for name in names:
        (train / f"{name}.jpg").touch()
        if name != "F001_T1_0010":  # no flow in the middle of a sequence
            (train / f"{name}.flo").touch()
    (train / ".F001_T1_0001.jpg").touch()
    (train / "preprocessed").mkdir()
    (train / "notes.txt").touch()
    found = folder_pairs(train)
    assert [(p.name, p.second.name[:12]) for p in found] == [
        ("F001_T1_0009", "F001_T1_0010"),
        ("F001_T1_0011", "F001_T1_0012"),
        ("F001_T2_0001", "F001_T2_0002"),
    ]
    assert found[0].points == tmp_path / "generated_dataset" / "F001" / "T1" / "F001_T1_0009.csv"
    assert folder_pairs(train, tmp_path)[0].points == tmp_path / "F001" / "T1" / "F001_T1_0009.csv"
    (train / "0001.jpg").touch()
    with pytest.raises(InputError, match=r"0001\.jpg: must be named"):
        folder_pairs(train)
    with pytest.raises(InputError, match="cannot be listed"):
        folder_pairs(tmp_path / "none")
