"""The published numbers, from the published files, through the paper notebooks (skipped where they are absent)."""

import json
import math

import numpy as np
import pytest
from conftest import ROOT, published_folder, run_cells
from scipy.stats import pearsonr

from facecomp.paper.compare import difference, read_expectations
from facecomp.psm.action_units import AU8, AU12, METHODS, PERSONS
from facecomp.psm.clusters import match_matrix, novel_clusters
from facecomp.psm.study import STUDY
from facecomp.records.pickles import read_pickle

FOLDER = published_folder()
EXPECTED = read_expectations(STUDY.expected)
pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="the published PSM result files are not here"
)


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Folder into which every paper notebook has published, from the published files."""
    out = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACECOMP_PUBLISHED", str(FOLDER))
        patch.setenv("FACECOMP_OFFLINE", "1")
        patch.chdir(ROOT)
        for notebook in STUDY.notebooks():
            run_cells(notebook, source="published", out_dir=str(out))
    return out / "psm"


@pytest.fixture(scope="module")
def numbers(figures):
    """Artefact -> its numbers."""
    return {
        a.name: json.loads((figures / f"{a.name}.numbers.json").read_text())
        for a in STUDY.artefacts
    }


def pickle(name):
    return read_pickle(FOLDER / f"{name}.pickle")


def test_the_list_of_expected_numbers_is_whole():
    assert len(EXPECTED) == 276
    assert {e.figure for e in EXPECTED} == {a.name for a in STUDY.artefacts} - {"supp_disfa"}


@pytest.mark.parametrize("e", EXPECTED, ids=lambda e: f"{e.figure}-{e.key}")
def test_published_number(numbers, e):
    ours = numbers[e.figure][e.key]
    assert difference(e.value, ours) <= e.abs_tol, f"published {e.value}, ours {ours}"


def test_keys_follow_the_rule_for_all_series(numbers):
    epochs = ["epoch_1", *(f"epoch_{k}" for k in range(10, 201, 10))]
    approaches = [f"Approach {k}" for k in range(1, 5)]
    others = [p for p in PERSONS if p not in ("SN004", "SN018")]
    rows5c = ["Original_input", *(f"Approach{k}" for k in range(1, 5))]
    random = ["Original_input", "GM_ExpCode_500.tar", "PSM_ExpCode_500.tar"]
    measures = ("frame_spread", "asymmetry", "mean")
    rule = {
        "fig2a": [f"{k}/{m}" for m in METHODS for k in ("mean", "ci95_halfwidth")]
        + [f"fold_mean/{m}/fold{k}" for m in METHODS for k in (1, 2, 3)],
        "fig2b": [f"mean/{m}/{au}" for m in METHODS for au in AU8],
        "fig3a": [f"{k}/{m}" for m in ("PSM", "GM") for k in ("mean", "ci95_halfwidth")]
        + [f"person_mean/{m}/{p}" for m in ("PSM", "GM") for p in PERSONS],
        "fig3b": [f"mean/{m}/{au}" for m in ("PSM", "GM") for au in AU12] + ["rows_per_model"],
        "fig4a": [f"mean_difference/{p}" for p in PERSONS] + ["mean_over_persons", "n_settings"],
        "fig4b": [f"n_novel/{p}" for p in PERSONS] + ["totals"],
        "fig4c": [
            f"{p}/{k}"
            for p in ("SN004", "SN018")
            for k in ("novel", "metric", "GM/counts", "PSM/counts", "GM/profile", "PSM/profile")
        ],
        "fig5a": [f"mean/{a}" for a in approaches],
        "fig5b": [f"mean/{a}/{au}" for a in approaches for au in AU12],
        "fig5c": [f"{k}/{row}" for row in rows5c for k in measures],
        "fig6": [f"mean/{m}/{e}" for m in ("PSM", "PSM_wCTL") for e in epochs]
        + ["epochs_drawn", "wctl_above_psm_all_epochs"],
        "table_aus": [f"persons_with/{au}" for au in AU12] + ["person_au_pairs"],
        "supp_clusters": [
            f"{p}/{k}" for p in others for k in ("novel", "metric_mean", "n_clusters")
        ],
        "supp_embedding": [
            "n_rows",
            "label_counts",
            *(f"au_share/{au}" for au in AU12),
            *(f"{k}/{d}" for k in ("range", "rms") for d in ("Dim1", "Dim2")),
            *(f"region{k}/au_share" for k in range(1, 5)),
        ],
        "supp_faces_random": [f"{k}/{row}" for row in random for k in measures],
    }
    for figure, keys in rule.items():
        assert sorted(numbers[figure]) == sorted(keys), figure


def test_printed_means_to_the_last_digit(numbers):
    assert math.isclose(numbers["fig2a"]["mean/FaceCycle"], 0.37065817822175734, rel_tol=1e-14)
    assert math.isclose(numbers["fig3a"]["mean/GM"], 0.8048040344201737, rel_tol=1e-14)
    assert math.isclose(numbers["fig5a"]["mean/Approach 1"], 0.8305726444527876, rel_tol=1e-14)
    assert numbers["table_aus"]["person_au_pairs"] == 182


def test_series_that_are_not_listed_against_plain_loops(numbers):
    fig2, fig3 = pickle("Bootstraps_results_Figure2"), pickle("Bootstraps_results_Figure3")
    values = fig2["avg_F1_Bootstrap_temporal-consistency"]
    assert abs(numbers["fig2a"]["mean/temporal-consistency"] - sum(values) / 300) < 1e-12
    assert (
        abs(numbers["fig2a"]["fold_mean/temporal-consistency/fold2"] - sum(values[100:200]) / 100)
        < 1e-12
    )
    rows = [row[3] for row in fig2["F1_Bootstrap_FAb-Net"]]  # au6
    assert abs(numbers["fig2b"]["mean/FAb-Net/au6"] - sum(rows) / 300) < 1e-12
    for person in PERSONS:
        vectors = fig3["F1_Bootstrap_GM"][person]
        mean = sum(sum(v) / len(v) for v in vectors) / 100
        assert abs(numbers["fig3a"][f"person_mean/GM/{person}"] - mean) < 1e-12
    for au in AU12:
        assert abs(numbers["fig3b"][f"mean/GM/{au}"] - np.mean(fig3["GM_by_AUs"][au])) < 1e-12


def test_derived_parts_of_figure_3_agree_with_the_file():
    from facecomp.psm.action_units import by_action_unit, person_averages, person_scores

    fig3, aus = pickle("Bootstraps_results_Figure3"), pickle("AUs_to_use_per_Person")
    for model in ("PSM", "GM"):
        scores = fig3[f"F1_Bootstrap_{model}"]
        averages = person_averages(scores)
        assert all(
            np.array_equal(averages[p], fig3[f"avg_F1_Bootstrap_{model}"][p]) for p in PERSONS
        )
        regrouped = by_action_unit(person_scores(scores, aus))
        assert all(np.array_equal(regrouped[au], fig3[f"{model}_by_AUs"][au]) for au in AU12)


def naive_match(psm, gm):
    """The match matrix with loops and scipy's correlation."""

    def table(frames):
        rows = {}
        for c in sorted(frames["label"].unique()):
            part = frames[frames["label"] == c]
            row = [part[f"{au}_bis"].sum() / len(part) for au in AU12]
            if any(row):
                rows[c] = row
        return rows

    p_rows, g_rows = table(psm), table(gm)
    m = np.array(
        [
            [
                pearsonr(p, g)[0] - sum(abs(a - b) for a, b in zip(p, g, strict=True))
                for g in g_rows.values()
            ]
            for p in p_rows.values()
        ]
    )
    return list(p_rows), list(g_rows), (m - m.min()) / (m.max() - m.min())


