"""Minutes and peak memory of `facecomp analyze`: one's own video, and synthetic ones.

    .venv/bin/python bench/analyze.py [VIDEO ...] [--minutes 2 10] [--side 256] [--epochs N]
                                      [--reading] [--keep DIR]

Each case is a process of its own, one thread, on the CPU; peak memory is the process's largest
resident size (`resource.getrusage`). Synthetic videos are a conversation of one participant at 25
frames a second; beyond two minutes it is repeated. `again`: the same command once more, which finds
everything done.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

from facecomp.dfer.annotations import data_set
from facecomp.dfer.models import ModelInfo, save_model
from facecomp.dfer.recognition_network import HeadSettings, RecognitionNetwork
from facecomp.faces.synthetic import participant, record
from facecomp.faces.video import open_video
from facecomp.faces.writing import write_video
from facecomp.paper.tables import format_table

CHILD = """
import json, logging, resource, sys, time, warnings
logging.disable(logging.WARNING); warnings.simplefilter("ignore")
job = json.loads(sys.argv[1])
begin, stages = time.perf_counter(), {}
from facecomp.analyze.run import analyze
from facecomp.analyze.settings import Settings
def say(line):
    name, _, rest = line.partition(": ")
    stages[name] = rest
analyze([job["video"]], job["out"], Settings(**job["settings"]), say=say)
own, films = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
cpu = own.ru_utime + own.ru_stime + films.ru_utime + films.ru_stime
told = {"cpu": cpu, "peak": own.ru_maxrss / 1024, "stages": stages}
print(json.dumps({"seconds": time.perf_counter() - begin, **told}))
"""


def measured(video: Path, out: Path, settings: dict) -> dict:
    """What a process of its own needed."""
    job = json.dumps({"video": str(video), "out": str(out), "settings": settings})
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, job], capture_output=True, text=True, env=surroundings
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


WRITTEN = 2.0  # minutes


def synthetic(folder: Path, minutes: float, side: int) -> Path:
    """A conversation of so many minutes; made once."""
    path = folder / f"synthetic_{minutes:g}min.mp4"
    if path.exists():
        return path
    if minutes > WRITTEN:
        part = synthetic(folder, WRITTEN, side)
        times = round(minutes / WRITTEN)
        return write_video(path, (f for _ in range(times) for f in open_video(part)), 25.0)
    film = record(participant(6), round(minutes * 60 * 25), 25.0, side, seed=1)
    return write_video(path, film.frames(), 25.0)


def drawn_model(folder: Path) -> Path:
    """A network of both tasks of the published size; its weights are drawn, so it is synthetic."""
    torch.manual_seed(0)
    network = RecognitionNetwork(head=HeadSettings(head="combined"))
    info = ModelInfo(data_set("dfew").classes, "dfew", "synthetic")
    return save_model(folder / "drawn.pt", network, info)


def row(name: str, video: Path, folder: Path, settings: dict) -> dict:
    """One line of the table."""
    out = folder / f"out_{video.stem}"
    first, again = measured(video, out, settings), measured(video, out, settings)
    summary = json.loads(
        (
            out / "prepared/reports" / settings["participant"] / video.stem / "summary.json"
        ).read_text()
    )
    print(name, first, again, sep="\n", flush=True)
    return {
        "video": name,
        "frames": summary["frames"],
        "size": f"{summary['width']} x {summary['height']}",
        "minutes": round(first["seconds"] / 60, 2),
        "CPU minutes": round(first["cpu"] / 60, 2),
        "peak memory, MiB": round(first["peak"]),
        "again, s": round(again["seconds"], 1),
        "page kB": round((out / "report.html").stat().st_size / 1000),
    }


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--minutes", nargs="*", type=float, default=[2.0, 10.0])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--epochs", type=int, help="of the person's model, for all cases")
    reading = "also expression and gaze, by a network of the published size"
    parser.add_argument("--reading", action="store_true", help=reading)
    parser.add_argument("--keep", type=Path, help="folder for videos and results")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        more = {"device": "cpu"} | ({"epochs": options.epochs} if options.epochs else {})
        more |= {"checkpoint": str(drawn_model(folder))} if options.reading else {}
        rows = [row(v.name, v, folder, {"participant": "P01", **more}) for v in options.videos]
        for minutes in options.minutes:
            video = synthetic(folder, minutes, options.side)
            settings = {"participant": "SYN006", "data": "synthetic", **more}
            rows.append(row(f"synthetic, {minutes:g} min", video, folder, settings))
    table = pd.DataFrame(rows)
    epochs = f"{options.epochs} epochs" if options.epochs else "default settings"
    words = [f"{datetime.date.today()} · {platform.machine()}, one thread, CPU, {epochs}"]
    words += ["expression and gaze, published size"] if options.reading else []
    words += [f"torch {torch.__version__}", *([options.note] if options.note else [])]
    text = f"{' · '.join(words)}\n\n{format_table(table, 'github', index=False)}\n"
    print(text)
    path = Path(__file__).with_name("results") / "analyze.md"
    before = path.read_text() + "\n" if path.exists() else ""
    path.write_text(before + text)


if __name__ == "__main__":
    main()
