"""What the tests share: no network, figures without a screen, published files only where they are at hand."""

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # equal bits on a busy machine, and no more threads than cores


def pytest_addoption(parser):
    """Another set of reference arrays for the tests in tests/golden (see the README there)."""
    group = parser.getgroup("golden")
    group.addoption("--golden-dir", help="folder with one sub-folder per study: arrays, cases.json")
    group.addoption("--golden-salt", help="salt of the fill rule; default: what cases.json names")


def published_folder() -> Path | None:
    """Folder of the published result files: the variable's, the cache's, or one beside the clone."""
    named = os.environ.get("FACECOMP_PUBLISHED")
    places = [Path(named)] if named else []
    places += [ROOT / "results" / "published", ROOT.parent / "shared" / "published"]
    for place in places:
        for folder in (place / "psm", place):
            if (folder / "Bootstraps_results_Figure2.pickle").is_file():
                return folder
    return None


@pytest.fixture(autouse=True)
def quiet_surroundings(monkeypatch, tmp_path):
    """No network, no published files unless a test asks for them, the checkout as current folder."""
    monkeypatch.setenv("FACECOMP_OFFLINE", "1")
    monkeypatch.setenv("FACECOMP_CACHE", str(tmp_path / "cache"))
    for name in ("FACECOMP_PUBLISHED", "FACECOMP_MIRROR", "FACECOMP_RUN", "FACECOMP_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)


@lru_cache
def remembered(function):
    """The function with a memory that lasts as long as the tests."""
    return lru_cache(function)


@pytest.fixture
def quick_training(monkeypatch):
    """One thread; the picture of the history is not drawn, comments of settings are looked up once."""
    import torch

    from facecomp.training import config, loop

    monkeypatch.setattr(loop, "draw_history", lambda rows, path: None)
    monkeypatch.setattr(config, "_comments", remembered(config._comments))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_cells(notebook: str, study: str = "psm", **parameters) -> dict:
    """Execute a notebook's cells in this process; returns its names."""
    cells = json.loads((ROOT / "nbs" / study / f"{notebook}.ipynb").read_text())["cells"]
    names: dict = {"__name__": "notebook"}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        exec(compile("".join(cell["source"]), notebook, "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert parameters.keys() <= names.keys()
            names.update(parameters)
    return names


def drive(driver: str, jobs: list) -> list[int]:
    """Exit codes of what a script does with each job, one after the other (negative: killed by that signal)."""
    path = os.pathsep.join(filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
    answer = subprocess.run(
        [sys.executable, "-c", driver],
        input=json.dumps(jobs),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    return [int(line) for line in answer.stdout.split()]
