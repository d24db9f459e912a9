"""A small checkout with a few real notebooks and figures, and the site that is made of it."""

import shutil
from pathlib import Path

from conftest import ROOT

from facecomp.site.build import build
from facecomp.site.links import Check

NOTEBOOKS = (
    "index.ipynb",
    "records/00_files.ipynb",
    "records/02_receipts.ipynb",
    "records/04_status.ipynb",
    "psm/01_losses.ipynb",
    "psm/paper_figure4.ipynb",
    "psm/paper_figure5.ipynb",
    "faces/06_head.ipynb",
)
FILES = ("settings.ini", "pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CONTRIBUTING.md")


def small_checkout(folder: Path) -> Path:
    """Copy what the site of a few notebooks needs; a picture of a person lies beside the figures, as on a reader's machine."""
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    for name in NOTEBOOKS:
        (folder / "nbs" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "nbs" / name, folder / "nbs" / name)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for part in ("records", "layers", "psm"):
        shutil.copytree(ROOT / "facecomp" / part, folder / "facecomp" / part)
    (folder / "figures" / "psm").mkdir(parents=True)
    for path in (ROOT / "figures" / "psm").glob("fig[345]*"):
        if path.is_file() and not path.name.startswith("fig5c"):
            shutil.copy(path, folder / "figures" / "psm")
    shutil.copy(folder / "figures/psm/fig5b.png", folder / "figures/psm/fig5c.png")
    (folder / "results" / "psm").mkdir(parents=True)
    for name in ("README.md", "claims.csv", "cohort.receipt.json", "claims.md"):
        shutil.copy(ROOT / "results" / "psm" / name, folder / "results" / "psm" / name)
    for study in ("flow", "fomm", "dfer"):
        (folder / "results" / study).mkdir()
        shutil.copy(ROOT / "results" / study / "README.md", folder / "results" / study)
    return folder


def small_site(folder: Path) -> tuple[Path, Path, Check]:
    """Checkout, site and its check."""
    root = small_checkout(folder)
    return root, root / "_docs", build(root, root / "_docs", jobs=1)
