"""Make README.md from nbs/index.ipynb: its markdown cells, links pointing into the checkout."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = "<!-- made from nbs/index.ipynb by `make export`; edit the notebook -->\n\n"


def readme(notebook: Path) -> str:
    """Text of the notebook's markdown cells; relative links are turned from nbs/ to the root."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return (
        HEAD + re.sub(r"\]\(\.\./", "](", re.sub(r"\]\((?!\.\./|https?:|#)", "](nbs/", text)) + "\n"
    )


if __name__ == "__main__":
    text = readme(ROOT / "nbs" / "index.ipynb")
    target = ROOT / "README.md"
    if target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")
        print("README.md made anew", file=sys.stderr)
