"""Frames in: every source gives the same kind of frames, every loss is named, bad input is one line."""

import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageOps

from facecomp.faces import video as module
from facecomp.faces.images import upright
from facecomp.faces.video import (
    list_packets,
    natural_key,
    open_video,
    probe,
    read_image,
    sane_fps,
    write_frames,
    write_gif,
    write_video,
)
from facecomp.records.files import InputError

CLIPS = Path(os.environ.get("FACECOMP_CLIPS", ROOT.parent / "shared" / "clips"))


def ffmpeg(*arguments) -> str:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pictures(n: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Blocks that differ in each corner and a bar that moves: no picture equals another or its mirror."""
    found = []
    for k in range(n):
        image = np.full((height, width, 3), 40, np.uint8)
        image[: height // 3, : width // 3] = (220, 30, 30)
        image[: height // 3, -width // 4 :] = (30, 220, 30)
        image[-height // 4 :, : width // 4] = (30, 30, 220)
        image[:, 4 * k % width] = 255 - k
        found.append(image)
    return found


def clip(
    path: Path, n: int = 50, options: tuple = ("-pix_fmt", "yuv420p"), codec="libx264"
) -> Path:
    source = f"testsrc=size=128x96:rate=25:duration={n / 25}"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", codec, *options, path)
    return path


def cut(path: Path, share: float, name: str = "") -> Path:
    data = path.read_bytes()
    target = path.with_name(name or f"cut{path.suffix}")
    target.write_bytes(data[: int(len(data) * share)])
    return target


def ffmpeg_frames(path: Path, size: tuple[int, int]) -> np.ndarray:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-map", "0:V:0"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, *size, 3)


def ffmpeg_times(path: Path) -> np.ndarray:
    """Presentation times (s) of the shown packets, by ffmpeg's demultiplexer, from 0."""
    text = ffmpeg("-i", path, "-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-")
    over, under = map(int, re.search(r"#tb 0: (\d+)/(\d+)", text).groups())
    rows = [r for r in text.splitlines() if r.startswith("0,")]
    marks = [re.search(r"F=0x(\w+)", r) for r in rows]
    shown = [r for r, m in zip(rows, marks, strict=True) if not (m and int(m[1], 16) & 4)]
    stamps = sorted(int(r.split(",")[2]) for r in shown)
    return (np.array(stamps) - stamps[0]) * over / under


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """One ordinary clip (50 frames, B-frames, index at the front) that several tests damage or rewrap."""
    path = tmp_path_factory.mktemp("clips") / "made.mp4"
    return clip(path, options=("-pix_fmt", "yuv420p", "-bf", "2", "-movflags", "+faststart"))


# ---------------------------------------------------------------- real clips

REAL = {
    "franck.mp4": (4800, (288, 360), 24.0),
    "cap13_edit2.mp4": (765, (300, 400), 25.0),
    "WolfgangLanger_Pexels.mp4": (472, (360, 640), 23.976),
    "single_face.mp4": (72, (360, 640), 30.0),
    "face_noface.mov": (169, (540, 960), 26.398),
    "no_face.mp4": (95, (540, 960), 23.672),
}


@pytest.mark.parametrize("name", REAL)
def test_real_clips_are_read_in_full(name):
    path = CLIPS / name
    if not path.is_file():
        pytest.skip(f"{path} is absent (set FACECOMP_CLIPS)")
    frames, size, fps = REAL[name]
    video = open_video(path)
    times = np.array([frame.time for frame in video])
    assert (len(times), video.missing, video.size) == (frames, 0, size)
    assert video.fps == pytest.approx(fps, abs=1e-3)
    assert np.abs(times - ffmpeg_times(path)).max() < 1e-6


def test_frames_hidden_by_an_edit_list_are_not_missing():
    path = CLIPS / "no_face.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is absent (set FACECOMP_CLIPS)")
    video = open_video(path)
    assert video.expected == 98 and sum(1 for _ in video) == 95
    assert video.missing == 0
    assert video.notes == ["3 frames cut away by the file's edit list: announced, not missing"]


# ---------------------------------------------------------------- times, rotation, order


