"""Changing the sample rate of audio that becomes 16-bit files: as exactly as soxr's HQ, several times as fast.

A windowed sinc is sampled at the distances between the old and the new sampling times (polyphase filtering, see J. O.
Smith, Digital Audio Resampling, ccrma.stanford.edu/~jos/resample), after a filter to a whole fraction of the rate where
that saves work. The signal is cut into LANES stretches, which are filtered side by side in the lanes of the processor's
vectors.

The bytes are the same on any machine: each sample is a chain of fused multiply-adds in one order, whatever the width of
the vectors, and the weights come from sums, products and quotients alone, which IEEE 754 rounds in one way.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import soxr
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from separation.data.audio.pcm import to_pcm
from separation.machine.jit import compiled

# the fastest of those tried: the sums of OUTPUTS by LANES stay in registers, of which AVX-512 has four times the room
LANES, WIDTH = 32, 16
OUTPUTS = 8 if config.CPU_NAME is None and "+avx512f" in get_host_cpu_features() else 2

# what is left of a tone beyond half the lower rate, far below the 98 dB of 16 bits, and the fraction of half the lower
# rate up to which tones keep their level, as with soxr's HQ, which librosa uses
STOP_DB, PASSED = 120.0, 0.915

LARGEST_TABLE = 2**18  # weights; where the terms of the ratio are so large that it takes more, soxr is the faster one


@dataclass(frozen=True)
class _Stage:
    """A filter that makes `phases` samples of `step`.

    Attributes:
        taps: (groups, reach, OUTPUTS), float32: for each group of neighbouring outputs, their weights of the inputs.
        first: the first input that output 0 reads, which is at the time of input 0.
        starts: (groups,): the first input of each group, after `first`.
        period: inputs from a group to the next one with its weights.
    """

    phases: int
    step: int
    taps: np.ndarray
    first: int
    starts: np.ndarray
    period: int

    def num_inputs(self, num_outputs: int) -> int:
        """Inputs from the first to the last one that outputs from 0 on read, a multiple of OUTPUTS of them."""
        turns, group = divmod(num_outputs // OUTPUTS - 1, len(self.starts))
        return turns * self.period + int(self.starts[group]) + self.taps.shape[1]


def resample(audio: np.ndarray, source_rate: int, sample_rate: int) -> np.ndarray:
    """Resamples audio without delay.

    Args:
        audio: (frames, channels), int16 steps of 2^-15, or floating point, which is rounded to float32.
        source_rate, sample_rate: Hz.

    Returns:
        (round(frames * sample_rate / source_rate), channels), whole steps of 2^-15, rounded half to even and clipped.
        By soxr's VHQ where the ratio of the rates has large terms.
    """
    stages = _stages(source_rate, sample_rate) if source_rate != sample_rate else ()
    if not stages or audio.shape[1] > LANES:
        audio = audio * 2.0**-15 if audio.dtype == np.int16 else audio
        return to_pcm(soxr.resample(audio, source_rate, sample_rate, quality="VHQ"))
    steps_per_unit = np.float32(1 if audio.dtype == np.int16 else 2**15)
    audio = np.ascontiguousarray(audio, None if audio.dtype == np.int16 else np.float32)
    phases, step = _ratio(source_rate, sample_rate)
    result = np.empty(((2 * len(audio) * phases + step) // (2 * step), audio.shape[1]), np.int16)
    # each lane makes whole turns of the last stage's groups; the last lanes may repeat some, within the audio
    turn = len(stages[-1].starts) * OUTPUTS
    stretches = LANES // audio.shape[1]
    length = math.ceil(len(result) / stretches / turn) * turn
    last = max(0, math.ceil((len(result) - length) / turn) * turn)
    lanes = np.arange(LANES)
    channels, starts = lanes % audio.shape[1], np.minimum(lanes // audio.shape[1] * length, last)
    firsts, lengths = starts, [length]
    for stage in reversed(stages):
        firsts = firsts * stage.step // stage.phases + stage.first
        lengths.insert(0, math.ceil(stage.num_inputs(lengths[0]) / OUTPUTS) * OUTPUTS)
    rows = [_aligned_rows(length) for length in lengths]
    _spread(audio, channels, firsts, rows[0])
    for stage, given, made in zip(stages, rows, rows[1:], strict=False):
        _filter(given, stage.taps, stage.starts, stage.period, made)
    _gather(rows[-1], channels, starts, steps_per_unit, result)
    return result


def _ratio(source_rate: int, sample_rate: int) -> tuple[int, int]:
    divisor = math.gcd(source_rate, sample_rate)
    return sample_rate // divisor, source_rate // divisor


@functools.lru_cache(maxsize=16)
def _stages(source_rate: int, sample_rate: int) -> tuple[_Stage, ...]:
    """The one or two filters that take the fewest multiplications; none where their tables would be too large."""
    edge = min(source_rate, sample_rate) / 2

    def designs(between: int) -> list[tuple[int, int, float, float]]:
        """For each stage its rates, the end of what it passes, and the start of what it stops."""
        if between == source_rate:
            return [(source_rate, sample_rate, PASSED * edge, edge)]
        # what the first one aliases to beyond the edge, the second one stops
        return [(source_rate, between, PASSED * edge, between - edge), (between, sample_rate, PASSED * edge, edge)]

    def work(between: int) -> float:
        return sum(2 * _half_length(rate, *band) * new for rate, new, *band in designs(between))

    fractions = range(1, max(1, source_rate // sample_rate) + 1)
    betweens = [source_rate // n for n in fractions if source_rate % n == 0 and source_rate // n != sample_rate]
    best = designs(min(betweens, key=work))
    if any(_ratio(rate, new)[0] * 2 * _half_length(rate, *band) > LARGEST_TABLE for rate, new, *band in best):
        return ()
    return tuple(_stage(*design) for design in best)


def _half_length(rate: int, passed: float, stopped: float) -> int:
    """Half the length, in samples of the rate, of a filter from `passed` to `stopped` (Hz), after Kaiser's formula
    (Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.5)."""
    return math.ceil((STOP_DB - 7.95) / (2.285 * 2 * math.pi * (stopped - passed) / rate) / 2)


def _stage(rate: int, new_rate: int, passed: float, stopped: float) -> _Stage:
    phases, step = _ratio(rate, new_rate)
    half = _half_length(rate, passed, stopped)
    cutoff = (passed + stopped) / rate  # per half the rate
    outputs = np.arange(math.lcm(phases, OUTPUTS))
    before = outputs * step // phases  # the input at or before each output
    offsets = np.arange(1 - half, half + 1) - (outputs * step % phases / phases)[:, None]
    weights = _ideal_lowpass(offsets, cutoff) * _kaiser_window(offsets / half)
    first = before[::OUTPUTS].repeat(OUTPUTS)  # of the group
    taps = np.zeros((len(outputs) // OUTPUTS, 2 * half + int((before - first).max()), OUTPUTS), np.float32)
    for output, row in enumerate(weights):
        shift = before[output] - first[output]
        taps[output // OUTPUTS, shift : shift + len(row), output % OUTPUTS] = row
    return _Stage(phases, step, taps, 1 - half, before[::OUTPUTS], len(outputs) * step // phases)


def _ideal_lowpass(offsets: np.ndarray, cutoff: float) -> np.ndarray:
    """cutoff * sinc(cutoff * offsets), by Taylor's series of the sine."""
    turns = cutoff * offsets
    whole = np.rint(turns)
    angle = math.pi * (turns - whole)
    square, series = angle * angle, 1.0
    for k in range(26, 0, -2):
        series = 1 - series * square / (k * (k + 1))
    sine = (1 - 2 * (whole % 2)) * angle * series
    return np.where(offsets == 0, cutoff, sine / np.where(offsets == 0, 1, math.pi * offsets))


