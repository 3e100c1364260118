"""`fetch` against a server on this machine: whole, resumed, damaged, mirrored, locked, killed, refused."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from seminar_utils.checkpoints import download
from seminar_utils.checkpoints.download import fetch
from seminar_utils.runtime import SeminarError

BODY = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(BODY).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(file_server):
    file_server.bodies[""] = BODY
    return file_server


def get(url, path, **checks):
    return fetch(url, path, progress=False, **checks)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_checked_and_nothing_left_beside_it(server, tmp_path):
    path = get(server.url + "/whole", tmp_path / "new" / "f.bin", md5=MD5, sha256=SHA256, size=len(BODY))
    assert path.read_bytes() == BODY
    assert names(tmp_path / "new") == ["f.bin"]


def test_a_file_that_is_there_needs_no_network(tmp_path):
    (tmp_path / "f.bin").write_bytes(BODY)
    assert get("http://127.0.0.1:9/x", tmp_path / "f.bin", sha256=SHA256) == tmp_path / "f.bin"


def test_another_file_in_its_place_is_kept_and_reported(server, tmp_path):
    (tmp_path / "f.bin").write_bytes(b"mine")
    with pytest.raises(SeminarError, match="not the expected file"):
        get(server.url + "/whole", tmp_path / "f.bin", md5=MD5)
    assert (tmp_path / "f.bin").read_bytes() == b"mine"


def test_resumes_from_the_part(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(BODY[:300_000])
    assert get(server.url + "/whole", tmp_path / "f.bin", md5=MD5).read_bytes() == BODY
    assert server.requests == [("/whole", "bytes=300000-")]


def test_starts_again_when_the_server_ignores_range(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"x" * 300_000)
    assert get(server.url + "/norange", tmp_path / "f.bin", md5=MD5).read_bytes() == BODY


def test_a_connection_cut_half_way_is_resumed(server, tmp_path):
    assert get(server.url + "/cut", tmp_path / "f.bin", md5=MD5).read_bytes() == BODY
    assert server.requests[1] == ("/cut", "bytes=500000-")


def test_a_complete_part_is_only_checked(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(BODY)
    assert get(server.url + "/whole", tmp_path / "f.bin", md5=MD5).read_bytes() == BODY


def test_a_damaged_part_is_thrown_away_and_fetched_anew(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"x" * 300_000)
    assert get(server.url + "/whole", tmp_path / "f.bin", md5=MD5).read_bytes() == BODY


@pytest.mark.parametrize("checks", [{"md5": MD5}, {"sha256": SHA256}, {"size": len(BODY) + 1}])
def test_a_damaged_file_leaves_nothing_behind(server, tmp_path, checks):
    with pytest.raises(SeminarError, match="expected"):
        get(server.url + "/bad", tmp_path / "f.bin", **checks)
    assert names(tmp_path) == []


def test_mirrors_are_tried_in_order(server, tmp_path):
    urls = [server.url + page for page in ("/missing", "/bad", "/whole")]
    assert get(urls, tmp_path / "f.bin", md5=MD5).read_bytes() == BODY
    assert [page for page, _ in server.requests] == ["/missing", "/bad", "/whole"]


def test_no_network_names_the_file_and_its_place(tmp_path):
    with socket.socket() as unused:  # a port where nobody listens
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/f.bin"
        with pytest.raises(SeminarError) as error:
            get(url, tmp_path / "f.bin", md5=MD5)
    assert url in str(error.value) and str(tmp_path / "f.bin") in str(error.value) and MD5 in str(error.value)
    assert names(tmp_path) == []


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        with pytest.raises(SeminarError, match="timed out"):
            get(f"http://127.0.0.1:{silent.getsockname()[1]}/f.bin", tmp_path / "f.bin")


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SeminarError, match="cannot be written"):
        get(server.url + "/whole", tmp_path / "file" / "f.bin")


def test_the_full_disk_is_not_blamed_on_the_server(server, tmp_path, monkeypatch):
    def full(response, file, bar):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(SeminarError, match="cannot be written.*No space left"):
        get(server.url + "/whole", tmp_path / "f.bin")


CHILD = """
import sys
from seminar_utils.checkpoints.download import fetch
fetch(sys.argv[1], sys.argv[2], progress=False)
"""


def child(server, path):
    environment = os.environ | {"no_proxy": "*"}
    return subprocess.Popen([sys.executable, "-c", CHILD, server.url + "/slow", str(path)], env=environment)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_two_processes_download_once(server, tmp_path):
    children = [child(server, tmp_path / "f.bin") for _ in range(2)]
    assert [process.wait(120) for process in children] == [0, 0]
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert len(server.requests) == 1
    assert names(tmp_path) == ["f.bin"]


def test_killed_half_way_shows_nothing_and_is_resumed(server, tmp_path):
    process, part = child(server, tmp_path / "f.bin"), tmp_path / "f.bin.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 100_000)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert not (tmp_path / "f.bin").exists()
    assert get(server.url + "/whole", tmp_path / "f.bin", md5=MD5).read_bytes() == BODY
    assert server.requests[1][1] is not None  # the second request asked for the rest only
    assert names(tmp_path) == ["f.bin"]


def test_a_lock_that_is_never_freed_is_reported(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LOCK_WAIT", 0.3)
    with download._locked(tmp_path / "f.bin"), pytest.raises(SeminarError, match="another process"):
        get(server.url + "/whole", tmp_path / "f.bin")
