"""Reads cases.json, runs the named checks and compares; README.md beside this file documents the format."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .fill import fill, make_input

FORMAT = 1
CASE_FIELDS = {"id", "check", "file", "model", "inputs", "args", "expect", "note"}
EXPECT_FIELDS = {"output", "array", "tolerance", "rtol", "atol", "measure", "index", "reduce"}
EXPECT_FIELDS |= {"names", "only", "except", "below", "wrong_fraction", "note"}
SOURCES = {"array", "json", "make_input", "zeros", "value"}


class CaseError(Exception):
    """A case that cannot be run: an unknown check or field, a missing file or array."""


def _known(what: str, given: Mapping, allowed: set[str]) -> None:
    if unknown := sorted(set(given) - allowed):
        raise CaseError(f"{what}: unknown field {', '.join(unknown)}; known: {sorted(allowed)}")


@dataclass(frozen=True)
class GoldenSet:
    """One study's folder: cases.json and the files that it names."""

    folder: Path
    salt: str
    cases: tuple[dict, ...]
    tolerances: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, salt: str | None) -> "GoldenSet":
        """The set in `folder`; `salt` None: the one that cases.json names."""
        try:
            content = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CaseError(f"{folder / 'cases.json'}: cannot be read ({error})") from error
        _known("cases.json", content, {"format", "salt", "tolerances", "cases", "note"})
        if content.get("format") != FORMAT:
            raise CaseError(f"cases.json: format {content.get('format')!r}, not {FORMAT}")
        cases = content.get("cases", [])
        ids = [case.get("id") for case in cases]
        if not ids or None in ids or len(set(ids)) < len(ids):
            raise CaseError("cases.json: needs cases, each with an id of its own")
        salt = content.get("salt", "") if salt is None else salt
        return cls(folder, salt, tuple(cases), content.get("tolerances", {}))

    def case(self, name: str) -> "Case":
        return Case(self, next(case for case in self.cases if case["id"] == name))

    def load(self, file: str, name: str | None = None) -> Any:
        """A JSON file's content, or the array `name` of an npz file."""
        path = self.folder / file
        if not path.is_file():
            raise CaseError(f"{path}: is missing")
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        with np.load(path) as arrays:
            if name not in arrays:
                raise CaseError(f"{path}: has no array {name!r}")
            return arrays[name]


class Case:
    """One case, as the checks see it."""

    def __init__(self, golden: GoldenSet, content: dict):
        _known(f"case {content['id']}", content, CASE_FIELDS)
        self.golden, self.content, self.id = golden, content, content["id"]
        self.args: dict = content.get("args", {})
        self.model: dict = content.get("model", {})
        self.inputs: dict = content.get("inputs", {})
        self.expect: list[dict] = content.get("expect", [])

    def source(self, given: Any) -> Any:
        """What a source of the case stands for: an array, or a value of a JSON file."""
        given = {"array": given} if isinstance(given, str) else given
        kinds = [kind for kind in SOURCES if isinstance(given, dict) and kind in given]
        if len(kinds) != 1:
            raise CaseError(f"case {self.id}: {given!r} is no source; one of {sorted(SOURCES)}")
        kind = kinds[0]
        options = {"file", "shape", "low", "high", "salt"} | {kind}
        _known(f"case {self.id}, source {kind}", given, options)
        file = given.get("file", self.content.get("file", ""))
        if kind == "array":
            return self.golden.load(file, given["array"])
        if kind == "json":
            return self._step_into(self.golden.load(file), given["json"])
        if kind == "make_input":
            salt = given.get("salt", self.golden.salt)
            limits = given.get("low", 0.0), given.get("high", 1.0)
            return make_input(given["make_input"], given["shape"], *limits, salt)
        if kind == "zeros":
            return np.zeros(given["zeros"], np.float32)
        return given["value"]

    def _step_into(self, value: Any, path: list) -> Any:
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise CaseError(f"case {self.id}: nothing at {path} ({error!r})") from error
        return value

    def has(self, name: str) -> bool:
        return name in self.inputs

    def value(self, name: str) -> Any:
        """The input `name`."""
        if name not in self.inputs:
            raise CaseError(f"case {self.id}: input {name!r} is needed")
        return self.source(self.inputs[name])

    def tensor(self, name: str) -> torch.Tensor:
        """The input `name` as a tensor of its own memory."""
        return torch.from_numpy(np.array(self.value(name)))

    def arg(self, name: str) -> Any:
        if name not in self.args:
            raise CaseError(f"case {self.id}: argument {name!r} is needed")
        return self.args[name]

    def filled(self, module: torch.nn.Module, rename: dict | None = None) -> torch.nn.Module:
        """The module with weights by the fill rule, or from an npz file with its own names."""
        _known(f"case {self.id}, model", self.model, {"args", "salt", "fixed", "weights"})
        state = module.state_dict()
        if "weights" in self.model:
            for name, tensor in state.items():
                given = self.golden.load(self.model["weights"], (rename or {}).get(name, name))
                tensor.copy_(torch.from_numpy(given))
        else:
            salt = self.model.get("salt", self.golden.salt)
            fill(state, salt, self.model.get("fixed", ()), rename)
        module.load_state_dict(state)
        return module


