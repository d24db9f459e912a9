"""`facecomp data` from end to end: prepare, synth, check; bad input is one line and code 2, the rest is done."""

import hashlib
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from facecomp import cli
from facecomp.faces.synthetic import participant, record
from facecomp.faces.video import write_frames, write_video


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    try:
        code = cli.main(["data", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that must not depend on the machine, the time or the number of processes."""
    names = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    skip = (".receipt.json", ".log", ".lock", ".holder")
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in names
        if not p.name.endswith(skip)
    }


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(record(participant(5), 8, size=192).frames())


def ffmpeg(*arguments) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


def odd_videos(folder: Path, frames: list[np.ndarray]) -> dict[str, Path]:
    """Videos that are unusual but good."""
    plain = write_video(folder / "plain.mp4", frames, 25)
    one = write_video(folder / "one frame.mp4", frames[:1], 25)
    odd = write_video(folder / "odd size.mp4", [f[:191, :187] for f in frames], 25, lossless=True)
    grey = folder / "grey"
    grey.mkdir()
    alpha, deep = folder / "alpha", folder / "sixteen bit"
    alpha.mkdir(), deep.mkdir()
    for k, frame in enumerate(frames):
        picture = Image.fromarray(frame)
        picture.convert("L").save(grey / f"{k:03d}.png")
        picture.convert("RGBA").save(alpha / f"{k:03d}.png")
        wide = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(wide).save(deep / f"{k:03d}.png")
    turned = folder / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", turned)
    variable = folder / "variable.mp4"
    ffmpeg("-i", plain, "-vf", "setpts=N*N/25/8/TB", "-fps_mode", "passthrough", "-enc_time_base", "1/1000", variable)
    foreign = write_video(folder / "Übung 1 – ж.mp4", frames, 25)
    return {p.name: p for p in (plain, one, odd, grey, alpha, deep, turned, variable, foreign)}


def broken_videos(folder: Path, plain: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be videos, and words of the line that must name them."""
    empty = folder / "empty.mp4"
    empty.write_bytes(b"")
    cut = folder / "cut.mp4"
    cut.write_bytes(plain.read_bytes()[:2000])
    text = folder / "text.mp4"
    text.write_text("not a video")
    bare = folder / "bare"
    bare.mkdir()
    (bare / "readme.txt").write_text("no image here")
    torn = folder / "torn"
    torn.mkdir()
    write_frames(torn, [np.zeros((64, 64, 3), np.uint8)] * 3)
    (torn / "00001.png").write_bytes((torn / "00001.png").read_bytes()[:40])
    lost = folder / "lost.mp4"
    return {p.name: (p, p.name) for p in (empty, cut, text, bare, torn, lost)}


def test_a_batch_does_what_can_be_done_and_says_the_rest(capsys, tmp_path, frames):
    source = tmp_path / "in"
    source.mkdir()
    good = odd_videos(source, frames)
    bad = broken_videos(source, good["plain.mp4"])
    videos = [*good.values(), *(path for path, _ in bad.values())]
    code, out, error = run(capsys, "prepare", *videos, "--participant", "P01", "--out", tmp_path / "out", "--for", "psm,flow")
    assert code == 2 and "Traceback" not in out + error
    lines = [line for line in error.splitlines() if line.startswith("facecomp: ")]
    assert len(lines) == len(bad)
    for _, word in bad.values():
        assert sum(word in line for line in lines) == 1
    assert out.count(" done: ") == len(good)
    reports = sorted(p.parent.name for p in (tmp_path / "out").rglob("report.html"))
    assert reports == sorted(Path(name).stem if name.endswith(".mp4") else name for name in good)
    face = ("plain", "grey", "alpha", "sixteen bit", "variable", "odd size", "Übung 1 – ж")
    for name in face:
        assert f"P01/{name} done: face in 8 of 8" in out
    assert "P01/one frame done: face in 1 of 1" in out


def test_two_processes_and_two_calls_give_the_same_files(capsys, tmp_path, frames):
    videos = [write_video(tmp_path / f"v{k}.mp4", frames[: 4 + k], 25) for k in range(3)]
    for name, jobs, groups in (("one", 1, [videos]), ("two", 2, [videos]), ("single", 1, [[v] for v in videos])):
        for group in groups:
            code, *_ = run(capsys, "prepare", *group, "--participant", "P01", "--out", tmp_path / name, "--jobs", jobs)
            assert code == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == tree(tmp_path / "single")
    assert len(tree(tmp_path / "one")) > 60
    code, out, _ = run(capsys, "prepare", *videos, "--participant", "P01", "--out", tmp_path / "one")
    assert code == 0 and "0 done, 3 skipped, 0 failed" in out


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["prepare", "x.mp4", "--for", "psm,fom"], "fom"),
        (["prepare", "x.mp4", "--detector", "dlip"], "dlip"),
        (["prepare", "x.mp4", "--jobs", "0"], "'0' is not a number of 1 or more"),
        (["synth", "--layout", "dissfa", "--out", "t"], "did you mean disfa?"),
        (["synth", "--size", "large", "--out", "t"], "'large' is not a size"),
        (["synth", "--size", "7", "--out", "t"], "size 7 x 7"),
        (["synth", "--participants", "500", "--out", "t"], "500"),
        (["synth"], "--out"),
        (["check", "disfa", "no/such/folder"], "no/such/folder"),
        (["check", "kinetics", "."], "kinetics"),
        (["chekc", "disfa", "."], "chekc"),
        ([], "ACTION"),
    ],
)
def test_bad_requests_are_one_line_and_code_2(capsys, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    code, out, error = run(capsys, *arguments)
    assert code == 2 and "Traceback" not in error
    last = [text for text in (out + error).strip().splitlines() if text][-1]
    assert line in last


def test_synth_is_continued_not_repeated_and_checked(capsys, tmp_path):
    arguments = ["synth", "--layout", "disfa", "--participants", 2, "--frames", 5, "--size", 64, "--out", tmp_path / "t"]
    assert run(capsys, *arguments)[0] == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "t").rglob("*.avi")}
    code, out, _ = run(capsys, *arguments)
    assert code == 0 and "0 participants made, 2 were there" in out
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "t").rglob("*.avi")}
    code, out, _ = run(capsys, "check", "DISFA", tmp_path / "t", "--deep")
    assert code == 0 and "nothing is wrong" in out and "synthetic" in out


def test_a_wrong_label_is_named_with_file_and_line(capsys, tmp_path):
    run(capsys, "synth", "--participants", 1, "--frames", 5, "--size", 64, "--out", tmp_path)
    path = tmp_path / "ActionUnit_Labels" / "SN001" / "SN001_au4.txt"
    lines = path.read_text().splitlines()
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())  # a BOM and CRLF are no fault
    assert run(capsys, "check", "disfa", tmp_path)[0] == 0
    path.write_text("\n".join([*lines[:2], "3,7", *lines[3:]]))
    code, out, _ = run(capsys, "check", "disfa", tmp_path)
    wrong = out.strip().splitlines()[-1]
    assert code == 2 and "SN001_au4.txt" in wrong and "3" in wrong and "7" in wrong and "0 to 5" in wrong
