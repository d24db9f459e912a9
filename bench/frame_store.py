"""Random reads of a frame store against decoding PNG and JPEG files with PIL: same run, one core.

    .venv/bin/python bench/frame_store.py

Data are frames of two synthetic participants at 64 x 64 px. The store and the PNG files are checked
to hold the same pixels before anything is timed (best of seven; everything is in the page cache).
The batch cases end in a (128, 3, 64, 64) uint8 tensor on both sides.
"""

import datetime
import os
import platform
import tempfile
import timeit
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image

from facecomp.data.sampling import epoch_order
from facecomp.data.store import build_store
from facecomp.faces.synthetic import participant, record
from facecomp.paper.tables import format_table

FRAMES, BATCH, SIDE = 400, 128, 64  # frames of a participant; frames of a batch; px


def decode(path: Path) -> np.ndarray:
    """One file as (H, W, 3) uint8, the plain way."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def decode_batch(paths: list[Path]) -> torch.Tensor:
    """Files as one (B, 3, H, W) tensor."""
    frames = torch.from_numpy(np.stack([decode(path) for path in paths]))
    return frames.permute(0, 3, 1, 2).contiguous()


def best(function, frames: int, repeat: int = 7) -> float:
    """Microseconds a frame of the fastest of `repeat` calls."""
    return min(timeit.repeat(function, number=1, repeat=repeat)) / frames * 1e6


def write(folder: Path) -> list[tuple]:
    """Frames as store items; each also as PNG and as JPEG of quality 90."""
    items = []
    for seed in (0, 1):
        for k, image in enumerate(record(participant(seed), FRAMES, size=SIDE, seed=seed).frames()):
            for ending, options in {"png": {}, "jpg": {"quality": 90}}.items():
                Image.fromarray(image).save(folder / f"{len(items)}.{ending}", **options)
            items.append((f"P{seed}", "video", k, k / 25, image))
    return items


def main() -> None:
    """Print the table."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = build_store(folder / "store", write(folder))
        order = epoch_order(len(store), seed=0, epoch=0).tolist()
        near = store.to_device("cpu")
        rows = []
        for ending in ("png", "jpg"):
            files = [folder / f"{i}.{ending}" for i in order]
            if ending == "png":
                assert all(
                    np.array_equal(store[i], decode(f)) for i, f in zip(order, files, strict=True)
                )
                assert torch.equal(store.batch(order[:BATCH]), decode_batch(files[:BATCH]))
            one = best(lambda files=files: [decode(f) for f in files], len(files))
            many = best(lambda files=files: decode_batch(files[:BATCH]), BATCH)
            cases = {
                "one frame, array": (best(lambda: [store[i] for i in order], len(order)), one),
                "batch of 128, tensor": (best(lambda: store.batch(order[:BATCH]), BATCH), many),
                "batch of 128, set in memory": (
                    best(lambda: near.batch(order[:BATCH]), BATCH),
                    many,
                ),
            }
            size = sum(f.stat().st_size for f in files) / len(files) / 1024
            for case, (ours, reference) in cases.items():
                against = f"{ending}, {size:.1f} kB"
                rows.append(
                    (case, against, f"{ours:.2f}", f"{reference:.1f}", f"{reference / ours:.1f}x")
                )
    machine = f"{platform.machine()}, one core"
    versions = f"numpy {np.__version__} · torch {torch.__version__}"
    print(f"{datetime.date.today()} · {machine} · {versions}")
    columns = ["case", "against PIL", "store, µs/frame", "PIL, µs/frame", "ratio"]
    print(format_table(pd.DataFrame(rows, columns=columns), "github", index=False))
    least = min(float(row[-1][:-1]) for row in rows if row[1].startswith("png"))
    print(f"\nThe smallest ratio against PNG is {least:.1f} (at least 20 is wanted).")


if __name__ == "__main__":
    main()