def test_frames_equal_those_of_ffmpeg(made):
    ours = np.stack([frame.image for frame in open_video(made)])
    assert np.array_equal(ours, ffmpeg_frames(made, (96, 128)))


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_variable_frame_rate(tmp_path, ending):
    keep = "select=not(mod(n\\,3))+lt(n\\,10)"
    options = ("-pix_fmt", "yuv420p", "-vf", keep, "-fps_mode", "vfr")
    path = clip(tmp_path / f"vfr.{ending}", options=options)
    video = open_video(path)
    times = [frame.time for frame in video]
    truth = [n / 25 for n in range(50) if n % 3 == 0 or n < 10]
    assert np.allclose(times, truth, atol=1e-3) and video.missing == 0
    assert np.allclose(times, ffmpeg_times(path), atol=1e-6)
    assert not any("time stamp" in note for note in video.notes)


def test_a_stream_without_time_stamps_gets_regular_ones(made, tmp_path):
    ffmpeg("-i", made, "-c", "copy", tmp_path / "bare.h264")
    video = open_video(tmp_path / "bare.h264")
    assert np.allclose([frame.time for frame in video], np.arange(50) / 25)
    assert video.expected is None and video.missing == 0
    assert "without a usable time stamp" in video.notes[0]


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_rotation_flag(made, tmp_path, angle, turns):
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", angle, "-i", made, "-c", "copy", path)
    video, plain = open_video(path), next(iter(open_video(made))).image
    first = next(iter(video)).image
    assert video.size == first.shape[:2] == np.rot90(plain, turns).shape[:2]
    assert np.array_equal(first, np.rot90(plain, turns))  # both count anticlockwise
    assert video.rotation == 360 - angle


def test_reading_twice_gives_the_same(made):
    video = open_video(made)
    first, second = list(video), list(video)
    assert [f.time for f in first] == [f.time for f in second]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    first[0].image[:] = 0  # frames are the caller's own
    assert second[0].image.any()


def test_two_readers_of_one_video_do_not_disturb_each_other(made):
    video = open_video(made)
    assert all(
        a.index == b.index and np.array_equal(a.image, b.image)
        for a, b in zip(video, video, strict=True)
    )


@pytest.mark.parametrize(
    ("said", "taken"), [(0, 25), (float("nan"), 25), (1e6, 25), (-1, 25), (0.5, 0.5), (240, 240)]
)
def test_frame_rates_that_cannot_be(said, taken):
    fps, note = sane_fps(said)
    assert fps == taken and bool(note) == (said != taken)


def test_the_video_stream_is_chosen_by_type(made, tmp_path):
    cover, path = tmp_path / "cover.png", tmp_path / "album.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=32x32:duration=0.04", cover)
    options = ["-map", 0, "-map", 1, "-map", 2, "-c:v:0", "mjpeg", "-c:v:1", "copy"]
    sound = ["-f", "lavfi", "-i", "sine=duration=2"]
    ffmpeg("-i", cover, *sound, "-i", made, *options, "-disposition:v:0", "attached_pic", path)
    video = open_video(path)
    assert sum(1 for _ in video) == 50 and video.size == (96, 128)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("share", [0.5, 0.6, 0.9, 0.99])
def test_a_cut_mp4_gives_what_it_has(made, share):
    path = cut(made, share)
    video = open_video(path)
    assert "bytes are not there" in video.notes[0]
    got = list(video)
    assert 0 < len(got) < 50 and len(got) + video.missing == video.expected == 50
    assert len(got) == len(ffmpeg_frames(path, (96, 128)))  # no fewer than ffmpeg saves
    assert any(
        re.search(r"\d+ of 50 frames missing at the end: the file is cut off", n)
        for n in video.notes
    )
    whole = list(open_video(made))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(got[:-1], whole, strict=False))


def test_damage_in_the_middle_is_counted_and_the_rest_is_read(made, tmp_path):
    data = bytearray(made.read_bytes())
    middle = int(len(data) * 0.6)
    data[middle : middle + 400] = bytes(400)
    path = tmp_path / "hole.mp4"
    path.write_bytes(data)
    video = open_video(path)
    times = [frame.time for frame in video]
    assert 40 < len(times) < 50 and len(times) + video.missing == 50
    assert times[-1] == pytest.approx(49 / 25)  # the end is there
    assert video.notes[-1].endswith("missing: damaged data")


