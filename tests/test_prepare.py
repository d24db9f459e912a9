"""Preparing videos: same bytes whatever the way, resume after any stop, and one line for everything that is bad."""

import html.parser
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

from facecomp.data.jobs import make_job
from facecomp.data.making import run_job
from facecomp.data.outputs import Tree
from facecomp.data.prepare import (
    exit_code,
    find_videos,
    plan,
    prepare,
    prepare_many,
    prepare_video,
    write_manifest,
)
from facecomp.data.report import EvenSample, Runs, Timeline, runs_text
from facecomp.faces.detection import Face, points_of, read_landmark_table
from facecomp.faces.openface import read_openface, read_points
from facecomp.faces.video import read_image
from facecomp.faces.writing import write_frames, write_video
from facecomp.records.files import InputError, run_lock
from facecomp.records.receipts import read_receipt

CLIPS = Path(os.environ.get("FACECOMP_CLIPS", ROOT.parent / "shared" / "clips"))


def clip(name: str) -> Path:
    if not (CLIPS / name).exists():
        pytest.skip(f"real clip {name} is not at hand (FACECOMP_CLIPS)")
    return CLIPS / name


@dataclass(frozen=True)
class Bright:
    """A detector: bright pixels are the face, 68 points stand on an oval in it; any process can have it."""

    level: int = 128
    deadly: int = -1  # width of the frames that end the process
    name: str = "bright"

    def __call__(self, image):
        if image.shape[1] == self.deadly:
            os._exit(9)
        rows, columns = np.nonzero(image[..., 0] > self.level)
        if len(rows) < 50:
            return []
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        angle = np.linspace(np.pi, 3 * np.pi, 68)
        oval = np.stack([np.cos(angle), np.sin(angle)], 1) * (box[2] - box[0]) / 2.5
        return [Face(tuple(map(int, box)), oval + [columns.mean(), rows.mean()], 0.9)]


