"""A real Slurm of several nodes on this one machine: munge, slurmctld, slurmd, and slurmdbd for sacct.

As a program: `python tests/services/slurm.py up FOLDER` starts it and prints the variables to set; `down FOLDER` stops
it. Nothing outside FOLDER is written except links in /etc/slurm: srun looks there, because a job's environment has no
SLURM_CONF. Daemons listen on free ports of loopback. GPUs are device files that do nothing; Slurm assigns them like
real ones, by CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

PACKAGES = ("slurm-wlm", "slurmdbd", "munge", "mariadb-server")
_PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db", "sbatch", "sacct")
_SYSTEM = Path("/etc/slurm")
# first line of the configuration; it distinguishes a cluster that was left behind from a real one
_MARK = "# written by tests/services/slurm.py, which removes it again\n"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Slurm:
    """A cluster.

    Args:
        folder: Folder of all its files; `up` creates it.
        nodes: Number of nodes.
        gpus: Number of GPUs on each node.
    """

    def __init__(self, folder: Path, nodes: int = 2, gpus: int = 2):
        self.folder, self.gpus = folder.absolute(), gpus
        self.nodes = [f"sim{number}" for number in range(1, nodes + 1)]
        self.conf = self.folder / "etc" / "slurm.conf"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that clients need."""
        return {"SLURM_CONF": str(self.conf)}

    def call(self, *command: str, check: bool = True) -> str:
        """The output of a Slurm command, which may take at most half a minute."""
        done = subprocess.run(
            command, env={**os.environ, **self.variables}, capture_output=True, text=True, timeout=30, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    # up and down -------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Starts all daemons and waits until every node can take jobs.

        Raises:
            RuntimeError: A daemon does not start; the message is the end of its log.
        """
        for name in ("etc", "log", "spool", "ctld", "db", "dev", "munge"):
            (self.folder / name).mkdir(parents=True)
        try:
            self._write_conf()
            for name in ("slurm.conf", "gres.conf"):
                # fails if another Slurm is set up, which stays as it is
                (_SYSTEM / name).symlink_to(self.conf.with_name(name))
            self._start_munge()
            self._start_accounting()
            self._start("slurmctld", "slurmctld", "-D", "-c")
            for node in self.nodes:
                self._start(f"slurmd.{node}", "slurmd", "-D", "-N", node)
            self._await("nodes", lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "slurmctld")
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Cancels all jobs, then stops every daemon by its process id, last started first, and deletes all files."""
        if not self.folder.exists():
            return
        if (self.folder / "slurmctld.pid").exists():
            self.call("scancel", "--full", "--user", "root", check=False)
            deadline = time.monotonic() + 20
            while self.call("squeue", "--noheader", check=False).strip() and time.monotonic() < deadline:
                time.sleep(0.2)
        processes = []
        for file in sorted(self.folder.glob("*.pid"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            daemon = json.loads(file.read_text())
            try:
                process = psutil.Process(daemon["pid"])
                if process.create_time() == daemon["created"]:
                    process.send_signal(signal.SIGTERM)
                    processes.append(process)
                    psutil.wait_procs([process], timeout=10)
            except psutil.NoSuchProcess:
                pass
            file.unlink()
        for process in psutil.wait_procs([*processes, *self.processes()], timeout=3)[1]:
            process.kill()
            process.wait(10)
        self.remove()

    def remove(self) -> None:
        """Deletes the files of a cluster that does not run."""
        for name in ("slurm.conf", "gres.conf"):
            link = _SYSTEM / name
            if link.is_symlink() and link.readlink() == self.conf.with_name(name):
                link.unlink()
        shutil.rmtree(self.folder)

    def processes(self) -> list[psutil.Process]:
        """All processes with this cluster in their environment: daemons, jobs and their steps."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CONF") == str(self.conf) and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                pass
        return found

    # nodes and jobs -----------------------------------------------------------------------------------------------

    def states(self) -> dict[str, str]:
        """The state of each node: idle, mixed, allocated, drained, draining, ..."""
        lines = self.call("sinfo", "--noheader", "--Node", "--format=%N %T", check=False).split("\n")
        return dict(line.split() for line in lines if line)

    def queued(self) -> list[str]:
        """The ids of pending and running jobs."""
        return self.call("squeue", "--noheader", "--format=%i").split()

    # daemons -----------------------------------------------------------------------------------------------------

    def _start(self, name: str, *command: str, **options) -> None:
        with open(self.folder / "log" / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.variables, "PATH": _PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )
        created = psutil.Process(process.pid).create_time()
        (self.folder / f"{name}.pid").write_text(json.dumps({"pid": process.pid, "created": created}))

    def _await(self, name: str, ready, log: str) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if time.monotonic() > deadline:
                tail = (self.folder / "log" / f"{log}.log").read_text(errors="replace").splitlines()[-8:]
                raise RuntimeError(f"{name} did not start:\n" + "\n".join(tail))
            time.sleep(0.1)

    def _start_munge(self) -> None:
        user, folder = pwd.getpwnam("munge"), self.folder / "munge"
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        os.chown(folder / "key", user.pw_uid, user.pw_gid)
        os.chown(folder, user.pw_uid, user.pw_gid)
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={folder / file}" for option, file in files.items()]
        # --force: its parent folders belong to other users
        self._start("munged", "munged", "--foreground", "--force", *options, user="munge", group="munge")
        probe = ("munge", "--no-input", f"--socket={folder / 'socket'}")
        self._await("munged", lambda: subprocess.run(probe, capture_output=True).returncode == 0, "munged")

    def _start_accounting(self) -> None:
        folder, mysql = self.folder / "db", pwd.getpwnam("mysql")
        os.chown(folder, mysql.pw_uid, mysql.pw_gid)
        log = self.folder / "log" / "mariadb-install.log"
        done = subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                "--user=mysql",
                f"--datadir={folder}",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": _PATH},
        )
        log.write_text(done.stdout + done.stderr)
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db: {done.stderr[-500:]}")
        # a relative socket: its path may have 107 characters, and pytest's folders are deep
        options = [f"--datadir={folder}", "--socket=s", f"--port={self._ports['database']}", "--bind-address=127.0.0.1"]
        options += [f"--pid-file={folder / 'pid'}", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
        self._start("mariadb", "mariadbd", "--no-defaults", "--user=mysql", *options)
        client = ("mariadb", "--no-defaults", "--protocol=tcp", "--host=127.0.0.1", f"--port={self._ports['database']}")
        grant = "create database slurm_acct_db; create user slurm@localhost identified by 'x';"
        grant += "grant all on slurm_acct_db.* to slurm@localhost;"
        self._await(
            "mariadb",
            lambda: subprocess.run([*client, "--user=root", "--execute=select 1"], capture_output=True).returncode == 0,
            "mariadb",
        )
        subprocess.run([*client, "--user=root", f"--execute={grant}"], check=True)
        self._start("slurmdbd", "slurmdbd", "-D")
        self._await("slurmdbd", lambda: _listens(self._ports["slurmdbd"]), "slurmdbd")
        self.call("sacctmgr", "--immediate", "--quiet", "add", "cluster", "sim", check=False)

    def _write_conf(self) -> None:
        host, folder = socket.gethostname().split(".")[0], self.folder
        names = ["database", "slurmdbd", "slurmctld", *self.nodes]
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        lines = _SLURM_CONF.format(folder=folder, host=host, gpus=self.gpus, **self._ports).splitlines()
        devices = []
        for node in self.nodes:
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self._ports[node]} CPUs=2 "
                f"RealMemory=16000 Gres=gpu:{self.gpus} State=UNKNOWN"
            )
            for number in range(self.gpus):
                device = folder / "dev" / f"{node}-gpu{number}"
                os.mknod(device, 0o600 | 0o020000, os.makedev(1, 3))  # as /dev/null
                devices.append(f"NodeName={node} Name=gpu File={device}")
        for partition in ("cpu Default=YES", "gpu"):
            lines.append(f"PartitionName={partition} Nodes={','.join(self.nodes)} MaxTime=INFINITE State=UP")
        self.conf.write_text(_MARK + "\n".join(lines) + "\n")
        (folder / "etc" / "gres.conf").write_text("\n".join(devices) + "\n")
        database = folder / "etc" / "slurmdbd.conf"
        database.write_text(_SLURMDBD_CONF.format(folder=folder, host=host, **self._ports))
        database.chmod(0o600)


# Without cgroups, which a container may lack. Short intervals, so that tests need not wait for the scheduler.
_SLURM_CONF = """\
ClusterName=sim
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={slurmctld}
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/ctld/pid
SlurmdPidFile={folder}/spool/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd}
AccountingStoragePass={folder}/munge/socket
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=300
InactiveLimit=0
KillWait=5
"""

_SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={slurmdbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=x
StorageLoc=slurm_acct_db
CommitDelay=1
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/log/slurmdbd.pid
"""


def missing(environment: Mapping[str, str] = os.environ) -> str:
    """Why Slurm is unavailable here; "" if it is available. As root, apt installs missing packages."""
    if os.getuid() != 0:
        return "Slurm: starting its daemons needs root"
    conf = _SYSTEM / "slurm.conf"
    if conf.is_symlink() and conf.exists() and conf.read_text().startswith(_MARK):
        left = Slurm(conf.readlink().parents[1])
        if not left.processes():
            # the process that started it was killed and could not stop it
            left.remove()
    if os.path.lexists(conf):
        return f"Slurm: {conf} exists; the installed Slurm stays unchanged"
    if all(shutil.which(name, path=_PATH) for name in _PROGRAMS):
        return ""
    return install(*PACKAGES)


def install(*packages: str) -> str:
    """Installs Debian packages; returns why that fails, or ""."""
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        return f"missing: {' '.join(packages)}; installing them needs root and apt-get"
    options = ["-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with open(__file__) as lock:
        # two processes cannot update the lists of packages at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["apt-get", "-q", "update"], env=variables, capture_output=True, timeout=300)
        done = subprocess.run(
            ["apt-get", "install", *options, *packages], env=variables, capture_output=True, text=True, timeout=900
        )
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"apt-get install {' '.join(packages)}: {last}" if done.returncode else ""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def main() -> int:
    """The command line: up or down, and a folder."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("up", "down"):
        print("usage: slurm.py up|down FOLDER", file=sys.stderr)
        return 2
    cluster = Slurm(Path(sys.argv[2]))
    if sys.argv[1] == "down":
        cluster.down()
        return 0
    why = missing()
    if why:
        print(f"Error: {why}", file=sys.stderr)
        return 1
    cluster.up()
    print("\n".join(f"export {name}={value}" for name, value in cluster.variables.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
