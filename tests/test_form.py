"""Form of notebooks and modules: sizes, types, docstrings, examples, and the public API as it is known."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from api_snapshot import SNAPSHOT, public_api
from conftest import ROOT

LIBRARY = sorted(
    path
    for path in (ROOT / "nbs").rglob("*.ipynb")
    if not any(part.startswith((".", "_")) for part in path.parts) and path.name[0].isdigit()
)
MODULES = [p for p in sorted((ROOT / "facecomp").rglob("*.py")) if p.name != "_modidx.py"]


def code_cells(path: Path) -> list[str]:
    """Sources of the code cells of a notebook; markdown cells are empty."""
    cells = json.loads(path.read_text())["cells"]
    return ["".join(c["source"]) if c["cell_type"] == "code" else "" for c in cells]


def exported(source: str) -> bool:
    return "#| export" in source


def public_definitions(path: Path) -> Iterator[tuple[str, bool]]:
    """Public functions and classes of a notebook, and whether one of the next three cells uses them."""
    cells = code_cells(path)
    for number, source in enumerate(cells):
        for node in ast.parse(source).body if exported(source) else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                later = [c for c in cells[number + 1 : number + 4] if not exported(c)]
                yield node.name, any(re.search(rf"\b{node.name}\b", c) for c in later)


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Functions and methods of a module, without those inside functions."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (part for part in node.body if isinstance(part, ast.FunctionDef))


def test_no_module_is_longer_than_500_lines_and_no_function_than_60():
    long = [p.name for p in MODULES if p.read_text().count("\n") > 500]
    lengths = {
        f"{p.stem}.{f.name}": f.end_lineno - f.lineno + 1 for p in MODULES for f in functions(p)
    }
    assert long == [] and {name: n for name, n in lengths.items() if n > 60} == {}
    short = sum(n <= 15 for n in lengths.values())
    assert len(lengths) > 2000 and short / len(lengths) > 0.75  # as a rule


UNTYPED = {"texture.area", "texture.blob", "texture.line"}
# the text of `faces.texture` is part of the identity of measurements that took half an hour


def test_public_definitions_say_what_they_do_and_what_they_take():
    silent, untyped = [], []
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public and not ast.get_docstring(node):
                silent.append(f"{path.stem}.{node.name}")
        for function in functions(path):
            given = [*function.args.args, *function.args.kwonlyargs]
            bare = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
            if function.name[0] != "_" and (bare or function.returns is None):
                untyped.append(f"{path.stem}.{function.name}")
    assert silent == [] and set(untyped) <= UNTYPED


def test_most_definitions_are_run_within_three_cells_and_every_notebook_runs_some():
    used = {path: [shown for _, shown in public_definitions(path)] for path in LIBRARY}
    everything = [shown for each in used.values() for shown in each]
    assert len(everything) > 2000 and sum(everything) / len(everything) > 0.6
    assert [path.name for path, each in used.items() if each and not any(each)] == []


NOTHING_TO_SAY = {  # they touch no fault of a specification
    "dfer/35_cohort.ipynb",
    "flow/12_training.ipynb",
    "flow/13_runs.ipynb",
    "flow/19_truth_results.ipynb",
    "flow/22_cohort.ipynb",
    "paper/01_tables.ipynb",
    "paper/03_sources.ipynb",
    "paper/06_statistics.ipynb",
}


def test_library_notebooks_end_with_what_paper_reference_and_we_do():
    without = []
    for path in LIBRARY:
        cells = json.loads(path.read_text())["cells"]
        heads = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        if "## Implementation details" not in heads:
            without.append(path.relative_to(ROOT / "nbs").as_posix())
    assert set(without) <= NOTHING_TO_SAY


def test_run_all_in_jupyterlab_runs_just_the_cells_that_the_tests_run():
    kernels, skipped = set(), []
    for path in sorted((ROOT / "nbs").rglob("[!.]*.ipynb")):
        notebook = json.loads(path.read_text())
        kernels.add(notebook["metadata"]["kernelspec"]["name"])
        lines = [line for c in notebook["cells"] if c["cell_type"] == "code" for line in c["source"]]
        skipped += [path.name for line in lines if re.match(r"#\|\s*eval:\s*false", line)]
    assert (kernels, skipped) == ({"python3"}, [])


def test_the_public_api_is_the_one_that_is_written_down():
    known, now = SNAPSHOT.read_text().splitlines(), public_api()
    gone, new = sorted(set(known) - set(now)), sorted(set(now) - set(known))
    hint = "python tests/api_snapshot.py writes it again; say in CHANGELOG.md what changed"
    assert (gone, new) == ([], []), hint
    assert len(now) > 2000 and known == now
