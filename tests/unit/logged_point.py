"""A point's folder after a training run, for tests of trackers: config.yml, event log, kept audio."""

import json
from pathlib import Path

import numpy as np
import soundfile

from separation.files.layout import PointFolder
from separation.training.events import EventLog

STEPS = 3  # per epoch


class LoggedPoint:
    """A point whose epochs are logged one by one, in `folder`."""

    def __init__(self, parent: Path):
        self.folder = PointFolder(parent / "dpcl-toy_music-s0-0123456789ab")
        self.folder.state.mkdir(parents=True)
        self.folder.config.write_text(
            "info: {name: example, notes: a note, project_name: separation/music, seed: 0}\n"
            "train_config: {learning_rate: 0.01, optimizer: adam, initial_length: null}\n"
            "model_config: {output: [embedding]}\n"
        )
        self.log = EventLog(self.folder.events)

    def start(self):
        about = {"label": "learning_rate=0.01", "swept": {"train_config.learning_rate": 0.01}, "sweep": "example"}
        self.log.write("point", **about, project="separation/music", notes="a note")
        self.log.write("started", epochs=3)

    def epoch(self, number):
        for step in range((number - 1) * STEPS + 1, number * STEPS + 1):
            self.log.write("step", step, epoch=number, loss=loss(step), gradient_norm=1.0)
        self.log.write("epoch", number, train_loss=loss(number), validation_loss=0.5, steps=number * STEPS)

    def resume(self, epochs):
        self.log.write("resumed", epochs * STEPS, epochs=epochs)

    def finish(self):
        self.log.write("finished", best_epoch=1, validation_loss=0.5)

    def scores(self, evaluation="toy_music-0123456789ab", value=9.5):
        metrics = {"SI-SDR": value, "SI-SIR": None}
        self.log.write("scores", evaluation, dataset="toy_music", split="test", count=2, metrics=metrics,
                       sources={"vocals": {"SI-SDR": value + 1}})  # fmt: skip

    def audio(self, evaluation="toy_music-0123456789ab"):
        folder = self.folder.evaluation(evaluation).estimates
        folder.mkdir(parents=True)
        for name in ("mixture.wav", "estimate.wav", "reference.wav"):
            soundfile.write(folder / name, np.zeros(800, dtype=np.float32), 8000)
        sources = {"vocals": {"estimate": "estimate.wav", "reference": "reference.wav", "scores": {}}}
        item = {"item": "0", "role": "best", "gain": 1.0, "mixture": "mixture.wav", "sources": sources}
        (folder / "index.json").write_text(json.dumps({"items": [item, {**item, "role": "other"}]}))

    def step_losses(self, epochs=3):
        """The losses that a tracker must receive: (step, value) of every step."""
        return [(step, loss(step)) for step in range(1, epochs * STEPS + 1)]


def loss(number):
    return 1.0 / number
