"""A server with the page, and a browser whose pages fail the test when they ask anything of another host."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps projects."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def server(projects: Path) -> Iterator[str]:
    """The address of the page over an empty folder."""
    gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
    import torch

    from lora_edit.ui.serve import serve

    before = torch.get_num_threads()
    address = serve(port=free_port(), folder=projects, wait=False, threads=1)  # the browser and the server share the cores
    yield address
    gradio.close_all(verbose=False)
    torch.set_num_threads(before)


def free_port() -> int:
    """A port that nobody listens at."""
    import socket

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The machine's own Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'lora-edit[dev]'")
    if not CHROMIUM:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(server: str, chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page as a person of one's own would: cookies and storage are not shared."""
    contexts, foreign, faults = [], [], []

    def opened(path: str = "", **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a bound for failures; a busy machine may need more than 30 s for a page
        page.on("request", lambda request: foreign.append(request.url) if is_foreign(request.url, server) else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server + path)
        page.wait_for_selector("#steps [role=tab]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not foreign, f"asked of other hosts: {foreign}"
    assert not faults, f"scripts failed: {faults}"


def is_foreign(address: str, server: str) -> bool:
    """Is it on another host than the page's own?"""
    return not address.startswith((server.rstrip("/"), "data:", "blob:"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the person's own files."""
    return tmp_path
