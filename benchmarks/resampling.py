"""Resampling, against the original's AudioSignal.resample for each file: `python benchmarks/resampling.py [processes]
[res_type]`.

Quality first: a tone at nine tenths of half the new rate must come out as exactly, and one above half the new rate be
as well suppressed, as by the original. Then files a second in turns, from WAV files of 44.1 kHz to 8 kHz, read and
written (here with a checksum, there without), and with one process the resampling of audio in memory alone. The
original calls librosa, whose default is soxr_hq today, and was kaiser_best when cookiecutter-nussl was written:
`1 kaiser_best` compares with that and needs `pip install resampy`.
"""

import functools
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
os.environ["PYTHONPATH"] = str(ROOT / "workflow" / "scripts") + os.pathsep + str(ROOT / "benchmarks")

import joblib
import numpy as np
import soundfile

from separation.data.audio.resampling import resample
from separation.data.resample import resample_file

RATE, NEW_RATE, SECONDS, TURNS = 44100, 8000, 10, 5
KEPT, GONE = 3600, 4400  # Hz


def original(path: Path, target: Path, res_type: str = "soxr_hq") -> None:
    """What cookiecutter-nussl does with each file."""
    # here, as processes that are handed this function would import nussl itself
    from separation.nussl_compat import nussl

    signal = nussl.AudioSignal(str(path))
    signal.resample(NEW_RATE, res_type=res_type)
    signal.write_audio_to_file(str(target))


def ours(path: Path, target: Path) -> None:
    resample_file({"path": path.name}, path.parent, target.parent, NEW_RATE, 2)


def seconds_alone(paths: list[Path], res_type: str) -> tuple[float, float]:
    """Seconds for audio that has been read: AudioSignal.resample, and resample."""
    from separation.nussl_compat import nussl

    spent = [0.0, 0.0]
    for path in paths:
        signal, steps = nussl.AudioSignal(str(path)), soundfile.read(path, dtype="int16")[0]
        times = [time.perf_counter()]
        signal.resample(NEW_RATE, res_type=res_type)
        times.append(time.perf_counter())
        resample(steps, RATE, NEW_RATE)
        times.append(time.perf_counter())
        spent = [before + end - start for before, start, end in zip(spent, times, times[1:], strict=False)]
    return tuple(spent)


def error(function, folder: Path) -> tuple[float, float]:
    """Error of the tone that is kept, and level of the one that is to vanish, dB against full scale."""
    time_in, time_out = np.arange(RATE * 2) / RATE, np.arange(NEW_RATE * 2) / NEW_RATE
    found = []
    for frequency, expected in ((KEPT, 0.5 * np.sin(2 * np.pi * KEPT * time_out)), (GONE, np.zeros(len(time_out)))):
        tone = 0.5 * np.sin(2 * np.pi * frequency * time_in)
        source = folder / "tone" / f"{frequency}.wav"
        source.parent.mkdir(exist_ok=True)
        soundfile.write(source, np.stack([tone, tone], axis=1), RATE, subtype="FLOAT")
        target = folder / "out" / source.name
        target.parent.mkdir(exist_ok=True)
        function(source, target)
        audio, _ = soundfile.read(target)
        middle = slice(1000, min(len(audio), len(expected)) - 1000)
        found.append(20 * np.log10(np.sqrt(np.square(audio[middle, 0] - expected[middle]).mean()) + 1e-12))
    return tuple(found)


def run(function, paths: list[Path], folder: Path, processes: int) -> tuple[float, float]:
    """Files a second, and CPU time per file (ms) of one process.

    The folder is a new one: ext4 takes milliseconds to make a file where many have just been removed.
    """
    folder.mkdir()
    began, spent = time.perf_counter(), cpu_seconds()
    # small batches, of which the last ones leave no process idle for long
    calls = [joblib.delayed(function)(path, folder / path.name) for path in paths]
    joblib.Parallel(n_jobs=processes, batch_size=4)(calls)
    return len(paths) / (time.perf_counter() - began), (cpu_seconds() - spent) / len(paths) * 1000


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    res_type = sys.argv[2] if len(sys.argv) > 2 else "soxr_hq"
    functions = {"original": functools.partial(original, res_type=res_type), "workflow": ours}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name, function in functions.items():
            kept, gone = error(function, work)
            print(f"{name:>8}: error of a kept tone {kept:.0f} dB, a tone beyond half the rate {gone:.0f} dB")
        rng = np.random.default_rng(0)
        paths = []
        for number in range(32 if processes == 1 else 150 * processes):
            paths.append(work / f"{number}.wav")
            if number < 16:
                soundfile.write(paths[-1], 0.1 * rng.normal(size=(RATE * SECONDS, 2)), RATE, subtype="PCM_16")
            else:
                paths[-1].hardlink_to(paths[number % 16])
        rates, costs = ({name: [] for name in functions} for _ in range(2))
        for turn in range(TURNS + 1):
            for name, function in functions.items():
                rate, cost = run(function, paths, work / f"{name}-{turn}", processes)
                if turn:  # the first one imports
                    rates[name].append(rate)
                    costs[name].append(cost)
        for name, each in rates.items():
            print(f"{name:>8}: {statistics.median(each):6.1f} files/s ({min(each):.1f} to {max(each):.1f})")
        ratios = [new / old for new, old in zip(rates["workflow"], rates["original"], strict=True)]
        told = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(f"   ratio: {told}, {processes} processes")
        if processes == 1:
            medians = {name: statistics.median(each) for name, each in costs.items()}
            ratio = f"ratio {medians['original'] / medians['workflow']:.1f}"
            print(f"CPU time: original {medians['original']:.0f} ms, workflow {medians['workflow']:.0f} ms, {ratio}")
            alone = [old / new for old, new in (seconds_alone(paths, res_type) for _ in range(TURNS))]
            print(f"   ratio: {statistics.median(alone):.1f} ({min(alone):.1f} to {max(alone):.1f}), resampling alone")


if __name__ == "__main__":
    main()
