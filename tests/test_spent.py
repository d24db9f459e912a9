"""What runs cost, over kills, parallel processes and calls that only look; and how the cost page says it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from facecomp.records.receipts import Receipt, read_receipt, write_receipt
from facecomp.records.spent import Meter, Spent, cost_of, spent_in
from facecomp.site.reports import receipts_table

WORKS = """
import sys, time
from facecomp.records.spent import Meter
meter = Meter(sys.argv[1], every=0.05)
held = bytearray(150 * 2**20)
print("begun", flush=True)
while True:
    sum(range(10_000))
"""


def _worker(folder):
    worker = subprocess.Popen([sys.executable, "-c", WORKS, str(folder)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "begun\n"
    return worker


def _wait_for(folder, seconds, patience=30.0):
    until = time.monotonic() + patience
    while spent_in(folder).cpu_seconds < seconds:
        assert time.monotonic() < until, f"{folder}: {spent_in(folder)} after {patience} s"
        time.sleep(0.02)


def test_what_was_spent_before_a_kill_counts(tmp_path):
    worker = _worker(tmp_path)
    _wait_for(tmp_path, 0.2)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    before = spent_in(tmp_path)
    assert before.memory_mib > 150
    assert Meter(tmp_path).spent().cpu_seconds >= before.cpu_seconds >= 0.2


def test_parallel_processes_add_up(tmp_path):
    workers = [_worker(tmp_path), _worker(tmp_path)]
    _wait_for(tmp_path, 0.4)
    for worker in workers:
        worker.kill()
        worker.wait()
    alone = [json.loads(p.read_text()) for p in (tmp_path / "spent").glob("[0-9]*")]
    assert len(alone) == 2
    (tmp_path / "spent" / ".half.json").write_text(json.dumps(alone[0]))  # killed while writing
    both = spent_in(tmp_path)
    assert both.seconds == pytest.approx(sum(one["seconds"] for one in alone))
    assert both.memory_mib == max(one["memory_mib"] for one in alone)


def test_a_meter_that_nobody_holds_stops_and_a_removed_folder_stays_away(tmp_path):
    home = tmp_path / "run"
    meter = Meter(home, every=0.01)
    with meter.lock:
        shutil.rmtree(home)
    time.sleep(0.1)
    assert not home.exists()
    meter = Meter(home, every=0.01)
    del meter
    (file,) = (home / "spent").iterdir()
    time.sleep(0.05)
    text = file.read_text()
    time.sleep(0.1)
    assert file.read_text() == text


def test_receipts_hold_the_cost_and_older_ones_none(tmp_path):
    known = cost_of(Spent(90.0, 60.0, 512.0))
    path = write_receipt(tmp_path, Receipt("a", "psm", "run_cohort", "synthetic", **known), [])
    made = read_receipt(path)
    assert (made.seconds, made.cpu_seconds, made.memory_mib) == (90.0, 60.0, 512.0)
    values = json.loads(path.read_text())
    del values["cpu_seconds"], values["memory_mib"]
    path.write_text(json.dumps(values))
    assert read_receipt(path).cpu_seconds is None
    assert cost_of(None) == {}


def test_the_cost_page_says_which_seconds_are_all_of_them(tmp_path):
    folder = tmp_path / "results"
    whole = Receipt("cohort", "psm", "run_cohort", "synthetic", **cost_of(Spent(90.0, 60.0, 512.4)))
    write_receipt(folder / "psm", whole, [])
    write_receipt(folder / "flow", Receipt("cohort", "flow", "run_cohort", "synthetic", seconds=8.2), [])
    write_receipt(folder / "fomm", Receipt("cohort", "fomm", "run_cohort", "synthetic"), [])
    table = receipts_table(tmp_path).set_index("study")[["minutes", "CPU minutes", "MiB"]]
    expected = {
        "psm": ("1.5", "1.0", "512"),
        "flow": ("0.1 (last call)", "not recorded", "not recorded"),
        "fomm": ("not recorded", "not recorded", "not recorded"),
    }
    pd.testing.assert_frame_equal(
        table, pd.DataFrame.from_dict(expected, orient="index", columns=table.columns).rename_axis("study")
    )
