"""Analysis of the PSM study: our vectorised functions against straightforward loops, in the same run.

    .venv/bin/python bench/psm_analysis.py

Data are the simulator's stand-ins. Each pair is checked to give the same numbers before it is timed (best of five).
"""

import datetime
import platform
import timeit

import numpy as np
import pandas as pd
from scipy.stats import pearsonr

from facecomp.paper.tables import format_table
from facecomp.psm.action_units import AU12, bootstrap_f1
from facecomp.psm.clusters import match_matrix
from facecomp.psm.simulation import simulate_results


def loop_match(psm: pd.DataFrame, gm: pd.DataFrame) -> np.ndarray:
    """The match matrix pair by pair."""
    rows = []
    for frames in (psm, gm):
        shares = [frames[frames["label"] == c][[f"{au}_bis" for au in AU12]].mean().to_numpy()
                  for c in sorted(frames["label"].unique())]
        rows.append([s for s in shares if s.any()])
    m = np.array([[pearsonr(p, g)[0] - np.abs(p - g).sum() for g in rows[1]] for p in rows[0]])
    return (m - m.min()) / (m.max() - m.min())


def loop_f1(true: np.ndarray, predicted: np.ndarray, n: int = 100) -> np.ndarray:
    """Bootstrapped F1, one action unit and one resample at a time, by scikit-learn."""
    from sklearn.metrics import f1_score

    scores = np.empty((n, true.shape[1]))
    for b in range(n):
        rows = np.random.default_rng(b).integers(0, len(true), len(true))
        for k in range(true.shape[1]):
            scores[b, k] = f1_score(true[rows, k], predicted[rows, k], zero_division=0)
    return scores


def best(function, repeat: int = 5) -> float:
    """Seconds of the fastest of `repeat` calls."""
    return min(timeit.repeat(function, number=1, repeat=repeat))


def main() -> None:
    """Print the table."""
    persons = simulate_results(0)["PSM_and_GM_clusters"]
    pairs = [(t["PSM"], t["GM"]) for t in persons.values()]
    rng = np.random.default_rng(0)
    true, predicted = rng.random((969, 12)) < 0.2, rng.random((969, 12)) < 0.2
    for psm, gm in pairs:
        np.testing.assert_allclose(match_matrix(psm, gm), loop_match(psm, gm), atol=1e-12)
    np.testing.assert_allclose(bootstrap_f1(true, predicted), loop_f1(true, predicted), atol=1e-12)
    cases = {
        "match matrices of 25 persons": (lambda: [match_matrix(*p) for p in pairs],
                                         lambda: [loop_match(*p) for p in pairs]),
        "F1, 100 resamples, 969 frames, 12 AUs": (lambda: bootstrap_f1(true, predicted),
                                                  lambda: loop_f1(true, predicted)),
    }
    rows = []
    for name, (ours, reference) in cases.items():
        a, b = best(ours), best(reference)
        rows.append((name, f"{a:.4f}", f"{b:.4f}", f"{b / a:.1f}x"))
    print(f"{datetime.date.today()} · {platform.machine()} · numpy {np.__version__}")
    print(format_table(pd.DataFrame(rows, columns=["case", "ours, s", "loops, s", "ratio"]), "github", index=False))


if __name__ == "__main__":
    main()