def pictures(frames: int, dark=(), size=(90, 120), seed: int = 0):
    """A bright patch that wanders over noise; none in the dark frames."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 60, (*size, 3), np.uint8)
    for k in range(frames):
        image = noise.copy()
        if k not in dark:
            x = 10 + (3 * k + seed) % (size[1] - 60)
            image[20 : size[0] - 20, x : x + 50] = 180 + noise[20 : size[0] - 20, x : x + 50]
        yield image


def video(path: Path, frames: int = 6, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, pictures(frames, **how), 25)


@pytest.fixture
def three(tmp_path) -> list[Path]:
    """A video, a video with dark frames and a name with blanks, a folder of images."""
    write_frames(tmp_path / "in" / "bilder", pictures(4, seed=2), "img_{}.png")
    return [
        video(tmp_path / "in" / "a.mp4"),
        video(tmp_path / "in" / "Zoë day 1.mp4", 7, dark=(0, 3, 4), seed=1),
        tmp_path / "in" / "bilder",
    ]


def files_of(out: Path) -> dict[str, bytes]:
    """All files that must not depend on time, order or machine."""
    own = re.compile(r"receipt\.json$|prepare\.log$|\.lock$|\.holder$")
    return {
        p.relative_to(out).as_posix(): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.is_file() and not own.search(p.name)
    }


def many(paths, out, **options):
    return prepare_many(paths, "P 01", out=out, quiet=True, **{"detector": Bright(), **options})


def test_everything_is_where_it_belongs(three, tmp_path):
    out = tmp_path / "out"
    assert [o.state for o in many(three, out)] == ["done"] * 3
    tree = Tree(out, "P 01", "Zoë day 1")
    kept = [1, 2, 5, 6]
    assert sorted(os.listdir(out / "psm/P 01/Zoë day 1/face_only_aligned")) == [
        f"frame{k}.jpg" for k in kept
    ]
    assert sorted(os.listdir(out / "dfer/P 01/Zoë day 1")) == [f"{k:05d}.jpg" for k in kept]
    stems = [f"P 01_Zoë day 1_{k:05d}" for k in kept]
    assert sorted(os.listdir(out / "flow/images/P 01/Zoë day 1")) == [f"{s}.jpg" for s in stems]
    assert sorted(os.listdir(out / "flow/Landmarks/P 01/Zoë day 1")) == [
        f"{s}_landmarks.txt" for s in stems
    ]
    assert sorted(os.listdir(out / "fomm/P 01/bilder")) == [f"img_{k}.png" for k in range(4)]
    assert len(os.listdir(out / "fomm/P 01/a")) == 6 and not os.listdir(tree.frames("fomm"))
    sizes = {"psm": (64, 64), "dfer": (160, 160), "fomm": (256, 256), "flow": (512, 384)}
    for study, size in sizes.items():
        for file in Tree(out, "P 01", "a").frames(study).iterdir():
            assert read_image(file).shape == (*size, 3)


def test_tables_agree_with_each_other_and_with_the_frames(three, tmp_path):
    out = tmp_path / "out"
    outcome = many(three[1:2], out)[0]
    report = Tree(out, "P 01", "Zoë day 1").report
    table = read_landmark_table(report / "landmarks.csv")
    assert table["frame"].tolist() == list(range(7)) and (outcome.frames, outcome.faces) == (7, 4)
    assert table["reason"].tolist() == ["no face found", "", "", *["no face found"] * 2, "", ""]
    openface = read_openface(report / "openface.csv")
    assert openface["success"].tolist() == [0, 1, 1, 0, 0, 1, 1]
    assert np.allclose(openface["x_30"][1], table["x_30"][1], atol=0.05)
    text = out / "flow/Landmarks/P 01/Zoë day 1/P 01_Zoë day 1_00005_landmarks.txt"
    scaled = points_of(table)[5] * [384 / 120, 512 / 90]
    assert np.allclose(read_points(text), scaled, atol=1e-4)
    summary = json.loads((report / "summary.json").read_text())
    assert summary["studies"]["dfer"]["gaps"] == [[0, 0], [3, 4]]
    assert (
        summary["studies"]["dfer"]["written"] == 4
        and summary["reasons"]["no face found"]["count"] == 3
    )
    assert (
        subprocess.run(
            ["sha256sum", "--check", "--quiet", report / "SHA256SUMS"], cwd=out
        ).returncode
        == 0
    )


def test_a_batch_is_its_videos_one_by_one_in_any_number_of_processes(three, tmp_path):
    for path in three:
        prepare_video(path, "P 01", out=tmp_path / "single", quiet=True, detector=Bright())
    many(three, tmp_path / "batch")
    many(reversed(three), tmp_path / "two", jobs=2)
    single = files_of(tmp_path / "single")
    assert len(single) > 70
    assert files_of(tmp_path / "batch") == single
    assert files_of(tmp_path / "two") == single


def test_nothing_tells_where_or_when_it_was_made(three, tmp_path):
    many(three, tmp_path / "out")
    places = [
        s.encode() for s in (str(tmp_path), str(ROOT), str(Path.home()), time.strftime("%Y-%m-%d"))
    ]
    for name, data in files_of(tmp_path / "out").items():
        assert not [p for p in places if len(p) > 3 and p in data], name


def test_done_is_skipped_and_what_changed_is_made_again(three, tmp_path):
    out = tmp_path / "out"
    source = three[0]
    many([source], out)
    first = files_of(out)
    assert [(o.state, o.line) for o in many([source], out)] == [("skipped", "")]
    assert many([source], out, resume=False)[0].line == "asked for" and files_of(out) == first

    (out / "dfer/P 01/a/00002.jpg").write_bytes(b"")
    again = many([source], out)[0]
    assert (
        again.line == "dfer/P 01/a/00002.jpg was changed after it was made"
        and files_of(out) == first
    )
    (out / "reports/P 01/a/landmarks.csv").unlink()
    assert many([source], out)[0].line == "landmarks.csv is gone" and files_of(out) == first

    setting = many([source], out, rules={"psm": {"size": 96}})[0]
    assert setting.line == "psm was not made with these settings"
    assert read_image(out / "psm/P 01/a/face_only_aligned/frame1.jpg").shape == (96, 96, 3)
    assert (
        many([source], out, detector=Bright(level=120))[0].line
        == "the setting detector_settings changed"
    )

    video(source, 3, seed=5)
    shorter = many([source], out)[0]
    assert shorter.line == "the source changed" and shorter.frames == 3
    assert len(list((out / "dfer/P 01/a").iterdir())) == 3  # nothing of the longer one is left


def test_another_study_later_keeps_the_earlier_one(three, tmp_path):
    out = tmp_path / "out"
    many(three[:1], out, studies="psm", rules={"psm": {"size": 96}})
    psm = {k: v for k, v in files_of(out).items() if k.startswith("psm")}
    outcome = many(three[:1], out, studies="dfer")[0]
    assert outcome.line == "dfer was not made with these settings"
    now = files_of(out)
    assert psm.items() <= now.items() and "dfer/P 01/a/00000.jpg" in now
    assert many(three[:1], out, studies="psm", rules={"psm": {"size": 96}})[0].state == "skipped"


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_prepare import Bright
from facecomp.data.prepare import prepare_many

class Slow(Bright):
    def __call__(self, image):
        time.sleep(0.03)
        return super().__call__(image)

Slow.__name__ = "Bright"
prepare_many([sys.argv[1]], "P 01", out=sys.argv[2], detector=Slow(), quiet=True)
"""


