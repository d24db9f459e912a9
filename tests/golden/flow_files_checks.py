"""What the checks of the flow study's files, colours and errors compute from a case (README.md)."""

import numpy as np

from facecomp.flow.colours import colour_wheel, direction_colours, flow_colours
from facecomp.flow.files import flo_bytes, motion_to_crop, parse_flo
from facecomp.flow.metrics import (
    angular_text,
    endpoint_text,
    farneback,
    flow_errors,
    same_size,
    stretched,
)

from .harness import Case, CaseError, Outputs


def flo(case: Case) -> Outputs:
    """A .flo file read, and written again."""
    flow = parse_flo(np.asarray(case.value("bytes"), np.uint8).tobytes(), case.id)
    return {"flow": flow, "bytes": np.frombuffer(flo_bytes(flow), np.uint8)}


def wheel(case: Case) -> Outputs:
    return {"wheel": colour_wheel()}


def colours(case: Case) -> Outputs:
    """The colour picture of a field, B, G, R."""
    flow = case.value("flow")
    pictures = {
        "compat": lambda: flow_colours(flow, "compat"),
        "corrected": lambda: flow_colours(flow, "corrected")[..., ::-1],
        "plain": lambda: direction_colours(flow)[..., ::-1],
    }
    if case.arg("mode") not in pictures:
        raise CaseError(f"case {case.id}: mode {case.arg('mode')!r}; known: {', '.join(pictures)}")
    return {"image": pictures[case.arg("mode")]()}


def errors(case: Case) -> Outputs:
    """Sums and means of each sample."""
    truth, prediction = case.value("truth"), case.value("prediction")
    found = [flow_errors(t, p) for t, p in zip(truth, prediction, strict=True)]
    return {
        "epe_sum": np.array([e.epe_sum for e in found]),
        "epe": np.array([e.epe for e in found]),
        "aae": np.array([e.aae for e in found]),
    }


def evaluation(case: Case) -> Outputs:
    """One image through the evaluation: text files and pictures, as stored by the published program."""
    truth = np.asarray(case.value("truth"), np.float64)
    truth, prediction = same_size(truth, motion_to_crop(case.value("prediction")))
    found = [(case.arg("stem"), flow_errors(truth, prediction))]
    return {
        "epe_text": endpoint_text(found),
        "aae_text": angular_text(found),
        "truth_picture": stretched(flow_colours(truth, "compat")),
        "prediction_picture": stretched(flow_colours(prediction, "compat")),
    }


def classical(case: Case) -> Outputs:
    first, second = case.value("first"), case.value("second")
    return {"stretched": stretched(first), "flow": farneback(first, second)}


CHECKS = {
    "flow.flo": flo,
    "flow.wheel": wheel,
    "flow.colours": colours,
    "flow.errors": errors,
    "flow.evaluation": evaluation,
    "flow.farneback": classical,
}
