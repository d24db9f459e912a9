"""All checks of the flow study: labels, files and colours, prepared pairs, network and checkpoints."""

from . import flow_files_checks, flow_labels_checks, flow_network_checks, flow_preparing_checks

CHECKS = {
    **flow_files_checks.CHECKS,
    **flow_labels_checks.CHECKS,
    **flow_network_checks.CHECKS,
    **flow_preparing_checks.CHECKS,
}
