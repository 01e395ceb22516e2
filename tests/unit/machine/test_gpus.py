"""GPUs of one machine, with fake devices: counting, and leases of jobs."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from separation.errors import UserError
from separation.machine.gpu_leases import gpus_for, hold_devices
from separation.machine.gpus import Device, count_gpus, devices_for_jobs, scheduler_job, visible_devices

JOB = Path(__file__).with_name("gpu_job.py")
TWO_GPUS = "GPU 0: NVIDIA H200 (UUID: GPU-11aa-01)\nGPU 1: NVIDIA H200 (UUID: GPU-22bb-02)\n"
DIVIDED = (
    "GPU 0: NVIDIA A100 (UUID: GPU-11aa-01)\n"
    "  MIG 3g.20gb     Device  0: (UUID: MIG-aaaa-1)\n"
    "  MIG 3g.20gb     Device  1: (UUID: MIG-bbbb-2)\n"
    "GPU 1: NVIDIA A100 (UUID: GPU-22bb-02)\n"
)


@pytest.fixture
def locks(tmp_path, monkeypatch):
    """The folder of the locks, in an environment without scheduler and devices."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID", "SGE_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPU_LOCK_DIRECTORY", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def nvidia_smi(locks, tmp_path, monkeypatch):
    """Puts an nvidia-smi on PATH that lists the given devices; with None, one that fails, as without a driver."""

    def install(listed):
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\nexit 9\n" if listed is None else f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return install


class Jobs:
    """Processes that hold devices, and their output lines in order."""

    def __init__(self):
        reader, self._writer = os.pipe()
        self.lines = os.fdopen(reader)
        self.processes: dict[int, subprocess.Popen] = {}
        self.held: dict[int, str] = {}

    def start(self, devices, stderr=None, **options) -> subprocess.Popen:
        command = [sys.executable, str(JOB), json.dumps({"devices": devices, **options})]
        pipes = {"stdin": subprocess.PIPE, "stdout": self._writer, "stderr": stderr}
        inherited = [options["children"]] if "children" in options else []
        job = subprocess.Popen(command, **pipes, text=True, pass_fds=inherited)
        self.processes[job.pid] = job
        return job

    def next_line(self) -> tuple[str, int]:
        """The next output line of any job (event, pid); updates `held`."""
        event, pid, devices = self.lines.readline().split()
        if event == "begin":
            self.held[int(pid)] = devices
        else:
            del self.held[int(pid)]
        return event, int(pid)

    def users(self) -> Counter:
        """The number of jobs that hold each device."""
        return Counter(device for devices in self.held.values() for device in devices.split(","))

    def release(self, pid: int) -> None:
        self.processes[pid].stdin.write("\n")
        self.processes[pid].stdin.flush()

    def kill(self, pid: int) -> None:
        self.processes[pid].kill()
        self.processes[pid].wait()
        self.held.pop(pid, None)

    def close(self) -> None:
        for job in self.processes.values():
            if job.poll() is None:
                job.kill()
            job.wait()
            job.stdin.close()
        os.close(self._writer)
        self.lines.close()


@pytest.fixture
def jobs(locks):
    started = Jobs()
    yield started
    started.close()


def assert_all_free(locks, devices, slots=1):
    """Asserts that all devices can be leased at once, and that no lock file is left afterwards."""
    with hold_devices([Device(name, name) for name in devices], len(devices), slots=slots, interval=0) as held:
        assert len(held) == len(devices)
    assert list(locks.iterdir()) == []


@pytest.mark.parametrize("slots", [1, 2])
def test_more_jobs_than_slots_share_devices_even_when_some_are_killed(jobs, locks, slots):
    devices, number = ["GPU-a", "GPU-b", "GPU-c"], 12
    for _ in range(number):
        jobs.start(devices, slots=slots)
    begun, killed = [], 0
    while len(begun) < number:
        # no job ends before all slots are in use, so that every device is seen in use
        while len(jobs.held) < min(3 * slots, number - len(begun) + len(jobs.held)):
            event, pid = jobs.next_line()
            assert event == "begin" and max(jobs.users().values()) <= slots
            begun.append(pid)
        assert sorted(jobs.users()) == devices or len(begun) == number
        leaving = next(iter(jobs.held))
        if len(begun) % 3:
            jobs.kill(leaving)
            killed += 1
        else:
            jobs.release(leaving)
            assert jobs.next_line() == ("end", leaving)
    for pid in list(jobs.held):
        jobs.kill(pid)
    # one that has printed its end may still be removing files of those that were killed
    assert {job.wait() for job in jobs.processes.values()} == {0, -signal.SIGKILL}
    assert len(set(begun)) == number and killed >= 3
    assert_all_free(locks, devices, slots)


