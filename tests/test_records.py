"""Files, receipts, status and the identity of code."""

import ast
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from facecomp.records.code import (
    CodeTracer,
    artefact_code,
    names_used,
    notebook_parameters,
    tree_identity,
)
from facecomp.records.files import (
    InputError,
    atomic_path,
    project_root,
    read_json,
    run_lock,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_atomic,
    write_json,
)
from facecomp.records.receipts import (
    Receipt,
    git_state,
    output_faults,
    read_receipt,
    receipt_path,
    versions,
    write_receipt,
)
from facecomp.records.status import Ingredients, judge


def python(code, *arguments):
    """A Python process that runs `code`; its standard output can be read line by line."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


# --- files --------------------------------------------------------------------------------------


def test_input_error_is_one_line():
    assert str(InputError("a\n  b\t c ")) == "a b c"
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("value", ["text ü", b"\x00\xff", "", b""])
def test_written_atomically_is_what_is_read(tmp_path, value):
    path = write_atomic(tmp_path / "deep" / "a.bin", value)
    assert path.read_bytes() == (value.encode() if isinstance(value, str) else value)
    assert path.stat().st_mode & 0o777 == 0o644
    assert listing(path.parent) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_exception_in_the_middle_keeps_what_was_there(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old:
        path.write_text(old)
    with pytest.raises(error), atomic_path(path) as part:
        part.write_text("half")
        raise error
    assert listing(tmp_path) == (["a.txt"] if old else [])
    assert not old or path.read_text() == old


def test_temporary_path_is_beside_and_has_the_same_ending(tmp_path):
    with atomic_path(tmp_path / "a.png") as part:
        assert (part.parent, part.suffix) == (tmp_path, ".png")
        assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "a.png").read_bytes() == b""


def test_temporary_that_vanished_is_an_error_and_keeps_the_old(tmp_path):
    path = write_atomic(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), atomic_path(path) as part:
        part.unlink()
    assert path.read_text() == "old"


def test_two_writers_at_once_leave_one_of_both(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as one, atomic_path(path) as two:
        assert one != two
        one.write_text("1" * 1000)
        two.write_text("2" * 1000)
    assert path.read_text() == "1" * 1000  # the last to finish
    assert listing(tmp_path) == ["a.txt"]


WRITER = """
import sys
from facecomp.records.files import atomic_path
with atomic_path(sys.argv[1]) as part, part.open("wb") as out:
    print(part, flush=True)
    for _ in range(100000):
        out.write(b"n" * (1 << 14))
        out.flush()
