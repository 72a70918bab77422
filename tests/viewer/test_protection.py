"""What the server refuses: other names, other sites, other files, writing without the token."""

import contextlib
import http.client
import re
import socket
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import uvicorn

from terradelta.errors import ArgumentError
from terradelta.viewer.endpoints import PAGE, create_application
from terradelta.viewer.protection import MAX_BODY_BYTES
from terradelta.viewer.result import Result
from terradelta.viewer.server import view

from .conftest import TOKEN, connect, review


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "127.0.0.1@evil.example", ""],
)
@pytest.mark.parametrize("path", ["/", "/api/session", "/page/viewer.js", "/tiles/change/1/0/0"])
def test_foreign_hosts_are_refused(client, host, path):
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 400
    assert TOKEN not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "localhost", "127.0.0.1:9"])
def test_this_machine_is_answered(client, host):
    assert client.get("/api/session", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1:8765"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_are_refused_and_never_allowed_to_read(client, headers):
    for path in ("/", "/api/session", "/api/sums"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 403
        assert TOKEN not in answer.text
    token = {"X-Terradelta-Token": TOKEN}
    assert review(client, 1, headers={**token, **headers}, status="accepted").status_code == 403
    preflight = client.options("/api/patches/1/review", headers=headers)
    assert preflight.status_code == 403
    assert not [name for name in preflight.headers if name.startswith("access-control")]


@pytest.mark.parametrize("token", [{}, {"X-Terradelta-Token": "a guess"}])
def test_writing_needs_the_token(client, folder, token):
    was = (folder / "changes.gpkg").read_bytes()
    assert review(client, 1, headers=token, status="accepted").status_code == 403
    assert (folder / "changes.gpkg").read_bytes() == was


def test_no_answer_holds_the_token(client, folder):
    fid = client.get("/api/next", params={"step": 1}).json()["fid"]
    paths = ["/", "/api/session", "/api/sums", "/api/preparation", f"/api/patches/{fid}"]
    paths += [f"/page/{path.name}" for path in PAGE.iterdir() if path.is_file()]
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200
        assert TOKEN not in answer.text + str(answer.headers)


def test_a_browser_may_come_from_the_file_that_view_opens_and_from_nowhere_else(client):
    visit = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert client.get("/", headers=visit).status_code == 200
    assert client.get("/api/session", headers=visit).status_code == 403
    assert client.get("/", headers={**visit, "Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert client.get("/", headers={**visit, "Sec-Fetch-Mode": "no-cors"}).status_code == 403


PREFIX = b'{"status": "accepted", "note": "'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (PREFIX + b'"}', 200),
        (PREFIX + b"x" * 2000 + b'"}', 200),
        (PREFIX + b"x" * 2001 + b'"}', 422),
        (PREFIX + b'\\ud800"}', 400),
        (PREFIX + b'\\u0000"}', 422),
        (PREFIX + b'\xff"}', 400),
        (b'{"status": "accepted", "status": "rejected"}', 400),
        (b'{"status": NaN}', 400),
        (b'{"status": "relabelled", "from_id": Infinity, "to_id": 1}', 400),
        (b'{"status": "relabelled", "from_id": 1.0, "to_id": 2}', 422),
        (b'{"status": "relabelled", "from_id": "1", "to_id": 2}', 422),
        (b'{"status": "relabelled", "from_id": true, "to_id": 2}', 422),
        (b'{"status": "relabelled", "from_id": 1e999, "to_id": 2}', 422),
        (b'{"status": "relabelled", "from_id": 1' + b"0" * 30 + b', "to_id": 2}', 422),
        (b'{"status": "relabelled", "from_id": 1' + b"0" * 5000 + b', "to_id": 2}', 400),
        (b'{"status": "relabelled", "from_id": 1, "to_id": 99}', 422),
        (b'{"status": "relabelled"}', 422),
        (b'{"status": ["accepted"]}', 422),
        (b'{"status": null}', 422),
        (b'{"status": "accepted", "more": 1}', 422),
        (b'{"note": "x"}', 422),
        (b"[]", 422),
        (b"3", 422),
        (b"null", 422),
        (b"", 400),
        (b"{", 400),
        (b"[" * 60_000, 400),
    ],
)
def test_a_review_is_json_of_the_standard_and_nothing_else(client, body, status):
    answer = client.put(
        "/api/patches/1/review",
        content=body,
        headers={"X-Terradelta-Token": TOKEN, "Content-Type": "application/json"},
    )
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json().get("detail", ""), str)


@pytest.mark.parametrize(
    "query",
    [
        "min_area_m2=nan",
        "min_area_m2=inf",
        "min_confidence=nan",
        "from_ids=-1",
        "from_ids=1" + "0" * 30,
        "statuses=lava",
        "statuses=%ED%A0%80",
    ],
)
def test_a_filter_out_of_range_is_refused(client, query):
    answer = client.get(f"/api/sums?{query}")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_a_body_of_any_size_is_refused_while_it_is_read(serve, method, is_announced):
    """What a client goes on sending is not kept: 300 MB more would be, on the wire."""
    connection = http.client.HTTPConnection("127.0.0.1", serve, timeout=60)
    connection.putrequest(method, "/api/patches/1/review")
    connection.putheader("X-Terradelta-Token", TOKEN)
    connection.putheader("Content-Type", "application/json")
    if is_announced:
        connection.putheader("Content-Length", str(300 * 2**20))
    else:
        connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b" " * 2**16
    sent = 0
    with contextlib.suppress(OSError):
        for _ in range(2000):
            connection.send(chunk if is_announced else b"10000\r\n" + chunk + b"\r\n")
            sent += len(chunk)
    assert sent < 64 * 2**20, "the server hangs up"
    with contextlib.suppress(OSError, http.client.HTTPException):
        assert connection.getresponse().status == 413
    connection.close()


def test_a_body_beyond_the_limit_is_answered_413(client):
    headers = {"X-Terradelta-Token": TOKEN, "Content-Type": "application/json"}
    path = "/api/patches/1/review"
    body = PREFIX + b"x" * MAX_BODY_BYTES + b'"}'
    assert client.put(path, content=body, headers=headers).status_code == 413
    assert client.put(path, content=iter([body]), headers=headers).status_code == 413
    # Without the token nothing is read at all.
    del headers["X-Terradelta-Token"]
    assert client.put(path, content=body, headers=headers).status_code == 403


def test_view_prints_the_token_and_hides_it_from_command_lines(folder, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def run(self, sockets):
        path = Path(url2pathname(urlsplit(opened[0]).path))
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0
        opened.append(path.read_text())

    monkeypatch.setattr("uvicorn.Server.run", run)
    view(folder, port=0)
    address = re.search(r"http://127\.0\.0\.1:\d+/#token=[\w-]{40,}", capsys.readouterr().out)
    assert address is not None
    assert "token" not in opened[0]
    assert address[0] in opened[1]
    assert not Path(url2pathname(urlsplit(opened[0]).path)).exists()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_writing_needs_json_which_no_form_can_send(client, kind):
    answer = client.put(
        "/api/patches/1/review",
        content='{"status": "accepted"}',
        headers={"X-Terradelta-Token": TOKEN, "Content-Type": kind},
    )
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/..%2fserver.py",
        "/page/%2e%2e/server.py",
        "/page//etc/passwd",
        "/page/..%5cserver.py",
        "/../../../../etc/passwd",
        "/run.json",
        "/out/run.json",
        "/changes.gpkg",
        "/page/",
        "/tiles/run.json/1/0/0",
        "/tiles/..%2f..%2fetc%2fpasswd/1/0/0",
        "/tiles/change/1/0/2",
        "/tiles/change/-1/0/0",
        "/tiles/change/99/0/0",
        "/docs",
        "/openapi.json",
    ],
)
def test_a_real_server_names_no_other_file(serve, path):
    """Asked on the wire, where no client tidies the path up."""
    connection = http.client.HTTPConnection("127.0.0.1", serve, timeout=30)
    connection.putrequest("GET", path)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    assert answer.status in (404, 422), text
    assert "root:" not in text
    assert "create_application" not in text