@pytest.mark.parametrize(
    ("ending", "codec"), [("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")]
)
def test_other_containers_cut(tmp_path, ending, codec):
    path = clip(tmp_path / f"whole.{ending}", codec=codec)
    whole = open_video(path)
    assert sum(1 for _ in whole) == 50 and (whole.missing, whole.notes) == (0, [])
    video = open_video(cut(path, 0.6))
    got = sum(1 for _ in video)
    assert 0 < got < 50 and abs(got + video.missing - 50) <= 1
    assert video.notes[0].startswith("about ") and "cut off" in video.notes[0]


def test_a_clip_cut_without_encoding_lacks_nothing(made, tmp_path):
    path = tmp_path / "later.mp4"
    ffmpeg("-ss", "0.5", "-i", made, "-c", "copy", path)
    video = open_video(path)
    got = sum(1 for _ in video)
    assert got < video.expected and video.missing == 0
    assert list_packets(path).hidden == video.expected - got


def test_missing_is_known_only_after_a_whole_iteration(made):
    video = open_video(made)
    next(iter(video))
    assert video.missing is None
    assert len(list(video)) == 50 and video.missing == 0


# ---------------------------------------------------------------- what cannot be read: one line


def _no_index(folder: Path, made: Path) -> Path:
    path = folder / "noindex.mp4"
    ffmpeg("-i", made, "-c", "copy", path)  # without faststart: the index comes last
    return cut(path, 0.6)


