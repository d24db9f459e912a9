"""Frame stores: built from folders and streams, killed and resumed, opened, read, refused."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
from copy import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from facecomp.data import building
from facecomp.data import store as store_module
from facecomp.data.building import (
    SourceFrame,
    SourceVideo,
    StoreWriter,
    as_size,
    as_videos,
    folder_source,
    frame_number,
    rgb_frame,
    tree_sources,
)
from facecomp.data.sampling import EpochSampler, Item
from facecomp.data.store import FrameStore, build_store, open_store
from facecomp.records.files import InputError, read_json, sha256_bytes, write_json

FILES = ("frames.u8", "index.parquet", "store.json")
SIZE = (4, 6)


def picture(*seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def video(person: int, name: int, frames: int, key: str = "", opened: list | None = None):
    """A source of random pictures that are fixed by their numbers."""

    def play():
        if opened is not None:
            opened.append((person, name))
        for k in range(frames):
            yield SourceFrame(3 * k, k / 25, picture(person, name, k), f"P{person}/{k}.png")

    return SourceVideo(f"P{person}", f"v{name}", play, key)


def some_videos(**named) -> list[SourceVideo]:
    shape = [(1, 0, 3), (1, 1, 2), (2, 0, 4)]
    return [video(*which, **named) for which in shape]


PICTURES = [picture(p, v, k) for p, v, n in [(1, 0, 3), (1, 1, 2), (2, 0, 4)] for k in range(n)]


def digests(path: Path) -> list[str]:
    return [sha256_bytes((path / name).read_bytes()) for name in FILES]


def fails(action, *arguments, **named) -> str:
    with pytest.raises(InputError) as caught:
        action(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def store(tmp_path) -> FrameStore:
    return build_store(tmp_path / "store", some_videos())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> list[str]:
    """Hashes of the files of an uninterrupted build."""
    path = tmp_path_factory.mktemp("fresh") / "store"
    build_store(path, some_videos())
    return digests(path)


# ---------------------------------------------------------------- content


def test_a_store_holds_what_it_was_given(store):
    assert store.shape == (9, *SIZE, 3) and len(store) == 9
    assert all(np.array_equal(a, b) for a, b in zip(store, PICTURES, strict=True))
    raw = (store.path / "frames.u8").read_bytes()
    assert raw == b"".join(p.tobytes() for p in PICTURES)  # nothing but the pixels
    table = store.index
    assert table.columns.tolist() == ["participant", "video", "frame", "time", "sha256", "source"]
    assert table["participant"].tolist() == ["P1"] * 5 + ["P2"] * 4
    assert table["video"].tolist() == ["v0"] * 3 + ["v1"] * 2 + ["v0"] * 4
    assert table["frame"].tolist() == [0, 3, 6, 0, 3, 0, 3, 6, 9]
    assert table["time"].tolist() == [k / 25 for k in (0, 1, 2, 0, 1, 0, 1, 2, 3)]
    assert table["sha256"].tolist() == [sha256_bytes(p.tobytes()) for p in PICTURES]
    assert table["source"][4] == "P1/1.png"
    store.verify()


def test_the_head_says_what_it_is(store):
    head = read_json(store.path / "store.json")
    assert head["format"] == "facecomp frame store" and head["version"] == 1
    assert head["shape"] == [9, 4, 6, 3]
    assert head["index_sha256"] == digests(store.path)[1]


def test_two_builds_are_equal(tmp_path, fresh):
    build_store(tmp_path / "again", some_videos())
    assert digests(tmp_path / "again") == fresh
    assert str(tmp_path) not in (tmp_path / "again" / "store.json").read_text()


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(allow_infinity=False)), max_size=6))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_numbers_and_times_come_back(steps):
    frames, number = [], -5
    for k, (step, time) in enumerate([(1, 0.0), *steps]):
        number += step
        frames.append(("Ä ö", "x/y", number, time, picture(k)))
    with tempfile.TemporaryDirectory() as folder:
        table = build_store(Path(folder, "s"), frames).index
    assert table["frame"].tolist() == [f[2] for f in frames]
    np.testing.assert_array_equal(table["time"], [f[3] for f in frames])
    assert set(table["participant"]) == {"Ä ö"} and set(table["video"]) == {"x/y"}


def test_grey_is_stored_as_rgb(tmp_path):
    grey = picture(0)[..., 0]
    store = build_store(
        tmp_path / "s", [("P", "v", 0, 0.0, grey), ("P", "v", 1, np.nan, grey[..., None])]
    )
    assert all(np.array_equal(frame, np.stack([grey] * 3, -1)) for frame in store)
    assert np.isnan(store.index["time"][1])


def test_pictures_that_are_not_contiguous(tmp_path):
    wide = picture(0, size=(8, 12))
    store = build_store(tmp_path / "s", [("P", "v", 0, 0.0, wide[::-2, ::2, ::-1])])
    assert np.array_equal(store[0], wide[::-2, ::2, ::-1])
    store.verify()


# ---------------------------------------------------------------- folders


def make_tree(root: Path, persons=("SN002", "SN010"), ending="png") -> None:
    for p, person in enumerate(persons):
        folder = root / person / "face_only_aligned"
        folder.mkdir(parents=True)
        for k in (0, 2, 9, 10, 11, 100):
            cv2.imwrite(str(folder / f"frame{k}.{ending}"), picture(p, k)[..., ::-1])


def test_a_tree_in_natural_order(tmp_path):
    make_tree(tmp_path / "tree", ("S10", "S9"))
    store = build_store(tmp_path / "store", tree_sources(tmp_path / "tree", fps=20), SIZE)
    assert store.index["participant"].tolist() == ["S9"] * 6 + ["S10"] * 6
    assert store.index["frame"].tolist() == [0, 2, 9, 10, 11, 100] * 2
    assert store.index["time"].tolist()[:3] == [0, 0.1, 0.45]
    assert store.index["source"][6] == "S10/face_only_aligned/frame0.png"
    assert np.array_equal(store[7], picture(0, 2)) and np.array_equal(store[1], picture(1, 2))


def test_a_tree_of_jpegs_without_fps(tmp_path):
    make_tree(tmp_path / "tree", ending="JPG")
    store = build_store(tmp_path / "store", tree_sources(tmp_path / "tree"))
    assert len(store) == 12 and store.index["time"].isna().all()


def test_deeper_trees(tmp_path):
    for clip in ("b2/0001", "b10/0001", "b2/0002"):
        folder = tmp_path / "id1" / "1.6" / clip
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "000007.png"), picture(0))
    sources = tree_sources(tmp_path, "*/1.6/*/*")
    assert {s.participant for s in sources} == {"id1"}
    assert [s.video for s in sources] == ["1.6/b2/0001", "1.6/b2/0002", "1.6/b10/0001"]
    assert next(iter(sources[0].frames())).frame == 7


def test_what_can_be_wrong_in_a_tree(tmp_path):
    assert "no folder */face_only_aligned" in fails(tree_sources, tmp_path)
    make_tree(tmp_path / "tree")
    folder = tmp_path / "tree" / "SN010" / "face_only_aligned"

    def build() -> str:
        return fails(build_store, tmp_path / "store", tree_sources(tmp_path / "tree"))

    cv2.imwrite(str(folder / "frame01.png"), picture(0))
    cv2.imwrite(str(folder / "frame1.png"), picture(0))
    assert "frame 1 (SN010/face_only_aligned/frame1.png): comes twice" in build()
    (folder / "frame01.png").unlink()
    cv2.imwrite(str(folder / "frame1.png"), picture(0, size=(5, 6)))
    assert "frame1.png): 5 x 6 px; all frames of this store are 4 x 6" in build()
    (folder / "frame1.png").write_bytes(b"\x89PNG and then nothing")
    assert "frame1.png: cannot be read as an image" in build()
    (folder / "frame1.png").rename(folder / "neutral.png")
    assert "neutral.png: no frame number" in fails(tree_sources, tmp_path / "tree")
    (folder / "neutral.png").rename(folder / "points.csv")
    with pytest.warns(UserWarning, match="1 files are no images: points.csv"):
        sources = tree_sources(tmp_path / "tree")
    assert len(build_store(tmp_path / "store", sources)) == 12
    for file in folder.iterdir():
        file.unlink()
    assert "no image in this folder" in fails(tree_sources, tmp_path / "tree")


def test_frame_numbers():
    assert frame_number("a/frame12.jpg") == 12 and frame_number("s3_000045.png") == 45
    assert frame_number("x7.crop.png") == 7
    assert "no frame number" in fails(frame_number, "12/frame.png")


def test_the_key_of_a_folder_follows_names_and_sizes(tmp_path):
    make_tree(tmp_path)
    folder = tmp_path / "SN002" / "face_only_aligned"

    def key(**named):
        return folder_source("a", "b", folder, **named).key

    first = key()
    assert first == key() != key(fps=20)
    (folder / "frame0.png").rename(folder / "frame1.png")
    second = key()
    assert second != first
    with open(folder / "frame1.png", "ab") as file:
        file.write(b"x")
    assert key() != second


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "there is no video"),
        ([("P", "v", 0, 0.0, picture(0, size=(5, 6)))], "5 x 6 px; all frames of this store are"),
        ([("P", "v", 0, 0.0, picture(0).astype(float))], "float64 of shape (4, 6, 3)"),
        ([("P", "v", 0, 0.0, picture(0)[:0])], "uint8 of shape (0, 6, 3)"),
        ([("P", "v", 0, 0.0, np.zeros((4, 6, 4), np.uint8))], "shape (4, 6, 4)"),
        ([("P", "v", 0, 0.0, np.zeros((2, 4, 6, 3), np.uint8))], "shape (2, 4, 6, 3)"),
        ([("P", "v", 0, 0.0, None)], "object of shape ()"),
        ([("P", "v", k, 0.0, picture(0)) for k in (1, 1)], "frame 1: comes twice"),
        ([("P", "v", k, 0.0, picture(0)) for k in (5, 3)], "frame 3: comes after frame 5"),
        ([("P", v, 0, 0.0, picture(0)) for v in "aba"], "participant P, video a: comes twice"),
        ([("P", "v", 0.5, 0.0, picture(0))], "frame 0.5: the frame number must be an integer"),
        ([("P", "v", 0, "now", picture(0))], "time 'now' must be seconds or NaN"),
        ([("P", "v", 0, np.inf, picture(0))], "time inf must be seconds or NaN"),
        ([(7, "v", 0, 0.0, picture(0))], "participant 7: must be a text"),
        ([("P", "", 0, 0.0, picture(0))], "video '': must be a text"),
    ],
)
def test_wrong_frames_are_one_line(tmp_path, frames, message):
    assert message in fails(build_store, tmp_path / "s", frames, SIZE)
    assert not (tmp_path / "s" / "store.json").exists()
    assert "(store.json is missing)" in fails(open_store, tmp_path / "s")


def test_a_video_without_frames(tmp_path):
    empty = SourceVideo("P", "v", list)
    assert "participant P, video v: has no frame" in fails(build_store, tmp_path / "s", [empty])


def test_sizes():
    assert as_size(64) == as_size((64, 64)) == as_size(np.array([64, 64])) == (64, 64)
    assert as_size(np.int64(3)) == (3, 3) and as_size(None) is None
    assert "size 0 x 4 px" in fails(as_size, (0, 4))
    assert rgb_frame(picture(0), None, "any").shape == (4, 6, 3)


def test_a_wrong_video_is_left_out_and_others_follow(tmp_path, fresh):
    def broken():
        yield SourceFrame(0, 0.0, picture(9))
        raise InputError("P9/1.png: cannot be read")

    with StoreWriter(tmp_path / "s") as writer:
        for good in some_videos():
            assert "cannot be read" in fails(writer.add, SourceVideo("P9", "v", broken))
            assert writer.add(good)
    assert digests(tmp_path / "s") == fresh


def test_a_wrong_last_video_leaves_nothing_behind(tmp_path, fresh):
    def broken():
        yield SourceFrame(0, 0.0, picture(9))
        yield SourceFrame(0, 0.0, picture(9))

    with StoreWriter(tmp_path / "s") as writer:
        for good in some_videos():
            writer.add(good)
        assert "frame 0: comes twice" in fails(writer.add, SourceVideo("P9", "v", broken))
    assert digests(tmp_path / "s") == fresh


def test_folders_that_are_not_ours(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds notes.txt, which is no part" in fails(build_store, tmp_path, some_videos())
    assert "notes.txt: cannot be a folder" in fails(
        build_store, tmp_path / "notes.txt", some_videos()
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


def test_a_finished_store_is_not_touched(store, fresh):
    opened = []
    again = build_store(store.path, some_videos(opened=opened), SIZE)
    assert len(again) == 9 and opened == []
    assert "finished store of other videos" in fails(build_store, store.path, some_videos()[:2])
    keyed = some_videos(key="new")
    assert "finished store of other videos" in fails(build_store, store.path, keyed)
    assert "of 4 x 6 px, not 8 x 8" in fails(build_store, store.path, some_videos(), 8)
    assert "is a finished store; open it" in fails(StoreWriter(store.path).__enter__)
    assert digests(store.path) == fresh


def test_overwriting_leaves_open_stores_whole(store):
    other = build_store(store.path, [video(5, 5, 2)], overwrite=True)
    assert len(other) == 2 and np.array_equal(other[1], picture(5, 5, 1))
    assert np.array_equal(store[8], PICTURES[8])  # the old file, as long as it is open


def test_lost_head_is_not_taken_for_a_beginning(store):
    (store.path / "store.json").unlink()
    assert "frames.u8 is there, but store.json is lost" in fails(
        build_store, store.path, some_videos()
    )
    assert len(build_store(store.path, some_videos(), overwrite=True)) == 9


def test_no_room_on_the_disk(tmp_path, fresh):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "s"
    writer = StoreWriter(path)
    try:
        with writer:
            assert writer.add(some_videos()[0])
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 72, hard))
            message = fails(writer.add, some_videos()[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ": cannot be written (" in message
    build_store(path, some_videos())
    assert digests(path) == fresh


# ---------------------------------------------------------------- killed and resumed

fork = multiprocessing.get_context("fork")


def killed(target, *arguments) -> int:
    """Exit code of a child process that runs `target`."""
    child = fork.Process(target=target, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode


def dying_videos(frames: int) -> list[SourceVideo]:
    """The videos, but the process is killed when so many frames have been given."""
    left = [frames]

    def play(source):
        for frame in source.frames():
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            yield frame

    return [SourceVideo(s.participant, s.video, lambda s=s: play(s), s.key) for s in some_videos()]


@pytest.mark.parametrize("frames", range(9))
def test_killed_at_every_frame(tmp_path, fresh, frames):
    path = tmp_path / "s"
    assert killed(build_store, path, dying_videos(frames)) == -signal.SIGKILL
    assert "is half-built; run the same build again" in fails(open_store, path)
    whole = [3, 5, 9]
    opened = []
    build_store(path, some_videos(opened=opened), SIZE)
    assert opened == [(1, 0), (1, 1), (2, 0)][sum(frames >= n for n in whole) :]
    assert digests(path) == fresh
    assert not (path / "building.jsonl").exists()


def test_killed_again_and_again(tmp_path, fresh):
    path = tmp_path / "s"
    for frames in (1, 4, 3, 0, 2):  # counted anew in each attempt, whole videos are not given again
        assert killed(build_store, path, dying_videos(frames)) == -signal.SIGKILL
    build_store(path, some_videos())
    assert digests(path) == fresh


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def build_and_die(path: Path, name: str, before: bool) -> None:
    original = getattr(building, name)

    def patched(*arguments, **named):
        if not before:
            original(*arguments, **named)
        die()

    setattr(building, name, patched)
    build_store(path, some_videos())


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("name", ["_write_index", "sha256_file", "write_json"])
def test_killed_while_finishing(tmp_path, fresh, name, before):
    path = tmp_path / "s"
    assert killed(build_and_die, path, name, before) == -signal.SIGKILL
    opened = []
    build_store(path, some_videos(opened=opened))
    assert opened == [] and digests(path) == fresh


def test_killed_while_the_index_is_written(tmp_path, fresh, monkeypatch):
    path = tmp_path / "s"

    def half(self, table):
        Path(self.where).write_bytes(b"PAR1 half")
        die()

    def child():
        building.pq.ParquetWriter.write_table = half
        build_store(path, some_videos())

    assert killed(child) == -signal.SIGKILL
    assert [p for p in path.iterdir() if p.name.startswith(".index.")]
    build_store(path, some_videos())
    assert digests(path) == fresh
    assert not [p for p in path.iterdir() if p.name.startswith(".index.")]


def half_built(path: Path, videos: int = 2) -> Path:
    with pytest.raises(RuntimeError), StoreWriter(path) as writer:
        for source in some_videos()[:videos]:
            writer.add(source)
        raise RuntimeError
    return path


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda frames, journal: (frames, journal), 2),
        (lambda frames, journal: (frames + b"more", journal + b'["video","P'), 2),
        (lambda frames, journal: (frames, journal[:-1]), 1),  # the end of the second video is torn
        (lambda frames, journal: (frames[:-1], journal), 1),
        (lambda frames, journal: (frames[:-20] + bytes(20), journal), 1),  # lost by a power failure
        (lambda frames, journal: (frames, journal[:-30] + bytes(29) + b"\n"), 1),
        (lambda frames, journal: (b"\0" + frames[1:], journal), 0),
        (lambda frames, journal: (frames, b"[]\n" + journal), 0),
        (lambda frames, journal: (frames, b'{"a": 1}\n'), 0),
        (lambda frames, journal: (frames, journal.replace(b'store",1', b'store",2', 1)), 0),
        (lambda frames, journal: (b"", b""), 0),
    ],
)
def test_only_what_is_whole_is_kept(tmp_path, fresh, damage, kept):
    path = half_built(tmp_path / "s")
    files = [path / "frames.u8", path / "building.jsonl"]
    for file, data in zip(files, damage(*(f.read_bytes() for f in files)), strict=True):
        file.write_bytes(data)
    opened = []
    build_store(path, some_videos(opened=opened))
    assert opened == [(1, 0), (1, 1), (2, 0)][kept:]
    assert digests(path) == fresh


def test_resumed_with_fewer_videos(tmp_path):
    build_store(half_built(tmp_path / "s", 2), some_videos()[:1])
    build_store(tmp_path / "fresh", some_videos()[:1])
    assert digests(tmp_path / "s") == digests(tmp_path / "fresh")


def test_a_kept_video_is_refused_a_second_time(tmp_path):
    with StoreWriter(half_built(tmp_path / "s", 1)) as writer:
        assert not writer.add(some_videos()[0])
        assert "participant P1, video v0: comes twice" in fails(writer.add, some_videos()[0])


def test_resumed_with_another_size(tmp_path):
    path = half_built(tmp_path / "s")
    assert "begun with frames of 4 x 6 px, not 8 x 8" in fails(build_store, path, some_videos(), 8)
    larger = [("P", "v", 0, 0.0, picture(0, size=(8, 8)))]
    assert build_store(path, larger).shape == (1, 8, 8, 3)  # nothing was kept, no size was asked


VIDEOS = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 2), st.integers(1, 3), st.sampled_from("ab")),
    unique_by=lambda v: v[:2],
    min_size=1,
    max_size=5,
)


@given(VIDEOS, VIDEOS, st.integers(0, 15))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_resumed_build_equals_a_fresh_one_whatever_changed(first, second, stop):
    """The key names the content, so a video with another number of frames has another key."""

    def sources(which, limit=10**9):
        left = [limit]

        def play(source):
            for frame in source.frames():
                if not left[0]:
                    raise RuntimeError
                left[0] -= 1
                yield frame

        for p, v, n, key in which:
            source = video(p, v, n, key=f"{n}{key}")
            yield SourceVideo(
                source.participant, source.video, lambda s=source: play(s), source.key
            )

    with tempfile.TemporaryDirectory() as folder:
        begun, new = Path(folder, "begun"), Path(folder, "new")
        try:
            with StoreWriter(begun) as writer:
                for source in sources(first, stop):
                    writer.add(source)
                raise RuntimeError
        except RuntimeError:
            pass
        build_store(begun, sources(second))
        build_store(new, sources(second))
        assert digests(begun) == digests(new)
        open_store(begun).verify()


def test_two_launchers_on_one_store(tmp_path, fresh):
    path = tmp_path / "s"
    with StoreWriter(path) as writer:
        writer.add(some_videos()[0])
        message = fails(build_store, path, some_videos())
        assert "store s is already worked on by process" in message
        for source in some_videos()[1:]:
            writer.add(source)
    assert digests(path) == fresh


def test_a_dead_launchers_lock_is_taken_over(tmp_path, fresh):
    assert killed(build_store, tmp_path / "s", dying_videos(4)) == -signal.SIGKILL
    assert (tmp_path / "s" / "building.holder").exists()
    build_store(tmp_path / "s", some_videos())
    assert digests(tmp_path / "s") == fresh


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    code = """
        import re, sys
        import numpy as np
        from facecomp.data.store import build_store
        n = int(sys.argv[2])
        frames = (("P", "v", k, k / 25, np.full((96, 96, 3), k % 251, np.uint8)) for k in range(n))
        build_store(sys.argv[1], frames).verify()
        print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    peaks = []
    for n in (300, 3000):  # 8 and 83 MB
        run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / f"s{n}"), str(n)]
        answer = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        peaks.append(int(answer))
    assert peaks[1] < 1.1 * peaks[0] and peaks[1] - peaks[0] < 25_000, peaks  # kB


