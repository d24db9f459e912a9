"""Two processes under torchrun: equal to one, stopped together, resumed together."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_training_loop import TOY, result, wait_for
from toy_training import train

from facecomp.records.files import InputError


def torchrun(folder: Path, **arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(random.SystemRandom().randint(20000, 60000))]
    command += [str(TOY), str(folder), json.dumps(arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_processes_equal_one_and_resume_after_sigterm(tmp_path):
    """Two with 2 items each are one with 4; SIGTERM to the launcher saves all, and the rest is equal."""
    same = {"dropout": 0.0, "items": 24}
    single = train(tmp_path / "one", batch=4, **same)
    process = torchrun(tmp_path / "two", batch=2, pause=0.05, **same)
    wait_for(tmp_path / "two" / "checkpoint-000001-00000002.pt")
    process.terminate()
    said = process.communicate(timeout=150)[1]
    assert process.returncode != 0, said
    assert "SIGTERM: saved at epoch" in (tmp_path / "two" / "log.txt").read_text()
    process = torchrun(tmp_path / "two", batch=2, **same)
    said = process.communicate(timeout=150)[1]
    assert process.returncode == 0, said
    weights, history = result(tmp_path / "two")
    assert all(torch.allclose(weights[k], single[k], atol=1e-6) for k in single)
    values = [list(map(float, line.split(",")[2:])) for line in history.splitlines()[1:]]
    other = result(tmp_path / "one")[1].splitlines()[1:]
    wanted = [list(map(float, line.split(",")[2:])) for line in other]
    assert torch.allclose(torch.tensor(values), torch.tensor(wanted), rtol=1e-5)
    with pytest.raises(InputError, match="is of 2 processes, now 1"):
        train(tmp_path / "two", batch=2, **same)
