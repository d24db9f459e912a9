"""Labels, colours, errors, network, losses and checkpoints of flow against reference arrays (README.md)."""

from .flow_checks import CHECKS
from .harness import run_case

STUDY = "flow"


def test_golden(case):
    run_case(case, CHECKS)
