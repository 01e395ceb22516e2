"""Promises of what is fetched over the network, against a server on this machine."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import pytest

from separation.data.sources import downloads
from separation.errors import UserError

CONTENT = bytes(range(256)) * 4000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        status = server.answers.pop(0) if server.answers else 200
        if status >= 400:
            self.send_error(status)
            return
        start = int(self.headers["Range"][6:-1]) if self.headers.get("Range") else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        # -1 in `answers` breaks off in the middle
        self.wfile.write(CONTENT[start : start + 300_000] if status == -1 else CONTENT[start:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "WAITS", (0,))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.asked, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/file"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _download(server, **changes):
    return {"file": "data.bin", "urls": [server.url], "checksum": SHA256, "size": len(CONTENT)} | changes


def test_a_file_is_fetched_once_and_checked(server, tmp_path):
    path = downloads.fetch_file(_download(server), tmp_path, offline=False)
    assert path.read_bytes() == CONTENT
    assert downloads.fetch_file(_download(server), tmp_path, offline=True) == path
    assert len(server.asked) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["data.bin"]


def test_what_broke_off_is_gone_on_with(server, tmp_path):
    server.answers = [-1, 503, 200]
    assert downloads.fetch_file(_download(server), tmp_path, offline=False).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=300000-"]


def test_a_part_of_an_earlier_run_is_gone_on_with(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    assert downloads.fetch_file(_download(server), tmp_path, offline=False).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_attempts_are_bounded_and_the_next_address_is_tried(server, tmp_path):
    server.answers = [503] * downloads.ATTEMPTS
    urls = [server.url, f"{server.url}2"]
    assert downloads.fetch_file(_download(server, urls=urls), tmp_path, offline=False).read_bytes() == CONTENT
    assert len(server.asked) == downloads.ATTEMPTS + 1
    server.answers = [503] * 99
    with pytest.raises(UserError, match=r"cannot be fetched: .*the server answers 503; put the file with sha256:"):
        downloads.fetch_file(_download(server, file="other.bin"), tmp_path, offline=False)
    assert len(server.asked) == 2 * downloads.ATTEMPTS + 1


def test_a_file_that_is_not_there_is_asked_for_once(server, tmp_path):
    server.answers = [404] * 9
    with pytest.raises(UserError, match="404"):
        downloads.fetch_file(_download(server), tmp_path, offline=False)
    assert len(server.asked) == 1


def test_other_content_is_never_taken(server, tmp_path):
    wrong = "sha256:" + "0" * 64
    with pytest.raises(UserError, match=f"expected {wrong}, found {SHA256}"):
        downloads.fetch_file(_download(server, checksum=wrong), tmp_path, offline=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data.bin").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"data.bin: expected sha256:.*delete it"):
        downloads.fetch_file(_download(server), tmp_path, offline=False)


def test_offline_says_what_to_place_where(server, tmp_path):
    with pytest.raises(UserError) as error:
        downloads.fetch_file(_download(server), tmp_path, offline=True)
    assert str(tmp_path / "data.bin") in str(error.value) and SHA256 in str(error.value) and server.asked == []


@pytest.mark.parametrize("python", ["with filters", "before 3.11.4"])
def test_archives_are_unpacked_whole_or_not_at_all(tmp_path, monkeypatch, python):
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
