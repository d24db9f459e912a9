"""Run nbdev_test over the library notebooks, in parallel (papermill notebooks are run by pytest)."""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", default="2")
    jobs = parser.parse_args().jobs
    command = [str(Path(sys.executable).with_name("nbdev_test")), "--path", "nbs", "--n_workers", jobs]
    command += ["--skip_file_re", r"^([_.]|paper_|run_)"]
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)
