"""The documentation site, on a small checkout: links, names, figures with their provenance, numbers from files."""

import json
import re
import shutil

import pandas as pd
import pytest
from conftest import ROOT, run_cells
from small_site import NOTEBOOKS, small_site

from facecomp.paper.figures import read_provenance
from facecomp.records.files import InputError
from facecomp.site.build import assemble, find_pages, main
from facecomp.site.links import check_site, read_page
from facecomp.site.reports import FLOORS, STUDIES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_site(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def site(made):
    return made[1]


def text(site, page):
    return (site / page).read_text(encoding="utf-8")


def test_every_link_and_anchor_of_the_site_leads_somewhere(made):
    root, site, check = made
    assert check.faults == ()
    assert check.pages > len(NOTEBOOKS) + 12 and check.links > 1000
    assert (root / "build/site/warnings.txt").read_text() == ""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('href="../start.html"', 'href="../begin.html"', "leads to no file of the site"),
        ("#write_receipt", "#write_nothing", "leads to no such anchor"),
        ('src="../_static/documentation_options.js', 'src="https://example.org/x.js', "is loaded from elsewhere"),
        ("</article>", '<img src="../_static/a.png"></article>', "has no text (alt)"),
        ("</article>", "a]{.column-margin}</article>", "is left over from Quarto"),
    ],
)
def test_a_fault_put_into_a_page_is_found(site, tmp_path, old, new, fault):
    shutil.copytree(site, tmp_path / "site")
    page = tmp_path / "site" / "records" / "receipts.html"
    assert old in page.read_text()
    page.write_text(page.read_text().replace(old, new))
    assert [f for f in check_site(tmp_path / "site").faults if fault in f and f.startswith("records/receipts.html")]


def test_a_name_has_its_anchor_its_source_and_links_to_other_names(site):
    page = text(site, "records/receipts.html")
    found = read_page(page)
    assert "facecomp.records.receipts.write_receipt" in found.anchors
    assert "../_modules/facecomp/records/receipts.html#write_receipt" in found.links
    assert "files.html#facecomp.records.files.InputError" in found.links  # from a docstring
    assert "#facecomp.records.receipts.Receipt" in found.links  # from a signature
    source = text(site, "_modules/facecomp/records/receipts.html")
    assert "write_receipt" in read_page(source).anchors and "../../../records/receipts.html" in source
    assert "facecomp.records.receipts" in text(site, "searchindex.js") and "write_receipt" in text(
        site, "searchindex.js"
    )


def test_exported_code_is_on_the_page_folded_and_imports_are_not(site):
    page = text(site, "records/receipts.html")
    folded = re.findall(r'<details class="admonition hide above-input">.*?</details>', page, re.S)
    plain = [re.sub(r"<[^>]+>", "", block) for block in folded]
    assert any("def write_receipt(" in block for block in plain)
    assert not any("import subprocess" in block for block in plain)
    assert "show_doc" not in page and "default_exp" not in page


def test_formulas_are_set_by_a_script_of_the_site(site):
    page = text(site, "psm/losses.html")
    assert 'class="math' in page and (site / "_static/mathjax/tex-chtml.js").is_file()
    assert "../_static/mathjax/tex-chtml.js" in " ".join(read_page(page).loads)


def test_a_figure_shows_its_provenance_and_the_numbers_of_its_comparison(made):
    root, site, _ = made
    page = text(site, "psm/paper_figure4.html")
    for name in ("fig4a", "fig4b", "fig4c"):
        assert read_provenance(root / f"figures/psm/{name}.png").caption in page
        assert f"psm-{name}" in read_page(page).anchors
    table = pd.read_csv(root / "figures/psm/fig4a.compare.csv")
    assert all(key in page for key in table["key"])
    assert read_page(page).without_text == set()


def test_pictures_of_people_stay_off_the_site(made):
    root, site, _ = made
    assert (root / "figures/psm/fig5c.png").is_file()
    assert [p for p in site.rglob("fig5*.png") if "fig5c" in p.name] == []
    assert [p.name for p in site.rglob("fig5b.png")] == ["fig5b.png"]
    assert "people: drawn on your machine" in text(site, "psm/paper_figure5.html")


