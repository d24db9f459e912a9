"""What drivers of kill tests share: trainings in forked children, so that the packages are imported once.

A driver is a script of `conftest.drive`; this module is on its path.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from facecomp.training import config, loop


def quietly() -> None:
    """One thread; the picture of the history is not drawn, comments of settings are looked up once."""
    torch.set_num_threads(1)
    loop.draw_history = lambda rows, path: None
    config._comments = lru_cache(config._comments)


def dies_before(
    owner: Any, step: str, number: int, die: int, last: Callable[[], None] = lambda: None
) -> None:
    """From now on this process does `last` and gets the signal `number` before the `die`-th call of `owner.step`."""
    count, done = 0, getattr(owner, step)

    def counted(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == die:
            last()
            os.kill(os.getpid(), number)
        return done(*given)

    setattr(owner, step, counted)


def one_of_two(rank: int, port: int) -> None:
    """From now on this process is of that rank among two, as if `torchrun` had started them."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2}
    told |= {"LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()} | {"TORCHELASTIC_RUN_ID": "x"}


def forked(work: Callable, *given: Any) -> int:
    """Do the work in a child; returns its process number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work(*given)
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    finally:
        os._exit(code)


def print_ends(started: list[int]) -> None:
    """Wait for children and print how each ended: its exit code, or minus its signal."""
    for pid in started:
        _, status = os.waitpid(pid, 0)
        signalled = os.WIFSIGNALED(status)
        print(-os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status), flush=True)
