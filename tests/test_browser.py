"""What a reader does in a browser: run a notebook in JupyterLab, find a name on the site and follow it to its source.

Pictures of each step are kept in tests/artefacts (not in the repository).
"""

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import ROOT
from small_site import small_site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SETTINGS = {
    "notebook-extension/tracker.jupyterlab-settings": '{"windowingMode": "none"}',  # cells below the window, too
    "apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false", "checkForUpdates": false}',
}
SHOTS = ROOT / "tests" / "artefacts"
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    SHOTS.mkdir(exist_ok=True)
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def page(browser):
    """A page that may reach this machine only."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.route("**/*", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort())
    context.set_default_timeout(90_000)
    yield context.new_page()
    context.close()


def notebook_copy(folder: Path, out: Path) -> Path:
    """Figure 4 with committed results of our own runs and pictures that go elsewhere."""
    nb = json.loads((ROOT / "nbs/psm/paper_figure4.ipynb").read_text())
    cell = next(c for c in nb["cells"] if "parameters" in c["metadata"].get("tags", []))
    text = "".join(cell["source"]).replace('source = "published"', 'source = "runs"')
    assert 'source = "runs"' in text
    cell["source"] = text.replace('out_dir = "figures"', f"out_dir = {str(out)!r}")
    path = folder / "psm" / "paper_figure4.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(nb))
    return path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def lab(tmp_path):
    """JupyterLab with settings of its own, on a folder with one notebook: its address."""
    notebook_copy(tmp_path / "nbs", tmp_path / "figures")
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    settings = tmp_path / "settings" / "@jupyterlab"
    for name, text in SETTINGS.items():
        (settings / name).parent.mkdir(parents=True)
        (settings / name).write_text(text)
    environment = {**os.environ, **own, "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "OMP_NUM_THREADS": "1"}
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
    command += [f"--ServerApp.root_dir={tmp_path / 'nbs'}"]
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{port}/api", timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "lab.log").read_text()[-2000:]
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def test_figure_4_runs_in_jupyterlab_and_another_participant_can_be_picked(lab, page, tmp_path):
    page.goto(f"{lab}/lab/tree/psm/paper_figure4.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function("window.jupyterapp && window.jupyterapp.shell.currentWidget?.context?.isReady")
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector(".widget-dropdown select")
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea img').length >= 4")
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    for name in ("fig4a", "fig4b", "fig4c"):
        assert (tmp_path / "figures" / "psm" / f"{name}.png").is_file()
    figure = page.locator(".jp-OutputArea img").first
    figure.scroll_into_view_if_needed()
    assert figure.evaluate("i => i.complete && i.naturalWidth > 300 && i.naturalHeight > 200")
    page.screenshot(path=str(SHOTS / "lab_figure4.png"))
    choose = page.locator(".widget-dropdown select")
    shown = page.locator(".jp-OutputArea img").last
    before = shown.get_attribute("src")
    choose.select_option(index=1)
    page.wait_for_function(
        "before => [...document.querySelectorAll('.jp-OutputArea img')].at(-1)?.src.length > 99"
        " && [...document.querySelectorAll('.jp-OutputArea img')].at(-1).src !== before",
        arg=before,
    )
    choose.scroll_into_view_if_needed()
    page.screenshot(path=str(SHOTS / "lab_pick.png"))


@pytest.fixture
def served(tmp_path):
    """The small site, served on this machine."""
    _, site, check = small_site(tmp_path)
    assert check.faults == ()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_name_is_found_on_the_site_and_followed_to_its_source(served, page):
    failed = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto(f"{served}/index.html")
    page.screenshot(path=str(SHOTS / "site_start.png"))
    page.locator(".search-button-field:visible, .search-button:visible").first.click()
    field = page.locator("input[name='q']:visible").first
    field.fill("write_receipt")
    field.press("Enter")
    result = page.locator("#search-results a", has_text="write_receipt").first
    result.wait_for()
    page.screenshot(path=str(SHOTS / "site_search.png"))
    result.click()
    page.wait_for_url("**/records/receipts.html*")
    entry = page.locator("dt[id='facecomp.records.receipts.write_receipt']")
    assert "write_receipt(" in entry.inner_text().replace("\n", "")
    entry.scroll_into_view_if_needed()
    page.screenshot(path=str(SHOTS / "site_name.png"))
    entry.locator("a", has_text="[source]").click()
    page.wait_for_url("**/_modules/facecomp/records/receipts.html#write_receipt")
    assert "def write_receipt(" in page.locator("[id='write_receipt']").inner_text()
    page.screenshot(path=str(SHOTS / "site_source.png"))
    page.goto(f"{served}/psm/losses.html")
    page.wait_for_selector("mjx-container")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.screenshot(path=str(SHOTS / "site_formula_dark.png"))
    assert failed == []
