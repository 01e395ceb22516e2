"""A fake Weights & Biases server on the loopback device: the GraphQL, file stream and uploads that runs need."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from loopback import Loopback


@dataclass
class Run:
    project: str
    name: str | None = None
    notes: str | None = None
    tags: list = field(default_factory=list)
    config: dict = field(default_factory=dict)
    history: dict = field(default_factory=dict)  # by the line's offset: a line that is sent twice counts once
    summary: dict = field(default_factory=dict)
    files: list = field(default_factory=list)

    def values(self, name):
        """All values of a metric as (step, value), by step."""
        return sorted((line["_step"], line[name]) for line in self.history.values() if name in line)


class WandbServer(Loopback):
    """Stores `runs` by id."""

    KEY = "f0" * 20

    def __init__(self):
        super().__init__()
        self.runs: dict[str, Run] = {}

    @property
    def environment(self):
        return {"WANDB_API_KEY": self.KEY, "WANDB_BASE_URL": self.url}

    def content(self, path, body):
        if path == "/graphql":
            request = json.loads(body)
            return {"data": self._graphql(request["query"], request.get("variables") or {})}
        if match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            self._stream(self.runs[match.group(1)], json.loads(body))
        elif match := re.fullmatch(r"/storage/([^/]+)/(.+)", path):
            self.runs[match.group(1)].files.append(match.group(2))
        return {}

    def _graphql(self, query, variables):
        if "upsertBucket" in query:
            created = variables["name"] not in self.runs
            run = self.runs.setdefault(variables["name"], Run(variables["project"]))
            run.name, run.notes = variables.get("displayName") or run.name, variables.get("notes") or run.notes
            run.tags = variables.get("tags") or run.tags
            config = json.loads(variables.get("config") or "{}")
            run.config |= {key: entry["value"] for key, entry in config.items() if key != "_wandb"}
            bucket = self._bucket(variables["name"], run) | {"project": self._project(run)}
            return {"upsertBucket": {"bucket": bucket, "inserted": created}}
        if "createRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"{self.url}/storage/{variables['run']}/{name}"}
                for name in variables["files"]
            ]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if "RunResumeStatus" in query:
            run = self.runs.get(variables["name"])
            bucket = self._bucket(variables["name"], run) if run else None
            return {"model": {"id": "2", "name": "p", "entity": {"id": "3", "name": "me"}, "bucket": bucket}}
        return {}

    def _bucket(self, key, run):
        lines = [run.history[offset] for offset in sorted(run.history)]
        return {
            "id": key,
            "name": key,
            "displayName": run.name,
            "sweepName": None,
            "historyLineCount": len(lines),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(line) for line in lines[-1:]]),
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(run.summary),
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "tags": run.tags,
            "wandbConfig": "{}",
        }

    def _project(self, run):
        return {"id": "2", "name": run.project, "entity": {"id": "3", "name": "me"}}

    @staticmethod
    def _stream(run, chunk):
        for name, part in (chunk.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]]
            if name == "wandb-history.jsonl":
                run.history |= {part["offset"] + number: line for number, line in enumerate(lines)}
            elif name == "wandb-summary.json":
                for line in lines:
                    run.summary |= line