def _write(name: str, data: bytes):
    def make(folder: Path, made: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def _folder(*files: tuple[str, bytes]):
    def make(folder: Path, made: Path) -> Path:
        target = folder / "frames of one"
        target.mkdir()
        for name, data in files:
            (target / name).write_bytes(data)
        return target

    return make


def png(height: int = 4, width: int = 6, value: int = 9) -> bytes:
    return cv2.imencode(".png", np.full((height, width, 3), value, np.uint8))[1].tobytes()


def _sound(folder: Path, made: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", folder / "sound.mp4")
    return folder / "sound.mp4"


BAD = {
    "missing": (lambda folder, made: folder / "nothing.mp4", "nothing.mp4: does not exist"),
    "empty video": (_write("a.mp4", b""), "a.mp4: is empty"),
    "empty image": (_write("a.png", b""), "a.png: is empty"),
    "empty gif": (_write("a.gif", b""), "a.gif: is empty"),
    "text as video": (
        _write("a.mp4", b"no video\n" * 99),
        "a.mp4: is not a video that can be read",
    ),
    "text as image": (_write("a.JPG", b"no image"), "a.JPG: cannot be read as an image"),
    "text as gif": (_write("a.gif", b"GIF89a"), "a.gif: cannot be read as an image"),
    "noise as video": (
        _write("a.avi", np.random.default_rng(0).bytes(5000)),
        "a.avi: is not a video",
    ),
    "mp4 cut before its index": (_no_index, "cut.mp4: no index (moov box)"),
    "mp4 cut before its first frame": (lambda folder, made: cut(made, 0.2), "cut off"),
    "sound only": (_sound, "sound.mp4: is not a video that can be read"),
    "folder without images": (
        _folder(("a.txt", b"x"), (".b.png", png())),
        "frames of one: no image in this folder",
    ),
    "unreadable image": (
        _folder(("f1.png", png()), ("f2.png", png()[:40])),
        "f2.png: cannot be read as an image",
    ),
    "empty image in a folder": (
        _folder(("f1.png", png()), ("f2.jpg", b"")),
        "f2.jpg: cannot be read as an image",
    ),
    "other size": (
        _folder(("f2.png", png()), ("f10.png", png(4, 8))),
        "f10.png: frame 1 is 8x4 pixels, the first is 6x4",
    ),
    "turned size": (
        _folder(("f1.png", png(4, 6)), ("f2.png", png(6, 4))),
        "f2.png: frame 1 is 4x6 pixels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sources_are_one_line_and_silent(case, tmp_path, made, capfd):
    make, expected = BAD[case]
    path = make(tmp_path, made)
    with pytest.raises(InputError) as caught:
        list(open_video(path))
    message = str(caught.value)
    assert expected in message and "\n" not in message and len(message) < 400
    assert capfd.readouterr() == ("", "")


def test_damaged_videos_print_nothing(made, capfd):
    list(open_video(cut(made, 0.6)))
    assert capfd.readouterr() == ("", "")


def test_libav_is_quiet_from_the_first_video_on(made):
    code = "import sys; from facecomp.faces.video import open_video; print(len(list(open_video(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-c", code, cut(made, 0.6, "c.mp4")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stderr == "" and int(done.stdout) > 5


def test_open_video_refuses_a_rate_that_cannot_be(made):
    with pytest.raises(InputError, match="fps 0 is not a positive number"):
        open_video(made, fps=0)


def test_a_name_that_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/bad\xff.mp4"
    try:
        Path(os.fsdecode(path)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(InputError, match=r"bad\\xff.mp4: the name is not valid UTF-8"):
        open_video(os.fsdecode(path))


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "ppm", "webp", "tiff", "jp2"])
def test_an_image_cut_anywhere_is_refused_or_whole(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    # noise, so that each format has more data than headers
    image = np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(image).save(path)
    data, whole = path.read_bytes(), read_image(path)
    for end in np.linspace(1, len(data) - 1, 40).astype(int):
        path.write_bytes(data[:end])
        try:
            got = read_image(path)
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert np.array_equal(got, whole)


@pytest.mark.parametrize("seed", range(12))
def test_noise_in_a_video_never_breaks_the_reader(made, tmp_path, seed):
    random = np.random.default_rng(seed)
    data = bytearray(made.read_bytes())
    for _ in range(3):
        start = int(random.integers(0, len(data) - 60))
        data[start : start + 60] = random.bytes(60)
    path = tmp_path / "noise.mp4"
    path.write_bytes(data)
    try:
        video = open_video(path)
        got = sum(1 for _ in video)
        assert got > 0 and video.missing >= 0 and got + video.missing >= 0
    except InputError as error:
        assert "\n" not in str(error)


# ---------------------------------------------------------------- what can be read: a table of odd sources


def _gray_video(folder: Path, images) -> Path:
    clip(folder / "grey.mkv", n=5, options=("-vf", "format=gray", "-pix_fmt", "gray"), codec="ffv1")
    return folder / "grey.mkv"


def _stills(ending: str, convert):
    def make(folder: Path, images) -> Path:
        target = folder / "ünï cödé 100 %"
        target.mkdir()
        for k, image in enumerate(images):
            data = cv2.imencode(ending, convert(image))[1].tobytes()
            (target / f"frame {k + 8}{ending.upper()}").write_bytes(data)
        return target

    return make


def _bgra16(image):
    alpha = np.full((*image.shape[:2], 1), 0, np.uint16)  # fully transparent: dropped all the same
    return np.concatenate([image[..., ::-1].astype(np.uint16) * 257, alpha], axis=2)


def _bgra(image):
    return np.concatenate([image[..., ::-1], np.full((*image.shape[:2], 1), 90, np.uint8)], axis=2)


def _video(name: str, n: int, **options):
    return lambda folder, images: write_video(folder / name, images[:n], 25, **options)


def _deep(folder: Path, images) -> Path:
    clip(folder / "deep.mp4", n=5, options=("-pix_fmt", "yuv420p10le"))
    return folder / "deep.mp4"


ODD = {  # name: how it is made, frames, may pixels differ by
    "one frame": (_video("one.mp4", 1, lossless=True), 1, 0),
    "one image": (lambda folder, images: write_frames(folder / "x", images[:1])[0], 1, 0),
    "odd size lossless": (_video("odd.mp4", 5, lossless=True), 5, 0),
    "blanks, letters and signs": (_video("ün ï 'q\" %03d #?.mp4", 5, lossless=True), 5, 0),
    "matroska": (_video("a.mkv", 5, lossless=True), 5, 0),
    "capital ending": (_video("A.MOV", 5, lossless=True), 5, 0),
    "grey video": (_gray_video, 5, None),
    "ten bits": (_deep, 5, None),
    "alpha png": (_stills(".png", _bgra), 5, 0),
    "16-bit alpha png": (_stills(".png", _bgra16), 5, 0),
    "16-bit png": (_stills(".png", lambda x: x[..., ::-1].astype(np.uint16) * 257), 5, 0),
    "16-bit tiff": (_stills(".tiff", lambda x: x[..., ::-1].astype(np.uint16) * 257), 5, 0),
    "ppm": (_stills(".ppm", lambda x: x[..., ::-1]), 5, 0),
    "jpeg 2000": (_stills(".jp2", lambda x: x[..., ::-1]), 5, 8),
    "webp": (_stills(".webp", lambda x: x[..., ::-1]), 5, 0),
    "bmp": (_stills(".bmp", lambda x: x[..., ::-1]), 5, 0),
    "gif": (lambda folder, images: write_gif(folder / "a.gif", images[:5], 25), 5, 0),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_sources(case, tmp_path):
    make, n, tolerance = ODD[case]
    images = pictures(5, 67, 101)
    video = open_video(make(tmp_path, images))
    frames = list(video)
    assert (len(frames), video.missing) == (n, 0)
    assert [f.index for f in frames] == list(range(n))
    assert np.allclose([f.time for f in frames], np.arange(n) / 25)
    for frame, image in zip(frames, images, strict=False):
        assert frame.image.dtype == np.uint8 and frame.image.shape == (*video.size, 3)
        if tolerance is not None:
            assert np.abs(frame.image.astype(int) - image).max() <= tolerance
    if case == "grey video":
        assert np.ptp(frames[0].image, axis=2).max() == 0


def test_natural_order_and_files_that_are_no_frames(tmp_path):
    images = pictures(12)
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{'Frame' if k % 2 else 'frame'}{k}.png")
    for name in (".frame3.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    video = open_video(tmp_path, fps=20)
    assert all(np.array_equal(f.image, images[f.index]) for f in video)
    assert video.notes == ["1 other files passed over, first 'notes.txt'"]
    assert open_video(tmp_path).notes[0] == "a folder has no frame rate; 25 per second taken"


def test_natural_key_sorts_odd_names():
    names = ["b", "a²", "²", "10", "9", "a01", "a1", "A2", "", "é3"]
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == sorted(names, key=natural_key)
    assert sorted(names, key=natural_key)[:3] == ["", "9", "10"]


def test_an_unreadable_image_can_be_skipped_and_is_named(tmp_path):
    paths = write_frames(tmp_path, pictures(5))
    paths[2].write_bytes(paths[2].read_bytes()[:50])
    video = open_video(tmp_path, fps=10, skip_unreadable=True)
    frames = list(video)
    assert [(f.index, f.time) for f in frames] == [(0, 0), (1, 0.1), (3, 0.3), (4, 0.4)]
    assert video.missing == 1 and video.notes[-1].startswith(f"frame 2 missing: {paths[2]}")
    for path in paths:
        path.write_bytes(b"x")
    with pytest.raises(InputError, match="none of its 5 images can be read"):
        open_video(tmp_path, skip_unreadable=True)


# ---------------------------------------------------------------- images


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "YCbCr", "I"]
)
def test_modes_of_pillow(tmp_path, mode):
    rgb = Image.fromarray(pictures(1)[0])
    grey = np.array(rgb.convert("L"))
    ending = "tiff" if mode in ("CMYK", "YCbCr", "I;16", "I", "PA") else "png"
    if mode in ("I;16", "I"):
        kind = np.uint16 if mode == "I;16" else np.int32
        picture = Image.fromarray((grey.astype(kind)) * 257)
    else:
        picture = rgb.convert(mode) if mode != "PA" else rgb.convert("P").convert("PA")
    path = tmp_path / f"a.{ending}"
    try:
        picture.save(path)
    except OSError:
        pytest.skip(f"Pillow does not write {mode} here")
    got = read_image(path)
    truth = np.repeat(grey[..., None], 3, 2) if mode[0] == "I" else np.array(picture.convert("RGB"))
    assert got.dtype == np.uint8 and np.array_equal(got, truth)


def test_transparent_palette_is_dropped_not_laid_on_a_background(tmp_path):
    picture = Image.fromarray(pictures(1)[0]).quantize(8)
    picture.save(tmp_path / "a.png", transparency=0)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(picture.convert("RGB")))


@pytest.mark.parametrize("ending", ["jpg", "tiff", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, ending, orientation):
    image = pictures(1)[0]
    picture = Image.fromarray(image)
    exif = picture.getexif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(ending, {})
    picture.save(tmp_path / f"a.{ending}", exif=exif, **options)
    picture.getexif()[0x0112] = orientation
    truth = np.array(ImageOps.exif_transpose(picture))
    assert np.array_equal(upright(image, orientation), truth)
    got = read_image(tmp_path / f"a.{ending}")
    assert got.shape == truth.shape and np.abs(got.astype(int) - truth).mean() < 4


def test_float_and_radiance(tmp_path):
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 4, 3)
    (tmp_path / "a.hdr").write_bytes(cv2.imencode(".hdr", values)[1].tobytes())
    assert read_image(tmp_path / "a.hdr").max() >= 250
    Image.fromarray(values[..., 0]).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match="floating-point pixels"):
        read_image(tmp_path / "a.tiff")


def test_one_image_is_not_several(tmp_path):
    path = write_gif(tmp_path / "a.gif", pictures(3), 25)
    with pytest.raises(InputError, match="holds 3 pictures, one is expected"):
        read_image(path)


def test_a_preview_inside_a_jpeg_is_no_second_frame(tmp_path):
    a, b = (Image.fromarray(x) for x in pictures(2))
    a.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[b])
    assert read_image(tmp_path / "a.jpg").shape == (48, 64, 3)
    assert len(list(open_video(tmp_path / "a.jpg"))) == 1


# ---------------------------------------------------------------- moving pictures


def test_gif_durations_become_times(tmp_path):
    pages = [Image.fromarray(x) for x in pictures(4)]
    pages[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=[30, 0, 200, 70]
    )
    video = open_video(tmp_path / "a.gif")
    assert np.allclose([f.time for f in video], [0, 0.03, 0.13, 0.33])
    assert video.notes == ["1 frame without a duration; 10 per second taken"]
    assert video.fps == 10.0 and video.missing == 0  # 4 frames in 0.4 s


@pytest.mark.parametrize("ending", ["png", "webp", "tiff"])
def test_moving_png_webp_and_pages(tmp_path, ending):
    images = pictures(4)
    pages = [Image.fromarray(x) for x in images]
    options = {"lossless": True} if ending == "webp" else {}
    options |= {} if ending == "tiff" else {"duration": 50}
    pages[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=pages[1:], **options)
    video = open_video(tmp_path / f"a.{ending}", fps=20)
    frames = list(video)
    assert [np.array_equal(f.image, x) for f, x in zip(frames, images, strict=True)] == [True] * 4
    assert np.allclose([f.time for f in frames], [0, 0.05, 0.1, 0.15])


def test_a_cut_gif_gives_what_it_has(tmp_path):
    rng = np.random.default_rng(0)
    path = write_gif(tmp_path / "a.gif", rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8), 25)
    video = open_video(cut(path, 0.6))
    got = len(list(video))
    assert 1 <= got < 6 and video.missing >= 1 and any("missing" in n for n in video.notes)


