"""Downloads, from a server on this machine."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import pytest
import tenacity

from separation.data.sources import downloads
from separation.errors import UserError

CONTENT = bytes(range(256)) * 4000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        status = server.statuses.pop(0) if server.statuses else 200
        if status >= 400:
            self.send_error(status)
            return
        start = int(self.headers["Range"][6:-1]) if self.headers.get("Range") else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        # status -1 ends the connection in the middle
        self.wfile.write(CONTENT[start : start + 300_000] if status == -1 else CONTENT[start:])

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Seconds waited between attempts; no test sleeps."""
    seconds = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.ranges, server.statuses = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/file"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _download(server, **changes):
    return {"file": "data.bin", "urls": [server.url], "checksum": SHA256, "size": len(CONTENT)} | changes


def test_a_file_is_downloaded_once_and_checked(server, tmp_path):
    path = downloads.fetch_file(_download(server), tmp_path, offline=False)
    assert path.read_bytes() == CONTENT
    assert downloads.fetch_file(_download(server), tmp_path, offline=True) == path
    assert len(server.ranges) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["data.bin"]


def test_an_interrupted_download_resumes(server, tmp_path):
    server.statuses = [-1, 503, 200]
    assert downloads.fetch_file(_download(server), tmp_path, offline=False).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=300000-"]


def test_a_partial_download_of_an_earlier_run_resumes(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    assert downloads.fetch_file(_download(server), tmp_path, offline=False).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_a_server_that_fails_is_tried_five_times_with_growing_waits(server, tmp_path, waits, caplog):
    server.statuses = [503] * 99
    with pytest.raises(UserError, match=r"cannot be fetched: .*the server answers 503; put a file with sha256:"):
        downloads.fetch_file(_download(server), tmp_path, offline=False)
    assert len(server.ranges) == downloads.ATTEMPTS == 5
    assert waits == [1, 2, 4, 8]
    assert [record.getMessage() for record in caplog.records] == [
        f"attempt {number} of 5 at {server.url} failed: the server answers 503" for number in range(1, 6)
    ]


def test_the_next_url_is_tried_after_five_attempts(server, tmp_path):
    server.statuses = [503] * downloads.ATTEMPTS
    urls = [server.url, f"{server.url}2"]
    assert downloads.fetch_file(_download(server, urls=urls), tmp_path, offline=False).read_bytes() == CONTENT
    assert len(server.ranges) == downloads.ATTEMPTS + 1


def test_a_file_that_the_server_lacks_is_requested_once(server, tmp_path, waits):
    server.statuses = [404] * 9
    with pytest.raises(UserError, match="404"):
        downloads.fetch_file(_download(server), tmp_path, offline=False)
    assert len(server.ranges) == 1 and not waits


def test_a_wrong_checksum_is_an_error(server, tmp_path):
    wrong = "sha256:" + "0" * 64
    with pytest.raises(UserError, match=f"expected {wrong}, found {SHA256}"):
        downloads.fetch_file(_download(server, checksum=wrong), tmp_path, offline=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data.bin").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"data.bin: expected sha256:.*; delete the file"):
        downloads.fetch_file(_download(server), tmp_path, offline=False)


def test_offline_names_the_missing_file_its_folder_and_its_checksum(server, tmp_path):
    with pytest.raises(UserError) as error:
        downloads.fetch_file(_download(server), tmp_path, offline=True)
    assert str(tmp_path / "data.bin") in str(error.value) and SHA256 in str(error.value) and server.ranges == []


@pytest.mark.parametrize("python", ["with filters", "before 3.11.4"])
def test_archives_are_unpacked_completely_or_not_at_all(tmp_path, monkeypatch, python):
    if python == "before 3.11.4":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("dog/a.wav", b"1")
    downloads.unpack(tmp_path / "a.zip", tmp_path / "out" / "zip")
    assert (tmp_path / "out/zip/dog/a.wav").read_bytes() == b"1"
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as packed:
        entry = tarfile.TarInfo("../evil.wav")
        entry.size = 1
        packed.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(UserError, match="cannot be unpacked"):
        downloads.unpack(tmp_path / "b.tar.gz", tmp_path / "out" / "tar")
    assert not (tmp_path / "out" / "tar").exists() and not (tmp_path / "out" / "evil.wav").exists()
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "a.zip", "cat/a.zip")
    downloads.unpack(tmp_path / "c.tar.gz", tmp_path / "out" / "good")
    assert (tmp_path / "out/good/cat/a.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()
