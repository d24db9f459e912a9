"""Fetching: resumed, checked, and never half done; against a server on this machine."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from facecomp.records.fetch import (
    Manifest,
    RemoteFile,
    Unavailable,
    cache_folder,
    check_bytes,
    download,
    fetch,
    find_local,
)
from facecomp.records.files import InputError, sha256_bytes

BODY = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(50_000)
HTML = b"<!DOCTYPE html><html><body>Log in, please</body></html>"


def remote(name, body):
    return RemoteFile(name, len(body), sha256_bytes(body), f"http://127.0.0.1:9/{name}")


A, B = remote("a.pickle", BODY), remote("b.pickle", OTHER)
TOY = Manifest("toy", "nobody", "none", (A, B))


class Server(ThreadingHTTPServer):
    """Serves `bodies`; what it does to an answer is set by the test."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies = {"a.pickle": BODY, "b.pickle": OTHER}
        self.ranges = True  # resumes
        self.cut = None  # breaks off after so many bytes
        self.says_length = True
        self.pause = 0.0  # seconds after every 64 KiB
        self.log = []  # [name, Range header, status, bytes sent]

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, name="a.pickle"):
        return [entry[1:] for entry in self.log if entry[0] == name]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, name = self.server, self.path.rpartition("/")[2]
        body, asked = server.bodies.get(name), self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else None
        status = 404 if body is None else 200 if start is None else 206
        entry = [name, asked, status, 0]
        server.log.append(entry)
        self.send_response(status)
        rest = (b"not here" if body is None else body)[start or 0 :]
        if server.says_length:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.send(rest[: server.cut], entry)

    def send(self, data, entry):
        try:
            for place in range(0, len(data), 1 << 16):
                self.wfile.write(data[place : place + (1 << 16)])
                self.wfile.flush()
                entry[3] += len(data[place : place + (1 << 16)])
                time.sleep(self.server.pause)
        except OSError:
            pass  # the other side is gone


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("FACECOMP_OFFLINE", "FACECOMP_PUBLISHED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("FACECOMP_CACHE", str(tmp_path / "cache"))
    server = Server()
    monkeypatch.setenv("FACECOMP_MIRROR", server.address + "/")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(server):
    made = cache_folder("toy")
    made.mkdir(parents=True)
    return made


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- downloads --------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
def test_all_files_are_fetched_whole(server, folder, ranges):
    server.ranges = ranges
    answer = fetch(TOY, quiet=True)
    assert answer.unavailable == {}
    assert answer.found == {"a.pickle": folder / "a.pickle", "b.pickle": folder / "b.pickle"}
    assert (folder / "a.pickle").read_bytes() == BODY
    assert (folder / "b.pickle").read_bytes() == OTHER
    assert names(folder) == ["a.pickle", "b.pickle"]


@pytest.mark.parametrize("name", ["a", "a.pickle"])
def test_only_the_named_file_is_fetched(server, folder, name):
    assert fetch(TOY, [name], quiet=True).found.keys() == {"a.pickle"}
    assert [entry[0] for entry in server.log] == ["a.pickle"]


def test_unknown_name_is_no_network_request(server, folder):
    with pytest.raises(KeyError):
        fetch(TOY, ["c"], quiet=True)
    assert server.log == []


def test_second_fetch_asks_for_nothing(server, folder):
    fetch(TOY, quiet=True)
    server.log.clear()
    assert fetch(TOY, quiet=True).found.keys() == {"a.pickle", "b.pickle"}
    assert server.log == []


def test_part_is_resumed_from_where_it_ends(server, folder):
    (folder / "a.pickle.part").write_bytes(BODY[:123_456])
    assert download(A, folder).read_bytes() == BODY
    assert server.asked() == [["bytes=123456-", 206, len(BODY) - 123_456]]
    assert names(folder) == ["a.pickle"]


def test_server_that_ignores_the_range_is_taken_from_the_start(server, folder):
    server.ranges = False
    (folder / "a.pickle.part").write_bytes(BODY[:123_456])
    assert download(A, folder).read_bytes() == BODY
    assert server.asked() == [["bytes=123456-", 200, len(BODY)]]


def test_whole_part_needs_no_request(server, folder):
    (folder / "a.pickle.part").write_bytes(BODY)
    assert download(A, folder).read_bytes() == BODY
    assert server.log == []


def test_part_that_is_too_long_is_started_over(server, folder):
    (folder / "a.pickle.part").write_bytes(BODY + b"more")
    assert download(A, folder).read_bytes() == BODY
    assert server.asked() == [["bytes=0-", 206, len(BODY)]]


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(BODY)])
def test_part_of_another_file_is_refused_and_removed_then_fetched(server, folder, part):
    (folder / "a.pickle.part").write_bytes(part)
    with pytest.raises(InputError, match="a.pickle: has SHA-256 "):
        download(A, folder)
    assert names(folder) == []
    assert download(A, folder).read_bytes() == BODY


