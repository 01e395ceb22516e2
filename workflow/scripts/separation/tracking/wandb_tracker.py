"""Weights & Biases tracker. Its client writes all data to its own log and sends it from there."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.files.layout import PointFolder
from separation.tracking.payload import Batch, Description
from separation.tracking.sent import Sent
from separation.tracking.tracker import Tracker, Unreachable


class Wandb(Tracker):
    """Runs on Weights & Biases, with the key in WANDB_API_KEY."""

    name, title = "wandb", "Weights & Biases"
    confirms = False

    def __init__(self, options: Mapping[str, Any], patience: float):
        super().__init__(options, patience)
        os.environ.update(WANDB_SILENT="true", WANDB_ERROR_REPORTING="false", WANDB_CONSOLE="off")
        # config/config.yaml sets the mode; WANDB_SERVICE would tie this process to the connection of another one
        for variable in ("WANDB_MODE", "WANDB_SERVICE"):
            os.environ.pop(variable, None)
        import wandb

        self.wandb, self.run = wandb, None
        self.folder: Path | None = None

    def new_key(self) -> str:
        return secrets.token_hex(8)

    def open(self, point: PointFolder, description: Description, sent: Sent) -> str | None:
        if not os.environ.get("WANDB_API_KEY"):
            raise Unreachable("WANDB_API_KEY is not set")
        files = _files(point)
        for left in files.glob(".wandb.*"):
            shutil.rmtree(left, ignore_errors=True)  # from a process that was killed
        self.folder = Path(tempfile.mkdtemp(prefix=".wandb.", dir=files))
        try:
            self.run = self._start(self.folder, description, sent, "online")
        except Exception as error:  # the client raises many types, and none may affect training
            raise Unreachable(f"{type(error).__name__}: {error}") from None
        return self.run.url

    def _start(self, folder: Path, description: Description, sent: Sent, mode: str) -> Any:
        # send only the batches; collect nothing from code, console or machine
        settings = self.wandb.Settings(
            init_timeout=self.patience,
            disable_code=True,
            disable_git=True,
            console="off",
            silent=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        run = self.wandb.init(
            id=sent.key,
            resume="allow",
            entity=self.options.get("entity") or None,
            project=(self.options.get("project") or description.project).replace("/", "-"),
            name=description.name,
            tags=[tag[:64] for tag in description.tags],
            notes=description.notes,
            config=dict(description.parameters),
            dir=str(folder),
            mode=mode,
            settings=settings,
        )
        run.define_metric("*", step_metric="step")
        return run

    def send(self, batch: Batch) -> None:
        _log(self.wandb, self.run, batch)

    def close(self, finished: bool) -> None:
        if self.run is not None:
            # it waits for its server without a limit
            finishing = threading.Thread(target=self.run.finish, args=(0 if finished else 1,), daemon=True)
            finishing.start()
            finishing.join(4 * self.patience)
            self.run = None
            if finishing.is_alive():
                raise Unreachable("no response in time")
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def archive(self, point: PointFolder, description: Description, batch: Batch, sent: Sent) -> Path | None:
        files = _files(point)
        target = files / "offline-run"
        temporary = Path(tempfile.mkdtemp(prefix=".wandb.", dir=files))
        try:
            run = self._start(temporary, description, sent, "offline")
            _log(self.wandb, run, batch)
            run.finish()
            (written,) = temporary.glob("wandb/offline-run-*")
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            os.replace(written, target / written.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def drop_archive(self, point: PointFolder) -> None:
        shutil.rmtree(point.tracker_files("wandb") / "offline-run", ignore_errors=True)


def _files(point: PointFolder) -> Path:
    folder = point.tracker_files("wandb")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _log(wandb: Any, run: Any, batch: Batch) -> None:
    for metrics in batch.metrics:
        run.log({**metrics.values, "epoch": metrics.epoch, "step": metrics.step}, step=metrics.step)
    for name, value in batch.scores.items():
        run.summary[name] = value
    media: dict[str, Any] = {}
    for file in batch.files:
        if file.kind == "audio":
            media[file.name] = wandb.Audio(str(file.path), caption=file.name)
        elif file.kind == "image" and file.path.suffix != ".svg":
            media[file.name] = wandb.Image(str(file.path))
        else:
            copy = Path(run.dir) / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, copy)
            run.save(str(copy), base_path=run.dir, policy="now")
    if media:
        run.log(media)
