"""Attacks on the page: `PYTHONPATH=src python benchmarks/attack_page.py [--write docs/benchmarks/attack.md]`.

Starts the page in a temporary folder, attacks it with plain requests, and prints what happened. The exit code is 1 if an attack did
anything but what is expected. `tests/ui/test_attacks.py` runs most of them against the server of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

LEAKS = ("Traceback", 'File "', " object at 0x", "site-packages", "/src/lora_edit", ".py\\", "errors.pydantic.dev")
"""Texts of tracebacks and of Python objects that no response may contain."""

VIDEO_HEAD = b"\0\0\0\x18ftypmp42"
PASSWORD = "correct horse battery"  # noqa: S105


@dataclass(frozen=True)
class Response:
    """The response to a request."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Target:
    """An attacked page: its address, the folder of its projects, and its process, if it is another than this one.

    `patience` multiplies the time that a response may take.
    """

    address: str
    folder: Path
    process: int | None = None
    cookie: str = ""
    patience: float = 1
    _number: int = field(default=0, repr=False)

    @property
    def place(self) -> str:
        """Host and port."""
        return urllib.parse.urlsplit(self.address).netloc

    def request(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: Any = None, seconds: float = 60
    ) -> Response:
        """Send a request, its path as it stands; a response is checked for `LEAKS`."""
        connection = http.client.HTTPConnection(self.place, timeout=seconds * self.patience)
        cookie = {"Cookie": self.cookie} if self.cookie else {}
        connection.request(method, path, body, {**cookie, **(headers or {})})
        answer = connection.getresponse()
        response = Response(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        connection.close()
        if not path.startswith("/assets/"):
            check_leaks(response.body, self)
        return response

    def send_raw(self, data: bytes, seconds: float = 20) -> int:
        """Send bytes over a socket; returns the status of the response, 0 for a closed connection."""
        host, _, port = self.place.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=seconds) as connection:
            head = b""
            with contextlib.suppress(ConnectionError):  # the server may respond and close before it has read everything
                connection.sendall(data)
            with contextlib.suppress(ConnectionError):
                head = connection.recv(65536)
        return int(head.split(b" ")[1]) if head.startswith(b"HTTP/") else 0

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Gradio's description of the page."""
        return dict(json.loads(self.request("/config").body))

    def find_event(self, elem_id: str, event: str) -> int:
        """Find the number of an element's event."""
        element = next(each["id"] for each in self.config["components"] if each["props"].get("elem_id") == elem_id)
        return int(next(each["id"] for each in self.config["dependencies"] if [element, event] in [list(one) for one in each["targets"]]))

    def join(self, body: Any) -> Response:
        """Send the request of an event: an object, or bytes as they stand."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("/gradio_api/queue/join", "POST", {"Content-Type": "application/json"}, data)

    def call(self, number: int, data: list[Any], event_data: Any = None) -> str:
        """Send an event and wait for its response, as text; the status and text of an error otherwise."""
        self._number += 1
        session = f"attack{os.getpid()}x{self._number}x{time.monotonic_ns()}"
        answer = self.join({"fn_index": number, "session_hash": session, "data": data, "event_data": event_data})
        return self.read_events(session) if answer.status == 200 else f"{answer.status} {answer.body.decode('utf-8', 'replace')}"

    def read_events(self, session: str, seconds: float = 120) -> str:
        """Read the events of a session up to the end of the first one."""
        connection = http.client.HTTPConnection(self.place, timeout=seconds * self.patience)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={session}", headers={"Cookie": self.cookie} if self.cookie else {})
        text = ""
        for line in connection.getresponse():
            text = line.decode("utf-8", "replace")
            if "process_completed" in text or "unexpected_error" in text:
                break
        connection.close()
        check_leaks(text.encode(), self)
        return text

    def event(self, elem_id: str, event: str, *data: Any, event_data: Any = None) -> str:
        """Send an event of an element by its name."""
        return self.call(self.find_event(elem_id, event), list(data), event_data)

    def upload(self, content: bytes, name: bytes = b"clip.mp4", **headers: str) -> Response:
        """Upload a file as the page does."""
        body = build_form(content, name)
        kind = {"Content-Type": "multipart/form-data; boundary=x", **headers}
        return self.request("/gradio_api/upload", "POST", kind, body)

    def create_project(self, clip: Path) -> str:
        """Upload a clip as the page does; returns the name of its project."""
        before = set(self.folder.iterdir()) if self.folder.is_dir() else set()
        [stored] = json.loads(self.upload(clip.read_bytes(), clip.name.encode()).body)
        text = self.event("clip-file", "upload", "", build_file(stored))
        [project] = {path for path in set(self.folder.iterdir()) - before if path.is_dir()}
        assert '"success":true' in text, text
        return project.name

    def measure_memory(self) -> int | None:
        """Return the memory of the server in bytes, if it is another process."""
        if self.process is None or not Path("/proc").is_dir():
            return None
        status = Path(f"/proc/{self.process}/status").read_text("utf-8")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


def build_form(content: bytes, name: bytes = b"clip.mp4", field_name: bytes = b"files") -> bytes:
    """Build a form of one file."""
    head = b'--x\r\nContent-Disposition: form-data; name="' + field_name + b'"; filename="' + name + b'"\r\n\r\n'
    return head + content + b"\r\n--x--\r\n"


def build_file(path: str) -> dict[str, Any]:
    """Build the value of a file field."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def check_leaks(body: bytes, target: Target) -> None:
    """Raise `AssertionError` if a response contains a traceback, an object or a path of the projects."""
    text = body.decode("utf-8", "replace")
    for leak in (*LEAKS, str(target.folder)):
        position = text.find(leak)
        assert position < 0, f"a response contains {leak!r}: {text[max(0, position - 200) : position + 300]}"


