"""Simulated result files: form, agreement with each other, determinism, and the known truth."""

import hashlib
import json
import os
import pickle
import pickletools
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from facecomp.psm.action_units import (
    APPROACH_TEXT,
    APPROACHES,
    AU8,
    AU12,
    METHODS,
    MODELS,
    PERSONS,
    approach_scores,
    bootstrap_f1,
    epoch_means,
    flat_scores,
)
from facecomp.psm.cartoons import Expression, cartoon_face, neutral_faces, noise_results
from facecomp.psm.clustering import SHOWN_SETTING, dbscan_labels, distances
from facecomp.psm.clusters import count_differences, novel_clusters
from facecomp.psm.seeds import named_rng
from facecomp.psm.simulation import (
    cluster_results,
    data_set_summary,
    draw_luck,
    figure2_results,
    figure3_results,
    figure6_results,
    held_out_labels,
    plane_results,
    predict,
    psm_skill,
    rates,
    run_scores,
    simulate_results,
    simulate_world,
)
from facecomp.records.pickles import read_pickle_bytes

STEMS = [
    "AUs_to_use_per_Person",
    "Bootstraps_results_Figure2",
    "Bootstraps_results_Figure3",
    "Bootstrap_F1_scores_Training_Approaches_Figure5",
    "GM_embeddings",
    "PSM_and_GM_clusters",
    "clusters_Figure4",
    "dict_clusters_difference_Figure4",
    "dict_flagged_novel_clusters_Figure4",
    "epoch_by_epoch_CTL_Figure6",
    "neu_face_dict",
    "neu_face_dict_random",
    "summary_DISFA_dataset",
]
EXAMPLES = ["SN004", "SN018"]
FIG3, FIG5 = STEMS[2], STEMS[3]


