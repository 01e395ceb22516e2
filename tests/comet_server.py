"""A fake comet.ml server on the loopback device that stores experiments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from loopback import Loopback, Refusal

KEY = "k0" * 12 + "x"


@dataclass
class Experiment:
    project: str
    workspace: str
    offline: bool
    name: str | None = None
    tags: list = field(default_factory=list)
    parameters: dict = field(default_factory=dict)
    metrics: list = field(default_factory=list)
    others: dict = field(default_factory=dict)
    assets: list = field(default_factory=list)
    opened: int = 1

    def values(self, name):
        """All values of a metric as (step, value), by step."""
        return sorted((step, value) for metric, step, _, value in self.metrics if metric == name)


class CometServer(Loopback):
    """Stores `experiments` by key; accepts only the API key KEY."""

    def __init__(self):
        super().__init__()
        self.experiments: dict[str, Experiment] = {}

    @property
    def environment(self):
        return {"COMET_API_KEY": KEY, "COMET_URL_OVERRIDE": f"{self.url}/clientlib/"}

    def content(self, path, body):
        parts = urlsplit(path)
        sent = json.loads(body) if body[:1] == b"{" else {}
        if sent.get("apiKey", KEY) != KEY:
            raise Refusal(400, {"msg": "invalid API key", "sdk_error_code": 90212})
        key = sent.get("experimentKey")
        if parts.path.endswith("isAlive/ver"):
            return {"version": "5.0.0"}
        if parts.path.endswith("logger/add/run"):
            if key in self.experiments:
                raise Refusal(400, {"msg": "experiment already exists", "sdk_error_code": 90999})
            self.experiments[key] = Experiment(sent["projectName"], sent["teamName"], sent["offline"])
            return self._handshake()
        if parts.path.endswith("logger/get/run"):
            if sent["previousExperiment"] not in self.experiments:
                raise Refusal(400, {"msg": "no such experiment", "sdk_error_code": 90210})
            self.experiments[sent["previousExperiment"]].opened += 1
            return self._handshake()
        if "upload" in parts.path:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            name = query.get("fileName") or query.get("figName")
            self.experiments[query["experimentId"]].assets.append((parts.path.split("/")[-2], name, len(body)))
            return {"assetId": "1", "link": ""}
        experiment = self.experiments.get(key)
        if experiment is not None:
            self._store(experiment, parts.path, sent)
        return {"is_alive_beat_duration_millis": 10_000, "gpu_monitor_interval_millis": 10_000}

    def _handshake(self):
        return {"runId": "1", "project_id": "2", "focusUrl": f"{self.url}/workspace/project/", "lastOffset": 0}

    @staticmethod
    def _store(experiment, path, sent):
        if path.endswith("experiment/metric"):
            for value in sent["values"]:
                experiment.metrics.append(
                    (value["metricName"], value["step"], value["epoch"], float(value["metricValue"]))
                )
        elif path.endswith("experiment/parameter"):
            experiment.parameters |= {value["parameterName"]: value["parameterValue"] for value in sent["values"]}
        elif path.endswith("add-tags-to-experiment"):
            experiment.tags += sent["addedTags"]
        elif path.endswith("log-other"):
            experiment.others[sent["key"]] = sent["value"]
            if sent["key"] == "Name":
                experiment.name = sent["value"]
