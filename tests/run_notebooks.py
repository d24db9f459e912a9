"""Run the notebooks: the library ones as tests, or every one as *Run All* in JupyterLab does.

    python tests/run_notebooks.py --jobs 2        # nbdev_test over the library notebooks (pytest runs the others, small)
    python tests/run_notebooks.py --all [WORD]    # every notebook (whose path has WORD): own kernel, own folder, defaults
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_all(path: Path) -> str:
    """Every cell of a notebook in the kernel that it names; empty, or what went wrong. Nothing is written into it."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    kernel = notebook.metadata.kernelspec.name
    client = NotebookClient(
        notebook, timeout=None, kernel_name=kernel, resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=40"],
    )
    started, wrong = time.monotonic(), ""
    try:
        client.execute()
    except Exception as error:  # whatever a notebook raises is told, and the others run
        wrong = str(error).strip().splitlines()[-1]
    name, seconds = path.relative_to(ROOT / "nbs"), time.monotonic() - started
    print(f"{name}: {seconds:.0f} s{', ' + wrong if wrong else ''}", flush=True)
    return wrong


def main() -> int:
    """What was asked for; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--all", nargs="?", const="", metavar="WORD")
    options = parser.parse_args()
    if options.all is None:
        command = [str(Path(sys.executable).with_name("nbdev_test")), "--path", "nbs", "--n_workers", options.jobs]
        command += ["--skip_file_re", r"^([_.]|paper_|run_)"]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    paths = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if options.all in str(p.relative_to(ROOT))]
    paths = [p for p in paths if not p.name.startswith(("_", ".")) and ".ipynb_checkpoints" not in p.parts]
    with ThreadPoolExecutor(int(options.jobs)) as pool:
        wrong = [w for w in pool.map(run_all, paths) if w]
    print(f"{len(paths)} notebooks, {len(wrong)} with an error")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