def _kaiser_window(places: np.ndarray) -> np.ndarray:
    """Kaiser's window over (-1, 1), by the series of the modified Bessel function I0; zero outside."""
    quarter = (0.1102 * (STOP_DB - 8.7)) ** 2 / 4

    def bessel(argument: np.ndarray | float) -> np.ndarray | float:
        series = 1.0
        for k in range(60, 0, -1):
            series = 1 + series * argument / (k * k)
        return series

    return np.where(np.abs(places) < 1, bessel(quarter * (1 - places * places)) / bessel(quarter), 0)


def _aligned_rows(length: int) -> np.ndarray:
    """Uninitialized (length, LANES), float32, whose vectors do not straddle the processor's cache lines, which would
    make filtering a quarter slower."""
    line = 64
    memory = np.empty(length * LANES * 4 + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + length * LANES * 4].view(np.float32).reshape(length, LANES)


def _spread(audio, channels, firsts, rows):
    """Fills rows, (frames, LANES), with stretches of audio, (frames, channels): each lane with one of its channel from
    its first frame on, with zeros before and after the audio."""
    frames, stride = audio.shape
    flat, places = audio.reshape(-1), firsts * stride + channels
    begin = min(max(-firsts[0], 0), rows.shape[0])
    end = max(min(frames - firsts[-1], rows.shape[0]), begin)
    for n in range(begin, end):  # where all lanes are within the audio
        row = rows[n]
        for lane in range(LANES):
            row[lane] = flat[np.uint64(places[lane] + n * stride)]
    for edge in ((0, begin), (end, rows.shape[0])):
        for n in range(edge[0], edge[1]):
            for lane in range(LANES):
                rows[n, lane] = flat[places[lane] + n * stride] if 0 <= firsts[lane] + n < frames else 0


