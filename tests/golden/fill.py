"""The fill rule: weights and inputs that follow from name, shape and salt alone, so none is exchanged."""

import zlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch


def _generator(text: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))


def values(name: str, shape: Iterable[int], salt: str = "") -> np.ndarray:
    """Numbers of the weight `name`: float32 normal, scaled by what the last part of the name says."""
    shape = tuple(shape)
    count = int(np.prod(shape, dtype=np.int64))
    normal = _generator(salt + name).standard_normal(count, dtype=np.float32).reshape(shape)
    tenth, kind = np.float32(0.1) * normal, name.rpartition(".")[2]
    if kind == "running_var":
        return 1 + abs(tenth)
    if kind in ("running_mean", "bias"):
        return tenth
    if len(shape) <= 1:
        return 1 + tenth if kind == "weight" else tenth
    return normal * np.float32(1 / np.sqrt(int(np.prod(shape[1:], dtype=np.int64))))


def fill(
    state: Mapping[str, torch.Tensor],  # filled in place; tensors of integers are left alone
    salt: str = "",
    fixed: Iterable[str] = (),  # names left alone
    rename: Mapping[str, str] | None = None,  # own name -> name that the rule is asked for
) -> None:
    """Give every tensor of a state dict its values by the rule."""
    with torch.no_grad():
        for name, tensor in state.items():
            if name not in set(fixed) and tensor.is_floating_point():
                asked = (rename or {}).get(name, name)
                tensor.copy_(torch.from_numpy(values(asked, tensor.shape, salt)))


def make_input(
    name: str, shape: Iterable[int], low: float = 0.0, high: float = 1.0, salt: str = ""
) -> np.ndarray:
    """Uniform float32 numbers in low ... high that follow from `name`."""
    drawn = _generator("input:" + salt + name).random(tuple(shape), dtype=np.float32)
    return (low + (high - low) * drawn).astype(np.float32)