Outputs = dict[str, Any]


class Variants(dict[str, Outputs]):
    """Outputs of several ways to compute the same; each must meet what the case expects."""


Check = Callable[[Case], Outputs | Variants]


def run_case(case: Case, checks: Mapping[str, Check]) -> None:
    """Run one case; raises `CaseError` if it cannot be run, `AssertionError` where numbers differ."""
    name = case.content.get("check")
    if name not in checks:
        raise CaseError(f"case {case.id}: unknown check {name!r}; known: {', '.join(checks)}")
    if not case.expect:
        raise CaseError(f"case {case.id}: expects nothing")
    made = checks[name](case)
    several = isinstance(made, Variants)
    faults = []
    for variant, outputs in (made if several else {"": made}).items():
        for entry in case.expect:
            if fault := difference(case, entry, outputs):
                faults.append(f"{variant} {entry['output']}: {fault}".strip())
    assert not faults, f"case {case.id}:\n  " + "\n  ".join(faults)


def difference(case: Case, entry: dict, outputs: Outputs) -> str:
    """What is wrong with one output; empty if nothing."""
    _known(f"case {case.id}, expect", entry, EXPECT_FIELDS)
    if entry.get("output") not in outputs:
        raise CaseError(f"case {case.id}: no output {entry.get('output')!r}; {sorted(outputs)}")
    made = _as_array(outputs[entry["output"]])
    made = _reduced(_indexed(made, entry.get("index")), entry.get("reduce"))
    chosen = _chosen(case, entry)
    if "below" in entry:
        part = np.abs(made[chosen])
        worst = part.max() if part.size else np.nan  # nothing chosen, or not a number: a fault
        return "" if worst < entry["below"] else f"largest {worst:.3g}, not below {entry['below']}"
    wanted = _as_array(case.source(entry["array"]))
    if made.size == wanted.size == 1:
        made, wanted = made.reshape(()), wanted.reshape(())
    if made.shape != wanted.shape:
        return f"shape {made.shape}, not {wanted.shape}"
    return _compare(made[chosen], wanted[chosen], _tolerance(case, entry))


def _as_array(value: Any) -> np.ndarray:
    """Any output or source as an array; a mapping as its values in the order of its sorted keys."""
    if isinstance(value, Mapping):
        value = [value[key] for key in sorted(value)]
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _indexed(made: np.ndarray, index: list | None) -> np.ndarray:
    if index is None:
        return made
    return made[tuple(slice(*part) if isinstance(part, list) else part for part in index)]


def _reduced(made: np.ndarray, how: str | None) -> np.ndarray:
    wide = made.astype(np.float64) if how else made
    if how is None:
        return made
    if how == "mean_rms_max":
        return np.array([wide.mean(), np.sqrt((wide**2).mean()), wide.max()])
    if how == "mean_std_min_max_abs":
        return np.array([wide.mean(), wide.std(), wide.min(), wide.max(), np.abs(wide).mean()])
    raise CaseError(f"unknown reduce {how!r}")


def _chosen(case: Case, entry: dict) -> Any:
    if "names" not in entry:
        return ...
    names = [str(name) for name in case.source(entry["names"])]
    keep = [
        any(fnmatchcase(name, pattern) for pattern in entry.get("only", ["*"]))
        and not any(fnmatchcase(name, pattern) for pattern in entry.get("except", []))
        for name in names
    ]
    if not any(keep):
        raise CaseError(f"case {case.id}: only/except leave no name of {entry['output']}")
    return np.array(keep)


def _tolerance(case: Case, entry: dict) -> dict:
    name = entry.get("tolerance")
    if name is not None and name not in case.golden.tolerances:
        raise CaseError(f"case {case.id}: unknown tolerance {name!r}")
    named = case.golden.tolerances[name] if name else {}
    rule = {"rtol": 0.0, "atol": 0.0, "measure": "elements", "wrong_fraction": 0.0} | named
    return rule | {key: entry[key] for key in rule if key in entry}


def _compare(made: np.ndarray, wanted: np.ndarray, rule: dict) -> str:
    if wanted.dtype.kind not in "fiubc":
        return "" if np.array_equal(made, wanted) else "not equal"
    made, wanted = made.astype(np.float64), wanted.astype(np.float64)
    if not np.array_equal(np.isfinite(made), np.isfinite(wanted)):
        return "not finite in other places"
    fine = np.isfinite(wanted)
    apart, size = np.abs(made - wanted)[fine], np.abs(wanted)[fine]
    if rule["measure"] == "norm":
        apart, size = (np.sqrt((v**2).sum(keepdims=True)) for v in (apart, size))
    elif rule["measure"] != "elements":
        raise CaseError(f"unknown measure {rule['measure']!r}")
    wrong = apart > rule["atol"] + rule["rtol"] * size
    if wrong.mean() <= rule["wrong_fraction"] if wrong.size else True:
        return ""
    text = f"{wrong.sum()} of {wrong.size} outside rtol {rule['rtol']:g}, atol {rule['atol']:g}"
    return f"{text}; largest difference {apart.max():.3g} (size {size.max():.3g})"
