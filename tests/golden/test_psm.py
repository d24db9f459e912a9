"""Networks, losses, steps, pairs and transforms of PSM against reference arrays (README.md)."""

from .harness import run_case
from .psm_checks import CHECKS

STUDY = "psm"


def test_golden(case):
    run_case(case, CHECKS)