@pytest.mark.parametrize("after", [1, 60])
def test_killed_at_any_moment_the_same_command_gives_the_same_files(tmp_path, after):
    source = video(tmp_path / "in" / "a.mp4", 40, dark=(7,))
    many([source], tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, source, out, str(ROOT / "tests")]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.rglob("*.jpg"))) < after and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(out.rglob("*.receipt.json"))
    assert many([source], out)[0].state == "done"
    assert files_of(out) == files_of(tmp_path / "whole")


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    """Sources that cannot be prepared, each with what its line must say."""
    folder.mkdir()
    whole = video(folder / "whole.mp4").read_bytes()
    bad = {
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"these are words", "video"),
        "half.mp4": (whole[: len(whole) // 3], "half.mp4"),
        "noise.gif": (bytes(range(256)) * 4, "noise.gif"),
    }
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    (folder / "whole.mp4").unlink()
    found = {name: (folder / name, words) for name, (_, words) in bad.items()}
    (folder / "none").mkdir()
    found["none"] = folder / "none", "no image"
    for name, width in (("a{}.png", 120), ("b{}.png", 122)):
        write_frames(folder / "sizes", pictures(1, size=(90, width)), name)
    found["sizes"] = folder / "sizes", "size"
    found["missing.mp4"] = folder / "missing.mp4", "does not exist"
    return found


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_video_is_one_line_and_the_others_are_done(tmp_path, jobs, capsys):
    good = [video(tmp_path / "good" / f"{k}.mp4", 3, seed=k) for k in range(2)]
    bad = damaged(tmp_path / "bad")
    paths = [good[0], *(path for path, _ in bad.values()), good[1]]
    code = prepare(paths, "P", out=tmp_path / "out", jobs=jobs, quiet=True, detector=Bright())
    said = capsys.readouterr()
    assert code == 2 and said.out.count(" done: ") == 2
    lines = said.err.splitlines()
    assert len(lines) == len(bad) and all(line.startswith("facecomp: ") for line in lines)
    for (name, (_, words)), line in zip(bad.items(), lines, strict=True):
        assert name in line and words in line and "Traceback" not in line, line
    assert not list((tmp_path / "out").rglob("*.part"))
    log = (tmp_path / "out" / "prepare.log").read_text()
    assert log.count(" failed: ") == len(bad) and log.count(" done: ") == 2


ODD = {
    "one frame": lambda p: video(p / "one.mp4", 1),
    "odd size": lambda p: write_frames(p / "odd", pictures(3, size=(91, 123)))[0].parent,
    "grey": lambda p: grey_frames(p / "grey", np.uint8),
    "16 bit": lambda p: grey_frames(p / "deep", np.uint16),
    "alpha": lambda p: alpha_frame(p / "alpha.png"),
    "rotated": lambda p: rotated(p),
    "script and blanks": lambda p: video(p / "видео № 1 %20#?&.mp4", 2),
}


def grey_frames(folder: Path, kind) -> Path:
    folder.mkdir()
    for k, image in enumerate(pictures(2)):
        cv2.imwrite(
            str(folder / f"{k}.png"), image[..., 0].astype(kind) * (257 if kind == np.uint16 else 1)
        )
    return folder


def alpha_frame(path: Path) -> Path:
    image = next(pictures(1))
    cv2.imwrite(str(path), np.dstack([image, np.full(image.shape[:2], 7, np.uint8)]))
    return path


def rotated(folder: Path) -> Path:
    import imageio_ffmpeg

    plain, turned = video(folder / "plain.mp4", 3), folder / "turned.mp4"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-display_rotation",
        "90",
        "-i",
        plain,
    ]
    subprocess.run([*command, "-c", "copy", turned], check=True)
    return turned


