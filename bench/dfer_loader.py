"""Clips a second for DFER from the store of decoded frames against decoding in each epoch.

    .venv/bin/python bench/dfer_loader.py [--clips 12] [--epochs 5] [--wall-time]

Clips are of synthetic participants. Emotion clips are folders of 64 JPEG files of 256 x 256 px,
brought to 160 px (PIL, bilinear); an epoch takes 16 frames of each, drawn anew. Pre-training clips
are h264 videos of 224 x 224 px and 96 frames, cut to the published window of 160 px; an epoch takes
16 frames, 4 apart. The reference is what is plain to write: it opens what it needs (of a video: all
frames up to the last it needs), every time. Before anything is timed both sides must give the same
frames. One thread; epochs of both sides take turns, the median of each counts; everything is in the
page cache. The last rows are the whole sample: frames, augmentation (or crop) and normalisation.
"""

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image

from facecomp.data.sampling import Item, dense_indices, span_indices
from facecomp.dfer.augmentation import AugmentationSettings
from facecomp.dfer.clip_frames import ClipFrames, Source, Stretched, Window
from facecomp.dfer.clips import Changes, PretrainClips, TrainClips
from facecomp.faces.synthetic import participant, record
from facecomp.faces.writing import write_frames, write_video
from facecomp.paper.tables import format_table

SIZE, FRAMES, VIDEO_FRAMES = 160, 64, 96


def decode_folder(folder: Path, numbers: np.ndarray) -> np.ndarray:
    """(16, 160, 160, 3) of a folder of images, the plain way."""
    files, frames = sorted(folder.iterdir()), {}
    for n in set(numbers.tolist()):
        with Image.open(files[n]) as picture:
            rgb = picture.convert("RGB")
        frames[n] = np.asarray(rgb.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return np.stack([frames[n] for n in numbers.tolist()])


def decode_video(file: Path, numbers: np.ndarray) -> np.ndarray:
    """(16, 160, 160, 3) of a video: its frames in order up to the last that is needed."""
    capture, wanted, frames = cv2.VideoCapture(str(file)), set(numbers.tolist()), {}
    for n in range(max(wanted) + 1):
        capture.grab()
        if n in wanted:
            rgb = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
            frames[n] = rgb[:SIZE, (224 - SIZE) // 2 : (224 + SIZE) // 2]
    capture.release()
    return np.stack([frames[n] for n in numbers.tolist()])


class Decoded:
    """Stands in for `ClipFrames`: decodes in each call."""

    def __init__(self, sources: list[Source], decode: Callable, frames: int):
        self.sources, self.decode, self.frames = sources, decode, frames

    def __len__(self) -> int:
        return len(self.sources)

    def count(self, k: int) -> int:
        return self.frames

    def __call__(self, k: int, numbers: np.ndarray) -> np.ndarray:
        return self.decode(self.sources[k].path, np.asarray(numbers))


def write_clips(folder: Path, clips: int) -> tuple[list[Source], list[Source]]:
    """Folders of JPEG files, and videos."""
    folders, videos = [], []
    for k in range(clips):
        made = record(participant(k % 4), FRAMES, size=256, seed=k, expression="happiness")
        write_frames(folder / f"clip{k}", made.frames(), "{:05d}.jpg")
        folders.append(Source(f"clip{k}", folder / f"clip{k}"))
        talk = record(participant(k % 4), VIDEO_FRAMES, size=224, seed=k)
        videos.append(Source(f"video{k}", write_video(folder / f"{k}.mp4", talk.frames(), 25)))
    return folders, videos


def frame_epochs(frames, kind: str) -> Callable[[int], list[np.ndarray]]:
    """A call reads the frames of all clips of an epoch."""

    def epoch(number: int) -> list[np.ndarray]:
        read = []
        for k in range(len(frames)):
            rng = Item(number, k, k).numpy("bench")
            draw = dense_indices if kind == "folders" else span_indices
            read.append(frames(k, draw(frames.count(k), rng, 4, 16)[0]))
        return read

    return epoch


def sample_epochs(frames, kind: str) -> Callable[[int], list[torch.Tensor]]:
    """A call makes all samples of an epoch."""
    if kind == "folders":
        changes = Changes(AugmentationSettings(), SIZE)
        clips = TrainClips(frames, np.zeros(len(frames), np.int64), changes)
    else:
        clips = PretrainClips(frames, lambda rng: np.zeros(800, np.int64), SIZE)

    def epoch(number: int) -> list[torch.Tensor]:
        return [clips[Item(number, k, k)].videos for k in range(len(clips))]

    return epoch


def clips_a_second(
    sides: list[Callable], clips: int, epochs: int, clock: Callable[[], float]
) -> list[float]:
    """Median of each side; the sides take turns."""
    seconds = [[] for _ in sides]
    for number in range(epochs):
        for side, times in zip(sides, seconds, strict=True):
            start = clock()
            side(number)
            times.append(clock() - start)
    return [clips / statistics.median(times) for times in seconds]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--wall-time", action="store_true", help="not the process's own time")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    clock = time.perf_counter if asked.wall_time else time.process_time
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folders, videos = write_clips(Path(name), asked.clips)
        for kind, sources, prepare, decode, count, of in (
            ("folders", folders, Stretched(SIZE), decode_folder, FRAMES, "folder, 256 px JPEG"),
            ("videos", videos, Window(SIZE), decode_video, VIDEO_FRAMES, "video, 224 px h264"),
        ):
            start = clock()
            stored = ClipFrames(sources, prepare, Path(name, f"store_{kind}"))
            building = clock() - start
            plain = Decoded(sources, decode, count)
            for what, make in (("frames", frame_epochs), ("whole sample", sample_epochs)):
                ours, reference = make(stored, kind), make(plain, kind)
                for a, b in zip(ours(0), reference(0), strict=True):
                    assert np.array_equal(np.asarray(a), np.asarray(b)), f"{kind}: frames differ"
                fast, slow = clips_a_second([ours, reference], asked.clips, asked.epochs, clock)
                numbers = f"{fast:.1f}", f"{slow:.1f}", f"{fast / slow:.1f}x"
                spare = asked.clips / slow - asked.clips / fast
                rows.append((of, what, *numbers, f"{building / spare:.1f}"))
    clock_name = "wall time" if asked.wall_time else "process time"
    versions = f"numpy {np.__version__} · torch {torch.__version__}"
    print(f"{datetime.date.today()} · {platform.machine()}, one thread, {clock_name} · {versions}")
    columns = ["clips of", "what", "store, clips/s", "decoding, clips/s", "ratio"]
    columns += ["epochs that pay for the store"]
    print(format_table(pd.DataFrame(rows, columns=columns), "github", index=False))
    print("\nEqual numbers: frames and samples of both sides are the same to the last bit.")


if __name__ == "__main__":
    main()
