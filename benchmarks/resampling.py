"""Speed of resampling, compared with nussl's AudioSignal.resample: `python benchmarks/resampling.py [processes]`.

Both read files of 44.1 kHz, two channels and ten seconds, and write them at 8 kHz. The results are compared first: at
soxr's quality VHQ, which the workflow uses, the two agree within one 16-bit step. Then both run in turns, the original
at librosa's default, soxr_hq.
"""

import os
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

from separation.data.resample import resample_file

RATE, NEW_RATE, CHANNELS, SECONDS, FILES, TURNS = 44100, 8000, 2, 10, 64, 5


def original(path: Path, folder: Path, res_type: str = "soxr_hq") -> None:
    """Resamples one file as in cookiecutter-nussl."""
    # imported here, so that the workflow's processes do not import nussl
    from separation.nussl_compat import nussl

    signal = nussl.AudioSignal(str(path))
    signal.resample(NEW_RATE, res_type=res_type)
    signal.write_audio_to_file(str(folder / path.name))


def workflow(path: Path, folder: Path) -> None:
    """Resamples one file as in resample_source."""
    resample_file({"path": path.name}, path.parent, folder, NEW_RATE, CHANNELS)


def compare(path: Path, folder: Path) -> int:
    """The greatest difference between the two results, in 16-bit steps; stops if it is more than one."""
    results = []
    for function, options in ((original, {"res_type": "soxr_vhq"}), (workflow, {})):
        target = folder / function.__name__
        target.mkdir()
        function(path, target, **options)
        results.append(soundfile.read(target / path.name, dtype="int16")[0].astype(int))
    greatest = int(np.abs(results[0] - results[1]).max())
    assert greatest <= 1, f"the results differ by {greatest} steps"
    return greatest


def files_per_second(function, paths: list[Path], folder: Path, processes: int) -> float:
    """Speed of one turn, which writes into a new folder."""
    folder.mkdir()
    began = time.perf_counter()
    joblib.Parallel(n_jobs=processes, batch_size=4)(joblib.delayed(function)(path, folder) for path in paths)
    return len(paths) / (time.perf_counter() - began)


def main() -> None:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        paths = [work / f"{number}.wav" for number in range(FILES * processes)]
        for path in paths[:16]:
            audio = 0.1 * rng.normal(size=(RATE * SECONDS, CHANNELS))
            soundfile.write(path, audio, RATE, subtype="PCM_16")
        for number, path in enumerate(paths[16:]):
            path.hardlink_to(paths[number % 16])
        print(f"greatest difference at soxr_vhq: {compare(paths[0], work)} 16-bit steps")
        speeds = {original: [], workflow: []}
        for turn in range(TURNS + 1):
            for function, each in speeds.items():
                speed = files_per_second(function, paths, work / f"{function.__name__}-{turn}", processes)
                if turn:  # the first turn imports
                    each.append(speed)
        for function, each in speeds.items():
            median = statistics.median(each)
            print(f"{function.__name__:>8}: {median:.1f} files/s ({min(each):.1f} to {max(each):.1f})")
        ratios = [new / old for new, old in zip(speeds[workflow], speeds[original], strict=True)]
        median = statistics.median(ratios)
        print(f"   ratio: {median:.1f} ({min(ratios):.1f} to {max(ratios):.1f}), {processes} processes")


if __name__ == "__main__":
    main()
