"""What a small run of each study costs: its cohort at default parameters, minutes and peak memory.

    .venv/bin/python bench/run_cost.py [STUDY ...]

Each study's `run_cohort` runs as papermill runs it, in a kernel of its own, one thread, on the CPU.
The numbers are those of the receipt that it leaves. Nothing is compared: there is no other program
that does this.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from facecomp.paper.tables import format_table
from facecomp.records.files import project_root
from facecomp.records.receipts import read_receipt

WHAT = {
    "psm": "2 people, 11 trainings (general, own, transfers), clusters, AU scores",
    "flow": "6 people, 2 networks, classical methods",
    "fomm": "6 people, 2 models",
    "dfer": "7 people, 4 models, pre-training, gaze, relabelling",
}
WORK = {"psm": "out", "flow": "out", "fomm": "work", "dfer": "work"}
RESULTS = {"psm": "results", "flow": "results", "fomm": "out", "dfer": "out"}


def measured(study: str, folder: Path) -> dict:
    """One line of the table."""
    notebook = project_root() / "nbs" / study / "run_cohort.ipynb"
    given = {WORK[study]: folder / "work", RESULTS[study]: folder / "results", "device": "cpu"}
    command = [sys.executable, "-m", "papermill", notebook, folder / "out.ipynb"]
    for name, value in given.items():
        command += ["-p", name, value]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(map(str, command), capture_output=True, text=True, env=surroundings)
    if done.returncode:
        raise SystemExit(done.stderr)
    made = read_receipt(folder / "results" / "cohort.receipt.json")
    return {
        "study": study,
        "what": WHAT[study],
        "device": made.device,
        "minutes": round(made.seconds / 60, 1),
        "CPU minutes": round(made.cpu_seconds / 60, 1),
        "peak memory, MiB": round(made.memory_mib),
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("studies", nargs="*", default=[*WHAT], metavar="STUDY")
    rows = []
    for study in parser.parse_args().studies:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(study, Path(folder)))
    print(format_table(pd.DataFrame(rows), "github", index=False))


if __name__ == "__main__":
    main()