@pytest.fixture
def serve(folder):
    """A server as `view` starts it, in a thread; its port."""
    app = create_application(Result.load(folder), TOKEN)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


def test_pages_may_load_nothing_from_elsewhere_but_the_basemap(folder, client):
    def policy(browser):
        text = browser.get("/").headers["content-security-policy"]
        return dict(part.split(" ", 1) for part in text.split("; "))

    rules = policy(client)
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert not any("http" in sources or "unsafe" in sources for sources in rules.values())
    with connect(folder, basemap="https://tiles.example.org/{z}/{x}/{y}.png?key=1") as browser:
        rules = policy(browser)
    assert rules["connect-src"] == "'self' https://tiles.example.org"
    assert rules["script-src"] == "'self'"


def test_the_page_names_no_address_outside_and_holds_no_inline_code():
    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            values = dict(attrs)
            for name in ("src", "href"):
                address = values.get(name, "/") or ""
                assert address.startswith(("/page/", "#", "/")), address
                assert not address.startswith("//")
            assert not [name for name in values if name.startswith("on") or name == "style"]
            assert tag != "style"

    Reader().feed((PAGE / "index.html").read_text(encoding="utf-8"))
    own = list(PAGE.glob("*.js"))
    assert len(own) >= 4
    for path in own:
        text = path.read_text(encoding="utf-8")
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text
        assert "https:" not in text


def test_view_refuses_wrong_options(folder, monkeypatch):
    for basemap in ("tiles", "file:///etc/{z}/{x}/{y}", "https://example.org/tiles.png"):
        with pytest.raises(ArgumentError, match="not an address of tiles"):
            view(folder, basemap=basemap)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ArgumentError, match="cannot be used"):
            view(folder, port=taken.getsockname()[1], browser=False)
    for port in (99_999, -1):
        with pytest.raises(ArgumentError, match=f"port is {port}, .* at most 65535"):
            view(folder, port=port, browser=False)


def test_without_the_extra_the_error_names_it(folder):
    code = (
        "import sys, importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'morecantile' else found(n, *a)\n"
        "from terradelta.cli import main\n"
        f"main(['view', {str(folder)!r}, '--no-browser'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "terradelta[view]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("order", [1, -1])
def test_a_second_host_header_is_refused(client, order):
    """Of two hosts, what checks and what answers may each believe another one."""
    hosts = ["127.0.0.1:8765", "evil.example"][::order]
    for names in (hosts, ["127.0.0.1:8765"] * 2):
        answer = client.get("/api/session", headers=[("Host", name) for name in names])
        assert answer.status_code == 400
        assert TOKEN not in answer.text
