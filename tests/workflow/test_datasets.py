"""Datasets in real Snakemake runs: a user's script, guards, shards and an interrupted run."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import in_process
from projects import TINY, Project
from separation.data.mix import mix_dataset
from separation.files.layout import split_manifest
from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import write_yaml

#: a user's script
SCRIPT = """
import argparse, os, sys, yaml
import numpy, soundfile
parser = argparse.ArgumentParser()
parser.add_argument("--yml")
settings = yaml.safe_load(open(parser.parse_args().yml))
assert settings["output_path"] == os.environ["OUTPUT_DIRECTORY"]
for number, label in enumerate(settings["labels"]):
    for take in range(8):
        noise = numpy.random.default_rng([number, take]).normal(size=8000)
        os.makedirs(f"{settings['output_path']}/{label}", exist_ok=True)
        soundfile.write(f"{settings['output_path']}/{label}/{take}.wav", 0.1 * noise, 8000)
if settings.get("damage"):
    open(f"{settings['output_path']}/dog/broken.wav", "wb").write(b"RIFF")
"""


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.fixture
def sounds(fresh) -> Project:
    """A clone with a recipe whose audio a user's script writes."""
    folder = fresh.folder
    (folder / "mine").mkdir()
    (folder / "mine" / "make.py").write_text(SCRIPT)
    (folder / "mine" / "make.yml").write_text("output_path: ${OUTPUT_DIRECTORY}\nlabels: [dog, cat]\n")
    source = {"name": "mine", "kind": "script", "script": {"file": "mine/make.py", "yaml": "mine/make.yml"}}
    split = {"num_mixtures": 3, "scene_duration": 1.0, "num_sources": 2}
    value = {
        "source": source,
        "organize": {"by": "class", "splits": {"train": 0.6, "val": 0.2, "test": 0.2}},
        "sample_rate": 8000,
        "mixture_parameters": {name: dict(split) for name in ("train", "val", "test")},
        "coherent": False,
        "event_parameters": {
            "source_time": ["uniform", 0, 10],
            "event_duration": ["const", 1],
            "snr": ["uniform", -3, 3],
        },
    }
    value["mixture_parameters"]["train"]["num_mixtures"] = 8
    write_yaml(folder / "config" / "datasets" / "mine.yml", value)
    experiment = read_yaml(folder / TINY).value
    experiment["datasets"] = {split: {"dataset": "mine"} for split in ("train", "val", "test")}
    experiment["dataset_config"] |= {"group_sources": [], "group_names": [], "sample_rate": 8000}
    write_yaml(folder / "sounds.yml", experiment)
    return fresh


@pytest.mark.timeout(900)
def test_a_script_is_a_step_and_killed_shards_resume_to_the_same_bytes(sounds, tmp_path):
    settings = read_yaml(sounds.folder / "config" / "config.yaml").value
    write_yaml(sounds.folder / "config" / "config.yaml", settings | {"shards": {"mixtures": 4, "files": 1000}})
    command = ("data", "--config", "sweep=sounds.yml")
    steps = {"run_script": 1, "fetch_source": 1, "organize_source": 1, "resample_source": 1}
    assert sounds.planned(*command) == {**steps, "mix_shard": 2, "mix_dataset": 3}
    # the second shard is killed in its first run
    with contextlib.chdir(sounds.folder):
        workflow = in_process.plan("sounds.yml")
    (dataset,) = workflow.datasets
    train = split_manifest(Path("results/data"), dataset, "train")
    marker = sounds.folder / "killed"
    mixing = sounds.folder / "workflow/scripts/separation/data/mix.py"
    kill = f"    if index == 5 and not os.path.exists({str(marker)!r}):\n        open({str(marker)!r}, 'w').close()\n"
    kill += f"        os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    edit(mixing, '    name = f"{index:06d}"\n', kill + '    name = f"{index:06d}"\n')
    # jobs depend on no hook
    command = (str(train), "--no-hooks", "--config", "sweep=sounds.yml")
    assert sounds.run(*command, check=False).returncode != 0
    assert marker.exists() and not (sounds.folder / train).exists()
    first, second = (sounds.folder / f"logs/mix_shard/{dataset}/train/{shard}.log" for shard in ("0000", "0001"))
    finished = first.read_text()
    sounds.run(*command)
    assert first.read_text() == finished, "the other shard is not mixed again"
    for shard, log in (("0000", first), ("0001", second)):
        pattern = rf"4 of 4 mixtures of train, shard {shard}, [0-9.]+ a second$"
        assert re.search(pattern, log.read_text(), re.MULTILINE)
    assert not list((sounds.folder / train).parent.glob("shards/*"))
    assert sounds.planned(*command) == {}
    # in one piece
    resampled = sounds.path("results/data/mine-*/resampled_*/manifest.json")
    spec = json.loads(workflow.mixtures[dataset, "train"].spec)
    mix_dataset(spec, "train", resampled, tmp_path / "whole" / "train" / "manifest.json")
    assert (sounds.folder / train).read_bytes() == (tmp_path / "whole" / "train" / "manifest.json").read_bytes()
    # changed settings of the script give another source
    edit(sounds.folder / "mine" / "make.yml", "cat", "cow")
    assert sounds.planned("data", *command[2:])["run_script"] == 1