def expect(condition: bool, happened: Any) -> str:
    """Return what happened, or raise `AssertionError` with it."""
    assert condition, str(happened)[:600]
    return str(happened)


def summarize(statuses: dict[Any, int]) -> str:
    """Describe statuses by their counts."""
    counts: dict[int, int] = {}
    for status in statuses.values():
        counts[status] = counts.get(status, 0) + 1
    return ", ".join(f"{count} x {status}" for status, count in sorted(counts.items()))


@dataclass(frozen=True)
class Attack:
    """An attack: what it tries, what is expected, and the function that runs it and returns what happened."""

    kind: str
    name: str
    expected: str
    run: Callable[[Target], str]
    is_slow: bool = False


ATTACKS: list[Attack] = []


def attack(kind: str, name: str, expected: str, is_slow: bool = False) -> Callable[[Callable[[Target], str]], Callable[[Target], str]]:
    """Register a function as an attack."""

    def register(run: Callable[[Target], str]) -> Callable[[Target], str]:
        ATTACKS.append(Attack(kind, name, expected, run, is_slow))
        return run

    return register


# Names and origins

FOREIGN_HOSTS = ("evil.example", "127.0.0.1.evil.example", "evil.example:7860", "localhost.evil.example", "[", "", "169.254.169.254")
FOREIGN_ORIGINS = ("https://evil.example", "null", "http://127.0.0.1", "http://localhost:1", "http://127.0.0.1:1", "file://", "x" * 5000)


@attack("names", "foreign, empty and malformed Host", "403 or 400")
def use_foreign_hosts(target: Target) -> str:
    """Send requests under other names, as after DNS rebinding."""
    statuses = {host: target.request("/config", headers={"Host": host}).status for host in FOREIGN_HOSTS}
    statuses["none"] = target.send_raw(b"GET /config HTTP/1.0\r\n\r\n")
    statuses["two"] = target.send_raw(f"GET /config HTTP/1.1\r\nHost: {target.place}\r\nHost: evil.example\r\n\r\n".encode())
    return expect(set(statuses.values()) <= {400, 403}, summarize(statuses) if set(statuses.values()) <= {400, 403} else statuses)


@attack("names", "foreign Origin on reading, joining, cancelling and uploading", "403, nothing stored")
def use_foreign_origins(target: Target) -> str:
    """Send requests of other sites."""
    statuses = {}
    for origin in FOREIGN_ORIGINS:
        for path in ("queue/join", "upload", "cancel"):
            kind = {"Origin": origin, "Content-Type": "multipart/form-data; boundary=x"}
            statuses[origin, path] = target.request(f"/gradio_api/{path}", "POST", kind, build_form(VIDEO_HEAD)).status
        statuses[origin, "config"] = target.request("/config", headers={"Origin": origin}).status
    return expect(set(statuses.values()) == {403}, summarize(statuses))