# ---------------------------------------------------------------- writing


def test_ordinary_h264_is_close_and_padded_with_a_warning(tmp_path):
    images = pictures(6, 67, 101)
    with pytest.warns(UserWarning, match="a.mp4: 101x67 padded to 102x68"):
        path = write_video(tmp_path / "a.mp4", images, 30000 / 1001)
    video = open_video(path)
    assert video.size == (68, 102) and video.fps == pytest.approx(29.97, abs=1e-3)
    errors = [
        np.abs(f.image[:67, :101].astype(int) - x).mean()
        for f, x in zip(video, images, strict=True)
    ]
    assert max(errors) < 6
    assert b"moov" in path.read_bytes()[:64]  # readable when cut off


def test_writers_take_frames_and_write_the_same_bytes_again(tmp_path):
    images = pictures(6)
    a = write_video(tmp_path / "a.mp4", images, 25, lossless=True)
    b = write_video(tmp_path / "b.mp4", open_video(a), 25, lossless=True)
    assert a.read_bytes() == b.read_bytes()


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield from pictures(3)
        raise RuntimeError("renderer failed")

    for write in (write_video, write_gif):
        with pytest.raises(RuntimeError, match="renderer failed"):
            write(tmp_path / "a.gif", broken(), 25)
    with pytest.raises(InputError, match="there are no frames to write"):
        write_video(tmp_path / "a.mp4", [], 25)
    with pytest.raises(InputError, match="a.mp4: frame 1 is 64x50 pixels"):
        write_video(tmp_path / "a.mp4", [*pictures(1), *pictures(1, 50)], 25)
    with pytest.raises(InputError, match="a.mp4: fps nan is not a positive number"):
        write_video(tmp_path / "a.mp4", pictures(1), float("nan"))
    with pytest.raises(InputError, match="a.xyz: ffmpeg: "):
        write_video(tmp_path / "a.xyz", pictures(1), 25)
    assert list(tmp_path.iterdir()) == []


