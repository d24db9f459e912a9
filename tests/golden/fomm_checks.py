"""All checks of the FOMM study."""

from . import fomm_losses_checks, fomm_networks_checks

CHECKS = {**fomm_networks_checks.CHECKS, **fomm_losses_checks.CHECKS}