@attack("names", "cross-site requests without Origin (Sec-Fetch-Site)", "403; only a link opens the page")
def use_cross_site_requests(target: Target) -> str:
    """Send requests as images, scripts and frames of other sites do."""
    statuses = {}
    for site in ("cross-site", "same-site"):
        for path in ("/config", "/gradio_api/startup-events", "/gradio_api/queue/data?session_hash=a"):
            statuses[site, path] = target.request(path, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}).status
    link = target.request("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status
    return expect(set(statuses.values()) == {403} and link == 200, f"{summarize(statuses)}; a link: {link}")


@attack("names", "preflight of another site", "no permission")
def send_preflights(target: Target) -> str:
    """Ask for permission to send another site's request."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
    answer = target.request("/gradio_api/queue/join", "OPTIONS", asked)
    after = target.request("/gradio_api/queue/join", "POST", {"Origin": "https://evil.example", "X-A": "1"}, b"{}").status
    return expect(after == 403, f"{answer.status}; the request itself: {after}")


@attack("names", "security headers", "on every response")
def read_security_headers(target: Target) -> str:
    """Read the headers of a page, a file that does not exist and a foreign request."""
    names = ("x-content-type-options", "content-security-policy", "referrer-policy", "cross-origin-opener-policy")
    answers = [target.request("/"), target.request("/nowhere"), target.request("/config", headers={"Host": "evil.example"})]
    missing = [name for answer in answers for name in names if name not in answer.headers]
    policy = answers[0].headers.get("content-security-policy", "")
    return expect(not missing and "frame-ancestors 'self'" in policy and "default-src 'self'" in policy, missing or "present")


# Routes and files

CLOSED_ROUTES = {
    "GET": """/openapi.json /docs /redoc /monitoring /monitoring/summary /monitoring/x /pwa_icon/99999 /svelte/x /login /logout /runs/
        /pwa_icon /mcp /gradio_api/mcp/sse /gradio_api/info /gradio_api/openapi.json /gradio_api/deep_link /gradio_api/runs /gradio_api/user
        /gradio_api/token /gradio_api/dev/reload /gradio_api/vibe-code /gradio_api/queue/status /gradio_api/proxy=http://127.0.0.1:1/
        /gradio_api/proxy=https://huggingface.co/ /gradio_api/custom_component/1/client/component/a.js /gradio_api/profiling/traces
        /gradio_api/stream/a/b/1/playlist.m3u8 /gradio_api/call/x/y /gradio_api/file/etc/passwd /gradio_api/run-history/records
        /?page=x /?%70age=x /?deep_link=x /config?deep_link=../x""",
    "POST": """/gradio_api/run/predict /gradio_api/api/predict /gradio_api/call/x /gradio_api/call/v2/x /gradio_api/component_server /config
        /gradio_api/process_recording /gradio_api/vibe-edit /gradio_api/vibe-code /gradio_api/undo-vibe-edit /gradio_api/stream/a /login
        /gradio_api/stream/a/close /gradio_api/profiling/clear /gradio_api/run-history/connect""",
    "PUT": "/ /config /gradio_api/upload",
    "DELETE": "/ /gradio_api/file=x",
    "TRACE": "/",
}


@attack("routes", "Gradio's other routes: proxy, API, recorder, monitoring, code editor", "404")
def open_other_routes(target: Target) -> str:
    """Open all routes that the page does not use."""
    statuses = {
        (method, path): target.request(path, method, {"Content-Type": "application/json"}, b"{}" if method == "POST" else None).status
        for method, paths in CLOSED_ROUTES.items()
        for path in paths.split()
    }
    return expect(set(statuses.values()) == {404}, summarize(statuses) if set(statuses.values()) == {404} else statuses)


@attack("files", "files outside of the upload folder, by path, link, address and encoding", "403 or 404")
def read_foreign_files(target: Target) -> str:
    """Read files of the server and of other people."""
    target.folder.mkdir(exist_ok=True)
    (target.folder / "page.log").write_text("a secret", "utf-8")
    secret = target.folder / "page.log"
    link = find_upload_folder(target) / "link"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(secret)
    paths = (
        "/etc/passwd",
        "../../../../../../../../etc/passwd",
        "//etc/passwd",
        "/./etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "/dev/stdin",
        str(target.folder),
        str(secret),
        f"{target.folder}/./x/../page.log",
        f"{link.parent}/../../../..{secret}",
        str(link),
        "pyproject.toml",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "HTTP://127.0.0.1:1/",
        "https://example.org/",
        "//example.org/x",
        "ftp://127.0.0.1/",
        "\\\\example.org\\x",
        "C:\\Windows\\win.ini",
        "x" * 9000,
        ".",
        "~/.ssh/id_rsa",
    )
    statuses = {}
    for path in paths:
        for quoted in {urllib.parse.quote(path), urllib.parse.quote(path, safe=""), urllib.parse.quote(urllib.parse.quote(path, safe=""))}:
            statuses[quoted] = target.request(f"/gradio_api/file={quoted}").status
    statuses["NUL"] = target.request(f"/gradio_api/file={link.parent}/%00").status
    link.unlink()
    found = {path: status for path, status in statuses.items() if status not in (400, 403, 404)}
    return expect(not found, found or summarize(statuses))


def find_upload_folder(target: Target) -> Path:
    """Find the folder of uploads: the server tells a browser where its file is."""
    [stored] = json.loads(target.upload(VIDEO_HEAD).body)
    return Path(stored).parent.parent


@attack("files", "static and asset routes with .. in any encoding", "403 or 404")
def climb_from_static_routes(target: Target) -> str:
    """Climb out of the folders of static files."""
    climbs = ("../" * 8, "..%2f" * 8, "%2e%2e/" * 8, "..%5c" * 8, "%252e%252e%252f" * 8, "....//" * 8, "..%c0%af" * 8, "/")
    statuses = {}
    for route in ("/static/", "/assets/", "/"):
        for climb in climbs:
            statuses[route, climb] = target.request(f"{route}{climb}etc/passwd").status
    return expect(set(statuses.values()) <= {400, 403, 404}, summarize(statuses))


@attack(
    "files", "event with a file of the server, of another project, or at an address (SSRF)", "refused, no request sent, no project made"
)
def send_foreign_files(target: Target) -> str:
    """Name a file that the browser has not uploaded as the dropped clip, edited frame and mask."""
    asked: list[str] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        """Records requests of the attacked server."""

        def do_GET(self) -> None:
            """Record the request."""
            asked.append(self.path)

    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        inside = f"http://127.0.0.1:{listener.server_port}/a.mp4"
        states = [str(path) for path in target.folder.glob("*/states.json")][:1]
        before = set(target.folder.iterdir())
        paths = (
            "/etc/passwd",
            *states,
            inside,
            "http://169.254.169.254/latest/meta-data",
            "https://example.org/a.mp4",
            "/dev/zero",
            "",
            "gradio_api/file=/etc/passwd",
            "../" * 9 + "etc/passwd",
            "a\0b",
            "x" * 5000,
            "\\\\example.org\\a",
            "file:///etc/passwd",
        )
        answers = {path: target.event("clip-file", "upload", "", build_file(path)) for path in paths}
        more = {**build_file("/etc/passwd"), "url": inside, "orig_name": "../../x.mp4"}
        answers["url"] = target.event("clip-file", "upload", "", more)
        listener.shutdown()
    taken = {path: text[:200] for path, text in answers.items() if '"success":true' in text}
    return expect(not taken and not asked and set(target.folder.iterdir()) == before, taken or asked or f"{len(answers)} refused")


# Uploads

HOSTILE_NAMES = (
    b"../../evil.mp4",
    b"/etc/evil.mp4",
    b"..\\\\..\\\\evil.mp4",
    b"a\x00b.mp4",
    b"-rf.mp4",
    b"CON.mp4",
    b"nul",
    b".bashrc",
    b"..",
    b".",
    b"<img src=x onerror=alert(1)>.mp4",
    "\u202egnp.mp4".encode(),
    b"a;b|c&d$(id)`id`.mp4",
    b"%2e%2e%2fevil.mp4",
    b"\xff\xfe.mp4",
    b"x" * 300 + b".mp4",
    b"a." + b"y" * 300,
    "\U0001f3ac.mp4".encode(),
    b"{{7*7}}.mp4",
    b"a\tb.mp4",
)


@attack(
    "uploads",
    "hostile file names: ../, NUL, CON, HTML, right-to-left, 300 characters, shell characters",
    "stored inside the upload folder, or 400",
)
def upload_hostile_names(target: Target) -> str:
    """Upload files with hostile names."""
    folder, stored, statuses = find_upload_folder(target), [], {}
    for name in HOSTILE_NAMES:
        answer = target.upload(VIDEO_HEAD + name, name)
        statuses[name] = answer.status
        stored += json.loads(answer.body) if answer.status == 200 else []
    outside = [path for path in stored if not Path(path).resolve().is_relative_to(folder.resolve())]
    known = set(statuses.values()) <= {200, 400}
    return expect(not outside and known, outside or (summarize(statuses) if known else statuses))


@attack("uploads", "hostile names shown by the page and kept by a project", "no tag, no control character")
def show_hostile_names(target: Target) -> str:
    """Import clips with hostile names and read the page's responses."""
    sys.path.insert(0, str(ROOT / "tests"))
    from ui.rendered import write

    shown = []
    with tempfile.TemporaryDirectory() as name:
        clip = write(Path(name))[0].read_bytes()
    for hostile in ("<img src=x onerror=alert(1)>.mp4", "a\u202egnp.mp4", "a." + "y" * 190, "b" * 190 + ".mp4"):
        [stored] = json.loads(target.upload(clip, hostile.encode()).body)
        text = target.event("clip-file", "upload", "", build_file(stored))
        assert '"success":true' in text and "internal error" not in text, text[:500]
        shown.append(text)
    return expect(not any("<img src=x" in text or "\u202e" in text or "\\u202e" in text for text in shown), f"{len(shown)} shown escaped")


@attack("uploads", "2 GB that is no video; 5 GB; 300 MB of JSON", "415, 413, 413 before the body is read")
def declare_large_bodies(target: Target) -> str:
    """Declare large bodies and send their beginning."""
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + b"no video at all " * 64
    start = time.monotonic()
    statuses = [
        send_head(target, "upload", 2_000_000_000, form),
        send_head(target, "upload", 5_000_000_000, form),
        send_head(target, "queue/join", 300_000_000, b"{", kind="application/json"),
    ]
    return expect(statuses == [415, 413, 413], f"{statuses} in {time.monotonic() - start:.1f} s")


def send_head(target: Target, path: str, length: int, body: bytes, kind: str = "multipart/form-data; boundary=x", more: str = "") -> int:
    """Send the head of a request that declares a length, and the beginning of its body."""
    lines = (f"POST /gradio_api/{path} HTTP/1.1", f"Host: {target.place}", f"Content-Type: {kind}", f"Content-Length: {length}")
    cookie = f"Cookie: {target.cookie}\r\n" if target.cookie else ""
    return target.send_raw(("\r\n".join(lines) + "\r\n" + cookie + more + "\r\n").encode() + body)


def send_chunked(target: Target, path: str, chunks: Iterator[bytes], kind: str = "multipart/form-data; boundary=x") -> int:
    """Send a body without a declared length; returns the status of the response."""
    connection = http.client.HTTPConnection(target.place, timeout=60)
    connection.putrequest("POST", f"/gradio_api/{path}")
    for name, value in {"Content-Type": kind, "Transfer-Encoding": "chunked", "Cookie": target.cookie}.items():
        connection.putheader(name, value)
    connection.endheaders()
    with contextlib.suppress(OSError):
        for chunk in chunks:
            connection.send(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        connection.send(b"0\r\n\r\n")
    with contextlib.suppress(OSError, http.client.HTTPException):
        return connection.getresponse().status
    return 0


@attack("uploads", "64 MB that is no video, without a declared length", "415 or closed, nothing kept")
def upload_without_length(target: Target) -> str:
    """Upload a large file that is no video in chunks."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    status = send_chunked(target, "upload", iter([head, *[b"no video" * 131072] * 64, b"\r\n--x--\r\n"]))
    return expect(status in (0, 415), status or "closed")


@attack("uploads", "3 MB of JSON without a declared length", "413 or closed")
def join_without_length(target: Target) -> str:
    """Send a large event in chunks."""
    status = send_chunked(target, "queue/join", iter([b"[" * 65536] * 48), "application/json")
    return expect(status in (0, 413), status or "closed")


@attack("uploads", "form without a file, a field of 40 MB, two files, 3,000 parts, no boundary, wrong type", "400 to 415, or closed")
def upload_malformed_forms(target: Target) -> str:
    """Upload forms that the page does not send."""
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + VIDEO_HEAD + b"\r\n"
    text_field = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n'
    kind = "multipart/form-data; boundary=x"
    forms = {
        "field": (text_field + b"a\r\n--x--\r\n", kind),
        "large field": (text_field + VIDEO_HEAD + bytes(40_000_000) + b"\r\n--x--\r\n", kind),
        "two files": (part * 2 + b"--x--\r\n", kind),
        "3000 parts": (part * 3000 + b"--x--\r\n", kind),
        "no boundary": (part, "multipart/form-data"),
        "long boundary": (part, "multipart/form-data; boundary=" + "x" * 5000),
        "text": (b"hello", "text/plain"),
        "JSON": (b"{}", "application/json"),
        "urlencoded": (b"files=a", "application/x-www-form-urlencoded"),
        "no type": (b"hello", ""),
        "empty": (b"", kind),
        "header only": (b"--x\r\n", kind),
        "long name": (build_form(VIDEO_HEAD, b"n" * 10_000), kind),
        "no end": (part, kind),
    }
    statuses = {}
    for name, (body, content_type) in forms.items():
        statuses[name] = send_head(target, "upload", len(body), body, content_type)
    cut = statuses.pop("no end")  # a file whose form is cut is still a file
    known = set(statuses.values()) <= {0, 400, 413, 415} and cut in (200, 400)
    return expect(known, summarize(statuses) if known else statuses)


@attack("uploads", "a length that lies: shorter and longer than the body", "no crash, nothing kept under its name")
def lie_about_length(target: Target) -> str:
    """Declare another length than is sent."""
    body = build_form(VIDEO_HEAD)
    shorter = send_head(target, "upload", 20, body)
    host, _, port = target.place.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {target.place}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall((head + f"Content-Length: 100000000\r\nCookie: {target.cookie}\r\n\r\n").encode() + body)
    both = target.send_raw(
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {target.place}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    alive = target.request("/config").status
    return expect(shorter in (0, 400) and alive == 200 and both in (0, 400), f"shorter: {shorter}; longer: cut; two lengths: {both}")


@attack("uploads", "files of other kinds under the name of a video: HTML, SVG, ZIP, pickle, executable, polyglot", "a message, no project")
def import_other_kinds(target: Target) -> str:
    """Drop files that are not what their name says."""
    kinds = {
        "html": b"<html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "zip": b"PK\3\4" + bytes(200),
        "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "elf": b"\x7fELF" + bytes(200),
        "gif-js": b"GIF89a/*" + bytes(100) + b"*/=1;alert(1)",
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{make_clip()}\n#EXT-X-ENDLIST\n".encode(),
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "empty": b"",
        "mp4": VIDEO_HEAD + bytes(4000),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    before, answers = set(target.folder.glob("*/states.json")), {}
    for kind, content in kinds.items():
        for suffix in ("mp4", "m3u8"):
            answer = target.upload(content, f"a.{suffix}".encode())
            if answer.status == 200:
                answers[kind, suffix] = target.event("clip-file", "upload", "", build_file(json.loads(answer.body)[0]))
    wrong = {kind: text[:300] for kind, text in answers.items() if "alert" not in text or "internal error" in text}
    left = [each for each in set(target.folder.glob("*/states.json")) - before if '"clip"' in each.read_text("utf-8")]
    return expect(not wrong and not left, wrong or left or f"{len(answers)} messages beside the field")


# Events

HOSTILE_VALUES: dict[str, Any] = {
    "null": None,
    "huge number": -(10**18),
    "float": 2.5,
    "text": "nonsense<b>\0",
    "nested": {"a": [[{"b": 1}]]},
    "file": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
}


@attack(
    "events",
    "each handler of the page with each of six hostile values in all fields",
    "no internal error, no traceback, no object",
    is_slow=True,
)
def send_hostile_values(target: Target) -> str:
    """Send hostile values to every handler, with a real project."""
    project, count, failures = get_project(target), 0, {}
    for name, value in HOSTILE_VALUES.items():
        for dependency in target.config["dependencies"]:
            if not dependency["backend_fn"] or dependency["id"] in list_starting_events(target):
                continue
            data = [value for _ in dependency["inputs"]]
            text = target.call(dependency["id"], [project, *data[1:]] if data else [], value)
            count += 1
            if "internal error" in text:
                failures[name, tuple(map(tuple, dependency["targets"]))] = text[text.index("internal error") :][:80]
    return expect(
        not failures, "; ".join(f"{key}: {text}" for key, text in failures.items()) or f"{count} events refused or without effect"
    )


def list_starting_events(target: Target) -> set[int]:
    """List the events that start jobs, which would train for minutes, or that change the project of the attacks."""
    return {target.find_event(name, "click") for name in ("run-start", "run-try", "settings-estimate", "region-film")}


@functools.cache
def make_clip() -> Path:
    """Write a small clip."""
    sys.path.insert(0, str(ROOT / "tests"))
    from ui.rendered import write

    return write(Path(tempfile.mkdtemp(prefix="attack-")))[0]


_PROJECTS: dict[str, str] = {}


def get_project(target: Target) -> str:
    """Return the project of the attacks, with a clip."""
    if target.address not in _PROJECTS:
        _PROJECTS[target.address] = target.create_project(make_clip())
    return _PROJECTS[target.address]


MALFORMED_MARKS: tuple[Any, ...] = (
    None,
    1,
    "x",
    [],
    {},
    {"kind": "point"},
    {"kind": "point", "frame": 10**9, "x": 1, "y": 1},
    {"kind": "<b>", "frame": 0},
    {"kind": "point", "frame": -1},
    {"kind": "point", "frame": 0, "x": 1e300, "y": -1e300},
    {"kind": "box", "frame": 0, "x": 0, "y": 0, "width": 1e300, "height": 1e300},
    {"kind": "paint", "frame": 0, "stroke": [[1e300, 1]], "width": 1e300},
    {"kind": "paint", "frame": 0, "stroke": [[1, 1]] * 5000},
    {"kind": "paint", "frame": 0, "stroke": [[1, 1]], "width": -5},
    {"kind": "paint", "frame": 0, "stroke": []},
    {"kind": "point", "frame": 0.5, "x": 1},
    {"kind": ["point"], "frame": {"a": 1}},
    {"kind": "point", "frame": 0, "x": "1; drop", "y": []},
    {"frame": "0"},
    {"frame": True},
)


@attack("events", "malformed marks and frame numbers", "a message without Python objects")
def send_malformed_marks(target: Target) -> str:
    """Send marks that the viewer does not draw."""
    project, failures = get_project(target), {}
    for number, mark in enumerate(MALFORMED_MARKS):
        for event in ("mark", "frame", "film"):
            data = [project, "1"] if event == "mark" else [project]
            text = target.event("region-view", event, *data, event_data=mark)
            if "internal error" in text or "<class" in text:
                failures[event, number] = text[:500]
    target.event("region-clear", "click", project, 0)
    return expect(not failures, failures or f"{3 * len(MALFORMED_MARKS)} events")


@attack("events", "10^9 steps, rate 1e99, 2.5 steps, model nonsense<b>, 400 kB of prompt", "a message beside the field, nothing stored")
def send_hostile_settings(target: Target) -> str:
    """Send settings out of range."""
    project = get_project(target)
    state = target.folder / project / "states.json"
    before, number = state.read_text("utf-8"), target.find_event("settings-prompt", "blur")
    labels = [each["props"].get("elem_id") for each in target.config["components"]]
    ids = {elem_id: each["id"] for elem_id, each in zip(labels, target.config["components"], strict=True) if elem_id}
    dependency = next(each for each in target.config["dependencies"] if each["id"] == number)
    known = {"settings-preset": "standard", "settings-prompt": "", "settings-model": "tiny", "settings-seed": 0, "settings-others": ""}
    start = [{ids[key]: value for key, value in known.items() if key in ids}.get(each) for each in dependency["inputs"]]
    start[:2] = [project, "standard tiny"]
    hostile = {
        "knob-training-motion_steps": 10**9,
        "knob-training-learning_rate": 1e99,
        "settings-model": "nonsense<b>",
        "settings-prompt": "a" * 400_000,
        "settings-seed": 2.5,
        "settings-others": "training.motion_steps=2.5",
        "settings-preset": "nonsense<b>",
    }
    answers = {}
    for elem_id, value in hostile.items():
        data = [value if each == ids[elem_id] else old for each, old in zip(dependency["inputs"], start, strict=True)]
        answers[elem_id] = target.call(number, data)
    data = [2.5 if each == ids["knob-training-motion_steps"] else old for each, old in zip(dependency["inputs"], start, strict=True)]
    answers["2.5 steps"] = target.call(number, data)
    wrong = {
        key: text[:300]
        for key, text in answers.items()
        if not ("alert" in text or '"success":false' in text) or ('"success":true' in text and "<b>" in text)
    }
    return expect(not wrong and state.read_text("utf-8") == before, wrong or f"{len(answers)} messages")


@attack("events", "malformed requests: deep, huge, not JSON, NaN, wrong types, unknown, negative and huge event numbers", "4xx")
def send_malformed_events(target: Target) -> str:
    """Send requests that no page sends."""
    known = {"session_hash": "attackjoin", "data": []}
    bodies: dict[str, Any] = {
        "deep list": b"[" * 400_000,
        "deep data": b'{"session_hash":"a","fn_index":0,"data":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "depth 100": b'{"session_hash":"a","fn_index":0,"data":' + b"[" * 100 + b"]" * 100 + b"}",
        "empty": b"",
        "text": b"hello",
        "list": [],
        "null": b"null",
        "NaN": b'{"session_hash":"a","fn_index":0,"data":[NaN]}',
        "infinite": b'{"session_hash":"a","fn_index":0,"data":[1e999]}',
        "long number": b'{"session_hash":"a","fn_index":0,"data":[' + b"9" * 10_000 + b"]}",
        "UTF-16": '{"session_hash":"a"}'.encode("utf-16"),
        "invalid UTF-8": b'{"session_hash":"\xff\xfe"}',
        "unknown": {**known, "fn_index": 99_999},
        "negative": {**known, "fn_index": -1},
        "huge": {**known, "fn_index": 10**30},
        "float": {**known, "fn_index": 1.5},
        "named": {**known, "fn_index": "a"},
        "none": known,
        "no session": {"fn_index": 0, "data": []},
        "long session": {"session_hash": "a" * 100_000, "fn_index": 0, "data": []},
        "session of path": {"session_hash": "../../a", "fn_index": 0, "data": []},
        "data of text": {**known, "fn_index": 0, "data": "a"},
    }
    statuses = {name: target.join(body).status for name, body in bodies.items()}
    wrong = {name: status for name, status in statuses.items() if not 400 <= status < 500}
    return expect(not wrong and target.request("/config").status == 200, wrong or summarize(statuses))


@attack("events", "too few and too many values for each handler", "no traceback", is_slow=True)
def send_wrong_counts(target: Target) -> str:
    """Send events with other numbers of values than their handlers take."""
    count = 0
    for dependency in target.config["dependencies"]:
        if dependency["backend_fn"] and dependency["id"] not in list_starting_events(target):
            for data in ([], ["a"] * (len(dependency["inputs"]) + 3)):
                target.call(dependency["id"], data)
                count += 1
    return f"{count} events without a traceback"


# Projects and sessions


@attack("projects", "forged names: ../, absolute, NUL, percent-encoded, long, of another type, a link inside the folder", "does not exist")
def forge_projects(target: Target) -> str:
    """Open projects by forged names."""
    project = get_project(target)
    link = target.folder / ("f" * 32)
    with contextlib.suppress(FileExistsError):
        link.symlink_to("/etc")
    names: tuple[Any, ...] = (
        f"../{target.folder.name}/{project}",
        f"./{project}",
        f"{project}/",
        f"{project}\0",
        f"{project}\n",
        project.upper(),
        project[:-1],
        "..",
        ".",
        "/etc",
        "",
        "0" * 32,
        "f" * 32,
        "%2e%2e",
        "a" * 9000,
        f"{project}/given",
        f"//{project}",
        None,
        1,
        [],
        {},
        [project],
        {"a": project},
        True,
    )
    answers = {repr(name)[:60]: target.event("redo", "click", name, 0) for name in names}
    link.unlink()
    wrong = {name: text[:300] for name, text in answers.items() if "this project does not exist" not in text}
    if project == project.upper():
        wrong.pop(repr(project.upper())[:60], None)
    return expect(
        not wrong and '"success":true' in target.event("redo", "click", project, 0), wrong or f"{len(answers)} names do not exist"
    )


@attack("projects", "forged name in the address, with tags and quotes", "a message, nothing of the name")
def forge_addresses(target: Target) -> str:
    """Open the page with hostile addresses."""
    hostile = (
        "?project=<script>alert(1)</script>",
        "?project=%00",
        "?project=../..",
        "?project=" + "a" * 9000,
        "?__theme=<script>",
        "?view=api",
    )
    answers = {query: target.request("/" + urllib.parse.quote(query, safe="?=&%")) for query in hostile}
    reflected = [query for query, answer in answers.items() if b"<script>alert(1)" in answer.body]
    return expect(not reflected and all(each.status in (200, 404) for each in answers.values()), reflected or "nothing reflected")


@attack("projects", "names are random", "122 random bits")
def guess_projects(target: Target) -> str:
    """Compare the names of two projects."""
    first, second = target.create_project(make_clip()), target.create_project(make_clip())
    same = sum(one == other for one, other in zip(first, second, strict=True))
    return expect(len(first) == 32 and same < 12, f"32 hexadecimal digits, {same} equal in two names")


@attack("projects", "another visitor's event stream, cancelling and stopping", "nothing without their random names")
def take_over_sessions(target: Target) -> str:
    """Read, cancel and stop what belongs to another visitor, with guessed names."""
    project, number = get_project(target), target.find_event("redo", "click")
    target.join({"fn_index": number, "session_hash": "victim7f3a", "data": [project, 0]})
    guessed = target.read_events("victim7f3b")
    for event in ("0" * 32, "", "*"):
        body = json.dumps({"session_hash": "victim7f3b", "fn_index": number, "event_id": event}).encode()
        target.request("/gradio_api/cancel", "POST", {"Content-Type": "application/json"}, body)
    target.event("halt", "click", "0" * 32)
    own = target.read_events("victim7f3a")
    return expect(project not in guessed and '"success":true' in own, "the guess sees nothing; the visitor's event ends well")


# Load


def join_and_read(target: Target, number: int, data: list[Any]) -> tuple[int, float]:
    """Send an event and read its response; returns the status and the seconds."""
    start = time.monotonic()
    text = target.call(number, data, {"frame": 0})
    return (int(text[:3]) if text[:3].isdigit() else 200 if "process_completed" in text else 0), time.monotonic() - start


@attack("load", "200 events at once", "each answered, or 503; the page answers within 5 s meanwhile")
def send_many_events(target: Target) -> str:
    """Send 200 events at once and open the page meanwhile."""
    project, number = get_project(target), target.find_event("clip-view", "frame")
    before = target.measure_memory()
    with ThreadPoolExecutor(200) as pool:
        running = [pool.submit(join_and_read, target, number, [project]) for _ in range(200)]
        time.sleep(0.3)
        start = time.monotonic()
        status = target.request("/").status
        seconds = time.monotonic() - start
        outcomes = [each.result() for each in running]
    statuses = dict(enumerate(status for status, _ in outcomes))
    after = target.measure_memory()
    grown = f", {(after - before) / 1e6:.0f} MB more memory" if before is not None and after is not None else ""
    good = (
        status == 200 and seconds < 5 * target.patience and set(statuses.values()) <= {200, 503} and (not grown or after - before < 500e6)
    )
    return expect(
        good, f"{summarize(statuses)}; all ended in {max(each for _, each in outcomes):.1f} s; the page in {seconds:.2f} s{grown}"
    )


@attack("load", "2,000 events that nobody waits for", "the queue ends at its limit with 503", is_slow=True)
def flood_queue(target: Target) -> str:
    """Send events without reading their responses."""
    number, project = target.find_event("region-view", "film"), get_project(target)
    bodies = [
        {"fn_index": number, "session_hash": f"flood{each % 20}", "data": [project], "event_data": {"frame": 0}} for each in range(2000)
    ]
    with ThreadPoolExecutor(16) as pool:
        statuses = dict(enumerate(pool.map(lambda body: target.join(body).status, bodies)))
    for _ in range(120):
        if '"process_completed"' in target.event("redo", "click", project, 0):
            break
        time.sleep(0.5)
    return expect(503 in statuses.values() and set(statuses.values()) <= {200, 503}, summarize(statuses))


@attack("load", "300 connections that send half a header", "the page answers")
def hold_connections(target: Target) -> str:
    """Open connections and send half a request on each."""
    host, _, port = target.place.rpartition(":")
    held = []
    for _ in range(300):
        held.append(socket.create_connection((host, int(port)), timeout=20))
        held[-1].sendall(b"GET / HTTP/1.1\r\nHost: ")
    start = time.monotonic()
    status = target.request("/config").status
    seconds = time.monotonic() - start
    for each in held:
        each.close()
    return expect(status == 200 and seconds < 5 * target.patience, f"the page in {seconds:.2f} s")


@attack("load", "40 uploads that stop after their first bytes", "8 from one address are held, others 503; ended after 30 s", is_slow=True)
def hold_uploads(target: Target) -> str:
    """Begin uploads and send nothing more."""
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + VIDEO_HEAD + bytes(1000)
    with ThreadPoolExecutor(40) as pool:
        start = time.monotonic()
        statuses = dict(enumerate(pool.map(lambda _: hold_upload(target, form), range(40))))
    seconds = time.monotonic() - start
    return expect(set(statuses.values()) == {408, 503} and seconds < 60, f"{summarize(statuses)} in {seconds:.0f} s")


def hold_upload(target: Target, form: bytes) -> int:
    """Begin an upload and wait for the server to end it."""
    lines = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {target.place}",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Length: 100000000",
    )
    return target.send_raw(("\r\n".join(lines) + f"\r\nCookie: {target.cookie}\r\n\r\n").encode() + form, 90)


@attack("load", "the page afterwards", "opens, and a project can be made")
def use_page_afterwards(target: Target) -> str:
    """Use the page after all attacks."""
    return expect(target.request("/").status == 200 and len(target.create_project(make_clip())) == 32, "opens; a clip was imported")


# A public page with a password


def attack_password(target: Target) -> Iterator[tuple[str, str, str, bool]]:
    """Attack the password of a public page: yields name, expectation, what happened, and whether that is expected."""
    open_paths = (
        "/",
        "/config",
        "/gradio_api/queue/data?session_hash=a",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/app_id",
        "/login?a=b",
    )
    statuses = {path: target.request(path).status for path in open_paths}
    for path in ("queue/join", "upload", "cancel", "reset"):
        statuses[path] = target.request(f"/gradio_api/{path}", "POST", {"Content-Type": "application/json"}, b"{}").status
    yield "every route without the password", "401", summarize(statuses), set(statuses.values()) == {401}
    names = {host: target.request("/", headers={"Host": host}).status for host in ("evil.example", "192.168.1.5:7860", "edit.example")}
    yield "foreign name, plain address, allowed name", "403, 401, 401", str([*names.values()]), [*names.values()] == [403, 401, 401]
    forged = {
        cookie: target.request("/config", headers={"Cookie": f"lora-edit={cookie}"}).status for cookie in ("", "0" * 64, PASSWORD, "true")
    }
    yield "forged cookies", "401", summarize(forged), set(forged.values()) == {401}
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    good = target.request("/login?project=a", "POST", kind, f"password={urllib.parse.quote(PASSWORD)}")
    cookie = good.headers.get("set-cookie", "")
    flags = (
        good.status == 303 and all(flag in cookie for flag in ("HttpOnly", "SameSite=Lax")) and good.headers["location"] == "./?project=a"
    )
    yield "the password itself", "303, with an HttpOnly and SameSite cookie", f"{good.status}, {cookie.partition(';')[2].strip()}", flags
    foreign = target.request("/login", "POST", {**kind, "Origin": "https://evil.example"}, f"password={PASSWORD}").status
    yield "the form sent by another site", "403", str(foreign), foreign == 403
    guesses = [target.request("/login", "POST", kind, f"password=guess{number}").status for number in range(12)]
    yield "12 guesses in a row", "5 x 401, then 429", str(guesses), guesses == [401] * 5 + [429] * 7
    inside = target.request("/config", headers={"Cookie": cookie.partition(";")[0]}).status
    yield "a browser with the cookie meanwhile", "200", str(inside), inside == 200
    long = target.request("/login", "POST", kind, "password=" + "a" * 200_000).status
    yield "a password of 200 kB", "429 or closed", str(long), long == 429


@contextlib.contextmanager
def serve_page(folder: Path, *arguments: str, **environment: str) -> Iterator[Target]:
    """Start the page as a process of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "lora_edit", "ui", "--port", str(port), *arguments]
    server = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=(folder / "stderr.txt").open("w")
    )
    try:
        target = Target(f"http://127.0.0.1:{port}/", folder / "runs", server.pid)
        for _ in range(240):
            with contextlib.suppress(OSError):
                target.request("/", seconds=5)
                break
            time.sleep(0.5)
        yield target
    finally:
        server.terminate()
        server.wait(30)


