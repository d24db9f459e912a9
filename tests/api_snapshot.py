"""The public API as text: one line for each public name, with its parameters or fields.

    python tests/api_snapshot.py     write tests/api.txt again

A change of the file in a commit is a change that users may see: say it in CHANGELOG.md.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = ROOT / "tests" / "api.txt"


def signature(function: ast.FunctionDef) -> str:
    """Parameters with their types and defaults, and what comes back."""
    back = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"({ast.unparse(function.args)}){back}"


def members(name: str, node: ast.ClassDef) -> Iterator[str]:
    """Public fields and methods of a class, and how it is made."""
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    yield f"class {name}({bases})" if bases else f"class {name}"
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            value = f" = {ast.unparse(part.value)}" if part.value else ""
            kind = ast.unparse(part.annotation)
            yield f"{name}.{ast.unparse(part.target)}: {kind}{value}"
        elif isinstance(part, ast.FunctionDef) and (
            part.name in ("__init__", "__call__", "forward") or not part.name.startswith("_")
        ):
            yield f"{name}.{part.name}{signature(part)}"


def of_module(path: Path) -> Iterator[str]:
    """What a module offers: the names in its `__all__`."""
    tree = ast.parse(path.read_text())
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    named = {
        target.id: node
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    offered = set(ast.literal_eval(named["__all__"].value)) if "__all__" in named else set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in offered:
            yield f"{module}.{node.name}{signature(node)}"
        elif isinstance(node, ast.ClassDef) and node.name in offered:
            yield from members(f"{module}.{node.name}", node)
    for name in offered & set(named):
        yield f"{module}.{name}"


def public_api() -> list[str]:
    """All lines, in order."""
    files = sorted((ROOT / "facecomp").rglob("*.py"))
    return [line for file in files if file.name != "_modidx.py" for line in sorted(of_module(file))]


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(public_api()) + "\n")
    print(f"{len(public_api())} lines in {SNAPSHOT.relative_to(ROOT)}")
