"""Networks, data, mixing, gaze and scores of DFER against reference arrays (dfer/README.md)."""

from .dfer_checks import CHECKS
from .harness import run_case

STUDY = "dfer"


def test_golden(case):
    run_case(case, CHECKS)