# ---------------------------------------------------------------- opened


def edit_head(path: Path, **changes) -> None:
    head = read_json(path / "store.json") | changes
    write_json(path / "store.json", {k: v for k, v in head.items() if v is not None})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: os.truncate(p / "frames.u8", 100), "frames.u8: 100; 648 bytes were written"),
        (lambda p: os.truncate(p / "frames.u8", 700), "frames.u8: 700; 648 bytes were written"),
        (lambda p: (p / "frames.u8").unlink(), "frames.u8: no file; 648 bytes"),
        (lambda p: os.truncate(p / "index.parquet", 9), "index.parquet: 9;"),
        (lambda p: (p / "index.parquet").unlink(), "index.parquet: no file;"),
        (lambda p: (p / "store.json").write_text('{"format"'), "store.json: is not JSON"),
        (lambda p: (p / "store.json").write_text("[1]"), "store.json: is not the head"),
        (lambda p: edit_head(p, format="other"), "store.json: is not the head of a frame store"),
        (lambda p: edit_head(p, version=2), "store.json: version 2; 1 is needed"),
        (lambda p: edit_head(p, version=None), "store.json: version None; 1 is needed"),
        (lambda p: edit_head(p, shape=None), "store.json: shape None; [N, H, W, 3] is needed"),
        (lambda p: edit_head(p, shape=[9, 4, 6]), "shape [9, 4, 6]; "),
        (lambda p: edit_head(p, shape=[9, 4, 6, 1]), "shape [9, 4, 6, 1]; "),
        (lambda p: edit_head(p, shape=[-9, -4, 6, 3]), "shape [-9, -4, 6, 3]; "),
        (lambda p: edit_head(p, shape=[True, 4, 6, 3]), "shape [True, 4, 6, 3]; "),
        (lambda p: edit_head(p, shape=[10**20, 4, 6, 3]), "frames.u8: 648; "),
        (lambda p: (p / "store.json").unlink(), "is no frame store (store.json is missing)"),
    ],
)
def test_what_is_not_a_whole_store_is_not_opened(store, damage, message):
    damage(store.path)
    answer = fails(open_store, store.path)
    assert message in answer and str(store.path) in answer


