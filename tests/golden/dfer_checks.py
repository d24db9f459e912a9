"""All checks of the DFER study."""

from importlib import import_module
from importlib.util import find_spec

CHECKS = {}
for _part in ("dfer_networks_checks", "dfer_data_checks"):
    if find_spec(f"{__package__}.{_part}"):
        CHECKS |= import_module(f".{_part}", __package__).CHECKS