def test_gif_keeps_equal_neighbours_and_does_not_drift(tmp_path):
    images = [pictures(1)[0]] * 5 + pictures(25)
    video = open_video(write_gif(tmp_path / "a.gif", images, 30))
    times = [f.time for f in video]
    assert len(times) == 30 and np.abs(np.array(times) - np.arange(30) / 30).max() <= 0.0051


def test_numbered_images(tmp_path):
    images = pictures(5)
    write_frames(tmp_path / "x", images, "frame{:d}.bmp")
    paths = write_frames(tmp_path / "x", images[:2], "frame{:d}.bmp")
    assert sorted((tmp_path / "x").iterdir()) == paths
    for pattern in ("frame.png", "{:d}.xyz", "{:d}", "{name}.png", "{:q}.png"):
        with pytest.raises(InputError, match="pattern"):
            write_frames(tmp_path / "y", images, pattern)
    assert not (tmp_path / "y").exists()


# ---------------------------------------------------------------- memory, summary


def _peak(work) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _drain(path):
    for _ in open_video(path):
        pass


def _endless(n):
    image = pictures(1, 192, 192)[0]
    return (image for _ in range(n))


@pytest.mark.parametrize("kind", ["mp4", "gif", "folder"])
def test_memory_does_not_grow_with_length(tmp_path, kind):
    def write(path, n):
        if kind == "folder":
            write_frames(path, _endless(n), "{:05d}.bmp")
        else:
            (write_video if kind == "mp4" else write_gif)(path, _endless(n), 25)

    short, long = tmp_path / f"short.{kind}", tmp_path / f"long.{kind}"
    writing = [
        _peak(lambda p=p, n=n: write(p, n)) for p, n in ((short, 12), (short, 12), (long, 120))
    ]
    reading = [_peak(lambda p=p: _drain(p)) for p in (short, short, long)]
    for _, few, many in (writing, reading):  # the first run warms caches up
        assert many < 1.1 * few + 60_000  # a frame is 110 kB


def test_probe(made, tmp_path):
    summary = probe(made)
    assert (summary.kind, summary.codec, summary.frames, summary.fps) == ("video", "h264", 50, 25.0)
    assert (summary.seconds, summary.height, summary.width, summary.rotation) == (2.0, 96, 128, 0)
    write_frames(tmp_path / "x", pictures(4))
    summary = probe(tmp_path / "x", fps=8)
    assert (summary.kind, summary.codec, summary.frames, summary.seconds) == (
        "folder",
        "png",
        4,
        0.5,
    )


def test_pixels_that_are_not_square_are_said(tmp_path):
    path = clip(tmp_path / "a.mp4", n=5, options=("-pix_fmt", "yuv420p", "-vf", "setsar=16/15"))
    assert probe(path).notes == ("pixels are not square (16:15); frames are given as stored",)


def test_the_module_reexports_what_sources_need():
    assert {
        "open_video",
        "read_image",
        "natural_key",
        "write_video",
        "write_gif",
        "write_frames",
    } <= set(module.__all__)
