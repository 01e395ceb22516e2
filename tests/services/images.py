"""Programs that run containers, brought to a bare Debian machine, and a base image that no registry has to give."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm import install

_BASE = "python3,python3-venv,make,git,sox,ca-certificates"
# what apptainer of Debian's sid was linked with, and Debian 12 has in older versions
_NEWER = ("libc6/trixie", "libseccomp2/trixie", "libsqlite3-0/trixie")
_LIBRARIES = Path("/usr/lib/apptainer-libraries")
_ARCHITECTURE = "x86_64-linux-gnu"


def make_base(folder: Path) -> str:
    """Makes the root folder of a Debian 12 that the image is built on; why that is not possible, "" where it was."""
    if os.getuid() != 0:
        return "a base image: mmdebstrap is run as root here"
    if shutil.which("mmdebstrap") is None and (why := install("mmdebstrap")):
        return why
    folder.mkdir()
    folder.chmod(0o755)
    # a package's documentation is most of its files
    options = ["--quiet", "--variant=minbase", f"--include={_BASE}", "--dpkgopt=path-exclude=/usr/share/doc/*"]
    done = subprocess.run(
        ["mmdebstrap", *options, "bookworm", str(folder)], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        return f"mmdebstrap: {done.stderr.strip().splitlines()[-1]}"
    # a user namespace cannot copy device files, and every container brings its own
    for device in (folder / "dev").iterdir():
        if not device.is_dir() or device.is_symlink():
            device.unlink()
    return ""


# apptainer -----------------------------------------------------------------------------------------------------------


def install_apptainer() -> str:
    """Installs apptainer where it is missing; why that is not possible, "" where it is there.

    Debian 12 has no package of it. That of Debian's sid is unpacked, with the C library it was linked with beside it;
    apt knows nothing of this and the system's own libraries stay.
    """
    if shutil.which("apptainer"):
        return ""
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        return "apptainer: not installed, and there is no apt-get to fetch it with, or no right to"
    needed = {"patchelf": "patchelf", "mksquashfs": "squashfs-tools", "squashfuse": "squashfuse", "newuidmap": "uidmap"}
    needed |= {"fusermount3": "fuse3"}
    packages = [package for program, package in needed.items() if shutil.which(program) is None]
    if packages and (why := install(*packages)):
        return why
    with tempfile.TemporaryDirectory(prefix="apptainer-") as place:
        try:
            _unpack_apptainer(Path(place))
        except (subprocess.SubprocessError, OSError) as problem:
            told = getattr(problem, "stderr", "") or str(problem)
            return f"apptainer from Debian's sid: {told.strip().splitlines()[-1]}"
    return ""


def build_here(command: list[str], **options) -> subprocess.CompletedProcess:
    """Runs a build by apptainer, which asks for every capability that there is.

    Root of a container may lack some; root of a user namespace, with the users of this one, has them all within it.
    """
    effective = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())[1]
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if int(effective, 16) == (1 << last + 1) - 1:
        return subprocess.run(command, capture_output=True, **options)
    # the shell waits for its users
    wrapped = ["unshare", "--user", "--mount", "--", "sh", "-c", 'read go; exec "$@" </dev/null', "sh", *command]
    timeout = options.pop("timeout")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(wrapped, **pipes, **options)
    while os.readlink(f"/proc/{process.pid}/ns/user") == os.readlink("/proc/self/ns/user"):
        os.sched_yield()
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{process.pid}/{name}").write_text("0 0 65536")
    said, told = process.communicate("go\n", timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, said, told)


def _unpack_apptainer(place: Path) -> None:
    def call(*command: str) -> str:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True, timeout=300)
        return done.stdout

    mirror = call("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm")
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = [f"deb [signed-by={key}] {mirror.split()[0]} {suite} main\n" for suite in ("trixie", "sid")]
    (place / "sources.list").write_text("".join(sources))
    (place / "lists" / "partial").mkdir(parents=True)
    (place / "cache" / "archives" / "partial").mkdir(parents=True)
    settings = {"Dir::Etc::SourceList": "sources.list", "Dir::Etc::SourceParts": "none", "Dir::State::lists": "lists"}
    settings |= {"Dir::Cache": "cache"}
    apt = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    apt += [word for key, name in settings.items() for word in ("-o", f"{key}={place / name}")]
    call(*apt, "update")
    call(*apt, "download", "apptainer/sid", *_NEWER)
    for package in place.glob("*.deb"):
        call("dpkg-deb", "-x", package.name, "apptainer" if package.name.startswith("apptainer") else "newer")
    _LIBRARIES.mkdir(exist_ok=True)
    for library in (place / "newer/usr/lib" / _ARCHITECTURE).glob("*.so*"):
        shutil.copy2(library, _LIBRARIES)  # what a link leads to, under the link's name
    loader = _LIBRARIES / "ld-linux-x86-64.so.2"
    made = place / "apptainer"
    for program in ("usr/bin/apptainer", f"usr/lib/{_ARCHITECTURE}/apptainer/bin/starter"):
        rpath = ["--set-rpath", str(_LIBRARIES), "--force-rpath"]
        call("patchelf", "--set-interpreter", str(loader), *rpath, str(made / program))
    conf = made / "etc/apptainer/apptainer.conf"
    # a container that tests run in may not have every capability that root has elsewhere
    lines = conf.read_text().splitlines()
    lines = ["root default capabilities = no" if line.startswith("root default cap") else line for line in lines]
    conf.write_text("\n".join(lines) + "\n")
    shutil.copytree(made / "etc/apptainer", "/etc/apptainer", dirs_exist_ok=True)
    libexec = Path("/usr/lib", _ARCHITECTURE, "apptainer")
    shutil.copytree(made / "usr/lib" / _ARCHITECTURE / "apptainer", libexec, dirs_exist_ok=True, symlinks=True)
    Path("/var/lib/apptainer/mnt/session").mkdir(parents=True, exist_ok=True)
    # last: it is what tells that all is there
    shutil.copy2(made / "usr/bin/apptainer", "/usr/bin/apptainer")


# docker and podman ---------------------------------------------------------------------------------------------------


@contextmanager
def dockerd(folder: Path) -> Iterator[dict[str, str]]:
    """A Docker daemon of its own, without bridge and firewall rules; yields the variables that its clients need.

    Raises:
        RuntimeError: it cannot be had here, or does not start; the message says why.
    """
    if os.getuid() != 0:
        raise RuntimeError("docker: starting its daemon needs root")
    if not (shutil.which("dockerd") and shutil.which("docker")) and (why := install("docker.io")):
        raise RuntimeError(why)
    places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    options = [f"--{option}={folder / name}" for option, name in places.items()]
    options += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--exec-opt=native.cgroupdriver=cgroupfs"]
    variables = {"DOCKER_HOST": f"unix://{folder}/socket", "DOCKER_BUILDKIT": "0"}
    with open(folder / "log", "wb") as log:
        command = ["dockerd", f"--host={variables['DOCKER_HOST']}", *options]
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        probe = ["docker", "version"]
        for _ in range(300):
            done = subprocess.run(probe, env={**os.environ, **variables}, capture_output=True, timeout=30)
            if done.returncode == 0 or daemon.poll() is not None:
                break
            try:
                daemon.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        if done.returncode:
            told = (folder / "log").read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"dockerd: {told[-1] if told else 'no message'}")
        yield variables
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        # the namespace of --network host stays mounted
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=True)
