"""Fixtures: a server with the page, and a browser whose pages fail the test on requests to other hosts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ui.pending_events import COUNT_PENDING_EVENTS
from ui.waiting import HeldTraining

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""

TIMEOUT = 240_000
"""Milliseconds after which a condition counts as failed; far more than a busy machine needs."""


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder of projects."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def server(projects: Path) -> Iterator[str]:
    """The address of a server with an empty projects folder."""
    gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
    import torch

    from lora_edit.ui.serve import serve

    before = torch.get_num_threads()
    address = serve(port=free_port(), folder=projects, wait=False, threads=1)  # the browser and the server share the cores
    yield address
    gradio.close_all(verbose=False)
    torch.set_num_threads(before)


def free_port() -> int:
    """Return an unused port."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The installed Chromium in headless mode."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'lora-edit[dev]'")
    if not CHROMIUM:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    playwright.expect.set_options(timeout=TIMEOUT)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(server: str, chromium: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens the page in a new browser context, without shared cookies and storage.

    The environment variable `LORA_EDIT_BROWSER_SLOWDOWN` divides the speed of the pages' scripts, to find tests that depend on it.
    """
    contexts, foreign_requests, script_errors = [], [], []

    def open_page(path: str = "", **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True} | options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(COUNT_PENDING_EVENTS)
        page.set_default_timeout(TIMEOUT)
        if slowdown := os.environ.get("LORA_EDIT_BROWSER_SLOWDOWN"):
            context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": float(slowdown)})
        page.on("request", lambda request: foreign_requests.append(request.url) if is_foreign(request.url, server) else None)
        page.on("pageerror", lambda error: script_errors.append(str(error)))
        page.goto(server + path)
        page.wait_for_selector("#steps [role=tab]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not foreign_requests, f"requests to other hosts: {foreign_requests}"
    assert not script_errors, f"scripts failed: {script_errors}"


def is_foreign(address: str, server: str) -> bool:
    """Return whether an address is on another host than the server."""
    return not address.startswith((server.rstrip("/"), "data:", "blob:"))


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldTraining]:
    """Training of the server's jobs, which a test can hold."""
    from lora_edit.ui.jobs import JobReporter

    held, report = HeldTraining(), JobReporter.step

    def step(reporter: Any, stage: str, done: int, *args: Any, **options: Any) -> None:
        report(reporter, stage, done, *args, **options)
        while stage == "motion" and done >= held.step and reporter.job.state == "running":
            time.sleep(0.02)
        if reporter.job.state == "stopping":
            report(reporter, stage, done, *args, **options)

    monkeypatch.setattr(JobReporter, "step", step)
    yield held
    held.release()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for input files."""
    return tmp_path
