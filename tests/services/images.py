"""Installing apptainer and Docker on a bare Debian machine, and a base image built without a registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from projects import ROOT
from slurm import install

# site-packages in the images
INSIDE = "/opt/separation/.venv/lib/python3.11/site-packages"
_BASE = "python3,python3-venv,make,git,sox,ca-certificates"
# libraries that apptainer of Debian's sid is linked with; Debian 12 has older versions
_NEWER = ("libc6/trixie", "libseccomp2/trixie", "libsqlite3-0/trixie")
_LIBRARIES = Path("/usr/lib/apptainer-libraries")
_ARCHITECTURE = "x86_64-linux-gnu"


def make_base(folder: Path) -> str:
    """Builds the root folder of a Debian 12, the base of the image.

    Returns:
        Why it cannot be built; "" if it was.
    """
    if os.getuid() != 0:
        return "a base image: mmdebstrap needs root here"
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
    # a user namespace cannot copy device files, and every container creates its own
    for device in (folder / "dev").iterdir():
        if not device.is_dir() or device.is_symlink():
            device.unlink()
    return ""


def build(program: str, environment: dict[str, str], **variables: str) -> None:
    """Builds an image like `make images`, without the packages of the lock."""
    options = {"cwd": ROOT, "env": {**environment, "PACKAGES": "none", "VARIANT": "cpu", **variables}}
    if program != "apptainer":
        options["capture_output"] = True
    run = build_here if program == "apptainer" else subprocess.run
    done = run(["containers/build.sh", program], text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


# apptainer -----------------------------------------------------------------------------------------------------------


def install_apptainer() -> str:
    """Installs apptainer if it is missing.

    Debian 12 has no package of it. The package of Debian's sid is unpacked, with its C library in a separate folder;
    apt is not involved, and the system's own libraries stay.

    Returns:
        Why it cannot be installed; "" if it is installed.
    """
    if shutil.which("apptainer"):
        return ""
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        return "apptainer: not installed; installing it needs root and apt-get"
    needed = {"patchelf": "patchelf", "mksquashfs": "squashfs-tools", "squashfuse": "squashfuse", "newuidmap": "uidmap"}
    needed |= {"fusermount3": "fuse3"}
    packages = [package for program, package in needed.items() if shutil.which(program) is None]
    if packages and (why := install(*packages)):
        return why
    with tempfile.TemporaryDirectory(prefix="apptainer-") as folder:
        try:
            _unpack_apptainer(Path(folder))
        except (subprocess.SubprocessError, OSError) as problem:
            message = getattr(problem, "stderr", "") or str(problem)
            return f"apptainer from Debian's sid: {message.strip().splitlines()[-1]}"
    return ""


def build_here(command: list[str], **options) -> subprocess.CompletedProcess:
    """Runs a build by apptainer, which needs every capability.

    Root in a container may lack some; root in a new user namespace that maps the same users has them all inside it.
    """
    effective = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())[1]
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if int(effective, 16) == (1 << last + 1) - 1:
        return subprocess.run(command, capture_output=True, **options)
    # the shell waits until its users are mapped
    wrapped = ["unshare", "--user", "--mount", "--", "sh", "-c", 'read go; exec "$@" </dev/null', "sh", *command]
    timeout = options.pop("timeout")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(wrapped, **pipes, **options)
    while os.readlink(f"/proc/{process.pid}/ns/user") == os.readlink("/proc/self/ns/user"):
        os.sched_yield()
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{process.pid}/{name}").write_text("0 0 65536")
    stdout, stderr = process.communicate("go\n", timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _unpack_apptainer(folder: Path) -> None:
    def call(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=300)
        return done.stdout

    mirror = call("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm")
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = [f"deb [signed-by={key}] {mirror.split()[0]} {suite} main\n" for suite in ("trixie", "sid")]
    (folder / "sources.list").write_text("".join(sources))
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    settings = {"Dir::Etc::SourceList": "sources.list", "Dir::Etc::SourceParts": "none", "Dir::State::lists": "lists"}
    settings |= {"Dir::Cache": "cache"}
    apt = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    apt += [word for key, name in settings.items() for word in ("-o", f"{key}={folder / name}")]
    call(*apt, "update")
    call(*apt, "download", "apptainer/sid", *_NEWER)
    for package in folder.glob("*.deb"):
        call("dpkg-deb", "-x", package.name, "apptainer" if package.name.startswith("apptainer") else "newer")
    _LIBRARIES.mkdir(exist_ok=True)
    for library in (folder / "newer/usr/lib" / _ARCHITECTURE).glob("*.so*"):
        shutil.copy2(library, _LIBRARIES)  # a link is copied as a file under the link's name
    loader = _LIBRARIES / "ld-linux-x86-64.so.2"
    unpacked = folder / "apptainer"
    for program in ("usr/bin/apptainer", f"usr/lib/{_ARCHITECTURE}/apptainer/bin/starter"):
        rpath = ["--set-rpath", str(_LIBRARIES), "--force-rpath"]
        call("patchelf", "--set-interpreter", str(loader), *rpath, str(unpacked / program))
    conf = unpacked / "etc/apptainer/apptainer.conf"
    # the tests may run in a container, where root lacks some capabilities
    lines = conf.read_text().splitlines()
    lines = ["root default capabilities = no" if line.startswith("root default cap") else line for line in lines]
    conf.write_text("\n".join(lines) + "\n")
    shutil.copytree(unpacked / "etc/apptainer", "/etc/apptainer", dirs_exist_ok=True)
    libexec = Path("/usr/lib", _ARCHITECTURE, "apptainer")
    shutil.copytree(unpacked / "usr/lib" / _ARCHITECTURE / "apptainer", libexec, dirs_exist_ok=True, symlinks=True)
    Path("/var/lib/apptainer/mnt/session").mkdir(parents=True, exist_ok=True)
    # last, because its existence marks the installation as complete
    shutil.copy2(unpacked / "usr/bin/apptainer", "/usr/bin/apptainer")


# docker and podman ---------------------------------------------------------------------------------------------------


def install_docker() -> str:
    """Installs Docker if it is missing; returns why that is impossible, or ""."""
    if os.getuid() != 0:
        return "docker: starting its daemon needs root"
    return "" if shutil.which("dockerd") and shutil.which("docker") else install("docker.io")


@contextmanager
def dockerd(folder: Path) -> Iterator[dict[str, str]]:
    """A separate Docker daemon without bridge and firewall rules; yields the variables that its clients need.

    Args:
        folder: Folder of all its files; it is created.

    Raises:
        RuntimeError: It does not start; the message gives the reason.
    """
    folder.mkdir()
    names = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    options = [f"--{option}={folder / name}" for option, name in names.items()]
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
            lines = (folder / "log").read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"dockerd: {lines[-1] if lines else 'no message'}")
        yield variables
    finally:
        stop_dockerd(folder)
        daemon.wait()


def stop_dockerd(folder: Path) -> None:
    """Stops the Docker daemon of a folder with its containers, if it runs."""
    for process in psutil.process_iter(["cmdline"]):
        if f"--pidfile={folder / 'pid'}" in (process.info["cmdline"] or ()):
            process.terminate()
            try:
                process.wait(30)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(10)
    # Docker leaves the namespace of --network host mounted
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[1].startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", line.split()[1]], check=True)