def frozen(value):
    """The same containers with tensors as arrays: a tensor's own pickle holds a memory address."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return [frozen(item) for item in value] if isinstance(value, list) else value


def digests(results):
    data = {stem: pickle.dumps(frozen(value), 4) for stem, value in results.items()}
    return {stem: hashlib.sha256(d).hexdigest() for stem, d in data.items()}


@pytest.fixture(scope="module")
def other_process():
    """The same simulation in a fresh process, under way while the other tests run."""
    environment = os.environ | {"PYTHONHASHSEED": "7", "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def results(other_process):
    return simulate_results(0)


@pytest.fixture(scope="module")
def world():
    return simulate_world(0)


@pytest.fixture(scope="module")
def tables(results):
    both = results["PSM_and_GM_clusters"] | results["clusters_Figure4"]
    return {person: both[person] for person in PERSONS}


def test_thirteen_results(results):
    assert sorted(results) == sorted(STEMS)


def test_action_units_of_the_persons(results):
    aus = results["AUs_to_use_per_Person"]
    assert list(aus) == list(PERSONS)
    assert all(type(a) is list and a == [au for au in AU12 if au in a] for a in aus.values())
    persons = [sum(au in a for a in aus.values()) for au in AU12]
    assert persons == [13, 11, 19, 3, 21, 15, 27, 6, 13, 10, 27, 17] and sum(persons) == 182


def test_figure2(results):
    scores = results["Bootstraps_results_Figure2"]
    names = [f"F1_Bootstrap_{m}" for m in METHODS]
    assert list(scores) == names + [f"avg_{name}" for name in names]
    for name in names:
        vectors, averages = scores[name], scores[f"avg_{name}"]
        assert type(vectors) is list and len(vectors) == len(averages) == 300
        assert all(v.dtype == np.float64 and v.shape == (len(AU8),) for v in vectors)
        assert all(
            type(a) is np.float64 and a == np.mean(v)
            for a, v in zip(averages, vectors, strict=True)
        )
        blocks = np.reshape(averages, (3, 100))
        assert blocks.mean(axis=1).std() > blocks.std(axis=1).mean()  # folds differ more
        assert 0.2 < blocks.mean() < 0.45 and np.min(vectors) >= 0 and np.max(vectors) <= 1
    means = [np.mean(scores[f"avg_{name}"]) for name in names]
    assert means == sorted(means, reverse=True)


def test_figure3_form(results):
    scores, aus = results[FIG3], results["AUs_to_use_per_Person"]
    by_person = [f"{p}F1_Bootstrap_{m}" for m in MODELS for p in ("", "avg_")]
    joined = [f"All_avg_F1_Bootstrap_{m}" for m in MODELS]
    assert list(scores) == by_person + joined + [f"{m}_by_AUs" for m in MODELS]
    for model in MODELS:
        vectors = scores[f"F1_Bootstrap_{model}"]
        assert list(vectors) == list(PERSONS)
        for person, rows in vectors.items():
            assert type(rows) is list and len(rows) == 100
            assert all(r.dtype == np.float64 and r.shape == (len(aus[person]),) for r in rows)
            assert all(r.min() > 0 and r.max() <= 1 for r in rows)


@pytest.mark.parametrize("model", MODELS)
def test_figure3_forms_agree(results, model):
    scores, aus = results[FIG3], results["AUs_to_use_per_Person"]
    vectors, averages = scores[f"F1_Bootstrap_{model}"], scores[f"avg_F1_Bootstrap_{model}"]
    for person in PERSONS:
        assert averages[person].dtype == np.float64 and averages[person].shape == (100,)
        assert averages[person].tolist() == [row.mean() for row in vectors[person]]
    joined, by_au = scores[f"All_avg_F1_Bootstrap_{model}"], scores[f"{model}_by_AUs"]
    assert type(joined) is list and joined == [a for p in PERSONS for a in averages[p]]
    assert list(by_au) == list(AU12)
    for au in AU12:
        expected = [r[aus[p].index(au)] for p in PERSONS if au in aus[p] for r in vectors[p]]
        assert type(by_au[au]) is list and by_au[au] == expected


def test_scores_are_fractions_of_the_test_part(results):
    for rows in results[FIG3]["F1_Bootstrap_PSM"].values():
        for value in np.ravel(rows[:5]):
            fraction = Fraction(float(value)).limit_denominator(2 * 969)
            assert fraction.numerator / fraction.denominator == value


def test_psm_is_a_little_better_and_bootstraps_are_shared(results):
    scores = results[FIG3]
    psm, gm = (np.mean(scores[f"All_avg_F1_Bootstrap_{m}"]) for m in MODELS)
    assert 0.005 < psm - gm < 0.06 and 0.75 < gm < psm < 0.9
    pairs = [(np.array(scores[f"F1_Bootstrap_{m}"][p]) for m in MODELS) for p in PERSONS]
    together = [np.corrcoef(a[:, i], b[:, i])[0, 1] for a, b in pairs for i in range(a.shape[1])]
    assert np.mean(together) > 0.3


def test_figure5_names_and_form(results):
    runs, aus = results[FIG5], results["AUs_to_use_per_Person"]
    first, last = APPROACH_TEXT["Approach 1"], APPROACH_TEXT["Approach 4"]
    expected = [f"{p}_{first}" for p in PERSONS]
    expected += [f"{p}_pretrained_on_VoxCeleb" for p in PERSONS]
    expected += [f"{p}_pretrained_on_{o}" for p in PERSONS for o in PERSONS if o != p]
    expected += [f"{p}_{last}" for p in PERSONS]
    assert list(runs) == expected and len(runs) == 783
    for name, rows in runs.items():
        assert type(rows) is list and len(rows) == 100
        assert all(type(r) is list and len(r) == len(aus[name[:5]]) for r in rows)
        assert type(rows[0][0]) is float and np.min(rows) >= 0 and np.max(rows) <= 1


def test_figure5_order_and_first_approach(results):
    runs, psm = results[FIG5], results[FIG3]["F1_Bootstrap_PSM"]
    scores = [approach_scores(runs, approach) for approach in APPROACHES]
    assert all(list(s) == list(PERSONS) for s in scores)
    assert (flat_scores(scores[0]) == flat_scores(psm)).all()
    means = [flat_scores(s).mean() for s in scores]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[1] < 0.06 and means[1] - means[2] > 0.1 and means[2] - means[3] > 0.1


def test_figure6(results):
    scores = results["epoch_by_epoch_CTL_Figure6"]
    assert list(scores) == [f"epoch_{e}" for e in (1, *range(10, 201, 10))]
    for models in scores.values():
        assert list(models) == ["PSM", "PSM_wCTL"]
        for values in models.values():
            assert type(values) is list and len(values) == 182 and type(values[0]) is float
            assert min(values) >= 0 and max(values) <= 1
    means = epoch_means(scores)
    assert (means.diff().iloc[1:] > 0).all().all()
    assert (means["PSM_wCTL"] > means["PSM"]).sum() >= 18
    assert means["PSM"].iloc[0] < 0.6 and means["PSM"].iloc[-1] > 0.8


def test_cluster_tables(results, world):
    rest = [p for p in PERSONS if p not in EXAMPLES]
    assert list(results["PSM_and_GM_clusters"]) == rest
    assert list(results["clusters_Figure4"]) == EXAMPLES
    columns = ["label", *(f"{au}_bis" for au in AU12)]
    rows = {"SN009": 436, "SN023": 484, "SN029": 444}
    for person, models in (results["PSM_and_GM_clusters"] | results["clusters_Figure4"]).items():
        assert list(models) == ["GM", "PSM"]
        for table in models.values():
            assert list(table) == columns + (["labels"] if person in EXAMPLES else [])
            assert table.columns.dtype == object and table.index.dtype == np.int64
            assert len(table) == rows.get(person, 485) and table["label"].dtype == np.int64
            aus = table[columns[1:]]
            assert (aus.dtypes == np.float64).all() and np.isin(aus, (0.0, 1.0)).all()
            assert (aus.to_numpy() == world.frames[person][table.index]).all()
            assert table.index.is_monotonic_increasing and table.index.is_unique
        gm, psm = models["GM"], models["PSM"]
        assert gm.drop(columns=["label", "labels"], errors="ignore").equals(
            psm.drop(columns=["label", "labels"], errors="ignore")
        )
        if person in EXAMPLES:
            assert (gm["label"] == gm["labels"]).all() and (psm["label"] == psm["labels"]).all()


def test_the_same_test_frames_for_all(results, tables):
    full = [t["GM"].index for t in tables.values() if len(t["GM"]) == 485]
    assert len(full) == 24 and all(index.equals(full[0]) for index in full)
    for person, missing in {"SN009": 49, "SN023": 1, "SN029": 41}.items():
        rows, numbers = tables[person]["GM"].index.to_numpy(), full[0].to_numpy()
        before = int((rows != numbers[: len(rows)]).argmax())  # equal up to the run of lost frames
        lost = 4845 - results["summary_DISFA_dataset"].loc[person, "frames"]
        assert lost >= missing and (numbers[before + missing :] - rows[before:] == lost).all()


def test_cluster_counts(results, tables):
    counts = results["dict_clusters_difference_Figure4"]
    assert list(counts) == ["GM", "PSM"]
    for model, persons in counts.items():
        assert list(persons) == list(PERSONS)
        for person, numbers in persons.items():
            assert type(numbers) is list and len(numbers) == 40
            assert all(type(n) is int and n >= 0 for n in numbers)
            labels = tables[person][model]["label"]
            assert sorted(set(labels) - {-1}) == list(range(numbers[SHOWN_SETTING]))
    settings = np.array([[counts[m][p] for p in PERSONS] for m in counts]).reshape(2, 27, 8, 5)
    assert (np.diff(settings.mean(axis=(0, 1, 2))) < 0).all()  # larger minimum sizes, fewer
    assert settings[:, :, -1].mean() < settings[:, :, 3].mean()


def test_psm_has_more_clusters_and_more_novel_ones(results):
    difference = count_differences(results["dict_clusters_difference_Figure4"])
    assert -4 < np.mean(list(difference.values())) < -0.3
    flagged = results["dict_flagged_novel_clusters_Figure4"]
    number = {m: sum(map(len, persons.values())) for m, persons in flagged.items()}
    assert number["PSM"] > 2 * number["GM"]


def test_flags_come_from_the_tables(results, tables):
    flagged = results["dict_flagged_novel_clusters_Figure4"]
    assert list(flagged) == ["GM", "PSM"] and list(flagged["GM"]) == list(PERSONS)
    for person, models in tables.items():
        novel = novel_clusters(models["PSM"], models["GM"], threshold=0.8)
        assert {m: flagged[m][person] for m in ("PSM", "GM")} == novel
        assert all(type(name) is str for name in flagged["PSM"][person])


def test_plane(results):
    plane_tables = results["GM_embeddings"]
    names = ["GM_embeddings", *(f"GM_embeddings_region{i}" for i in (1, 2, 3, 4))]
    assert list(plane_tables) == names
    assert [len(t) for t in plane_tables.values()] == [555, 3, 5, 15, 33]
    plane = plane_tables["GM_embeddings"]
    assert list(plane) == ["SN", "Dim1", "Dim2", *AU12, "label"]
    assert plane["SN"].dtype == plane.columns.dtype == object and plane.index.dtype == np.int64
    assert plane.index.tolist() == list(range(555))
    assert (plane[[*AU12, "label"]].dtypes == np.int64).all() and np.isin(
        plane[[*AU12]], (0, 1)
    ).all()
    rows = plane["SN"].value_counts(sort=False)
    assert rows.index.tolist() == list(PERSONS) and rows.between(9, 33).all()
    axes = plane[["Dim1", "Dim2"]].to_numpy()
    assert np.abs(axes).max() <= 0.015 and np.allclose(axes.mean(axis=0), 0, atol=1e-9)
    assert np.isclose(*axes.std(axis=0)) and plane["label"].nunique() > 1


def test_regions_are_the_extremes(results):
    plane, *regions = results["GM_embeddings"].values()
    for table in regions:
        assert table.equals(plane.loc[table.index])
    cuts = [("Dim2", -1), ("Dim1", 1), ("Dim1", -1), ("Dim2", 1)]
    for table, (axis, sign) in zip(regions, cuts, strict=True):
        others = plane.drop(table.index)
        assert (sign * table[axis]).max() < (sign * others[axis]).min()


def test_pictures(results):
    for stem, number, names in [
        ("neu_face_dict", 4, ["Original_input", *(f"Approach{i}" for i in (1, 2, 3, 4))]),
        (
            "neu_face_dict_random",
            8,
            ["Original_input", "GM_ExpCode_500.tar", "PSM_ExpCode_500.tar"],
        ),
    ]:
        assert list(results[stem]) == names
        for pictures in results[stem].values():
            assert type(pictures) is list and len(pictures) == number
            for p in pictures:
                assert type(p) is torch.Tensor and p.dtype == torch.float32
                assert p.shape == (3, 64, 64) and p.min() >= 0 and p.max() <= 1
                assert p.untyped_storage().nbytes() == p.nbytes  # no hidden rest of a larger tensor


def test_what_is_left_of_the_expression(results):
    stacks = {k: torch.stack(v) for k, v in results["neu_face_dict"].items()}
    spread = {k: v.std(dim=0).mean().item() for k, v in stacks.items()}
    asymmetry = {k: (v - v.flip(-1)).abs().mean().item() for k, v in stacks.items()}
    order = ["Approach1", "Approach2", "Approach3", "Approach4", "Original_input"]
    for numbers in (spread, asymmetry):
        assert [numbers[k] for k in order] == sorted(numbers.values())
        assert numbers["Approach1"] < 0.1 * numbers["Original_input"]


def test_control_pictures(results):
    noise, gm, psm = (torch.stack(v) for v in results["neu_face_dict_random"].values())
    face = torch.from_numpy(cartoon_face(Expression()))
    like = [np.corrcoef(x.mean(0).ravel(), face.ravel())[0, 1] for x in (noise, gm)]
    assert like[1] > 0.6 > like[0]
    red, green, blue = psm[..., 16:48, 16:48].mean(dim=(0, 2, 3))
    assert green > red > blue


def test_neutral_cartoon_is_symmetric():
    face = cartoon_face(Expression(), 48)
    assert face.shape == (3, 48, 48) and face.dtype == np.float32
    assert np.abs(face - face[..., ::-1]).max() < 1e-6
    assert Expression(smile=1, light=-0.5).scaled(0.5) == Expression(smile=0.5, light=-0.25)


def test_summary(results, world):
    table, aus = results["summary_DISFA_dataset"], results["AUs_to_use_per_Person"]
    assert table.index.tolist() == list(PERSONS) and list(table) == [*AU12, "frames"]
    assert table.index.dtype == table.columns.dtype == object
    assert (table.dtypes == np.int64).all()
    shares = table[list(AU12)].to_numpy() / table[["frames"]].to_numpy()
    assert [[au for au, s in zip(AU12, row, strict=True) if s > 0.02] for row in shares] == list(
        aus.values()
    )
    assert (shares > 0.02).tolist() == world.truth.shows.tolist()
    assert (table.loc["SN001", "frames"], len(world.frames["SN001"])) == (4845, 4845)
    assert table.loc["SN009", "frames"] < 4845 > table.loc["SN029", "frames"]


def test_frames_move_in_episodes(world):
    active = world.frames["SN004"][:, AU12.index("au12")]
    changes = np.count_nonzero(np.diff(active.astype(int)))
    assert 0 < changes < active.sum() / 5  # at least ten active frames in a row, on average


def test_action_units_move_together(world):
    both = []
    for frames in world.frames.values():
        one, two = frames[:, AU12.index("au6")], frames[:, AU12.index("au12")]
        both.append((one & two).mean() - one.mean() * two.mean())
    assert np.mean(both) > 0.01


def test_rates_give_the_expected_score():
    f1 = np.array([0.3, 0.6, 0.9])
    hit, alarm = rates(f1, 0.05)
    assert np.allclose(2 * 0.05 * hit / (0.05 * hit + 0.95 * alarm + 0.05), f1)
    assert (alarm * 0.95 > (1 - hit) * 0.05)[0]  # false alarms outnumber misses when F1 is low


def test_clusters_of_two_heaps():
    table = distances(np.array([[0.0, 0], [0.1, 0], [0, 0.1], [3, 0], [3.1, 0], [3, 0.1], [9, 9]]))
    assert np.allclose(table, table.T) and table[0, 3] == 3
    assert dbscan_labels(table, 0.2, 3).tolist() == [0, 0, 0, 1, 1, 1, -1]


def test_resamples_are_those_of_bootstrap_f1(world):
    skill, columns = psm_skill(world)[3], world.columns("SN004")
    labels = held_out_labels(world, "SN004")
    luck = draw_luck(0, "SN004", ["PSM"], labels.shape)
    predicted = predict(labels, 1 / (1 + np.exp(-skill[None, columns])), luck)[0]
    scores = run_scores(world, "SN004", {"PSM": skill})["PSM"]
    assert (scores == bootstrap_f1(labels, predicted)).all()


def test_generators_depend_on_seed_and_name_only():
    assert named_rng(3, "a", 1).random() == named_rng(3, "a", 1).random()
    assert len({named_rng(s, n).random() for s in (0, 1) for n in "ab"}) == 4
    with pytest.raises(ValueError):
        named_rng(-1, "a")


def test_the_same_seed_gives_the_same_bytes(results):
    assert digests(simulate_results(0)) == digests(results)


def test_another_process_gives_the_same_bytes(results, other_process):
    answer, _ = other_process.communicate(timeout=120)
    assert other_process.returncode == 0 and json.loads(answer) == digests(results)


def test_another_seed_gives_another_population(results):
    other = simulate_world(1)
    parts = {
        "AUs_to_use_per_Person": {person: other.aus(person) for person in PERSONS},
        "Bootstraps_results_Figure2": figure2_results(other),
        "Bootstraps_results_Figure3": figure3_results(other),
        "GM_embeddings": plane_results(other),
        "epoch_by_epoch_CTL_Figure6": figure6_results(other),
        "neu_face_dict": neutral_faces(1),
        "neu_face_dict_random": noise_results(1),
        "summary_DISFA_dataset": data_set_summary(other),
        **cluster_results(other, PERSONS[3:5]),
    }
    same = digests({stem: results[stem] for stem in parts})
    assert all(digest != same[stem] for stem, digest in digests(parts).items())
    tables = [results["clusters_Figure4"], parts["clusters_Figure4"]]
    assert not tables[0]["SN004"]["PSM"].equals(tables[1]["SN004"]["PSM"])


def global_names(data):
    """(module, name) of every class or function that a pickle of protocol 4 asks for."""
    names, memo, strings = set(), {}, []
    for code, argument, _ in pickletools.genops(data):
        if code.name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else None
        elif code.name in ("BINGET", "LONG_BINGET"):
            strings.append(memo[argument])
        elif code.name == "STACK_GLOBAL":
            names.add((strings[-2], strings[-1]))
            strings.append(None)
        else:
            strings.append(argument if isinstance(argument, str) else None)
    return names


@pytest.mark.parametrize("stem", STEMS)
def test_pickles_ask_for_little_and_can_be_read(results, stem):
    data = pickle.dumps(results[stem], 4)
    for module, name in global_names(data):
        root = module.split(".")[0]
        assert root in ("numpy", "pandas", "torch", "collections") or (module, name) == (
            "builtins",
            "slice",
        )
        assert not module.startswith("pandas.core.arrays")
    again = read_pickle_bytes(data, stem)
    assert type(again) is type(results[stem])
    if isinstance(again, pd.DataFrame):
        pd.testing.assert_frame_equal(again, results[stem])
    else:
        assert list(again) == list(results[stem])


if __name__ == "__main__":
    print(json.dumps(digests(simulate_results(0))))
