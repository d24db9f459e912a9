"""All checks of the FOMM study."""

from . import fomm_animation_checks, fomm_data_checks, fomm_losses_checks, fomm_networks_checks

CHECKS = {**fomm_data_checks.CHECKS, **fomm_losses_checks.CHECKS, **fomm_animation_checks.CHECKS, **fomm_networks_checks.CHECKS}