def test_opening_a_folder_that_is_not_there(tmp_path):
    assert "is no frame store" in fails(open_store, tmp_path / "nowhere")


@pytest.mark.parametrize("byte", [0, 5 * 72 + 31, 647])
def test_verify_names_the_frame_that_changed(store, byte):
    with open(store.path / "frames.u8", "r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1]))
    row = store.index.iloc[byte // 72]
    name = f"participant {row['participant']}, video {row['video']}, frame {row['frame']}"
    assert f"{name}: is not what was stored" in fails(open_store(store.path).verify)


def test_verify_checks_the_index(store):
    file = store.path / "index.parquet"
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)
    assert "index.parquet: is not what was stored" in fails(open_store(store.path).verify)
    file.write_bytes(bytes(len(data)))
    assert "is not the index of a frame store" in fails(lambda: open_store(store.path).index)


# ---------------------------------------------------------------- read


def test_indexing_is_numpys(store):
    whole = np.stack(PICTURES)
    lists = [[0, 8, 0], [-1, 3], [], (2,), range(2, 5), np.arange(9) % 2 == 0, np.array([[1], [2]])]
    for key in [3, -9, np.int64(4), slice(2, 9, 3), slice(None), *lists]:
        expected = whole[list(key)] if isinstance(key, tuple | range) else whole[key]
        if isinstance(key, list) and not key:
            expected = whole[:0]
        assert np.array_equal(store[key], expected), key
    assert np.array_equal(store[torch.tensor([4, 1])], whole[[4, 1]])
    assert np.array_equal(store[torch.tensor(4)], whole[4])
    assert np.array_equal(store[Item(0, 0, 7)], whole[7])
    assert np.array_equal(store[[Item(0, 0, 7), Item(0, 0, 1)]], whole[[7, 1]])
    assert np.array_equal(np.stack(list(store)), whole)


@pytest.mark.parametrize("key", [9, -10, [0, 9], [-10], [0.5], np.ones(4, bool), np.ones(9)])
def test_indices_that_do_not_exist(store, key):
    with pytest.raises(IndexError):
        store[key]
    if np.ndim(key):
        for frames in (store, store.to_device("cpu")):
            with pytest.raises(IndexError):
                frames.batch(key)


def test_nothing_read_is_the_file(store):
    for read in (store[0], store[[0]][0], store[:1][0], store.batch([0])[0].numpy()):
        read[:] = 0
    store.verify()
    assert not store._frames.flags.writeable


@given(st.lists(st.integers(-9, 8), max_size=12), st.sampled_from(["list", "array", "items"]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_batches_are_the_frames(shared_store, indices, kind):
    expected = np.stack([*(PICTURES[i] for i in indices), PICTURES[0]])[:-1].transpose(0, 3, 1, 2)
    given_as = {
        "list": indices,
        "array": np.array(indices, dtype=np.int32),
        "items": [Item(0, 0, i) for i in indices],
    }[kind]
    for frames in (shared_store, shared_store.to_device("cpu")):
        batch = frames.batch(given_as)
        assert batch.dtype == torch.uint8 and batch.is_contiguous()
        np.testing.assert_array_equal(batch.numpy(), expected)
        floats = frames.batch(given_as, dtype=torch.float32)
        np.testing.assert_array_equal(floats.numpy(), expected.astype(np.float32) / 255)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory) -> FrameStore:
    return build_store(tmp_path_factory.mktemp("shared") / "store", some_videos())


def test_batches_of_clips_and_types(shared_store):
    clips = shared_store.batch(np.array([[0, 1, 2], [8, 7, 6]]))
    assert clips.shape == (2, 3, 3, *SIZE)
    assert np.array_equal(clips[1, 2], PICTURES[6].transpose(2, 0, 1))
    half = shared_store.batch([0], dtype=torch.float16)
    assert half.dtype == torch.float16 and half.min() >= 0 and half.max() <= 1
    assert "torch.int32" in fails(shared_store.batch, [0], dtype=torch.int32)


def test_choosing_participants_and_videos(store):
    assert store.select("P1").tolist() == [0, 1, 2, 3, 4]
    assert store.select("P1", "v1").tolist() == [3, 4]
    assert store.select(video="v0").tolist() == [0, 1, 2, 5, 6, 7, 8]
    assert store.select(["P2", "P1"]).tolist() == store.select().tolist() == list(range(9))
    assert store.select("P1").dtype == np.int64
    assert "no participant 'P3'; the nearest of 2 is 'P" in fails(store.select, "P3")
    assert "no video 'v2'" in fails(store.select, "P1", "v2")
    assert "no frame of participant P2, video v1" in fails(store.select, "P2", "v1")


def test_a_part_on_a_device(store):
    part = store.to_device("cpu", store.select("P2"))
    assert len(part) == 4 and part.frames.shape == (4, 3, *SIZE)
    assert torch.equal(part.batch([3, 0]), store.batch([8, 5]))
    assert torch.equal(part.batch(torch.tensor([1])), store.batch([6]))
    assert torch.equal(part.batch([[-1, 0], [1, -4]]), store.batch([[8, 5], [6, 5]]))
    backwards = store.to_device(torch.device("cpu"), [8, 0])
    assert np.array_equal(backwards.frames[0], PICTURES[8].transpose(2, 0, 1))


def test_what_does_not_fit_on_a_device(store, monkeypatch):
    monkeypatch.setattr(store_module, "_free_bytes", lambda device: 647)
    message = fails(store.to_device, "cpu")
    assert "6.48e-07 GB of frames do not fit on cpu" in message
    assert len(store.to_device("cpu", range(8))) == 8
    assert "device abacus: cannot be used (" in fails(store.to_device, "abacus")


def test_free_memory_is_known_on_linux():
    free = store_module._free_bytes(torch.device("cpu"))
    assert free is None or free > 10**6
    assert store_module._free_bytes(torch.device("meta")) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(store):
    assert "device cuda: cannot be used" in fails(store.to_device, "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(store):
    near = store.to_device("cuda")
    for indices in ([8, 0, -1], torch.tensor([8, 0, 8], device="cuda")):
        assert torch.equal(near.batch(indices).cpu(), store.batch([8, 0, 8]))
    assert torch.equal(store.batch([3], "cuda").cpu(), store.batch([3]))
    assert "do not fit on cuda:0" in fails(
        store_module._check_room, store.path, 10**15, near.frames.device
    )


# ---------------------------------------------------------------- workers


def test_a_copy_opens_the_file_for_itself(store, monkeypatch, tmp_path):
    monkeypatch.chdir(store.path.parent)
    relative = open_store("store")
    monkeypatch.chdir("/")
    assert np.array_equal(copy(relative)[8], PICTURES[8])
    assert repr(relative) == "FrameStore(store: 9 frames of 4 x 6 px)"


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (1, "spawn")])
def test_loaders_with_workers(store, workers, start):
    sampler = EpochSampler(len(store), seed=1, batch_size=4, epoch=2)
    loader = DataLoader(
        store, batch_sampler=sampler, num_workers=workers, multiprocessing_context=start
    )
    order = [[item.index for item in batch] for batch in sampler]
    batches = list(loader)
    assert [len(b) for b in batches] == [4, 4, 1]
    for indices, batch in zip(order, batches, strict=True):
        assert np.array_equal(batch.numpy(), np.stack([PICTURES[i] for i in indices]))


def test_streams_are_grouped_without_being_kept():
    alive = []

    def items():
        for name in "ab":
            for k in range(3):
                alive.append((name, k))
                yield ("P", name, k, 0.0, picture(k))

    seen = []
    for source in as_videos(items()):
        for frame in source.frames():
            seen.append((source.video, frame.frame))
            assert alive[-1] == seen[-1]  # one at a time
    assert seen == alive


def test_the_journal_is_readable_lines(tmp_path):
    lines = (half_built(tmp_path / "s") / "building.jsonl").read_text().splitlines()
    kinds = [json.loads(line)[0] for line in lines]
    assert kinds == ["store", "video", *["frame"] * 3, "end", "video", *["frame"] * 2, "end"]
