"""Make README.md from nbs/index.ipynb: its markdown cells, links pointing into the checkout.

The mark `<!-- overview -->` is followed by the table of where each study stands, from figures/ and results/.
"""

import json
import re
import sys
from pathlib import Path

from facecomp.cli import study_names
from facecomp.paper.overview import overview_markdown, standings

ROOT = Path(__file__).resolve().parents[1]
HEAD = "<!-- made from nbs/index.ipynb by `make export`; edit the notebook -->\n\n"
MARK = "<!-- overview -->"


def overview(root: Path) -> str:
    """The table of where each study stands, from a checkout's figures/ and results/."""
    return overview_markdown(standings(root, study_names()))


def readme(notebook: Path, table: str | None = None) -> str:
    """Text of the notebook's markdown cells; relative links are turned from nbs/ to the root."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = (
        HEAD + re.sub(r"\]\(\.\./", "](", re.sub(r"\]\((?!\.\./|https?:|#)", "](nbs/", text)) + "\n"
    )
    return text.replace(MARK, f"{MARK}\n\n{overview(ROOT) if table is None else table}")


if __name__ == "__main__":
    text = readme(ROOT / "nbs" / "index.ipynb")
    target = ROOT / "README.md"
    if target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")
        print("README.md made anew", file=sys.stderr)