def test_jobs_with_one_and_with_several_devices_do_not_starve(jobs, locks):
    devices = ["GPU-a", "GPU-b", "GPU-c"]
    for count in (1, 2, 3, 1, 2, 2):
        jobs.start(devices, count=count, rounds=12)
    events = Counter()
    while events["end"] < 6 * 12:
        event, _ = jobs.next_line()
        events[event] += 1
        assert not jobs.held or max(jobs.users().values()) == 1
    assert all(job.wait() == 0 for job in jobs.processes.values())
    assert_all_free(locks, devices)


def test_children_of_a_killed_job_hold_no_locks(jobs, locks):
    reader, writer = os.pipe()
    try:
        job = jobs.start(["GPU-a"], children=reader)
        assert jobs.next_line() == ("begin", job.pid)
        jobs.kill(job.pid)
        # the children are alive: both wait for input
        assert_all_free(locks, ["GPU-a"])
    finally:
        os.close(writer)
        os.close(reader)


def test_exclusive_and_shared_use_of_a_device_exclude_each_other(jobs, locks):
    alone = jobs.start(["GPU-a"])
    jobs.next_line()
    shares = [jobs.start(["GPU-a"], slots=2, stderr=subprocess.PIPE) for _ in range(2)]
    # the device was in use when they print that they wait
    assert all("waiting for a free GPU among GPU-a" in job.stderr.readline() for job in shares)
    jobs.release(alone.pid)
    assert jobs.next_line() == ("end", alone.pid)
    assert [jobs.next_line()[0], jobs.next_line()[0]] == ["begin", "begin"]
    third = jobs.start(["GPU-a"], stderr=subprocess.PIPE)
    assert "waiting" in third.stderr.readline()
    for job in shares:
        jobs.release(job.pid)
        assert jobs.next_line() == ("end", job.pid)
    assert jobs.next_line() == ("begin", third.pid)
    jobs.release(third.pid)
    jobs.next_line()


def test_waiting_jobs_print_once_who_holds_the_device(jobs, locks):
    first = jobs.start(["GPU-a"], job="train_point dpcl-toy-s0-0123456789ab")
    jobs.next_line()
    second = jobs.start(["GPU-a"], stderr=subprocess.PIPE)
    line = second.stderr.readline()
    assert f"held by pid {first.pid} of " in line and "train_point dpcl-toy-s0-0123456789ab in " in line
    jobs.release(first.pid)
    jobs.next_line(), jobs.next_line()
    jobs.release(second.pid)
    assert second.wait() == 0 and second.stderr.read() == ""


