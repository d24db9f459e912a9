"""Networks, prior, losses, transform and steps of FOMM against reference arrays (README.md)."""

from .fomm_checks import CHECKS
from .harness import run_case

STUDY = "fomm"


def test_golden(case):
    run_case(case, CHECKS)