def test_broken_connection_leaves_the_part_for_the_next_call(server, folder):
    server.cut = 100_000
    reason = fetch(TOY, quiet=True).unavailable["a.pickle"]
    assert reason.startswith(f"a.pickle: no answer from {server.address}/a.pickle (")
    got = (folder / "a.pickle.part").stat().st_size
    assert 0 < got <= 100_000
    server.cut = None
    assert fetch(TOY, quiet=True).unavailable == {}
    assert (folder / "a.pickle").read_bytes() == BODY
    assert server.asked()[1] == [f"bytes={got}-", 206, len(BODY) - got]


def test_many_broken_connections_come_to_an_end(server, folder):
    server.cut = 100_000
    for _ in range(5):  # a broken chunk of 64 KiB is asked for again
        answer = fetch(TOY, ["a"], quiet=True)
    assert answer.unavailable == {}
    assert (folder / "a.pickle").read_bytes() == BODY


def test_short_answer_without_a_length_is_not_taken_for_the_file(server, folder):
    server.cut, server.says_length = 1000, False
    with pytest.raises(InputError, match="a.pickle: is truncated: 1000 of 300000 bytes"):
        download(A, folder)
    assert "a.pickle" not in names(folder)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (HTML, "is a web page, not the published file"),
        (HTML * 10_000, "is a web page, not the published file"),
        (b"", r"is empty \(0 bytes\)"),
        (BODY[:-1], "is truncated: 299999 of 300000 bytes"),
        (BODY + b"x", "has SHA-256 "),
        (
            BODY[:-1] + bytes([BODY[-1] ^ 1]),
            f"has SHA-256 .*, the published file has {A.sha256[:12]}",
        ),
    ],
)
def test_other_bytes_are_refused_and_leave_nothing(server, folder, body, fault):
    server.bodies["a.pickle"] = body
    with pytest.raises(InputError, match=f"^{server.address}/a.pickle: {fault}"):
        fetch(TOY, quiet=True)
    assert names(folder) == []


def test_absent_file_is_reported_and_the_others_are_fetched(server, folder):
    del server.bodies["a.pickle"]
    answer = fetch(TOY, quiet=True)
    reason = f"a.pickle: the server answered 404 for {server.address}/a.pickle"
    assert answer.unavailable == {"a.pickle": reason}
    assert answer.found == {"b.pickle": folder / "b.pickle"}
    assert names(folder) == ["b.pickle"]


def test_no_server_means_no_further_requests(server, folder, monkeypatch):
    monkeypatch.setenv("FACECOMP_MIRROR", "http://127.0.0.1:9")
    start = time.monotonic()
    answer = fetch(TOY, quiet=True)
    assert answer.found == {}
    assert answer.unavailable["a.pickle"].startswith("a.pickle: no answer from http://127.0.0.1:9/")
    assert answer.unavailable["b.pickle"] == (
        "b.pickle: not tried, the network did not answer before"
    )
    assert time.monotonic() - start < 10


def test_address_of_the_manifest_is_used_without_a_mirror(server, folder, monkeypatch):
    monkeypatch.delenv("FACECOMP_MIRROR")
    file = RemoteFile(A.name, A.size, A.sha256, f"{server.address}/deep/folder/a.pickle")
    assert download(file, folder).read_bytes() == BODY


@pytest.mark.parametrize("value", ["1", "yes"])
def test_offline_makes_no_request(server, folder, monkeypatch, value):
    monkeypatch.setenv("FACECOMP_OFFLINE", value)
    answer = fetch(TOY, quiet=True)
    assert answer.unavailable == {
        n: f"{n}: FACECOMP_OFFLINE is set" for n in ("a.pickle", "b.pickle")
    }
    assert server.log == []


@pytest.mark.parametrize("value", ["", "0"])
def test_offline_switched_off(server, folder, monkeypatch, value):
    monkeypatch.setenv("FACECOMP_OFFLINE", value)
    assert fetch(TOY, quiet=True).found.keys() == {"a.pickle", "b.pickle"}


def test_without_network_local_copies_are_found(server, folder):
    (folder / "b.pickle").write_bytes(OTHER)
    answer = fetch(TOY, quiet=True, network=False)
    assert answer.found == {"b.pickle": folder / "b.pickle"}
    assert answer.unavailable == {"a.pickle": "a.pickle: no local copy"}
    assert server.log == []