def test_leases_on_a_schedulers_devices_apply_only_within_its_job(jobs, locks, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    jobs.start(["0"])
    jobs.next_line()
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    jobs.start(["0"])
    jobs.next_line()
    assert jobs.users()["0"] == 2  # devices of two machines, or of one that the scheduler shares
    third = jobs.start(["0"], stderr=subprocess.PIPE)
    assert "waiting for a free GPU among 0" in third.stderr.readline()
    for pid in jobs.processes:
        jobs.kill(pid)
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    assert_all_free(locks, ["0"])


def test_devices_and_times_of_every_run_are_recorded(locks, tmp_path, monkeypatch):
    record = tmp_path / "point.devices.tsv"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    for _ in range(2):
        with hold_devices([Device("0", "GPU-a"), Device("1", "GPU-b")], 2, record=record):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
            with open(record) as rows:
                assert [row["end"] for row in csv.DictReader(rows, delimiter="\t")][-2:] == ["", ""]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"
    with open(record) as rows:
        rows = list(csv.DictReader(rows, delimiter="\t"))
    assert [(row["device"], row["uuid"], row["slot"], row["slots"]) for row in rows] == [
        ("0", "GPU-a", "0", "1"),
        ("1", "GPU-b", "0", "1"),
    ] * 2
    assert all(row["begin"] < row["end"] and row["pid"] == str(os.getpid()) for row in rows)
    assert rows[0]["end"] < rows[2]["begin"]


@pytest.mark.parametrize(
    "listed, visible, expected",
    [
        (TWO_GPUS, None, [("0", "GPU-11aa-01"), ("1", "GPU-22bb-02")]),
        (TWO_GPUS, "1", [("1", "GPU-22bb-02")]),
        (TWO_GPUS, "1, 0", [("1", "GPU-22bb-02"), ("0", "GPU-11aa-01")]),
        (TWO_GPUS, "0,7,1", [("0", "GPU-11aa-01")]),
        (TWO_GPUS, "0,-1,1", [("0", "GPU-11aa-01")]),
        (TWO_GPUS, "0,GPU-11aa-01", [("0", "GPU-11aa-01")]),
        (TWO_GPUS, "GPU-22", [("GPU-22", "GPU-22bb-02")]),
        (TWO_GPUS, "", []),
        (None, None, []),
        (None, "GPU-cc,MIG-dd,MIG-GPU-ee/1/0", [(name, name) for name in ("GPU-cc", "MIG-dd", "MIG-GPU-ee/1/0")]),
        (DIVIDED, None, [("MIG-aaaa-1",) * 2, ("MIG-bbbb-2",) * 2, ("1", "GPU-22bb-02")]),
        (DIVIDED, "0", [("MIG-aaaa-1",) * 2]),
        (DIVIDED, "MIG-bbbb-2", [("MIG-bbbb-2",) * 2]),
    ],
)
def test_all_names_of_a_device_have_the_same_key(nvidia_smi, listed, visible, expected):
    nvidia_smi(listed)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [(device.name, device.key) for device in visible_devices(environment)] == expected
    assert count_gpus("auto", environment) == len(expected)
    assert count_gpus("auto", environment, 2) == 2 * len(expected)


def test_numbers_without_a_driver_are_devices_of_this_host(nvidia_smi):
    nvidia_smi(None)
    zero, one = visible_devices({"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (zero.name, one.name) == ("0", "1") and zero.key != one.key and zero.key.endswith("-0")


def test_a_number_of_gpus_selects_the_first_but_not_of_a_schedulers_choice(nvidia_smi):
    nvidia_smi(TWO_GPUS)
    assert [device.name for device in devices_for_jobs(1, {})] == ["0"]
    given = {"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_ID": "7"}
    assert [device.name for device in devices_for_jobs("1", given)] == ["1"]
    assert scheduler_job(given) == "Slurm-7"
    assert scheduler_job({"SLURM_JOB_ID": "7"}) is None  # it chose no devices
    assert scheduler_job({"CUDA_VISIBLE_DEVICES": "0", "LSB_JOBID": "3", "LSB_JOBINDEX": "2"}) == "LSF-3-2"


class Job:
    """The job object of a rule's script."""

    def __init__(self, **config):
        self.rule, self.wildcards, self.resources = "train_point", ["dpcl-toy-s0-0123456789ab"], {"gpu": 1}
        self.log = ["logs/train_point/dpcl-toy-s0-0123456789ab.log"]
        self.config = config


@pytest.mark.parametrize(
    "visible, device, count, message",
    [
        ("GPU-a", "auto", 2, "expected 2 GPUs, found 1 available to this job"),
        ("GPU-a", "cuda:1", 1, "expected one of 1 GPUs, found cuda:1"),
        ("MIG-a,MIG-b", "auto", 2, "expected whole GPUs"),
    ],
)
def test_unavailable_devices_are_errors(nvidia_smi, monkeypatch, visible, device, count, message):
    nvidia_smi(None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match=message), gpus_for(Job(gpus="auto"), device, count):
        pass


def test_jobs_may_name_a_device_and_cpu_jobs_lease_none(nvidia_smi, locks, tmp_path, monkeypatch):
    nvidia_smi(None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    with gpus_for(Job(gpus="auto"), "cuda:1") as device:
        assert device == "cuda" and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    (record,) = Path("results/benchmarks/train_point").iterdir()
    assert record.name == "dpcl-toy-s0-0123456789ab.devices.tsv"
    record.unlink()
    with gpus_for(Job(gpus="auto"), "cpu") as device:
        assert device == "cpu" and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert not record.exists()


def test_an_unusable_folder_for_locks_is_an_error(locks):
    locks.write_text("a file")
    with (
        pytest.raises(UserError, match="set GPU_LOCK_DIRECTORY to another folder"),
        hold_devices([Device("0", "GPU-a")]),
    ):
        pass