"""


def test_kill_in_the_middle_of_a_large_write_keeps_the_old_content(tmp_path):
    path = write_atomic(tmp_path / "a.bin", b"o" * 100_000)
    with python(WRITER, path) as writer:
        part = Path(writer.stdout.readline().strip())
        wait_for(lambda: part.stat().st_size > 1 << 20)
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"o" * 100_000
    write_atomic(path, "new")
    assert path.read_text() == "new"


def test_json_comes_back_and_is_readable_text(tmp_path):
    path = write_json(tmp_path / "a.json", {"ü": [1, None, 2.5]})
    assert path.read_text(encoding="utf-8").startswith('{\n "ü": [')
    assert path.read_text().endswith("}\n")
    assert read_json(path) == {"ü": [1, None, 2.5]}


def test_value_that_is_not_json_leaves_the_old_file(tmp_path):
    path = write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is not JSON"),
        (b'{"a": 1,}', "is not JSON"),
        (b'{\n"a": nan}', "line 2"),
        (b"\xff\xfe\x00", "is not JSON"),
    ],
)
def test_broken_json_is_named(tmp_path, content, fault):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert fault in str(caught.value)


def test_hashes(tmp_path):
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_bytes(b"") == empty
    assert sha256_file(write_atomic(tmp_path / "a", b"")) == empty
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json([1, 2]) != sha256_json([2, 1])
    assert sha256_json({"a": 1}) != sha256_json({"a": "1"})


@pytest.mark.parametrize("name", ["absent", "."])
def test_file_that_cannot_be_hashed_is_named(tmp_path, name):
    with pytest.raises(InputError, match=f"^{tmp_path / name}: cannot be read"):
        sha256_file(tmp_path / name)


def test_checkout_is_found_from_inside(tmp_path):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = facecomp\n")
    (tmp_path / "nbs" / "deep").mkdir(parents=True)
    assert project_root(tmp_path / "nbs" / "deep") == tmp_path
    assert project_root(str(tmp_path)) == tmp_path


def test_settings_of_another_project_are_passed_over(tmp_path):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = facecomp\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "settings.ini").write_text("[DEFAULT]\nlib_name = other\n")
    assert project_root(tmp_path / "other") == tmp_path


# --- locks --------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from facecomp.records.files import run_lock
with run_lock(sys.argv[1], "the batch"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_process_is_refused_and_told_who_holds_the_lock(tmp_path):
    path = tmp_path / "locks" / "run.lock"
    with python(HOLDER, path) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError) as caught, run_lock(path, "the batch"):
            pytest.fail("held twice")
        holder.kill()
    said = str(caught.value)
    assert said.startswith(f"{path}: the batch is already worked on by process {holder.pid} on ")


def test_lock_of_a_killed_process_is_taken_over(tmp_path):
    path = tmp_path / "run.lock"
    with python(HOLDER, path) as holder:
        holder.stdout.readline()
        holder.kill()
    assert f"process {holder.pid} " in path.with_suffix(".holder").read_text()
    with run_lock(path):
        assert f"process {os.getpid()} " in path.with_suffix(".holder").read_text()


def test_waiting_for_a_lock_that_becomes_free(tmp_path):
    path = tmp_path / "run.lock"
    with python(HOLDER.replace("60", "0.5"), path) as holder:
        holder.stdout.readline()
        with run_lock(path, wait=20):
            assert f"process {os.getpid()} " in path.with_suffix(".holder").read_text()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_lock_is_free_again_after_an_error(tmp_path, error):
    path = tmp_path / "run.lock"
    with pytest.raises(error), run_lock(path):
        raise error
    with run_lock(path):
        assert path.with_suffix(".holder").is_file()
    assert not path.with_suffix(".holder").exists()


def test_timeout_of_the_work_itself_is_not_taken_for_a_held_lock(tmp_path):
    with (
        pytest.raises(InputError, match="inner.lock: .* already worked on"),
        run_lock(tmp_path / "inner.lock"),
        run_lock(tmp_path / "outer.lock"),
        run_lock(tmp_path / "inner.lock"),
    ):
        pytest.fail("held twice")


# --- receipts -----------------------------------------------------------------------------------


def toy_receipt(**changes):
    plain = Receipt("fig", "toy", "paper", "real", {"seed": 1}, {"in": "a" * 64}, code={"f": "1"})
    return dataclasses.replace(plain, **changes)


def made(folder, **changes):
    """Folder with an output and its receipt."""
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "sub" / "fig.png", b"picture")
    write_atomic(folder / "fig.svg", b"drawing")
    outputs = [folder / "sub" / "fig.png", folder / "fig.svg"]
    return write_receipt(folder, toy_receipt(**changes), outputs)


def test_receipt_comes_back(tmp_path):
    path = made(tmp_path, seed=3, device="cuda", seconds=1.5)
    assert path == receipt_path(tmp_path, "fig") == tmp_path / "fig.receipt.json"
    again = read_receipt(path)
    assert again.outputs == {
        "sub/fig.png": sha256_bytes(b"picture"),
        "fig.svg": sha256_bytes(b"drawing"),
    }
    assert (again.seed, again.device, again.seconds) == (3, "cuda", 1.5)
    assert again.finished.endswith("+00:00")
    assert again.versions == dict(versions())
    assert dataclasses.replace(again, outputs={}, finished="") == toy_receipt(
        seed=3, device="cuda", seconds=1.5
    )


def test_receipt_bears_the_name_of_the_run(monkeypatch):
    monkeypatch.setenv("FACECOMP_RUN", "abc")
    assert toy_receipt().run == "abc"
    monkeypatch.delenv("FACECOMP_RUN")
    assert Receipt("fig", "toy", "paper", "real").run == ""


@pytest.mark.parametrize("data", ["", "Real", "fake"])
def test_data_is_real_or_synthetic(tmp_path, data):
    with pytest.raises(InputError, match=f"^fig: data is '{data}', must be 'real', 'synthetic' or 'none'$"):
        made(tmp_path, data=data)
    assert not receipt_path(tmp_path, "fig").exists()


def test_absent_output_means_no_receipt(tmp_path):
    with pytest.raises(InputError, match="gone.png: cannot be read"):
        write_receipt(tmp_path, toy_receipt(), [tmp_path / "gone.png"])
    assert listing(tmp_path) == []


def test_output_outside_the_folder_is_refused(tmp_path):
    other = write_atomic(tmp_path / "other.png", b"x")
    with pytest.raises(InputError, match="other.png: output outside the receipt's folder"):
        write_receipt(tmp_path / "inside", toy_receipt(), [other])


def test_output_that_climbs_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "inside").mkdir()
    write_atomic(tmp_path / "other.png", b"x")
    with pytest.raises(InputError, match="output outside the receipt's folder"):
        write_receipt(tmp_path / "inside", toy_receipt(), [tmp_path / "inside/../other.png"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda v: {**v, "artefcat": 1}, "unknown field 'artefcat' in a receipt, near 'artefact'"),
        (lambda v: {**v, "zzz": 1}, "unknown field 'zzz' in a receipt"),
        (lambda v: {k: v[k] for k in v if k != "study"}, "is not a receipt ("),
        (lambda v: [v], "is not a receipt (a JSON object is expected)"),
        (lambda v: None, "is not a receipt (a JSON object is expected)"),
        (lambda v: {}, "is not a receipt ("),
    ],
)
def test_what_is_no_receipt(tmp_path, change, fault):
    path = made(tmp_path)
    write_json(path, change(read_json(path)))
    with pytest.raises(InputError) as caught:
        read_receipt(path)
    assert str(caught.value).startswith(f"{path}: {fault}")


@pytest.mark.parametrize("content", [None, "", "{", "not json"])
def test_receipt_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "fig.receipt.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"^{path}: (cannot be read|is not JSON)"):
        read_receipt(path)


@pytest.mark.parametrize("field", ["outputs", "inputs", "parameters", "code"])
@pytest.mark.parametrize("value", [None, 3, "text", ["a"]])
def test_receipt_with_a_field_of_the_wrong_kind_is_an_input_error(tmp_path, field, value):
    path = made(tmp_path)
    write_json(path, {**read_json(path), field: value})
    state = judge("fig", tmp_path, Ingredients({}, {}, {}))
    assert state.state == "missing"
    assert "fig.receipt.json: " in state.reasons[0]


def test_outputs_that_verify(tmp_path):
    assert output_faults(made(tmp_path)) == []


def test_outputs_that_are_gone_or_changed(tmp_path):
    path = made(tmp_path)
    (tmp_path / "sub" / "fig.png").unlink()
    (tmp_path / "fig.svg").write_bytes(b"Drawing")
    assert sorted(output_faults(path)) == [
        "fig.svg was changed after it was made",
        "sub/fig.png is gone",
    ]


def test_touched_output_still_verifies(tmp_path):
    path = made(tmp_path)
    os.utime(tmp_path / "fig.svg", (1, 1))
    assert output_faults(path) == []


def test_moved_folder_still_verifies(tmp_path):
    path = made(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    assert output_faults(tmp_path / "two" / path.name) == []


def test_commit_outside_git_is_unknown(tmp_path):
    assert git_state(tmp_path) == ("unknown", True)


def test_commit_and_changes_of_a_checkout(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    source = write_atomic(tmp_path / "facecomp" / "a.py", "1")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == (commit, False)
    write_atomic(tmp_path / "figures" / "a.png", "1")
    write_atomic(tmp_path / "results" / "a.pickle", "1")
    assert git_state(tmp_path) == (commit, False)
    write_atomic(source, "2")
    assert git_state(tmp_path) == (commit, True)


# --- status ---------------------------------------------------------------------------------------

NOW = Ingredients({"a": "1", "b": "2"}, {"palette": "published", "seed": 0}, {"f": "1", "g": "2"})


@pytest.fixture
def finished(tmp_path):
    write_atomic(tmp_path / "fig.png", b"picture")
    receipt = toy_receipt(inputs=NOW.inputs, parameters=NOW.parameters, code=NOW.code)
    write_receipt(tmp_path, receipt, [tmp_path / "fig.png"])
    return tmp_path


def with_change(part, **changes):
    values = {k: v for k, v in {**getattr(NOW, part), **changes}.items() if v is not None}
    return dataclasses.replace(NOW, **{part: values})


def test_unchanged_is_fresh_whatever_the_time(finished):
    os.utime(finished / "fig.png", (0, 0))
    state = judge("fig", finished, NOW)
    assert (state.state, state.reasons, str(state)) == ("fresh", (), "fig: fresh")


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (with_change("inputs", a="9"), "input a changed"),
        (with_change("inputs", c="9"), "input c is new"),
        (with_change("inputs", a=None), "input a is no longer used"),
        (with_change("parameters", seed=1), "parameter seed changed from 0 to 1"),
        (with_change("parameters", seed="0"), "parameter seed changed from 0 to '0'"),
        (
            with_change("parameters", palette="colorblind"),
            "parameter palette changed from 'published' to 'colorblind'",
        ),
        (with_change("parameters", new=False), "parameter new is new"),
        (with_change("parameters", palette=None), "parameter palette is no longer used"),
        (with_change("code", g="9"), "code g changed"),
        (with_change("code", h="9"), "code h is new"),
        (with_change("code", f=None), "code f is no longer used"),
    ],
)
def test_one_change_is_one_reason(finished, now, reason):
    state = judge("fig", finished, now)
    assert (state.state, state.reasons) == ("stale", (reason,))
    assert str(state) == f"fig: stale ({reason})"


def test_all_changes_are_told(finished):
    now = Ingredients({"a": "9", "b": "2"}, {**NOW.parameters, "seed": 1}, {**NOW.code, "f": "9"})
    assert judge("fig", finished, now).reasons == (
        "input a changed",
        "parameter seed changed from 0 to 1",
        "code f changed",
    )


def test_changed_picture_is_stale_and_a_lost_one_missing(finished):
    (finished / "fig.png").write_bytes(b"other")
    state = judge("fig", finished, NOW)
    assert (state.state, state.reasons) == ("stale", ("fig.png was changed after it was made",))
    (finished / "fig.png").unlink()
    state = judge("fig", finished, NOW)
    assert (state.state, state.reasons) == ("missing", ("fig.png is gone",))


def test_never_made_is_missing(tmp_path):
    state = judge("fig", tmp_path, NOW)
    assert (state.state, state.reasons, state.receipt) == ("missing", ("not made here yet",), None)


def test_broken_receipt_is_missing_with_its_fault(finished):
    receipt_path(finished, "fig").write_text("{")
    state = judge("fig", finished, NOW)
    assert state.state == "missing"
    assert "fig.receipt.json: is not JSON" in state.reasons[0]


def test_parameters_are_compared_as_json_keeps_them(finished):
    receipt = toy_receipt(parameters={"names": ("a", "b")})
    write_receipt(finished, receipt, [finished / "fig.png"])
    now = Ingredients(receipt.inputs, json.loads('{"names": ["a", "b"]}'), receipt.code)
    assert judge("fig", finished, now).state == "fresh"


# --- identity of code -----------------------------------------------------------------------------


def identity(code):
    return tree_identity(ast.parse(textwrap.dedent(code)).body)


PLAIN = '''
    def f(a, b=1):
        """What it does."""
        if a:
            return g(a, "x")  # why
        return b
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("What it does.", "Other words."),
        ('"""What it does."""', "'''What it does.'''"),
        ("# why", "# for another reason"),
        ('g(a, "x")', "g(a,   'x')"),
        (
            'g(a, "x")',
            '(\n                g(\n                    a, "x"\n                )\n            )',
        ),
        ("def f(a, b=1):", "def f(\n        a,\n        b=1,\n    ):"),
        ("        return b", "\n\n        return b"),
    ],
)
def test_words_and_layout_do_not_change_the_identity(old, new):
    assert old in PLAIN
    assert identity(PLAIN.replace(old, new)) == identity(PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"x"', '"y"'),
        ("b=1", "b=2"),
        ("b=1", "b=1.0"),
        ("b=1", "b=True"),
        ("b=1", "*, b=1"),
        ("a, b=1", "a: int, b=1"),
        ("return b", "return a"),
        ("if a:", "if not a:"),
        ("def f", "@cache\n    def f"),
        ("def f", "async def f"),
        ("g(a", "h(a"),
        ('"""What it does."""', '"""What it does."""\n        """Not a docstring."""'),
    ],
)
def test_what_code_does_changes_the_identity(old, new):
    assert old in PLAIN
    assert identity(PLAIN.replace(old, new)) != identity(PLAIN)


def test_docstrings_of_classes_and_methods_do_not_count():
    code = 'class A:\n    """One."""\n    def f(self):\n        """Two."""\n'
    assert identity(code) == identity(code.replace("One", "Eins").replace("Two", "Zwei"))


def test_text_that_is_only_named_doc_counts():
    assert identity('x = """One."""') != identity('x = """Two."""')


TOY = {
    "a.py": """
        import math
        import numpy as np
        import toy.b as b
        from . import c
        from .c import helper as renamed, CONSTANT
        from .deep.d import deepest
        from toy.deep import d as same_d

        LIMIT = 3
        TABLE: dict = {"x": LIMIT}
        UNUSED = 4

        def plain(x): return x
        def with_default(x=LIMIT): return x
        def decorate(f): return f

        @decorate
        def decorated(): return 1

        def nested():
            def inner(): return plain(1)
            return inner()

        class Base:
            def method(self): return plain(2)

        class Child(Base):
            field: int = LIMIT
            def other(self): return CONSTANT

        def by_module(): return b.function()
        def by_from_module(): return c.helper()
        def by_renamed(): return renamed()
        def by_deep(): return deepest() + same_d.another()
        def outside(): return np.zeros(3) + math.pi

        def local_import():
            from .c import helper
            return helper()

        def shadowed(plain, LIMIT=1): return plain + LIMIT
        def own_variable():
            plain = 1
            return plain
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        def over_there(): return b.and_back()
        def typed(x: Base) -> "Child": return x
        def comprehension(): return [plain(i) for i in range(LIMIT)]
        def with_lambda(): return (lambda v: plain(v))(1)
    """,
    "b.py": """
        from . import a
        from .a import over_there
        def function(): return 1
        def other(): return 2
        def and_back(): return over_there() if a.LIMIT else function()
    """,
    "c.py": """
        CONSTANT = 1
        def helper(): return CONSTANT
        def unused(): return 2
    """,
    "deep/d.py": """
        from ..c import helper
        from .. import b
        def deepest(): return helper()
        def another(): return b.other()
    """,
    "__init__.py": "",
    "deep/__init__.py": "from .d import deepest\n",
}


@pytest.fixture
def package(tmp_path):
    for name, code in TOY.items():
        write_atomic(tmp_path / "toy" / name, textwrap.dedent(code))
    return tmp_path / "toy"


def traced(package, code):
    return set(CodeTracer(package).trace(code)) - {"cells"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", "a.plain"),
        ("TABLE", "a.TABLE a.LIMIT"),
        ("with_default", "a.with_default a.LIMIT"),
        ("decorated", "a.decorated a.decorate"),
        ("nested", "a.nested a.plain"),
        ("Base", "a.Base a.plain"),
        ("Child", "a.Child a.Base a.plain a.LIMIT c.CONSTANT"),
        ("by_module", "a.by_module b.function"),
        ("by_from_module", "a.by_from_module c.helper c.CONSTANT"),
        ("by_renamed", "a.by_renamed c.helper c.CONSTANT"),
        ("by_deep", "a.by_deep deep.d.deepest deep.d.another c.helper c.CONSTANT b.other"),
        ("outside", "a.outside"),
        ("local_import", "a.local_import"),
        ("shadowed", "a.shadowed"),
        ("own_variable", "a.own_variable"),
        ("even", "a.even a.odd"),
        ("over_there", "a.over_there b.and_back b.function a.LIMIT"),
        ("comprehension", "a.comprehension a.plain a.LIMIT"),
        ("with_lambda", "a.with_lambda a.plain"),
    ],
)
def test_exactly_the_used_definitions_are_found(package, name, expected):
    found = traced(package, f"from toy.a import {name}\n{name}")
    assert found == {f"toy.{key}" for key in expected.split()}


@pytest.mark.parametrize(
    "code",
    [
        "from toy.a import plain\nplain(1)",
        "from toy.a import plain as p\np(1)",
        "import toy.a as t\nt.plain(1)",
        "from toy import a\na.plain(1)",
        "from toy import a as t\nprint(t.plain)",
        "from toy.a import plain\ndef mine(): return plain(1)\nmine()",
        "from toy.a import plain\nx = [plain(i) for i in range(3)]",
    ],
)
def test_every_way_to_import_finds_the_definition(package, code):
    assert traced(package, code) == {"toy.a.plain"}


def test_name_that_a_package_hands_on(package):
    found = traced(package, "from toy.deep import deepest\ndeepest()")
    assert found == {"toy.deep.d.deepest", "toy.c.helper", "toy.c.CONSTANT"}


def test_module_by_its_full_name_is_followed(package):
    assert traced(package, "import toy.a\ntoy.a.plain(1)") == {"toy.a.plain"}


def test_star_import_is_followed(package):
    assert traced(package, "from toy.c import *\nhelper()") == {"toy.c.helper", "toy.c.CONSTANT"}


@pytest.mark.parametrize(
    "code",
    [
        "def f(plain=plain): return plain",
        "def f():\n    def inner(plain): return plain\n    return inner(plain(1))",
        "def f(x):\n    return plain([i for i in x if (lambda plain: plain)(i)])",
        "class F:\n    def one(self, plain): return plain\n    def two(self): return plain(1)\nf = F",
    ],
)
def test_inner_name_does_not_hide_the_outer_one(package, code):
    (package / "e.py").write_text(f"from .a import plain\n{code}\n")
    assert "toy.a.plain" in traced(package, "from toy.e import f\nf()")


def test_parameter_of_a_method_is_no_dependency(package):
    (package / "e.py").write_text(
        "from .a import plain\nclass F:\n    def one(self, plain): return plain\n"
    )
    assert traced(package, "from toy.e import F\nF()") == {"toy.e.F"}


def test_import_that_is_not_used_counts_for_nothing(package):
    assert traced(package, "from toy.a import plain, nested\nimport toy.b as b\n1") == set()


@pytest.mark.parametrize(
    "code",
    [
        "from toy.nowhere import f\nf()",
        "from toy import nothing\nnothing.f()",
        "from toy.a import absent\nabsent()",
        "import numpy as np\nnp.zeros(1)",
        "print(undefined)",
        "",
    ],
)
def test_what_is_not_the_packages_is_passed_over(package, code):
    assert traced(package, code) == set()


def cells_using(*names):
    return f"from toy.a import {', '.join(names)}\n" + "\n".join(names)


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("a.py", "LIMIT = 3", "LIMIT = 4", {"a.LIMIT"}),
        ("a.py", "def plain(x): return x", "def plain(x): return -x", {"a.plain"}),
        ("a.py", "x=LIMIT", "x=LIMIT + 1", {"a.with_default"}),
        ("a.py", "def decorate(f): return f", "def decorate(f): return f()", {"a.decorate"}),
        ("a.py", "return plain(2)", "return plain(3)", {"a.Base"}),
        ("c.py", "CONSTANT = 1", "CONSTANT = 2", {"c.CONSTANT"}),
        ("a.py", "UNUSED = 4", "UNUSED = 5", set()),
        ("c.py", "return 2", "return 3", set()),
        ("b.py", "def other(): return 2", "def other(): return 3", set()),
        ("a.py", "def plain(x): return x", "def plain(x):\n    '''Doc.'''\n    return x", set()),
        ("a.py", "LIMIT = 3", "LIMIT = 3  # because", set()),
    ],
)
def test_a_change_changes_exactly_the_definitions_that_it_is_in(package, file, old, new, changed):
    code = cells_using("Child", "with_default", "decorated", "by_renamed")
    before = CodeTracer(package).trace(code)
    path = package / file
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    after = CodeTracer(package).trace(code)
    assert after.keys() == before.keys()
    assert {k for k in after if after[k] != before[k]} == {f"toy.{name}" for name in changed}


def test_a_definition_in_parts_counts_with_all_of_them(package):
    code = "from toy.a import plain\nplain(1)"
    before = CodeTracer(package).trace(code)
    with (package / "a.py").open("a") as file:
        file.write("\nif LIMIT:\n    plain = None\n")
    after = CodeTracer(package).trace(code)
    assert after["toy.a.plain"] != before["toy.a.plain"]


def test_definition_under_a_condition_is_found(package):
    (package / "e.py").write_text("if True:\n    def f(): return 1\nelse:\n    f = None\n")
    before = CodeTracer(package).trace("from toy.e import f\nf()")
    assert before.keys() == {"cells", "toy.e.f"}
    (package / "e.py").write_text("if True:\n    def f(): return 2\nelse:\n    f = None\n")
    assert CodeTracer(package).trace("from toy.e import f\nf()") != before


def test_function_only_defined_under_a_condition_is_found(package):
    (package / "e.py").write_text("try:\n    def f(): return 1\nfinally:\n    pass\n")
    assert "toy.e.f" in traced(package, "from toy.e import f\nf()")


def test_table_that_is_filled_by_statements_counts_with_them(package):
    (package / "e.py").write_text("T = {}\nT['a'] = 1\nT.update(b=2)\n")
    before = CodeTracer(package).trace("from toy.e import T\nT")
    (package / "e.py").write_text("T = {}\nT['a'] = 9\nT.update(b=2)\n")
    assert CodeTracer(package).trace("from toy.e import T\nT")["toy.e.T"] != before["toy.e.T"]


def test_attribute_of_a_local_name_is_no_dependency(package):
    (package / "e.py").write_text(
        "from . import c\ndef f(c): return c.helper()\ndef g():\n    c = f(1)\n    return c.unused\n"
    )
    assert traced(package, "from toy.e import g\ng()") == {"toy.e.g", "toy.e.f"}


def test_module_cycle_of_imports_ends(package):
    (package / "e.py").write_text("from .f import x\n")
    (package / "f.py").write_text("from .e import x\n")
    assert traced(package, "from toy.e import x\nx()") == set()


def test_own_statements_count_under_cells(package):
    one = CodeTracer(package).trace("x = 1\nprint(x)")
    assert one.keys() == {"cells"}
    assert CodeTracer(package).trace("x = 1  # c\nprint( x )") == one
    assert CodeTracer(package).trace("x = 2\nprint(x)") != one


def test_imports_and_their_order_do_not_change_the_cells(package):
    one = CodeTracer(package).trace("import os\nfrom toy.a import plain\nplain(1)")
    two = CodeTracer(package).trace("from toy.a import nested, plain\nplain(1)")
    assert one == two


def test_tracer_keeps_no_trace_of_one_artefact_in_the_next(package):
    tracer = CodeTracer(package)
    tracer.trace(cells_using("Child"))
    assert set(tracer.trace(cells_using("plain"))) == {"cells", "toy.a.plain"}


def test_names_that_a_function_binds_are_not_outside_names():
    code = "def f(a, *b, c=D, **e):\n    for g in a:\n        h = g\n    return h + i"
    used = {name for name, *_ in names_used(ast.parse(code).body[0])}
    assert used == {"D", "i"}


# --- notebooks --------------------------------------------------------------------------------------


@pytest.fixture
def notebook(tmp_path):
    def cell(source, *tags, kind="code"):
        return {"cell_type": kind, "metadata": {"tags": list(tags)}, "source": source}

    cells = [
        cell("# Title", kind="markdown"),
        cell(
            "seed: int = 0\nname = 'a'\nempty = None\nnegative = -1.5\nlist_ = [1, (2,)]",
            "parameters",
        ),
        cell(["%matplotlib inline\n", "import os\n", "!ls\n", "both = 1"]),
        cell("only_a = 1", "artefact:fig_a"),
        cell("only_b = 1", "artefact:fig_b", "other"),
        cell("a_and_b = 1", "artefact:fig_a", "artefact:fig_b"),
        cell("not code", "artefact:fig_a", kind="raw"),
        {"cell_type": "code", "metadata": {}, "source": "end = 1"},
    ]
    return write_json(tmp_path / "n.ipynb", {"cells": cells})


@pytest.mark.parametrize(
    ("artefact", "expected"),
    [
        ("fig_a", "import os\nboth = 1\nonly_a = 1\na_and_b = 1\nend = 1"),
        ("fig_b", "import os\nboth = 1\nonly_b = 1\na_and_b = 1\nend = 1"),
        ("fig", "import os\nboth = 1\nend = 1"),
    ],
)
def test_cells_of_an_artefact(notebook, artefact, expected):
    assert artefact_code(notebook, artefact) == expected


def test_parameters_of_a_notebook(notebook):
    assert notebook_parameters(notebook) == {
        "seed": 0,
        "name": "a",
        "empty": None,
        "negative": -1.5,
        "list_": [1, (2,)],
    }


def test_notebook_without_parameters(tmp_path):
    path = write_json(tmp_path / "n.ipynb", {"cells": []})
    assert notebook_parameters(path) == {}
    assert artefact_code(path, "fig") == ""
