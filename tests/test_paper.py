"""Pictures that say where they come from, tables, the comparison with print, and where results lie."""

import json
import math
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from facecomp.paper.compare import (
    COLUMNS,
    Expectation,
    compare,
    difference,
    plain,
    read_comparison,
    read_expectations,
    readable,
    summary,
    verdict,
    write_comparison,
)
from facecomp.paper.figures import (
    SETTINGS,
    Provenance,
    choose_colors,
    color_map,
    figure_style,
    read_provenance,
    save_figure,
    set_range,
)
from facecomp.paper.sources import (
    STAND_IN_SEED,
    Results,
    Study,
    load_object,
    load_study,
    open_results,
    results_folder,
)
from facecomp.paper.tables import FORMATS, format_table, save_table
from facecomp.records.fetch import Manifest, RemoteFile
from facecomp.records.files import InputError, sha256_bytes, sha256_file, write_json
from facecomp.records.pickles import write_pickle
from facecomp.records.receipts import Receipt, read_receipt, receipt_path, write_receipt
from facecomp.records.status import Artefact

NAN, INF = math.nan, math.inf

# --- figures ------------------------------------------------------------------------------------


def provenance(**changes):
    values = {
        "id": "fig1",
        "study": "toy",
        "notebook": "paper_figure1",
        "commit": "0123456789abcdef",
        "data": "real",
        "inputs": "f" * 64,
        "source": "published",
        "details": {"seed": 1, "ü": [1.5, None]},
    }
    return Provenance(**{**values, **changes})


def draw():
    with figure_style():
        figure, axes = plt.subplots(figsize=(4, 3))
        axes.plot([0, 1, 2], [1, 3, 2], label="α & <b>")
        axes.legend()
        axes.set_title("Toy")
    return figure


def saved(folder, **changes):
    figure = draw()
    try:
        return save_figure(figure, folder / "fig1", provenance(**changes), title="A title")
    finally:
        plt.close(figure)


def svg_texts(path):
    found = [e for e in ElementTree.parse(path).iter() if e.tag.endswith("}text")]
    return ["".join(e.itertext()).strip() for e in found]


@pytest.mark.parametrize("data", ["real", "synthetic"])
@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_provenance_comes_back(tmp_path, ending, data):
    paths = {p.suffix: p for p in saved(tmp_path, data=data)}
    assert paths[ending] == tmp_path / f"fig1{ending}"
    assert read_provenance(paths[ending]) == provenance(data=data)
    assert read_provenance(str(paths[ending])).details == {"seed": 1, "ü": [1.5, None]}


@pytest.mark.parametrize(
    "text", ['"quoted" & <tagged>', "ümläut · 漢字", "back\\slash", "a\nb", ""]
)
@pytest.mark.parametrize("number", [0, 1])
def test_provenance_with_odd_characters_comes_back(tmp_path, text, number):
    assert read_provenance(saved(tmp_path, details={"t": text})[number]).details == {"t": text}


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_equal_figures_give_equal_files(tmp_path, ending):
    first = {p.suffix: p.read_bytes() for p in saved(tmp_path)}
    again = {p.suffix: p.read_bytes() for p in saved(tmp_path)}
    other = {p.suffix: p.read_bytes() for p in saved(tmp_path, commit="9" * 40)}
    assert first[ending] == again[ending]
    assert first[ending] != other[ending]