@pytest.mark.parametrize("name", ODD)
def test_unusual_sources_are_prepared(tmp_path, name):
    source = ODD[name](tmp_path)
    outcome = prepare_video(source, "P", out=tmp_path / "out", quiet=True, detector=Bright())
    assert (
        outcome.state == "done" and outcome.faces == outcome.frames > 0 and outcome.warnings == ()
    )
    links = re.findall(r'href="([^"]+)"', outcome.page.read_text())
    assert len(links) == 4 + 6
    from urllib.parse import unquote

    assert all((outcome.page.parent / unquote(link)).exists() for link in links)
    if name == "rotated":
        summary = json.loads((outcome.page.parent / "summary.json").read_text())
        assert (summary["height"], summary["width"]) == (120, 90)


def test_a_truncated_video_gives_what_it_has_and_says_what_is_missing(tmp_path):
    import imageio_ffmpeg

    whole, cut = video(tmp_path / "whole.mp4", 60), tmp_path / "cut.mp4"
    first = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", whole, "-c", "copy"]
    subprocess.run([*first, "-movflags", "faststart", cut], check=True)
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * 0.6)])
    outcome = prepare_video(cut, "P", out=tmp_path / "out", quiet=True, detector=Bright())
    assert 5 < outcome.frames < 60
    assert any("missing" in line for line in outcome.warnings)
    assert "missing" in outcome.page.read_text()


