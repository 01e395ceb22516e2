"""A stand-in for comet.ml on the loopback device: it keeps what experiments are sent."""

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
        """(step, value) of every time that a metric was told, in order of steps."""
        return sorted((step, value) for told, step, _, value in self.metrics if told == name)


class CometServer(Loopback):
    """Keeps `experiments` by key; takes the API key KEY alone."""

    def __init__(self):
        super().__init__()
        self.experiments: dict[str, Experiment] = {}

    @property
    def environment(self):
        return {"COMET_API_KEY": KEY, "COMET_URL_OVERRIDE": f"{self.url}/clientlib/"}

    def content(self, path, body):
        parts = urlsplit(path)
        told = json.loads(body) if body[:1] == b"{" else {}
        if told.get("apiKey", KEY) != KEY:
            raise Refusal(400, {"msg": "invalid API key", "sdk_error_code": 90212})
        key = told.get("experimentKey")
        if parts.path.endswith("isAlive/ver"):
            return {"version": "5.0.0"}
        if parts.path.endswith("logger/add/run"):
            if key in self.experiments:
                raise Refusal(400, {"msg": "experiment already exists", "sdk_error_code": 90999})
            self.experiments[key] = Experiment(told["projectName"], told["teamName"], told["offline"])
            return self._handshake()
        if parts.path.endswith("logger/get/run"):
            if told["previousExperiment"] not in self.experiments:
                raise Refusal(400, {"msg": "no such experiment", "sdk_error_code": 90210})
            self.experiments[told["previousExperiment"]].opened += 1
            return self._handshake()
        if "upload" in parts.path:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            name = query.get("fileName") or query.get("figName")
            self.experiments[query["experimentId"]].assets.append((parts.path.split("/")[-2], name, len(body)))
            return {"assetId": "1", "link": ""}
        experiment = self.experiments.get(key)
        if experiment is not None:
            self._note(experiment, parts.path, told)
        return {"is_alive_beat_duration_millis": 10_000, "gpu_monitor_interval_millis": 10_000}

    def _handshake(self):
        return {"runId": "1", "project_id": "2", "focusUrl": f"{self.url}/workspace/project/", "lastOffset": 0}

    @staticmethod
    def _note(experiment, path, told):
        if path.endswith("experiment/metric"):
            for value in told["values"]:
                experiment.metrics.append(
                    (value["metricName"], value["step"], value["epoch"], float(value["metricValue"]))
                )
        elif path.endswith("experiment/parameter"):
            experiment.parameters |= {value["parameterName"]: value["parameterValue"] for value in told["values"]}
        elif path.endswith("add-tags-to-experiment"):
            experiment.tags += told["addedTags"]
        elif path.endswith("log-other"):
            experiment.others[told["key"]] = told["value"]
            if told["key"] == "Name":
                experiment.name = told["value"]
