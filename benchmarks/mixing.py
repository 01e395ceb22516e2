"""Mixtures per second, compared with scaper.generate with isolated events: `python benchmarks/mixing.py [processes]`.

Both have the same sources, draws and number of processes, and run in turns. The results are compared first: audio
within one 16-bit step, JAMS by all values of the events and the scene.
"""

import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
os.environ["PYTHONPATH"] = str(ROOT / "workflow" / "scripts") + os.pathsep + str(ROOT / "benchmarks")

import joblib
import numpy as np
import soundfile

from separation.data import mix
from separation.data.scenes import draw, mixture_plan
from separation.nussl_compat import scaper

RATE, DURATION, MIXTURES, TURNS = 16000, 4.0, 160, 5


def write_source(folder: Path) -> dict:
    """Resampled sources of four classes, 12 files of 30 s each: noise with moving filters and pauses."""
    rng = np.random.default_rng(0)
    files = []
    for label in ("a", "b", "c", "d"):
        for song in range(12):
            noise = rng.normal(size=30 * RATE).cumsum() * 0.01
            noise -= np.convolve(noise, np.ones(200) / 200, mode="same")
            envelope = np.repeat(rng.uniform(0.1, 1, 60), RATE // 2)
            audio = 0.3 * noise * envelope / np.abs(noise).max()
            path = folder / "train" / label / f"{song:02d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, audio, RATE, subtype="PCM_16")
            entry = {"path": f"train/{label}/{song:02d}.wav", "split": "train", "class": label, "song": f"{song:02d}"}
            files.append(entry | {"sample_rate": RATE, "frames": len(audio)})
    return {"files": files, "attribution": ""}


def spec(count: int) -> dict:
    return {
        "sample_rate": RATE,
        "mixture_parameters": {"train": {"num_mixtures": count, "scene_duration": DURATION, "num_sources": 2}},
        "event_parameters": {
            "source_time": ["uniform", 0, 1000],
            "event_duration": ["const", DURATION],
            "snr": ["uniform", -5, 5],
        },
        "coherent": False,
        "min_activity": 0,
    }


def original(plan: mixture_plan.Plan, index: int, folder: Path) -> None:
    """One mixture as in cookiecutter-nussl: scaper draws, renders and saves it."""
    state = draw._random_state(plan, index, 0)
    labels = draw._draw_labels(plan, state)
    songs = draw._draw_songs(plan, labels, state)
    soundscape = scaper.Scaper(plan.duration, plan.foreground, plan.foreground, random_state=state)
    soundscape.sr, soundscape.ref_db, soundscape.n_channels = plan.sample_rate, plan.ref_db, 1
    for label, song in zip(labels, songs, strict=True):
        soundscape.add_event(
            label=("const", label), source_file=("const", plan.songs[label][song]), **plan.event_parameters[None]
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        soundscape.generate(
            str(folder / f"{index:06d}.wav"),
            str(folder / f"{index:06d}.jams"),
            fix_clipping=True,
            save_isolated_events=True,
            disable_instantiation_warnings=True,
        )


def workflow(plan: mixture_plan.Plan, index: int, folder: Path) -> None:
    """One mixture as in mix_dataset."""
    mix.mix_item(dataclasses.replace(plan, folder=folder), index)


def run(function, plan: mixture_plan.Plan, folder: Path, processes: int) -> tuple[float, float]:
    """Mixtures per second, and CPU time per mixture (ms) of one process.

    The folder is new: ext4 is slow to create files where many have just been removed.
    """
    folder.mkdir()
    began, spent = time.perf_counter(), cpu_seconds()
    count = MIXTURES * processes
    # small batches, so that no process is idle for long at the end
    calls = [joblib.delayed(function)(plan, index, folder) for index in range(count)]
    joblib.Parallel(n_jobs=processes, batch_size=4)(calls)
    return count / (time.perf_counter() - began), (cpu_seconds() - spent) / count * 1000


def cpu_seconds() -> float:
    """CPU time of this process and its finished children, such as sox."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def compare(first: Path, second: Path) -> float:
    """The greatest difference of audio in 16-bit steps; stops if JAMS files differ."""
    greatest = 0
    for path in sorted(first.rglob("*.wav")):
        ones, rate = soundfile.read(path)
        others, other_rate = soundfile.read(second / path.relative_to(first))
        assert (len(ones), rate) == (len(others), other_rate), path
        greatest = max(greatest, float(np.abs(ones - others).max()) * 32768)
        assert greatest < 1.01, f"{path}: differs by {greatest} steps"
    paths = {
        "audio_path",
        "jams_path",
        "soundscape_audio_path",
        "isolated_events_audio_path",
        "isolated_events_path",
    }
    for path in sorted(first.glob("*.jams")):
        contents = []
        for folder in (first, second):
            document = json.loads((folder / path.name).read_text())
            sandbox = document["annotations"][0]["sandbox"]["scaper"]
            for key in paths:
                sandbox[key] = Path(sandbox[key]).name if isinstance(sandbox[key], str) else None
            sandbox["isolated_events_path"] = None
            contents.append(document)
        assert contents[0] == contents[1], f"{path.name} differs"
    return greatest


def main() -> None:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    subprocess.run(["sox", "--version"], check=True, capture_output=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        source = write_source(work / "source")
        given = spec(MIXTURES * processes)
        folders = {"scaper": work / "scaper", "workflow": work / "workflow"}
        plan = mixture_plan.make_plan(given, "train", source, work / "source", folders["workflow"])
        functions = {"scaper": original, "workflow": workflow}
        for name, function in functions.items():  # processes import, files are cached in memory
            run(function, plan, folders[name], processes)
        print(f"greatest difference: {compare(folders['scaper'], folders['workflow']):.2f} 16-bit steps; JAMS agree")
        rates, costs = ({name: [] for name in functions} for _ in range(2))
        for turn in range(TURNS):
            for name, function in functions.items():
                rate, cost = run(function, plan, work / f"{name}-{turn}", processes)
                rates[name].append(rate)
                costs[name].append(cost)
        ratios = [new / old for new, old in zip(rates["workflow"], rates["scaper"], strict=True)]
        for name, each in rates.items():
            print(f"{name:>8}: {statistics.median(each):6.1f} mixtures/s ({min(each):.1f} to {max(each):.1f})")
        median = statistics.median(ratios)
        print(f"   ratio: {median:6.1f} ({min(ratios):.1f} to {max(ratios):.1f}), {processes} processes")
        if processes == 1:  # less noisy than wall-clock time on a busy machine
            ratios = [old / new for new, old in zip(costs["workflow"], costs["scaper"], strict=True)]
            medians = {name: statistics.median(each) for name, each in costs.items()}
            times = f"scaper {medians['scaper']:.1f} ms, workflow {medians['workflow']:.1f} ms"
            print(f"CPU time: {times}, ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
