"""`make jupyter`: a real notebook server, its password, and the command for a container."""

import hashlib
import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests
from jupyter_server.auth import passwd
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from notebook_server import read_until_running

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "a good password"
HASHES = {
    "today's": passwd(PASSWORD),
    "the original's": f"sha1:0123456789ab:{hashlib.sha1(PASSWORD.encode() + b'0123456789ab').hexdigest()}",
}


def environment(**variables):
    names = ("JUPYTER_PASSWORD_HASH", "JUPYTER_HOST_IP", "JUPYTER_HOST_PORT", "DOCKER_IMAGE_NAME", "CODE_DIRECTORY")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "PYTHONPATH": str(ROOT / "workflow/scripts"), **variables}


def run(*arguments, **variables):
    command = [sys.executable, "-m", "separation.commands.jupyter", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, timeout=60)


def serve(folder, **variables):
    """Starts a server; the process, its port and its output. Tries again if another process takes the port first."""
    command = [sys.executable, "-m", "separation.commands.jupyter", "--gpus", "0"]
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        own = environment(JUPYTER_HOST_PORT=port, HOME=str(folder), **variables)
        server = subprocess.Popen(command, cwd=folder, env=own, stderr=subprocess.PIPE, text=True)
        output = read_until_running(server)
        if "is running at" in output[-1]:
            break
        server.wait()
    return server, port, output


@pytest.mark.parametrize("form", [pytest.param("today's", marks=pytest.mark.slow), "the original's"])
def test_the_server_requires_the_password_and_never_shows_its_hash(form, tmp_path):
    server, port, output = serve(tmp_path, JUPYTER_PASSWORD_HASH=HASHES[form])
    try:
        url = f"http://127.0.0.1:{port}"
        session = requests.Session()
        # the server prints its address just before it listens
        session.mount("http://", HTTPAdapter(max_retries=Retry(connect=50, backoff_factor=0.05, backoff_max=1)))
        assert session.get(f"{url}/api/contents").status_code == 403
        session.get(f"{url}/login")
        form_data = {"_xsrf": session.cookies["_xsrf"]}
        wrong = session.post(f"{url}/login", {**form_data, "password": "a guess"})
        assert wrong.status_code == 401
        assert session.post(f"{url}/login", {**form_data, "password": PASSWORD}).status_code == 200
        assert session.get(f"{url}/api/contents").status_code == 200
        process = psutil.Process(server.pid)
        assert HASHES[form] not in " ".join(process.cmdline())
        assert process.environ()["CUDA_VISIBLE_DEVICES"] == "0"
    finally:
        server.kill()
        server.wait()
    assert HASHES[form] not in "".join(output)


def test_a_container_gets_ports_folders_and_variable_names(tmp_path):
    record = tmp_path / "record"
    for name in ("docker", "podman"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{record}\n')
        program.chmod(0o755)
    variables = {
        "JUPYTER_HOST_PORT": "9001",
        "JUPYTER_PASSWORD_HASH": HASHES["today's"],
        "DATA_DIRECTORY": "/data/here",
    }
    variables |= {"DOCKER_IMAGE_NAME": "lab/image:1", "DATA_DIRECTORY": "/data/here"}
    variables |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = run("--gpus", "0,1", "--name", "mine", **variables)
    assert done.returncode == 0, done.stderr
    words = record.read_text().splitlines()
    pairs = list(itertools.pairwise(words))
    assert {("--name", "mine"), ("--gpus", '"device=0,1"'), ("--publish", "127.0.0.1:9001:9001")} <= set(pairs)
    assert {("--volume", "/data/here:/data/here"), ("--volume", f"{ROOT}:{ROOT}"), ("--workdir", str(ROOT))} <= set(
        pairs
    )
    assert ("--env", "JUPYTER_PASSWORD_HASH") in pairs and "argon2" not in record.read_text()
    assert words[words.index("lab/image:1") + 1 :][:3] == ["python", "-m", "jupyterlab"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JUPYTER_PASSWORD_HASH": "my plain password"}, "JUPYTER_PASSWORD_HASH: expected a hash such as argon2:"),
        ({"JUPYTER_HOST_PORT": "many"}, "JUPYTER_HOST_PORT: expected a port, found 'many'"),
    ],
)
def test_an_invalid_variable_is_reported_in_one_line_without_the_password(variables, message):
    done = run(**variables)
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert "my plain password" not in done.stderr


def test_a_name_without_docker_is_reported_in_one_line(tmp_path):
    done = run("--name", "mine", PATH=str(tmp_path))
    assert done.returncode == 1 and done.stderr.startswith("Error: name: no docker or podman")
