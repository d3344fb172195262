"""Downloads from a server on this computer: a file arrives whole, or nothing is kept."""

import hashlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minisam.data import cifar, download

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()
FILE = "cifar-10-binary.tar.gz"


class Handler(BaseHTTPRequestHandler):
    """Answers /whole/…, /truncated/… and so on as the path says."""

    def do_GET(self):
        behaviour = self.path.split("/")[1]
        self.server.requests.append(behaviour)
        if behaviour == "silent":
            self.server.released.wait(10)
            return
        if behaviour == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        first = {"whole": len(CONTENT), "halting": 100_000}.get(behaviour, 1000)
        self.wfile.write(CONTENT[:first])
        if behaviour in ("stalled", "halting"):
            self.wfile.flush()
            self.server.released.wait(10)
        if behaviour == "halting":
            self.wfile.write(CONTENT[first:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.released = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("MINISAM_DATA", raising=False)
    for module in (download, cifar):
        monkeypatch.setattr(module, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def serve(server, cache, monkeypatch):
    def serve(behaviour, md5=MD5):
        url = f"http://127.0.0.1:{server.server_port}/{behaviour}/{FILE}"
        monkeypatch.setitem(download.ARCHIVES, "cifar10", (url, md5))
        return url

    return serve


@pytest.mark.parametrize("progress", [True, False])
def test_whole_file_arrives_once_where_the_reader_looks(serve, server, cache, capfd, progress):
    serve("whole")
    path = download.fetch("cifar10", progress=progress)
    assert path.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [path] == [cifar.find_cifar("cifar10")]
    assert ("100%" in capfd.readouterr().err) == progress
    assert download.fetch("cifar10", progress=progress) == path
    assert server.requests == ["whole"]


def test_a_download_goes_to_disk_piece_by_piece(serve, server, cache):
    serve("halting")
    with ThreadPoolExecutor(1) as other:
        path = other.submit(download.fetch, "cifar10", progress=False)
        until = time.monotonic() + 5
        while not any(file.stat().st_size for file in cache.glob("*")) and time.monotonic() < until:
            time.sleep(0.01)
        assert [file.stat().st_size for file in cache.iterdir()] == [1 << 16]  # the rest has not been sent
        server.released.set()
        assert path.result().read_bytes() == CONTENT


def test_the_cache_is_minisams_own():
    assert "minisam" in cifar.cache_dir().parts[-2:]  # on Windows it has a folder "Cache"


def test_damaged_file_is_replaced(serve, cache):
    serve("whole")
    cache.mkdir()
    (cache / FILE).write_bytes(CONTENT[:-1])
    assert download.fetch("cifar10", progress=False).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("behaviour", "md5", "error", "message"),
    [
        ("truncated", MD5, OSError, "IncompleteRead|1000 bytes"),
        ("missing", MD5, OSError, "404"),
        ("silent", MD5, OSError, r"timed out.*timeout=0\.2"),
        ("stalled", MD5, OSError, "timed out"),
        ("whole", "0" * 32, ValueError, f"expected md5:{'0' * 32} but got {MD5}"),
    ],
)
@pytest.mark.parametrize("progress", [True, False])
def test_failure_is_one_clear_line_and_leaves_nothing(
    serve, cache, monkeypatch, behaviour, md5, error, message, progress
):
    url = serve(behaviour, md5)
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with pytest.raises(error, match=message) as caught:
        download.fetch("cifar10", progress=progress)
    assert str(caught.value).startswith(f"{url}: ")
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_refused_connection_is_one_clear_line_and_leaves_nothing(cache, monkeypatch):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # a taken port on which nobody listens
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/{FILE}"
        monkeypatch.setitem(download.ARCHIVES, "cifar10", (url, MD5))
        with pytest.raises(OSError, match="Failed to establish a new connection") as caught:
            download.fetch("cifar10", progress=False)
    assert str(caught.value).startswith(f"{url}: ")
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_unknown_name():
    with pytest.raises(ValueError, match=r"^name: expected one of cifar10, cifar100, got 'mnist'$"):
        download.fetch("mnist")


def test_archives_are_those_the_reader_looks_for():
    for name, (url, _) in download.ARCHIVES.items():
        assert url.rpartition("/")[2] == cifar.LAYOUTS[name][0].archive