def _gather(rows, channels, starts, unit, steps):
    """Fills steps, (frames, channels), int16, with what the lanes of rows, (frames, LANES), hold, rounded."""
    frames, stride = steps.shape
    flat, places = steps.reshape(-1), starts * stride + channels
    lowest, highest = np.float32(-(2**15)), np.float32(2**15 - 1)
    for n in range(rows.shape[0]):
        row = rows[n]
        for lane in range(LANES):
            value = np.rint(row[lane] * unit)
            value = value if value < highest else highest
            row[lane] = value if value > lowest else lowest
        for lane in range(LANES):
            if starts[lane] + n < frames:
                flat[np.uint64(places[lane] + n * stride)] = np.int16(row[lane])


def _filter(given, taps, starts, period, made):
    """Fills `made` with what a stage makes of `given`, both (frames, LANES)."""
    for group in range(made.shape[0] // OUTPUTS):
        turn, kind = group // taps.shape[0], group % taps.shape[0]
        _filter_group(given, turn * period + starts[kind], taps, kind, made, group * OUTPUTS)


@intrinsic
def _filter_group(typing_context, given, start, taps, kind, made, output):
    """made[output + o, lane] = sum over k of taps[kind, k, o] * given[start + k, lane], for OUTPUTS outputs and all
    lanes: the sums stay in registers, which numba's own loops do not bring about."""

    def generate(context, builder, signature, values):
        count, index = ir.IntType(64), ir.IntType(32)
        vector = ir.VectorType(ir.FloatType(), WIDTH)
        undefined, first_lane = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(index, WIDTH), [0] * WIDTH)
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{WIDTH}f32"
        )
        start, kind, output = values[1::2]
        given, taps, made = (
            context.make_array(array)(context, builder, value)
            for array, value in zip(signature.args[::2], values[::2], strict=True)
        )
        reach = cgutils.unpack_tuple(builder, taps.shape)[1]

        def row(array, number, length):
            return builder.gep(array.data, [builder.mul(number, count(length))])

        def vectors(array, number):
            places = [builder.gep(row(array, number, LANES), [count(lane)]) for lane in range(0, LANES, WIDTH)]
            return [builder.bitcast(place, vector.as_pointer()) for place in places]

        sums = [[cgutils.alloca_once(builder, vector) for _ in range(0, LANES, WIDTH)] for _ in range(OUTPUTS)]
        for place in itertools.chain(*sums):
            builder.store(ir.Constant(vector, [0.0] * WIDTH), place)
        with cgutils.for_range(builder, reach) as loop:
            inputs = [builder.load(place, align=4) for place in vectors(given, builder.add(start, loop.index))]
            weights = row(taps, builder.add(builder.mul(kind, reach), loop.index), OUTPUTS)
            for number, places in enumerate(sums):
                weight = builder.load(builder.gep(weights, [count(number)]))
                weight = builder.insert_element(undefined, weight, index(0))
                weight = builder.shuffle_vector(weight, undefined, first_lane)
                for place, samples in zip(places, inputs, strict=True):
                    builder.store(builder.call(multiply_add, [weight, samples, builder.load(place)]), place)
        for number, places in enumerate(sums):
            for place, target in zip(places, vectors(made, builder.add(output, count(number))), strict=True):
                builder.store(builder.load(place), target, align=4)
        return context.get_dummy_value()

    return types.void(given, types.intp, taps, types.intp, made, types.intp), generate


_spread, _gather, _filter = compiled(_spread), compiled(_gather), compiled(_filter)