@pytest.mark.parametrize("person", PERSONS)
def test_match_matrix_against_loops(person):
    name = "clusters_Figure4" if person in ("SN004", "SN018") else "PSM_and_GM_clusters"
    tables = pickle(name)[person]
    ours = match_matrix(tables["PSM"], tables["GM"])
    rows, columns, values = naive_match(tables["PSM"], tables["GM"])
    assert list(ours.index) == [f"PSM_{c}" for c in rows]
    assert list(ours.columns) == [f"GM_{c}" for c in columns]
    np.testing.assert_allclose(ours.to_numpy(), values, atol=1e-12)


def test_flags_of_figure_4b_follow_from_the_cluster_tables():
    flagged, tables = pickle("dict_flagged_novel_clusters_Figure4"), pickle("PSM_and_GM_clusters")
    for person, pair in tables.items():
        ours = novel_clusters(pair["PSM"], pair["GM"])
        assert ours == {"PSM": list(flagged["PSM"][person]), "GM": list(flagged["GM"][person])}, (
            person
        )


def test_figure_4c_facts_of_the_paper(numbers):
    four = numbers["fig4c"]
    metric = four["SN004/metric"]
    assert (len(metric["rows"]), len(metric["columns"])) == (9, 6)
    assert round(max(metric["values"][metric["rows"].index("PSM_8")]), 6) == 0.799091
    eighteen = four["SN018/metric"]
    assert (len(eighteen["rows"]), len(eighteen["columns"])) == (10, 6)
    assert len(four["SN018/novel"]["PSM"]) == 4 and len(four["SN004/novel"]["PSM"]) == 3


def test_shares_rebuilt_from_the_tables_differ_from_the_list_at_two_borders(numbers):
    disfa = numbers["supp_disfa"]
    assert disfa["differs_from_list"] == ["SN010/au4", "SN013/au26"]
    assert [disfa[f"n_frames/{p}"] for p in ("SN001", "SN009", "SN023", "SN029")] == [
        485,
        436,
        484,
        444,
    ]


def test_every_figure_is_real_and_unmarked(figures):
    from facecomp.paper.figures import read_provenance

    for artefact in STUDY.artefacts:
        assert read_provenance(figures / f"{artefact.name}.png").data == "real"
        assert ">synthetic<" not in (figures / f"{artefact.name}.svg").read_text()


def test_published_hashes(monkeypatch):
    from facecomp.records.fetch import fetch

    monkeypatch.setenv("FACECOMP_PUBLISHED", str(FOLDER))
    assert len(fetch(STUDY.manifest, quiet=True).found) == 11
