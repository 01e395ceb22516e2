"""Datasets in real Snakemake runs: a user's script, guards, shards and an interrupted run."""

import json
import os
import re
import signal
import subprocess

import numpy as np
import pandas as pd
import pytest
import soundfile

from conftest import TINY, Project
from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import write_yaml

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
    value["mixture_parameters"]["train"]["num_mixtures"] = 40
    write_yaml(folder / "config" / "datasets" / "mine.yml", value)
    experiment = read_yaml(folder / TINY).value
    experiment["datasets"] = {split: {"dataset": "mine"} for split in ("train", "val", "test")}
    experiment["dataset_config"] |= {"group_sources": [], "group_names": [], "sample_rate": 8000}
    write_yaml(folder / "sounds.yml", experiment)
    return fresh


def digests(project):
    return json.loads(project.path("results/data/mine-*/train/manifest.json").read_text())["items"]


def test_a_script_is_a_step_and_shards_write_the_same_bytes(sounds):
    command = ("data", "--config", "sweep=sounds.yml")
    assert sounds.planned(*command) == {
        "run_script": 1, "fetch_source": 1, "organize_source": 1, "resample_source": 1, "mix_dataset": 3
    }  # fmt: skip
    # jobs depend on no hook
    sounds.run("--no-hooks", *command)
    assert sounds.planned(*command) == {}
    whole = digests(sounds)
    assert len(whole) == 40
    # the same in four jobs; their first run is killed
    subprocess.run(["rm", "-r", str(sounds.path("results/data/mine-*/train"))], check=True)
    settings = read_yaml(sounds.folder / "config" / "config.yaml").value
    write_yaml(sounds.folder / "config" / "config.yaml", settings | {"shards": {"mixtures": 10, "files": 1000}})
    assert sounds.planned(*command) == {"mix_shard": 4, "mix_dataset": 1}
    marker = sounds.folder / "killed"
    mixing = sounds.folder / "workflow/scripts/separation/data/mix.py"
    text = mixing.read_text()
    kill = f"    if index == 25 and not os.path.exists({str(marker)!r}):\n        open({str(marker)!r}, 'w').close()\n"
    kill += f"        os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    mixing.write_text(text.replace('    name = f"{index:06d}"\n', kill + '    name = f"{index:06d}"\n', 1))
    assert sounds.run(*command, check=False).returncode != 0
    assert marker.exists() and not list(sounds.folder.glob("results/data/mine-*/train/manifest.json"))
    sounds.run(*command)
    assert digests(sounds) == whole
    for shard in range(4):
        log = sounds.path(f"logs/mix_shard/mine-*/train/{shard:04d}.log").read_text()
        assert re.search(rf"10 of 10 mixtures of train, shard {shard:04d}, [0-9.]+ a second$", log, re.MULTILINE)
    assert not list(sounds.folder.glob("results/data/mine-*/train/shards/*"))
    # changed settings of the script give another source
    (sounds.folder / "mine" / "make.yml").write_text("output_path: ${OUTPUT_DIRECTORY}\nlabels: [dog, cow]\n")
    assert sounds.planned(*command)["run_script"] == 1


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


def test_a_users_folders_run_to_scores_through_dataset_classes_of_nussl(fresh):
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
    fresh.run(*command)
    assert fresh.planned(*command) == {}
    scores = pd.read_parquet(fresh.path("results/artifacts/*/evaluations/*/scores.parquet"))
    assert set(scores["item"]) == {"a", "b", "c", "d"} and scores["SI-SDR"].notna().all()
    caches = [json.loads(path.read_text()) for path in fresh.folder.glob("results/cache/*/*.json")]
    assert [len(cache["items"]) for cache in caches] == [4, 4]
    assert len({cache["checksum"] for cache in caches}) == 2
    # another split of the same folder is another training
    experiment["datasets"]["train"]["split"] = "cv"
    write_yaml(fresh.folder / "classes.yml", experiment)
    assert fresh.planned(*command)["train_point"] == 1