def test_damaged_files_stop_the_run_with_a_table(sounds):
    (sounds.folder / "mine" / "make.yml").write_text(
        "output_path: ${OUTPUT_DIRECTORY}\nlabels: [dog, cat]\ndamage: true\n"
    )
    done = sounds.run("data", "--config", "sweep=sounds.yml", check=False)
    assert done.returncode != 0
    assert "dog/broken.wav  unreadable" in done.stderr and "Traceback" not in done.stderr.split("RuleException")[0]
    (log,) = sounds.folder.glob("logs/organize_source/*/*.log")
    last = log.read_text().splitlines()[-1]
    assert last.startswith("Error: ") and "dog/broken.wav" in last and os.linesep not in last


def test_a_users_folders_run_to_scores_through_dataset_classes_of_nussl(fresh, monkeypatch):
    for number, folder in enumerate(("wham/wav8k/min/tr", "wham/wav8k/min/cv", "mine")):
        rng = np.random.default_rng(number)
        for name in ("a", "b", "c", "d"):
            audio = {source: np.round(rng.normal(0, 2000, 8000)) / 32768 for source in ("s1", "s2")}
            for source, array in {**audio, "mix_clean": sum(audio.values())}.items():
                path = fresh.folder / folder / source / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, array, 8000, subtype="PCM_16")
    experiment = read_yaml(fresh.folder / TINY).value
    experiment["datasets"] = {
        "train": {"folder": "wham", "class": "WHAM", "mix_folder": "mix_clean"},
        "val": {"folder": "wham", "class": "WHAM", "mix_folder": "mix_clean", "split": "cv"},
        "test": {"folder": "mine", "class": "MixSourceFolder", "mix_folder": "mix_clean"},
    }
    experiment["dataset_config"] |= {"group_sources": [], "group_names": [], "cache_kind": "audio", "remix": {}}
    experiment["sweep"] = [{"cache": "mine"}]
    write_yaml(fresh.folder / "classes.yml", experiment)
    command = ("evaluate", "--config", "sweep=classes.yml")
    assert fresh.planned(*command) == {
        "populate_cache": 2, "train_point": 1, "evaluate_point": 1, "evaluate_baselines": 1,
    }  # fmt: skip
    monkeypatch.chdir(fresh.folder)
    workflow = in_process.plan("classes.yml")
    in_process.train(workflow)
    in_process.summarize(workflow)
    scores = pd.read_parquet(fresh.path("results/artifacts/*/evaluations/*/scores.parquet"))
    assert set(scores["item"]) == {"a", "b", "c", "d"} and scores["SI-SDR"].notna().all()
    caches = [json.loads(path.read_text()) for path in fresh.folder.glob("results/cache/*/*.json")]
    assert [len(cache["items"]) for cache in caches] == [4, 4]
    assert len({cache["checksum"] for cache in caches}) == 2
    # another split of the same folder is another training
    experiment["datasets"]["train"]["split"] = "cv"
    write_yaml(fresh.folder / "classes.yml", experiment)
    assert fresh.planned(*command)["train_point"] == 1
