"""comet.ml tracker. Its client hides its own failures, so they are read from its log."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.files.layout import PointFolder
from separation.tracking.payload import Batch, Description
from separation.tracking.sent import Sent
from separation.tracking.tracker import Tracker, Unreachable

# seconds in which the client itself retries requests over the rate limit, which comet counts by the minute
THROTTLED = 90
# client modules whose errors mean that data did not arrive; a missed heartbeat does not matter
_SENDERS = ("comet_ml.streamer", "comet_ml.file_upload", "comet_ml.connection.connection_upload")
# send only the batches; collect nothing from code, command line or environment
_COLLECT_NOTHING = {
    "log_code": False,
    "log_graph": False,
    "auto_param_logging": False,
    "auto_metric_logging": False,
    "auto_output_logging": False,
    "log_env_details": False,
    "log_git_metadata": False,
    "log_git_patch": False,
    "parse_args": False,
    "display_summary_level": 0,
}


class _Failures(logging.Handler):
    """Collects the errors that comet's client logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append((record.name, record.getMessage().splitlines()[0]))

    def of(self, loggers: tuple[str, ...]) -> list[str]:
        """The messages of some of its modules."""
        return [message for name, message in self.messages if name.startswith(loggers)]


class Comet(Tracker):
    """Experiments on comet.ml, with the key in COMET_API_KEY."""

    name, title = "comet", "comet.ml"

    def __init__(self, options: Mapping[str, Any], patience: float):
        super().__init__(options, patience)
        seconds = str(max(1, round(patience)))
        # by default a client without a network blocks for half a minute, and its exit for up to an hour
        for variable, value in {
            "COMET_GET_OR_ADD_EXPERIMENT_RETRY_TOTAL": "0",
            "COMET_GET_OR_ADD_EXPERIMENT_RETRY_CONNECT": "0",
            "COMET_GET_OR_ADD_EXPERIMENT_RETRY_READ": "0",
            "COMET_GET_OR_ADD_EXPERIMENT_RETRY_STATUS": "0",
            "COMET_HTTP_SESSION_RETRY_TOTAL": "0",
            "COMET_TIMEOUT_HTTP": seconds,
            "COMET_TIMEOUT_API": seconds,
            "COMET_TIMEOUT_CLEANING": seconds,
            "COMET_TIMEOUT_UPLOAD": seconds,
            "COMET_TIMEOUT_FILE_UPLOAD": seconds,
        }.items():
            os.environ[variable] = value
        os.environ.setdefault("COMET_ERROR_TRACKING_ENABLE", "0")
        os.environ.setdefault("COMET_DISABLE_ANNOUNCEMENT", "1")
        # the client saves unsent data here when a connection is lost; the event log has all of it
        unsent = Path(tempfile.gettempdir()) / f"comet-{os.getpid()}"
        os.environ["COMET_OFFLINE_DIRECTORY"] = str(unsent)
        atexit.register(shutil.rmtree, unsent, ignore_errors=True)
        import comet_ml

        self.comet_ml = comet_ml
        self.failures = _Failures()
        # errors are read from here and reported in one line; the client's own output may contain the key
        log = logging.getLogger("comet_ml")
        log.setLevel(logging.ERROR)
        log.propagate = False
        log.handlers = [self.failures]
        self.experiment: Any = None

    def new_key(self) -> str:
        return secrets.token_hex(16)

    def open(self, point: PointFolder, description: Description, sent: Sent) -> str | None:
        if not os.environ.get("COMET_API_KEY"):
            raise Unreachable("COMET_API_KEY is not set")
        # after an interruption right at the start it is unknown whether comet has created the experiment: try both
        started, reasons = time.monotonic(), []
        for existing in (sent.created, not sent.created):
            if time.monotonic() - started > self.patience / 2:
                break  # the network failed, not the key
            self.failures.messages.clear()
            try:
                self.experiment = self._connect(description, sent, existing)
            except Exception as error:  # the client raises many types, and none may affect training
                reasons.append(f"{type(error).__name__}: {error}")
                continue
            if self.experiment.alive:
                return self.experiment.url
            reasons += [message for _, message in self.failures.messages]
        raise Unreachable(reasons[0] if reasons else "no connection")

    def _connect(self, description: Description, sent: Sent, existing: bool) -> Any:
        if existing:
            return self.comet_ml.ExistingExperiment(previous_experiment=sent.key, **_COLLECT_NOTHING)
        return self.comet_ml.Experiment(experiment_key=sent.key, **self._project(description), **_COLLECT_NOTHING)

    def _project(self, description: Description) -> dict[str, Any]:
        return {
            "project_name": self.options.get("project") or description.project,
            "workspace": self.options.get("workspace") or os.environ.get("COMET_WORKSPACE") or None,
        }

    def send(self, batch: Batch) -> None:
        self.failures.messages.clear()
        _log(self.experiment, batch)
        delivered = self.experiment.flush(timeout=THROTTLED)
        # the client retries rejected requests by itself, also while it sends the next batch
        others = ("parameters", "log other", "tags") if batch.description is None else ()
        rejections = [text for text in self.failures.of(_SENDERS) if not any(word in text for word in others)]
        if rejections:
            raise Unreachable(rejections[0], rejected=True)
        streamer = getattr(self.experiment, "streamer", None)
        if not delivered or streamer is None or not streamer.has_connection_to_server():
            raise Unreachable("the connection was lost")
        if batch.files and streamer.has_upload_failed():
            raise Unreachable("a file was rejected", rejected=True)

    def close(self, finished: bool) -> None:
        if self.experiment is not None:
            self.experiment.end()
            self.experiment = None

    def archive(self, point: PointFolder, description: Description, batch: Batch, sent: Sent) -> Path | None:
        target = point.tracker_files("comet") / f"{sent.key}.zip"
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".comet.", dir=target.parent))
        try:
            options = {"offline_directory": str(temporary), **_COLLECT_NOTHING}
            if sent.created:
                experiment = self.comet_ml.ExistingOfflineExperiment(previous_experiment=sent.key, **options)
            else:
                experiment = self.comet_ml.OfflineExperiment(
                    experiment_key=sent.key, **self._project(description), **options
                )
            _log(experiment, batch)
            experiment.end()
            (written,) = temporary.glob("*.zip")
            os.replace(written, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def drop_archive(self, point: PointFolder) -> None:
        shutil.rmtree(point.tracker_files("comet"), ignore_errors=True)


def _log(experiment: Any, batch: Batch) -> None:
    if batch.description is not None:
        description = batch.description
        experiment.set_name(description.name)
        experiment.add_tags(list(description.tags))
        experiment.log_parameters(dict(description.parameters), nested_support=False)
        experiment.log_others({"point": description.point, "notes": description.notes})
    for metrics in batch.metrics:
        experiment.log_metrics(dict(metrics.values), step=metrics.step, epoch=metrics.epoch)
    if batch.scores:
        experiment.log_metrics(batch.scores)
    for file in batch.files:
        if file.kind == "audio":
            experiment.log_audio(str(file.path), file_name=file.name)
        elif file.kind == "image":
            experiment.log_image(str(file.path), name=file.name)
        else:
            experiment.log_asset(str(file.path), file_name=file.name, overwrite=True)
