"""Progress lines on a terminal, in the output of a batch job and in the log."""

import contextlib
import io
import logging
import os
import pty
from types import SimpleNamespace

import pytest

from separation.machine import parallel
from separation.machine.parallel import Progress, run_in_order


@pytest.fixture
def clock(monkeypatch):
    """The time that Progress sees, in seconds."""
    now = [1000.0]
    # of Progress alone: threads of the test's process keep the real one
    monkeypatch.setattr(parallel, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@contextlib.contextmanager
def standard_error_on_a_terminal():
    """Yields a function that returns the new lines on the terminal."""
    reader, writer = pty.openpty()

    def seen():
        # what was written reaches the reader some time later
        print("end", file=file, flush=True)
        text = ""
        while not text.endswith("end\r\n"):
            text += os.read(reader, 2**16).decode()
        return text.splitlines()[:-1]

    with os.fdopen(writer, "w") as file, contextlib.redirect_stderr(file):
        yield seen
    os.close(reader)


def work(clock, *, total, seconds, first=0.0):
    """Simulates `total` items of `seconds` each, with a delay of `first` seconds before the first."""
    progress = Progress(total, "mixtures of train, shard 0002")
    clock[0] += first
    for _ in range(total):
        clock[0] += seconds
        progress.advance()


def test_a_terminal_shows_count_rate_and_time_left_every_few_seconds(clock):
    with standard_error_on_a_terminal() as seen:
        work(clock, total=1200, seconds=0.125)
        lines = seen()
    assert len(lines) == 30
    assert lines[0] == "41 of 1200 mixtures of train, shard 0002, 8.0 a second, 2:25 left"
    assert lines[-1] == "1200 of 1200 mixtures of train, shard 0002, 8.0 a second"


def test_the_rate_excludes_the_start_of_the_processes(clock):
    with standard_error_on_a_terminal() as seen:
        work(clock, total=2000, seconds=0.125, first=60)
        lines = seen()
    assert lines[0] == "1 of 2000 mixtures of train, shard 0002"
    assert lines[1] == "42 of 2000 mixtures of train, shard 0002, 8.0 a second, 4:05 left"


def test_hours_are_shown_as_hours(clock):
    with standard_error_on_a_terminal() as seen:
        work(clock, total=3, seconds=5000)
        assert seen()[1] == "2 of 3 mixtures of train, shard 0002, 0.0 a second, 1:23:20 left"


def test_batch_jobs_print_a_line_every_half_minute_and_log_more(clock, caplog):
    with caplog.at_level(logging.INFO, logger=parallel.__name__), contextlib.redirect_stderr(io.StringIO()) as output:
        work(clock, total=1000, seconds=0.125)
    assert len(output.getvalue().splitlines()) == 5
    assert len(caplog.messages) == 25
    assert caplog.messages[-1] == "1000 of 1000 mixtures of train, shard 0002, 8.0 a second"


def test_short_work_prints_nothing_and_logs_one_line(clock, caplog):
    with caplog.at_level(logging.INFO, logger=parallel.__name__), standard_error_on_a_terminal() as seen:
        work(clock, total=10, seconds=0.125)
        assert seen() == []
    assert caplog.messages == ["10 of 10 mixtures of train, shard 0002, 8.0 a second"]


def test_calls_in_several_processes_are_counted(caplog):
    with caplog.at_level(logging.INFO, logger=parallel.__name__):
        assert run_in_order(divmod, [(7, 2), (9, 4)], workers=2, items="divisions") == [(3, 1), (2, 1)]
    assert caplog.messages[-1].startswith("2 of 2 divisions")