def test_fomm_alone_stands_still_without_a_first_face(three, tmp_path):
    out = tmp_path / "out"
    outcomes = many(three, out)
    assert [bool(o.warnings) for o in outcomes] == [False, True, False]
    assert outcomes[1].warnings[0].startswith("fomm: P 01/Zoë day 1: no face in the first frame")
    assert "no face found" in outcomes[1].warnings[0] and exit_code(outcomes) == 0
    rows = [line.split(",") for line in (out / "fomm/manifest.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["clip", "P 01/a", "P 01/bilder", "P 01/Zoë day 1"]
    assert rows[1][1:7] == ["10", "20", "59", "69", "6", "bright"] and rows[3][1:6] == [
        "",
        "",
        "",
        "",
        "0",
    ]
    assert many(three, out)[1].warnings == outcomes[1].warnings  # skipped, and still said
    assert write_manifest(tmp_path / "nowhere") is None
    later = many([video(tmp_path / "later.mp4", 5, dark=(2,))], out)[0]
    assert (
        len(list(later.tree.frames("fomm").iterdir())) == 5
    )  # the box serves frames without a face too


def test_two_videos_never_share_a_place(tmp_path):
    a, b = video(tmp_path / "1" / "v.mp4", 2), video(tmp_path / "2" / "v.mov", 2, seed=4)
    with pytest.raises(InputError) as caught:
        many([a, b], tmp_path / "out")
    assert "v.mp4 and " in str(caught.value) and "v.mov" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert len(plan([a, a, a.parent / ".." / "1" / "v.mp4"], "P")) == 1
    many([a], tmp_path / "out")
    kept = files_of(tmp_path / "out")
    outcome = many([b], tmp_path / "out")[0]
    assert outcome.state == "failed" and str(a) in outcome.line and "v.mov" in outcome.line
    assert files_of(tmp_path / "out") == kept
    copy = tmp_path / "3" / "v.mp4"
    copy.parent.mkdir()
    copy.write_bytes(a.read_bytes())
    assert many([copy], tmp_path / "out")[0].state == "skipped"  # the same film, moved


def test_synthetic_is_said_everywhere(three, tmp_path):
    (tmp_path / "in" / "SYNTHETIC.txt").touch()
    out = tmp_path / "out"
    page = many(three[:1], out)[0].page
    assert read_receipt(page.with_name("prepare.receipt.json")).data == "synthetic"
    assert "Synthetic data" in page.read_text()
    sheet = read_image(page.with_name("contact_sheet.png"))
    assert (sheet[:80] == [193, 18, 31]).all(2).sum() > 200  # red letters in the head
    (tmp_path / "in" / "SYNTHETIC.txt").unlink()
    assert many(three[:1], out)[0].line == "the kind of data changed"
    assert not (read_image(page.with_name("contact_sheet.png")) == [193, 18, 31]).all(2).any()


class Sources(html.parser.HTMLParser):
    """Everything that a page would load."""

    def __init__(self):
        super().__init__()
        self.loaded, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [
            v for k, v in attrs if k in ("src", "srcset", "data") or (tag == "link" and k == "href")
        ]


def test_the_page_loads_nothing_and_shows_the_numbers(three, tmp_path):
    page = many([three[1]], tmp_path / "out")[0].page
    text, parser = page.read_text(), Sources()
    parser.feed(text)
    assert len(parser.loaded) == 1 and parser.loaded[0].startswith("data:image/jpeg;base64,")
    assert (
        not {"script", "link", "iframe"} & set(parser.tags)
        and "url(" not in text
        and "://" not in text
    )
    for words in (
        "4 of 7 (57.1 %)",
        "7 read, 7 announced, 0 missing",
        "0, 3–4",
        "no face found",
        "opencv ",
    ):
        assert words in text, words
    sheet = read_image(page.with_name("contact_sheet.png"))
    assert (sheet == [193, 18, 31]).all(2).sum() > 500  # red frames round what was lost


def test_a_locked_video_is_left_to_its_holder(three, tmp_path):
    out = tmp_path / "out"
    lock = Tree(out, "P 01", "a").report / ".prepare.lock"
    script = (
        "import sys, time; from facecomp.records.files import run_lock\n"
        "with run_lock(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, lock], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        outcomes = many([three[0], three[2]], out)
        assert [o.state for o in outcomes] == [
            "failed",
            "done",
        ] and "already worked on" in outcomes[0].line
    finally:
        process.kill()
        process.wait()
    assert many([three[0]], out)[0].state == "done"  # a dead holder's lock is free
    with run_lock(tmp_path / "other.lock"):
        pass


def test_a_process_that_dies_costs_only_its_own_video(tmp_path):
    paths = [video(tmp_path / f"{width}.mp4", 3, size=(90, width)) for width in (132, 120)]
    outcomes = many(paths, tmp_path / "out", jobs=2, detector=Bright(deadly=132))
    assert [o.state for o in outcomes] == ["failed", "done"]
    assert "132.mp4: its process ended" in outcomes[0].line and exit_code(outcomes) == 1


def test_points_from_files_give_what_the_detector_gave(three, tmp_path):
    many(three, tmp_path / "a")
    points = tmp_path / "points"
    for report in (tmp_path / "a" / "reports" / "P 01").iterdir():
        points.mkdir(exist_ok=True)
        (points / f"{report.name}.csv").write_bytes((report / "landmarks.csv").read_bytes())
    outcomes = many(three, tmp_path / "b", detector="files", points=points, jobs=2)
    assert [o.state for o in outcomes] == ["done"] * 3
    ours, theirs = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    same = [n for n in ours if n.startswith(("psm", "dfer", "flow")) or n.endswith("landmarks.csv")]
    assert len(same) > 50 and all(ours[n] == theirs[n] for n in same)
    (points / "a.csv").unlink()
    missing = many(three, tmp_path / "c", detector="files", points=points)
    assert [o.state for o in missing] == ["failed", "done", "done"] and "a.csv" in missing[0].line
    table = points / "bilder.csv"
    table.write_text(table.read_text() + "x\n")
    assert many(three[2:], tmp_path / "b", detector="files", points=points)[0].state == "failed"


def test_openface_points_and_landmark_files_are_read(three, tmp_path):
    many([three[2]], tmp_path / "a", studies="flow,psm")
    report = tmp_path / "a/reports/P 01/bilder"
    by_csv = many(
        [three[2]],
        tmp_path / "b",
        detector="openface",
        points=report / "openface.csv",
        studies="psm",
    )
    assert by_csv[0].faces == 4
    texts = tmp_path / "texts"
    texts.mkdir()
    for k, points in enumerate(points_of(read_landmark_table(report / "landmarks.csv"))):
        lines = [f"{x} {y}\n" for x, y in points]
        (texts / f"img_{k}_landmarks.txt").write_text("".join(lines))
    by_text = many([three[2]], tmp_path / "c", detector="files", points=texts, studies="psm")
    assert by_text[0].faces == 4
    ours, theirs = (
        {n: d for n, d in files_of(tmp_path / f).items() if n.startswith("psm")} for f in "ac"
    )
    assert ours == theirs


BAD_SETTINGS = {
    "study": ({"studies": "psn"}, "did you mean 'psm'"),
    "no study": ({"studies": ""}, "no study named"),
    "rule": ({"rules": {"psm": {"sise": 3}}}, "sise"),
    "rule of another study": ({"studies": "psm", "rules": {"dfer": {}}}, "not among the studies"),
    "grey": ({"rules": {"fomm": {"gray": "gray"}}}, "none, luma, upstream"),
    "jobs": ({"jobs": 0}, "must be 1 or more"),
    "data": ({"data": "fake"}, "'real' or 'synthetic'"),
    "participant": ({"participant": "a/b"}, "slashes"),
    "participants": ({"participant": ["a", "b"]}, "must be as many"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, name):
    settings, words = BAD_SETTINGS[name]
    source = video(tmp_path / "a.mp4", 2)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        prepare_many([source], **{"participant": "P", **settings}, out=tmp_path / "out", quiet=True)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_bad_detector_setting_fails_the_video_in_one_line(tmp_path):
    source = video(tmp_path / "a.mp4", 2)
    for options, words in (
        ({"detector": "dlb"}, "must be one of"),
        ({"detector": "dlib", "detector_settings": {"upsampel": 1}}, "upsample"),
        ({"detector": "files"}, "needs a path"),
    ):
        outcome = many([source], tmp_path / "out", **options)[0]
        assert outcome.state == "failed" and words in outcome.line and "a.mp4" in outcome.line
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_an_output_folder_that_cannot_be_is_one_line(three, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot be written to"):
            many(three, out)


def test_folders_of_videos_are_opened(three, tmp_path):
    assert {p.name for p in find_videos([tmp_path / "in"])} == {"a.mp4", "Zoë day 1.mp4", "bilder"}
    (tmp_path / "in" / "cover.png").write_bytes(b"")
    with pytest.raises(InputError, match="both images"):
        find_videos([tmp_path / "in"])


def test_foreign_files_in_our_folders_are_kept(three, tmp_path):
    out = tmp_path / "out"
    many(three[:1], out)
    note = out / "dfer/P 01/a/notes.md"
    note.write_text("mine")
    many(three[:1], out, resume=False)
    assert note.read_text() == "mine"


MEMORY = """
import sys
sys.path.insert(0, sys.argv[3])
from test_prepare import Bright
from facecomp.data.prepare import prepare_video
outcome = prepare_video(sys.argv[1], "P", out=sys.argv[2], detector=Bright(), quiet=True)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(outcome.frames, peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_video(tmp_path):
    peaks = []
    for frames in (70, 700):
        source = video(tmp_path / f"{frames}.mp4", frames, dark=range(0, frames, 9))
        command = [sys.executable, "-c", MEMORY, source, tmp_path / "out", str(ROOT / "tests")]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(answer[0]) == frames
        peaks.append(int(answer[1]))
    print(peaks)
    assert peaks[1] <= 1.1 * peaks[0], peaks


def test_samples_and_runs_are_bounded_and_true():
    for n in (0, 1, 7, 8, 9, 1000):
        sample, runs, line = EvenSample(8), Runs(limit=5), Timeline(limit=10)
        for k in range(n):
            if sample.wants_next():
                sample.add(k)
            else:
                sample.skip()
            line.add(k % 3 > 0)
            if k % 3 == 0:
                runs.add(k)
        assert sample.items == list(range(0, n, sample.step)) and len(sample.items) <= 8
        assert n < 8 or len(sample.items) >= 4
        assert sum(b[1] for b in line.bins) == n and len(line.bins) <= 10
        assert sum(b[0] for b in line.bins) == n - runs.count
        assert runs.total == runs.count == len(range(0, n, 3)) and len(runs.runs) <= 5
    assert runs_text(runs.runs, runs.total).endswith("and 329 more")


def test_real_clip_with_a_face_in_every_frame(tmp_path):
    source = clip("single_face.mp4")
    outcome = prepare_video(source, "P01", "psm,fomm", tmp_path / "out", quiet=True)
    assert (outcome.frames, outcome.faces, outcome.warnings) == (72, 72, ())
    assert len(os.listdir(outcome.tree.frames("psm"))) == 72


def test_real_clip_in_which_the_face_goes_away(tmp_path):
    source = clip("face_noface.mov")
    settings = {"detector_settings": {"max_side": 480}}
    outcome = prepare_video(source, "P01", "psm,dfer", tmp_path / "out", quiet=True, **settings)
    table = read_landmark_table(outcome.page.with_name("landmarks.csv"))
    gone = table["x_0"].isna()
    assert len(table) == outcome.frames == 169 and 60 < outcome.faces < 80
    assert (
        gone.iloc[:60].sum() == 0
        and gone.iloc[80:].all()
        and (table.loc[gone, "reason"] != "").all()
    )
    assert len(os.listdir(outcome.tree.frames("psm"))) == outcome.faces


def test_jobs_say_their_place_before_anything_is_read():
    job = make_job("films/v 1.mp4", "P01", "psm")
    assert job.tree.report == Path("prepared/reports/P01/v 1")
    with pytest.raises(InputError, match="does not exist"):
        run_job(job)
    assert not Path("prepared").exists()