PAGE = """# The page under attack

`{command}` starts the page in a temporary folder and attacks it with plain requests; {date}, two CPU cores, no GPU. Every response is also
searched for tracebacks, Python objects and paths of the projects. [SECURITY.md](../../SECURITY.md) says what is not defended.

| kind | attack | expected | what happened |
|---|---|---|---|
{rows}
"""


def run_attack(each: Attack, target: Target) -> tuple[str, bool]:
    """Run an attack; returns what happened and whether that is expected."""
    try:
        return each.run(target), True
    except (AssertionError, OSError, http.client.HTTPException, KeyError, ValueError) as error:
        return f"SURPRISE: {type(error).__name__}: {error}", False


def main() -> int:
    """Run all attacks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="page to write the table to")
    parser.add_argument("--only", default="", help="run only the attacks whose name contains this")
    args = parser.parse_args()
    rows: list[tuple[str, str, str, str, bool]] = []
    with tempfile.TemporaryDirectory() as name:
        with serve_page(Path(name)) as target:
            for each in ATTACKS:
                if args.only in each.name:
                    happened, expected = run_attack(each, target)
                    rows.append((each.kind, each.name, each.expected, happened, expected))
                    print(*rows[-1][:4], sep=" | ", flush=True)
        errors = (Path(name) / "stderr.txt").read_text("utf-8")
        public = ("--host", "0.0.0.0", "--allow-host", "edit.example")  # noqa: S104
        with serve_page(Path(name), *public, LORA_EDIT_UI_PASSWORD=PASSWORD) as target:
            rows += [("password", *row) for row in attack_password(target)]
    for row in rows[-8:]:
        print(*row[:4], sep=" | ")
    print(f"the server's standard error: {errors[-3000:] or 'empty'}")
    if args.write:
        lines = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row[:4]) + " |" for row in rows)
        command = "PYTHONPATH=src python benchmarks/attack_page.py --write docs/benchmarks/attack.md"
        args.write.write_text(PAGE.format(command=command, date=datetime.date.today().isoformat(), rows=lines), "utf-8")
    surprises = sum(not row[4] for row in rows)
    print(f"{len(rows)} attacks, {surprises} surprises")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