def test_figure_leaves_only_its_files(tmp_path):
    assert saved(tmp_path) == [tmp_path / "fig1.png", tmp_path / "fig1.svg"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fig1.png", "fig1.svg"]


@pytest.mark.parametrize(
    ("data", "source", "marked"),
    [
        ("real", "published", False),
        ("real", "runs", False),
        ("synthetic", "synthetic", True),
        ("synthetic", "runs", True),
    ],
)
def test_mark_is_on_synthetic_pictures_and_no_others(tmp_path, data, source, marked):
    svg = saved(tmp_path, data=data, source=source)[1]
    assert ("synthetic" in svg_texts(svg)) is marked


def test_mark_changes_the_pixels(tmp_path):
    real = np.asarray(Image.open(saved(tmp_path / "a")[0]).convert("RGB"), dtype=int)
    mark = np.asarray(
        Image.open(saved(tmp_path / "b", data="synthetic", source="")[0]).convert("RGB"), dtype=int
    )
    rows, columns = (min(a, b) for a, b in zip(real.shape[:2], mark.shape[:2], strict=True))
    changed = np.abs(real[: rows // 2, :columns] - mark[: rows // 2, :columns]).max(axis=2) > 8
    assert changed.mean() > 0.01


def test_caption_is_drawn_and_title_is_in_the_file(tmp_path):
    png, svg = saved(tmp_path)
    drawn = " ".join(svg_texts(svg))
    for part in ("fig1", "toy", "paper_figure1", "commit 0123456789", "data: real, published"):
        assert part in drawn
    assert "0123456789a" not in drawn
    with Image.open(png) as image:
        assert image.text["Title"] == "A title"
        assert image.text["Description"] == provenance().caption


@pytest.mark.parametrize(
    ("data", "source", "said"),
    [
        ("real", "published", "data: real, published"),
        ("synthetic", "synthetic", "data: synthetic · "),
        ("synthetic", "runs", "data: synthetic, runs"),
        ("real", "", "data: real · "),
    ],
)
def test_caption_says_data_and_source(data, source, said):
    caption = provenance(data=data, source=source).caption
    assert said in caption
    assert caption.endswith(" · inputs " + "f" * 12)
    assert caption.startswith("fig1 · toy · paper_figure1 · commit 0123456789 · ")


def test_note_is_drawn_above_the_caption(tmp_path):
    figure = draw()
    (svg,) = save_figure(figure, tmp_path / "n", provenance(), note="clipped", endings=[".svg"])
    plt.close(figure)
    texts = svg_texts(svg)
    assert texts.index("Note: clipped") < next(
        i for i, text in enumerate(texts) if text.startswith("fig1 · toy")
    )


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
def test_caption_lies_inside_the_picture(tmp_path, layout):
    figure, axes = plt.subplots(figsize=(4, 3), layout=layout)
    axes.set_xlabel("a long\nlabel\nbelow")
    png = save_figure(figure, tmp_path / "l", provenance(), endings=[".png"])[0]
    plt.close(figure)
    pixels = np.asarray(Image.open(png).convert("L"))
    assert pixels[-25:].min() < 200  # the caption's last line
    assert pixels[-3:].min() == 255  # and a margin below it
    assert min(pixels[:, :3].min(), pixels[:, -3:].min()) == 255


@pytest.mark.parametrize("name", ["bare.png", "bare.svg", "text.png", "text.svg", "absent.png"])
def test_picture_without_provenance_is_an_input_error(tmp_path, name):
    path = tmp_path / name
    if name.startswith("bare"):
        figure = draw()
        figure.savefig(path)
        plt.close(figure)
    elif name.startswith("text"):
        path.write_text("not a picture")
    with pytest.raises(InputError, match=f"^{path}: carries no provenance of facecomp"):
        read_provenance(path)


@pytest.mark.parametrize("facts", ["{}", "[]", "null", '{"id": "a", "other": 1}', "no json"])
def test_picture_with_other_facts_is_an_input_error(tmp_path, facts):
    figure = draw()
    figure.savefig(tmp_path / "a.png", metadata={"facecomp": facts})
    figure.savefig(tmp_path / "a.svg", metadata={"Description": facts})
    plt.close(figure)
    for path in (tmp_path / "a.png", tmp_path / "a.svg"):
        with pytest.raises(InputError, match="carries no provenance of facecomp"):
            read_provenance(path)


def test_truncated_picture_is_an_input_error(tmp_path):
    for path in saved(tmp_path):
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(InputError, match="carries no provenance of facecomp"):
            read_provenance(path)


def test_failure_while_saving_keeps_the_old_picture(tmp_path, monkeypatch):
    paths = saved(tmp_path)
    before = [path.read_bytes() for path in paths]
    monkeypatch.setattr(plt.Figure, "savefig", lambda self, part, **_: part.write_text("half") / 0)
    with pytest.raises(ZeroDivisionError):
        saved(tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert len(list(tmp_path.iterdir())) == 2


def test_style_is_only_inside_its_context():
    plain_size, plain_fonttype = plt.rcParams["axes.titlesize"], plt.rcParams["svg.fonttype"]
    with figure_style("white"):
        inside = {name: plt.rcParams[name] for name in SETTINGS if name != "font.family"}
        assert inside == {name: SETTINGS[name] for name in inside}
    assert plt.rcParams["axes.titlesize"] == plain_size
    assert plt.rcParams["svg.fonttype"] == plain_fonttype


@pytest.mark.parametrize(
    ("bars", "interval", "expected"),
    [
        ([0.7, 0.8], (0.65, 0.85), (0.6, 0.9)),
        ([0.6, 0.9], (0.596, 0.9), (0.6, 0.9)),  # an interval may stick out a little
        ([0.7], (0.59, 0.8), (0, 1)),
        ([0.59], (0.6, 0.6), (0, 1)),
        ([0.95], (0.9, 0.9), (0, 1)),
        ([NAN], (NAN, NAN), (0.6, 0.9)),
        ([], (NAN, NAN), (0.6, 0.9)),
    ],
)
def test_published_range_gives_way_to_values_outside(bars, interval, expected):
    axes = Figure().subplots()
    axes.bar(range(len(bars)), bars)
    axes.plot([0, 0], interval)
    set_range(axes, (0.6, 0.9))
    assert axes.get_ylim() == expected


PUBLISHED_COLORS = {"PSM": "blue", "GM": "#ff0000", "third": "0.5"}


def test_published_palette_is_as_given():
    chosen = choose_colors(PUBLISHED_COLORS)
    assert chosen == PUBLISHED_COLORS
    assert chosen is not PUBLISHED_COLORS


def test_safe_palette_has_the_same_names_and_other_distinct_colors():
    chosen = choose_colors(PUBLISHED_COLORS, "colorblind")
    assert list(chosen) == list(PUBLISHED_COLORS)
    assert chosen == {"PSM": "#0173b2", "GM": "#de8f05", "third": "#029e73"}


@pytest.mark.parametrize("palette", ["", "Published", "rainbow", None])
def test_unknown_palette_is_refused(palette):
    message = f"^palette={palette!r}: must be 'published' or 'colorblind'$"
    with pytest.raises(InputError, match=message):
        choose_colors(PUBLISHED_COLORS, palette)


@pytest.mark.parametrize("palette", ["", "Published", "rainbow"])
def test_unknown_palette_of_a_heat_map_is_refused(palette):
    with pytest.raises(InputError, match=f"palette={palette!r}"):
        color_map(palette)


def test_color_maps_differ_and_run_from_dark_to_light():
    ends = {p: [sum(color_map(p)(x)[:3]) for x in (0.0, 1.0)] for p in ("published", "colorblind")}
    assert all(low < high for low, high in ends.values())
    assert to_hex(color_map("published")(0.5)) != to_hex(color_map("colorblind")(0.5))


# --- tables ---------------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {"name": ["a & b", "c_d", "<e>"], "value": [1 / 3, np.nan, 1e-10], "n": [1, 20, 300]},
    index=["x", "y", "z"],
)


def test_table_is_written_in_four_formats(tmp_path):
    paths = save_table(TABLE, tmp_path / "t")
    assert [p.suffix for p in paths] == [".csv", ".txt", ".tex", ".html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.html", "t.tex", "t.txt"]
    assert list(FORMATS) == [".txt", ".tex", ".html"]


def test_csv_keeps_every_digit(tmp_path):
    again = pd.read_csv(save_table(TABLE, tmp_path / "t")[0], index_col=0)
    pd.testing.assert_frame_equal(again, TABLE, check_exact=True)


def test_text_is_framed_and_rounded(tmp_path):
    text = save_table(TABLE, tmp_path / "t", digits=3)[1].read_text()
    lines = text.splitlines()
    assert lines[0].startswith("+-") and lines[-1].startswith("+-")
    assert "0.333 " in text and "0.3333" not in text
    assert "nan" not in text.lower()
    assert [line.split("|")[1].strip() for line in lines[3:-1]] == ["x", "y", "z"]


def test_latex_and_html_escape_what_is_special(tmp_path):
    latex, html = (p.read_text() for p in save_table(TABLE, tmp_path / "t")[2:])
    assert r"a \& b" in latex and r"c\_d" in latex
    assert r"\toprule" in latex and r"\bottomrule" in latex
    assert "a &amp; b" in html and "&lt;e&gt;" in html and "<e>" not in html


def test_table_without_its_index(tmp_path):
    assert save_table(TABLE, tmp_path / "t", index=False)[0].read_text().startswith("name,value,n")
    assert " x " not in format_table(TABLE, index=False)


def test_integers_stay_integers():
    row = format_table(TABLE[["n"]], "plain").splitlines()[-1].split()
    assert row == ["z", "300"]


def test_text_that_looks_like_a_number_stays_text():
    table = pd.DataFrame({"SN": ["001", "020"], "AU": ["1e3", "12"]})
    rows = [line.split() for line in format_table(table, "plain", index=False).splitlines()[1:]]
    assert rows == [["001", "1e3"], ["020", "12"]]


@pytest.mark.parametrize("empty", [pd.DataFrame(), TABLE.iloc[:0], TABLE[[]]])
def test_empty_table_is_refused(tmp_path, empty):
    with pytest.raises(InputError, match=f"^{tmp_path}/t: the table is empty$"):
        save_table(empty, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


# --- comparison -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "ours", "expected"),
    [
        (1, 1, 0.0),
        (1, 1.5, 0.5),
        (-1.5, 1, 2.5),
        (1, 1.0, 0.0),
        (NAN, 1.0, INF),
        (1.0, NAN, INF),
        (NAN, NAN, INF),
        (INF, INF, INF),
        (INF, 1, INF),
        (1, True, INF),
        (True, 1, INF),
        (True, True, 0.0),
        (True, False, INF),
        (0, False, INF),
        (None, None, 0.0),
        (None, 0, INF),
        (0, None, INF),
        ("a", "a", 0.0),
        ("a", "b", INF),
        ("1", 1, INF),
        ([], [], 0.0),
        ([1, 2], [1, 2.25], 0.25),
        ([1, 2], [2, 1], 1.0),
        ([1, 2], [1], INF),
        ([1], [1, 2], INF),
        ([1], 1, INF),
        ([], {}, INF),
        ({}, {}, 0.0),
        ({"a": 1}, {"a": 1.125}, 0.125),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 0.0),
        ({"a": 1}, {"b": 1}, INF),
        ({"a": 1}, {"a": 1, "b": 1}, INF),
        ({"a": [1, {"b": [2, "x"]}]}, {"a": [1, {"b": [2.5, "x"]}]}, 0.5),
        ({"a": [1, {"b": [2, "x"]}]}, {"a": [1, {"b": [2, "y"]}]}, INF),
        ([1, NAN], [1, 2.0], INF),
        ([1, True], [1, 1], INF),
    ],
)
def test_difference(published, ours, expected):
    assert difference(published, ours) == expected


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", [NAN, "x", None, True])
def test_one_bad_number_anywhere_makes_a_list_differ(place, bad):
    ours = [1.0, 2.0, 3.0]
    ours[place] = bad
    assert difference([1.0, 2.0, 3.0], ours) == INF


@pytest.mark.parametrize(
    ("gap", "tolerance", "word"),
    [
        (0.0, 0.0, "equal"),
        (0.0, 1.0, "equal"),
        (1e-9, 0.0, "DIFFERS"),
        (0.5, 0.5, "within"),
        (0.51, 0.5, "DIFFERS"),
        (INF, 1e300, "DIFFERS"),
        (NAN, 1.0, "DIFFERS"),
    ],
)
def test_verdict(gap, tolerance, word):
    assert verdict(gap, tolerance) == word


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5),
        (np.int8(3), 3),
        (np.bool_(True), True),
        ({1: np.int64(2)}, {"1": 2}),
        ((1, 2), [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (np.array([[1.5, 2], [3, 4]]), [[1.5, 2.0], [3.0, 4.0]]),
        (np.array([]), []),
        ([], []),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([1, 2.5, "x", None, True], [1, 2.5, "x", None, True]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Index(["a", "b"]), ["a", "b"]),
        ([{"a": np.float32(0.5)}], [{"a": 0.5}]),
        (np.array(2.5), 2.5),
        (NAN, None),
        (np.float64("nan"), None),
        (np.array([1.5, NAN]), [1.5, None]),
        (None, None),
        ("text", "text"),
    ],
)
def test_plain_values_are_what_json_knows(value, expected):
    result = plain(value)
    assert result == expected
    assert type(result) is type(expected)
    assert json.loads(json.dumps(result)) == result


def expectation(key, value, tolerance=0.0, figure="fig1"):
    return Expectation(figure, key, value, tolerance, "printed")


EXPECTED = [
    expectation("same", 1.5),
    expectation("near", 1.0, 0.01),
    expectation("far", 1.0, 0.01),
    expectation("absent", 1.0, 100.0, "fig2"),
    expectation("nested", {"a": [1, 2]}, 0.1, "fig2"),
    expectation("not a number", 1.0, 100.0, "fig2"),
]
OURS = {
    "same": 1.5,
    "near": 1.005,
    "far": 1.02,
    "nested": {"a": [1, 2.05]},
    "not a number": NAN,
    "unasked": 3,
}


def test_verdicts_of_a_comparison():
    table = compare(EXPECTED, OURS)
    assert list(table.columns) == COLUMNS
    words = ["equal", "within", "DIFFERS", "MISSING", "within", "DIFFERS"]
    assert list(table["verdict"]) == words
    assert list(table["key"]) == [e.key for e in EXPECTED]
    assert table.loc[3, "ours"] is None
    assert list(table["difference"][[0, 3, 5]]) == [0.0, INF, INF]
    assert table["difference"][4] == pytest.approx(0.05)


def test_quoted_numbers_are_as_printed():
    table = compare(EXPECTED, OURS, as_printed=["same", "far", "absent"])
    assert list(table["verdict"][:4]) == ["as printed", "within", "DIFFERS", "MISSING"]


def test_synthetic_numbers_are_never_judged():
    table = compare(EXPECTED, OURS, as_printed=["same"], synthetic=True)
    assert list(table["verdict"]) == [*["synthetic"] * 3, "MISSING", *["synthetic"] * 2]


@pytest.mark.parametrize(("synthetic", "word"), [(False, "own run"), (True, "synthetic")])
def test_numbers_of_own_runs_are_never_judged(synthetic, word):
    table = compare(EXPECTED, OURS, as_printed=["same"], synthetic=synthetic, own_run=True)
    assert list(table["verdict"]) == [word] * 5
    assert list(table["key"]) == ["same", "near", "far", "nested", "not a number"]
    assert list(table["ours"][:3]) == [1.5, 1.005, 1.02]


def test_nothing_expected_gives_an_empty_table():
    table = compare([], OURS)
    assert (len(table), list(table.columns)) == (0, COLUMNS)


def test_comparison_comes_back_from_its_file(tmp_path):
    values = [*EXPECTED, expectation("text", "1"), expectation("truth", True)]
    table = compare(values, {**OURS, "text": "1", "truth": True})
    again = read_comparison(write_comparison(tmp_path / "c.csv", table))
    assert list(again["verdict"]) == list(table["verdict"])
    assert list(again["published"]) == list(table["published"])
    assert [repr(v) for v in again["ours"]] == [repr(v) for v in table["ours"]]
    assert list(again["difference"]) == list(table["difference"])


def test_summary_counts_the_verdicts_of_each_figure():
    counted = summary(compare(EXPECTED, OURS))
    assert list(counted.index) == ["fig1", "fig2"]
    assert counted["numbers"].tolist() == [3, 3]
    assert counted.loc["fig1", ["equal", "within", "DIFFERS", "MISSING"]].tolist() == [1, 1, 1, 0]
    assert counted.loc["fig2", ["equal", "within", "DIFFERS", "MISSING"]].tolist() == [0, 1, 1, 1]
    assert counted["largest difference"].tolist() == pytest.approx([0.02, 0.05])


def test_summary_keeps_the_order_of_the_figures():
    values = [expectation("a", 1, figure="fig9"), expectation("b", 1, figure="fig10")]
    assert list(summary(compare(values, {"a": 1, "b": 1})).index) == ["fig9", "fig10"]


def test_readable_comparison_is_short_and_leaves_the_table_alone():
    table = compare([expectation("k", list(range(100)))], {"k": 1 / 3})
    shown = readable(table)
    assert shown["ours"][0] == "0.333333"
    assert shown["published"][0] == "[0, 1, 2, 3, 4, 5, 6, 7, ..."
    assert len(shown["published"][0]) == 28
    assert table["published"][0] == list(range(100))


def test_expectations_are_read(tmp_path):
    entry = {"figure": "f", "key": "k", "value": [1], "abs_tol": 1, "source": "printed"}
    path = write_json(tmp_path / "e.json", {"entries": [entry]})
    assert read_expectations(path) == [Expectation("f", "k", [1], 1.0, "printed")]


@pytest.mark.parametrize(
    "content",
    [
        {"entries": [{"figure": "f", "key": "k", "value": 1, "source": "printed"}]},
        {"entries": [{"figure": "f", "key": "k", "value": 1, "source": "p", "abs_tol": "wide"}]},
        {"entries": [{"figure": "f", "key": "k", "value": 1, "source": "p", "abs_tol": None}]},
        {"entries": [1]},
        {"entries": None},
        {},
        [],
    ],
)
def test_bad_expectations_are_named(tmp_path, content):
    path = write_json(tmp_path / "e.json", content)
    with pytest.raises(InputError, match=f"^{path}: "):
        read_expectations(path)


# --- sources ------------------------------------------------------------------------------------------

TOY_MODULE = """
calls = []

def make(seed):
    calls.append(seed)
    return {"a": {"seed": seed}, "b": [1, 2]}
"""
PUBLISHED_VALUE = {"published": [1.5]}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of its own, so that nothing is written into this one."""
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = facecomp\n")
    (tmp_path / "toy_stand_ins.py").write_text(textwrap.dedent(TOY_MODULE))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_stand_ins", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACECOMP_OFFLINE", "1")
    for name in ("FACECOMP_CACHE", "FACECOMP_PUBLISHED", "FACECOMP_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop("toy_stand_ins", None)


@pytest.fixture
def toy(checkout):
    data = write_pickle(checkout / "scratch.pickle", PUBLISHED_VALUE).read_bytes()
    address = "http://127.0.0.1:9"
    files = tuple(
        RemoteFile(f"{n}.pickle", len(data), sha256_bytes(data), f"{address}/{n}.pickle")
        for n in ("a", "b")
    )
    artefacts = (
        Artefact("fig1", "toy", "paper_figure1", "One", ("a",)),
        Artefact("fig2", "toy", "paper_figure2", "Two", ("a",), optional=("b",)),
        Artefact("fig3", "toy", "paper_figure1", "Three", ("b",)),
    )
    manifest = Manifest("toy", "nobody", "none", files)
    return Study("toy", "Toy", manifest, artefacts, Path("none"), "toy_stand_ins:make")


def finished_run(folder, name="a", value=1, data="real"):
    path = write_pickle(folder / f"{name}.pickle", value)
    write_receipt(folder, Receipt(name, "toy", "run", data), [path])
    return path


def publish(checkout, toy, folder, *names):
    (checkout / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        write_pickle(checkout / folder / f"{name}.pickle", PUBLISHED_VALUE)


def stand_in_calls():
    return sys.modules["toy_stand_ins"].calls if "toy_stand_ins" in sys.modules else []


@pytest.mark.parametrize("source", ["", "Published", "run", "../synthetic"])
def test_unknown_source_is_refused(toy, source):
    message = f"^source={source!r}: must be one of published, runs, synthetic$"
    with pytest.raises(InputError, match=message):
        open_results(toy, source)


@pytest.mark.parametrize("source", ["published", "runs", "synthetic"])
def test_folder_that_does_not_exist_is_refused(toy, source):
    with pytest.raises(InputError, match="^results_dir=nowhere: no such folder$"):
        open_results(toy, source, "nowhere")
    assert stand_in_calls() == []


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("published", "results/published/toy"),
        ("runs", "results/toy"),
        ("synthetic", "results/synthetic/toy"),
    ],
)
def test_default_folders_are_in_the_checkout(checkout, source, place):
    assert results_folder("toy", source) == checkout / place


def test_named_folder_is_relative_to_the_checkout_or_absolute(checkout, monkeypatch):
    (checkout / "my" / "deep").mkdir(parents=True)
    monkeypatch.chdir(checkout / "my" / "deep")
    assert results_folder("toy", "runs", "my") == checkout / "my"
    assert results_folder("toy", "runs", str(checkout / "my")) == checkout / "my"


def test_finished_run_is_read(checkout, toy):
    path = finished_run(checkout / "results" / "toy", value={"x": 1})
    results = open_results(toy, "runs")
    assert (results.source, results.reason) == ("runs", "")
    assert results.load("a") == {"x": 1}
    assert results.path("a") == path
    assert results.digest("a") == sha256_file(path)
    assert (results.has("a"), results.has("b")) == (True, False)


@pytest.mark.parametrize("data", ["real", "synthetic"])
def test_data_of_a_run_is_what_its_receipt_says(checkout, toy, data):
    finished_run(checkout / "results" / "toy", data=data)
    assert open_results(toy, "runs").data("a") == data


def test_absent_result_is_named(toy):
    with pytest.raises(InputError, match=r"^a\.pickle: not among the runs results of toy$"):
        open_results(toy, "runs").load("a")


def test_run_without_a_receipt_is_refused(checkout, toy):
    path = write_pickle(checkout / "results" / "toy" / "a.pickle", 1)
    with pytest.raises(InputError) as caught:
        open_results(toy, "runs").load("a")
    assert str(caught.value) == (
        f"{path}: has no receipt a.receipt.json; only finished runs are drawn"
    )


def test_result_that_was_changed_after_its_run_is_refused(checkout, toy):
    path = finished_run(checkout / "results" / "toy")
    write_pickle(path, 2)
    with pytest.raises(InputError) as caught:
        open_results(toy, "runs").load("a")
    assert str(caught.value) == (
        f"{path}: a.pickle was changed after it was made (its receipt does not verify); "
        "run it again"
    )


def test_damaged_result_is_named_by_its_own_fault(checkout, toy):
    path = finished_run(checkout / "results" / "toy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"^{path}: is truncated"):
        open_results(toy, "runs").load("a")


def test_receipt_that_says_nothing_of_the_result_is_refused(checkout, toy):
    folder = checkout / "results" / "toy"
    other = write_pickle(folder / "other.pickle", 1)
    write_pickle(folder / "a.pickle", 1)
    write_receipt(folder, Receipt("a", "toy", "run", "real"), [other])
    with pytest.raises(InputError, match="a.pickle"):
        open_results(toy, "runs").load("a")


def test_broken_receipt_of_a_result_is_an_input_error(checkout, toy):
    folder = finished_run(checkout / "results" / "toy").parent
    receipt_path(folder, "a").write_text("{")
    with pytest.raises(InputError, match="a.receipt.json: is not JSON"):
        open_results(toy, "runs").load("a")


def test_own_runs_say_which_files_they_have_not_made(checkout, toy):
    folder = finished_run(checkout / "mine").parent
    results = open_results(toy, "runs", "mine")
    one, two, three = toy.artefacts
    assert (results.absent(one), results.absent(two)) == ("", "")  # b is optional for the second
    assert results.absent(three) == f"b.pickle is not in {folder}"
    both = Artefact("fig4", "toy", "paper_figure1", "Four", ("b", "a", "c"))
    assert results.absent(both) == f"b.pickle and c.pickle are not in {folder}"
    assert open_results(toy, "synthetic", "mine").absent(three) == ""
    (folder / "a.pickle").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        open_results(toy, "runs", "mine").absent(both)


def test_published_files_are_read_from_the_cache(checkout, toy):
    publish(checkout, toy, "results/published/toy", "a", "b")
    results = open_results(toy, needed=("a", "b"))
    assert (results.source, results.reason) == ("published", "")
    assert results.load("a") == PUBLISHED_VALUE
    assert results.data("a") == "real"
    assert results.has("c") is False
    assert stand_in_calls() == []


def test_published_files_of_ones_own_folder(checkout, toy):
    publish(checkout, toy, "mine", "a")
    results = open_results(toy, "published", "mine", needed=("a",))
    assert results.path("a") == checkout / "mine" / "a.pickle"
    assert results.load("a") == PUBLISHED_VALUE
    assert (results.has("b"), results.has("c")) == (False, False)
    with pytest.raises(InputError, match=r"^b\.pickle: not among the published results of toy$"):
        results.load("b")


@pytest.mark.parametrize("place", ["mine", "results/published/toy"])
@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda data: b"", r"is empty \(0 bytes\)"),
        (lambda data: data[:-1], "is truncated: "),
        (lambda data: data + b"x", "has SHA-256 "),
        (lambda data: b"<html>" + data, "is a web page"),
    ],
)
def test_damaged_published_file_is_refused_and_not_replaced(checkout, toy, place, damage, fault):
    publish(checkout, toy, place, "a", "b")
    path = checkout / place / "a.pickle"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"^{path}: {fault}"):
        open_results(toy, "published", place if place == "mine" else "", ("a", "b")).load("a")
    assert stand_in_calls() == []


@pytest.mark.parametrize("network", [True, False])
def test_stand_ins_take_over_and_say_why(checkout, toy, network):
    publish(checkout, toy, "results/published/toy", "a")
    results = open_results(toy, needed=("a", "b"), network=network)
    why = "FACECOMP_OFFLINE is set" if network else "no local copy"
    assert (results.source, results.reason) == ("synthetic", f"b.pickle: {why}")
    assert results.load("a") == {"seed": STAND_IN_SEED}
    assert results.load("b") == [1, 2]
    assert results.data("a") == "synthetic"
    assert results.path("a") == checkout / "results" / "synthetic" / "toy" / "a.pickle"


def test_no_network_at_all_is_a_reason(toy, monkeypatch):
    monkeypatch.delenv("FACECOMP_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    results = open_results(toy, needed=("a",))
    assert results.source == "synthetic"
    assert results.reason.startswith("a.pickle: no answer from http://127.0.0.1:9/a.pickle (")


def test_what_is_not_needed_is_not_missed(checkout, toy):
    publish(checkout, toy, "results/published/toy", "a")
    assert open_results(toy, needed=("a", "not in the manifest")).source == "published"


def test_stand_ins_are_made_once(toy):
    for _ in range(3):
        open_results(toy, "synthetic").load("a")
    assert stand_in_calls() == [STAND_IN_SEED]


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "a.pickle").unlink(),
        lambda folder: write_pickle(folder / "b.pickle", 9),
        lambda folder: (folder / "b.receipt.json").unlink(),
        lambda folder: (folder / "a.receipt.json").write_text("{"),
        lambda folder: write_json(
            folder / "a.receipt.json",
            json.loads((folder / "a.receipt.json").read_text()) | {"parameters": {"seed": 9}},
        ),
    ],
)
def test_stand_ins_that_do_not_verify_are_made_again(toy, harm):
    folder = open_results(toy, "synthetic").path("a").parent
    harm(folder)
    results = open_results(toy, "synthetic")
    assert (results.load("a"), results.load("b")) == ({"seed": STAND_IN_SEED}, [1, 2])
    assert stand_in_calls() == [STAND_IN_SEED, STAND_IN_SEED]
    assert read_receipt(folder / "a.receipt.json").parameters == {"seed": STAND_IN_SEED}


def test_receipts_of_stand_ins_say_that_they_are_synthetic(toy):
    receipt = read_receipt(open_results(toy, "synthetic").path("a").with_name("a.receipt.json"))
    assert (receipt.data, receipt.seed, receipt.study) == ("synthetic", STAND_IN_SEED, "toy")
    assert receipt.outputs.keys() == {"a.pickle"}
    assert "cells" in receipt.code


def test_named_folder_of_stand_ins_is_not_written(checkout, toy):
    finished_run(checkout / "mine", data="synthetic")
    results = open_results(toy, "synthetic", "mine")
    assert results.load("a") == 1
    assert stand_in_calls() == []


def test_study_knows_its_artefacts_and_notebooks(toy):
    assert {n: [a.name for a in made] for n, made in toy.notebooks().items()} == {
        "paper_figure1": ["fig1", "fig3"],
        "paper_figure2": ["fig2"],
    }


def test_unknown_study_is_an_input_error():
    with pytest.raises(InputError, match="^study='nothing': is not a study of facecomp$"):
        load_study("nothing")
    assert load_study("psm").name == "psm"


def test_object_by_its_name():
    assert load_object("json:dumps") is json.dumps


def test_results_know_only_what_they_locate(tmp_path):
    results = Results("toy", "published", {"a": tmp_path / "a.pickle"}.get)
    assert (results.has("a"), results.has("b")) == (True, False)
    assert results.data("a") == "real"