def test_numbers_of_the_overview_are_those_of_the_files(made):
    root, site, _ = made
    verdicts = pd.concat([pd.read_csv(p)["verdict"] for p in (root / "figures/psm").glob("*.compare.csv")])
    row = re.search(r"<tr[^>]*><td><p><a[^>]*>.*?PSM.*?</tr>", text(site, "published_ours.html"), re.S)[0]
    cells = [re.sub(r"<[^>]+>", "", c).strip() for c in re.findall(r"<td>(.*?)</td>", row, re.S)]
    agree = verdicts.isin(("equal", "within")).sum()
    assert cells[2:7] == [str(n) for n in (len(verdicts), agree, len(verdicts) - agree, 0, 0)]
    claims = pd.read_csv(root / "results/psm/claims.csv")["verdict"].value_counts()
    assert cells[7] == ", ".join(f"{n} {word}" for word, n in claims.items())


def test_stored_pictures_say_what_they_show(site):
    page = text(site, "faces/head.html")
    shown = re.findall(r'<img alt="([^"]+)" src="\.\./_images/', page)
    assert shown and all(len(words) > 10 for words in shown)


def test_sources_are_written_again_only_if_they_change(made, tmp_path):
    root, _, _ = made
    assemble(root, root / "_proc", tmp_path / "source", 1)
    pages = {p: p.stat().st_mtime_ns for p in (tmp_path / "source").rglob("*.*")}
    gone = tmp_path / "source" / "psm" / "no_longer.md"
    gone.write_text("old")
    assemble(root, root / "_proc", tmp_path / "source", 1)
    assert pages == {p: p.stat().st_mtime_ns for p in (tmp_path / "source").rglob("*.*")} and not gone.exists()


def test_two_notebooks_for_one_page_are_an_error_in_one_line(tmp_path):
    for name in ("00_files.ipynb", "07_files.ipynb"):
        (tmp_path / "nbs" / "records").mkdir(parents=True, exist_ok=True)
        (tmp_path / "nbs" / "records" / name).write_text("{}")
    with pytest.raises(InputError, match=r"two notebooks for the page records/files\.ipynb"):
        find_pages(tmp_path)


def test_the_program_says_what_is_wrong_in_one_line(monkeypatch, capsys, tmp_path):
    def fail(*_):
        raise InputError("nbdev: no such notebook")

    monkeypatch.setattr("facecomp.site.build.process", fail)
    assert main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "nbdev: no such notebook\n"


def test_every_notebook_of_the_checkout_gets_one_page():
    pages = {n: p for n, p in find_pages(ROOT).items() if n.endswith(".ipynb") and n != "nbs/index.ipynb"}
    assert len(set(pages.values())) == len(pages) > 200


def test_every_folder_of_notebooks_has_its_contents_on_a_page():
    folders = {n.rpartition("/")[0].removeprefix("nbs").lstrip("/") for n in find_pages(ROOT) if n.endswith(".ipynb")}
    assert folders <= {*STUDIES, *FLOORS}
    written = "".join(p.read_text() for p in (ROOT / "docs").rglob("*.md"))
    assert [f for f in folders if f"made/{f.replace('/', '_') or 'top'}_library.md" not in written] == []


def test_picks_are_plain_parameters_outside_jupyterlab(tmp_path):
    names = run_cells("paper_figure6", source="runs", out_dir=str(tmp_path), epoch="epoch_4")
    assert "epoch_4" in names["means"].index and (tmp_path / "psm" / "fig6.png").is_file()
    drawn = json.loads((tmp_path / "psm" / "fig6.numbers.json").read_text())
    run_cells("paper_figure6", source="runs", out_dir=str(tmp_path / "other"))
    assert drawn == json.loads((tmp_path / "other" / "psm" / "fig6.numbers.json").read_text())
    with pytest.raises(InputError, match="must be one of the 5 there are"):
        run_cells("paper_figure6", source="runs", out_dir=str(tmp_path), epoch="epoch_3")
