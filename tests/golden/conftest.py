"""One test per case of a study's cases.json, in the shipped folder or in `--golden-dir`."""

from pathlib import Path

import pytest
import torch

from .harness import CaseError, GoldenSet


def golden_folder(config, study: str) -> Path:
    """Folder of a study: under `--golden-dir` (as seen from where pytest was started) or shipped."""
    given = config.getoption("--golden-dir")
    top = config.invocation_params.dir / given if given else Path(__file__).parent
    return top / study


def pytest_generate_tests(metafunc):
    """A test with the argument `golden_case` runs once for each case of its module's `STUDY`."""
    if "golden_case" not in metafunc.fixturenames:
        return
    folder = golden_folder(metafunc.config, metafunc.module.STUDY)
    salt = metafunc.config.getoption("--golden-salt")
    try:
        golden = GoldenSet.read(folder, salt)
        given = [pytest.param((golden, case["id"]), id=str(case["id"])) for case in golden.cases]
    except CaseError as error:
        given = [pytest.param(error, id="unreadable")]
    metafunc.parametrize("golden_case", given)


@pytest.fixture
def case(golden_case):
    """The case to run; a set that cannot be read fails."""
    if isinstance(golden_case, CaseError):
        pytest.fail(str(golden_case))
    golden, name = golden_case
    return golden.case(name)


@pytest.fixture(autouse=True)
def one_thread():
    """The numbers were made with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