def test_two_at_once_both_get_the_file(server, folder):
    server.pause = 0.05
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(fetch, TOY, ["a"], True) for _ in range(2)]
    assert [task.result().unavailable for task in tasks] == [{}, {}]
    assert (folder / "a.pickle").read_bytes() == BODY
    assert names(folder)[0] == "a.pickle"


# --- killed -----------------------------------------------------------------------------------

FETCHER = f"""
from facecomp.records.fetch import Manifest, RemoteFile, fetch
fetch(Manifest("toy", "", "", ({A!r},)), quiet=True)
"""


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_killed_download_leaves_no_final_name_and_is_resumed(server, folder):
    server.pause = 0.2
    part = folder / "a.pickle.part"
    child = subprocess.Popen([sys.executable, "-c", FETCHER])
    try:
        wait_for(lambda: part.exists() and part.stat().st_size >= 1 << 16)
    finally:
        os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert names(folder) == ["a.pickle.part"]
    got = part.stat().st_size
    assert got < len(BODY)
    assert part.read_bytes() == BODY[:got]
    server.pause = 0.0
    assert fetch(TOY, ["a"], quiet=True).found == {"a.pickle": folder / "a.pickle"}
    assert server.asked()[-1] == [f"bytes={got}-", 206, len(BODY) - got]
    assert (folder / "a.pickle").read_bytes() == BODY


# --- folders of one's own ---------------------------------------------------------------------


@pytest.mark.parametrize("sub", ["", "toy"])
def test_folder_of_ones_own_is_used_with_or_without_the_study(server, tmp_path, monkeypatch, sub):
    own = tmp_path / "own"
    (own / sub).mkdir(parents=True)
    (own / sub / "a.pickle").write_bytes(BODY)
    monkeypatch.setenv("FACECOMP_PUBLISHED", str(own))
    assert fetch(TOY, ["a"], quiet=True).found == {"a.pickle": own / sub / "a.pickle"}
    assert server.log == []


def test_what_ones_own_folder_lacks_comes_from_the_cache_or_the_network(
    server, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("FACECOMP_PUBLISHED", str(tmp_path))
    (folder / "a.pickle").write_bytes(BODY)
    assert fetch(TOY, quiet=True).found == {
        "a.pickle": folder / "a.pickle",
        "b.pickle": folder / "b.pickle",
    }
    assert [entry[0] for entry in server.log] == ["b.pickle"]


def test_folder_of_ones_own_that_does_not_exist(server, tmp_path, monkeypatch):
    monkeypatch.setenv("FACECOMP_PUBLISHED", str(tmp_path / "nowhere"))
    message = f"^FACECOMP_PUBLISHED={tmp_path}/nowhere: no such folder$"
    with pytest.raises(InputError, match=message):
        fetch(TOY, quiet=True)
    assert server.log == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (HTML, "is a web page"),
        (BODY[:7], "is truncated: 7 of 300000 bytes"),
        (b"x" * len(BODY), "has SHA-256 "),
    ],
)
@pytest.mark.parametrize("place", ["own", "cache"])
def test_damaged_copy_is_named_and_not_replaced(server, tmp_path, monkeypatch, body, fault, place):
    own = tmp_path / place / "toy"
    own.mkdir(parents=True)
    if place == "own":
        monkeypatch.setenv("FACECOMP_PUBLISHED", str(own))
    (own / "a.pickle").write_bytes(body)
    with pytest.raises(InputError, match=f"^{own}/a.pickle: {fault}"):
        fetch(TOY, quiet=True)
    with pytest.raises(InputError, match=f"^{own}/a.pickle: {fault}"):
        find_local(A, "toy")
    assert (own / "a.pickle").read_bytes() == body
    assert server.log == []


def test_no_copy_at_all(server):
    assert find_local(A, "toy") is None


def test_cache_is_in_the_checkout_unless_it_is_named(monkeypatch, tmp_path):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = facecomp\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FACECOMP_CACHE", raising=False)
    assert cache_folder("toy") == tmp_path / "results" / "published" / "toy"
    monkeypatch.setenv("FACECOMP_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder("toy") == tmp_path / "elsewhere" / "toy"


# --- small things -----------------------------------------------------------------------------


def test_manifest_knows_files_by_name_and_stem():
    assert [TOY["a"], TOY["a.pickle"]] == [A, A]
    assert [name in TOY for name in ("b", "b.pickle", "c", "a.pick")] == [True, True, False, False]
    with pytest.raises(KeyError, match="c"):
        TOY["c"]


def test_right_bytes_pass_the_check():
    assert check_bytes(BODY, A, "here") is None


def test_unavailable_is_not_an_input_error():
    assert not issubclass(Unavailable, InputError)
