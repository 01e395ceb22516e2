"""The event log has complete lines after any kill, and its latest events count."""

import json
import multiprocessing
import os

import numpy as np
import pytest

from separation.training.events import EventLog, EventReader, iterate_metrics, latest_events, read_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "events.jsonl"


def test_an_event_is_read_as_it_was_written(path):
    EventLog(path).write("step", 3, loss=0.25, epoch=1, names=["a", "b"])
    (event,) = read_events(path)
    assert (event.kind, event.step, dict(event.values)) == ("step", 3, {"loss": 0.25, "epoch": 1, "names": ["a", "b"]})
    assert event.time > 1e9


def test_numpy_scalars_become_numbers_and_infinite_ones_null(path):
    EventLog(path).write("step", np.int64(1), loss=np.float32(0.5), norm=float("nan"), other=np.float64("inf"))
    text = path.read_text()
    assert json.loads(text, parse_constant=pytest.fail)["loss"] == 0.5
    assert read_events(path)[0].values == {"loss": 0.5, "norm": None, "other": None}


def test_other_types_are_an_error(path):
    with pytest.raises(TypeError, match="found object"):
        EventLog(path).write("step", 1, loss=object())


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_job_killed_in_the_middle_of_a_line_loses_only_that_line(path, cut):
    log = EventLog(path)
    log.write("step", 1, loss=1.0)
    whole = path.stat().st_size
    log.write("step", 2, loss=2.0)
    os.truncate(path, whole + cut)
    EventLog(path).write("step", 3, loss=3.0)
    assert [event.step for event in read_events(path)] == [1, 3]


def test_a_reader_returns_each_complete_event_once(path):
    reader, log = EventReader(path), EventLog(path)
    assert reader.new() == []
    log.write("step", 1)
    assert [event.step for event in reader.new()] == [1]
    with open(path, "ab") as file:
        file.write(b'{"kind":"step","step":2,')
    assert reader.new() == []
    with open(path, "ab") as file:
        file.write(b'"time":1}\n')
    assert [event.step for event in reader.new()] == [2]


def write_many(path, name):
    log = EventLog(path)
    for step in range(500):
        log.write(name, step, text="x" * 200)


def test_two_processes_write_complete_lines(path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(path, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    events = read_events(path)
    assert sorted((event.kind, event.step) for event in events) == [(kind, n) for kind in "ab" for n in range(500)]


def test_the_later_of_steps_repeated_after_a_resume_counts(path):
    log = EventLog(path)
    log.write("started")
    for step in range(1, 6):
        log.write("step", step, loss=float(step))
    log.write("epoch", 1, train_loss=1.0)
    log.write("epoch", 2, train_loss=2.0)
    log.write("resumed", 3, epochs=1)
    log.write("step", 4, loss=40.0)
    events = latest_events(read_events(path))
    assert [(e.step, e.values["loss"]) for e in events if e.kind == "step"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert [e.step for e in events if e.kind == "epoch"] == [1], "epoch 2 is revoked until it is logged again"


def test_a_restarted_training_revokes_earlier_events(path):
    log = EventLog(path)
    log.write("point", label="first")
    log.write("started", epochs=2)
    log.write("step", 1, loss=1.0)
    log.write("started", epochs=3)
    events = [(event.kind, dict(event.values)) for event in latest_events(read_events(path))]
    assert events == [("point", {"label": "first"}), ("started", {"epochs": 3})]


def test_scores_of_several_evaluations_are_kept(path):
    log = EventLog(path)
    for evaluation, value in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        log.write("scores", evaluation, metrics={"SI-SDR": value})
    assert [(e.step, e.values["metrics"]["SI-SDR"]) for e in latest_events(read_events(path))] == [
        ("a", 3.0),
        ("b", 2.0),
    ]


def test_metrics_skip_values_that_are_not_numbers(path):
    log = EventLog(path)
    log.write("step", 1, epoch=1, loss=float("nan"), gradient_norm=2)
    log.write("epoch", 1, train_loss=1.0, validation_loss=None)
    named = [numbers for _, numbers in iterate_metrics(read_events(path))]
    assert named == [{"train/step_gradient_norm": 2.0}, {"train/loss": 1.0}]
