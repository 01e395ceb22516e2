"""MLflow tracker: a store in a local folder by default, or the server in MLFLOW_TRACKING_URI."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.files.layout import PointFolder
from separation.tracking.payload import Batch, Description
from separation.tracking.sent import Sent
from separation.tracking.tracker import Tracker, Unreachable

_LONGEST_PARAMETER = 6000  # characters, MLflow's limit
_MAX_METRICS, _MAX_PARAMETERS = 1000, 100  # in one call


class Mlflow(Tracker):
    """Runs in MLflow, one per point, identified by the tag `point`."""

    name, title = "mlflow", "MLflow"

    def __init__(self, options: Mapping[str, Any], patience: float):
        super().__init__(options, patience)
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"file:{Path(options['directory']).absolute()}"
        # a folder needs no network, no server and no archive
        self.local = self.uri.startswith("file:") or "://" not in self.uri
        if self.local:
            # a store in files is enough for one person's experiments; MLflow recommends a database and requires this
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(1, round(patience)))
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        import mlflow
        import mlflow.entities
        from mlflow.exceptions import MlflowException

        self.entities, self.error = mlflow.entities, MlflowException
        self.client = mlflow.MlflowClient(tracking_uri=self.uri)
        self.run = ""

    def new_key(self) -> str:
        return ""  # MLflow chooses it

    def open(self, point: PointFolder, description: Description, sent: Sent) -> str | None:
        try:
            if not sent.key:
                sent.key = self._run_of(description)
            self.run = sent.key
            run = self.client.get_run(self.run)
            if run.info.status != "RUNNING":
                self.client.update_run(self.run, status="RUNNING")
        except self.error as error:
            raise Unreachable(str(error)) from None
        return None if self.local else f"{self.uri}/#/experiments/{run.info.experiment_id}/runs/{self.run}"

    def _run_of(self, description: Description) -> str:
        """The point's run, created if missing: a job that was killed may have created it without recording it."""
        name = self.options.get("experiment") or description.project
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        found = self.client.search_runs([number], filter_string=f"tags.point = '{description.point}'", max_results=1)
        if found:
            return found[0].info.run_id
        tags = {"point": description.point, "mlflow.note.content": description.notes}
        return self.client.create_run(number, run_name=description.name, tags=tags).info.run_id

    def send(self, batch: Batch) -> None:
        now, metric = int(time.time() * 1000), self.entities.Metric
        numbers = [
            metric(_name(name), value, now, metrics.step)
            for metrics in batch.metrics
            for name, value in metrics.values.items()
        ]
        numbers += [metric(_name(name), value, now, 0) for name, value in batch.scores.items()]
        parameters = []
        if batch.description is not None:
            parameters = [
                self.entities.Param(_name(key), str(value)[:_LONGEST_PARAMETER])
                for key, value in batch.description.parameters.items()
            ]
        try:
            for tag in batch.description.tags if batch.description else ():
                self.client.set_tag(self.run, _name(tag), "")
            for first in range(0, len(parameters), _MAX_PARAMETERS):
                self.client.log_batch(self.run, params=parameters[first : first + _MAX_PARAMETERS])
            for first in range(0, len(numbers), _MAX_METRICS):
                self.client.log_batch(self.run, metrics=numbers[first : first + _MAX_METRICS])
            for file in batch.files:
                folder = _name(file.name).rpartition("/")[0] or None
                self.client.log_artifact(self.run, str(file.path), folder)
        except self.error as error:
            raise Unreachable(str(error)) from None

    def close(self, finished: bool) -> None:
        if self.run:
            self.client.set_terminated(self.run, "FINISHED" if finished else "KILLED")
            self.run = ""

    def archive(self, point: PointFolder, description: Description, batch: Batch, sent: Sent) -> Path | None:
        return None  # the event log is enough to send everything later

    def drop_archive(self, point: PointFolder) -> None:
        pass


def _name(name: str) -> str:
    """A name that MLflow accepts: letters, digits, and _-. /"""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)
