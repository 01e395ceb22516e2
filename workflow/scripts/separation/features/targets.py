"""Magnitudes, targets and masks of spectra in one pass, several times as fast on a CPU as separate tensor operations.

The values equal those of separation.features.spectra.Targets, in the precision of the spectra. They are computed row by
row, so that the values of a frame stay in the processor's cache.
"""

from __future__ import annotations

import numpy as np

from separation.machine.jit import jit


def _fill_targets(spectra, phase_sensitive, mix_magnitude, source_magnitudes, ideal_binary_mask):
    """Fills the output arrays; an empty one is skipped.

    Args:
        spectra: Spectra of the mixture and of each source, (1 + sources, channels, time, frequency x 2), float32 or
            float64, with alternating real and imaginary parts.
        phase_sensitive: Whether the targets are psa, else msa.
        mix_magnitude: Output, (time, frequency, channels), float32.
        source_magnitudes: Output, (time, frequency, channels, sources), float32.
        ideal_binary_mask: Output, (time, frequency, channels, sources), bool or float32.
    """
    num_sources, num_frequencies = spectra.shape[0] - 1, spectra.shape[3] // 2
    power, size = np.empty(num_frequencies, spectra.dtype), np.empty(num_frequencies, spectra.dtype)
    inverse, loudest = np.empty(num_frequencies, spectra.dtype), np.empty(num_frequencies, spectra.dtype)
    # monotonic in the target magnitude: in psa it is that times |M|, in msa its square
    loudness = np.empty((num_sources, num_frequencies), spectra.dtype)
    for channel in range(spectra.shape[1]):
        for time in range(spectra.shape[2]):
            mixture = spectra[0, channel, time]
            for f in range(num_frequencies):
                power[f] = mixture[2 * f] * mixture[2 * f] + mixture[2 * f + 1] * mixture[2 * f + 1]
            for f in range(num_frequencies):
                size[f] = np.sqrt(power[f])
                mix_magnitude[time, f, channel] = size[f]
            for n in range(num_sources):
                source, row = spectra[n + 1, channel, time], loudness[n]
                if phase_sensitive:
                    for f in range(num_frequencies):
                        projection = source[2 * f] * mixture[2 * f] + source[2 * f + 1] * mixture[2 * f + 1]
                        projection = projection if projection > 0 else 0.0
                        row[f] = projection if projection < power[f] else power[f]
                else:
                    for f in range(num_frequencies):
                        row[f] = source[2 * f] * source[2 * f] + source[2 * f + 1] * source[2 * f + 1]
            if ideal_binary_mask.size:
                for n in range(num_sources):
                    loudest[:] = -1.0
                    for other in range(num_sources):
                        if other != n:
                            for f in range(num_frequencies):
                                level = loudness[other, f]
                                loudest[f] = level if level > loudest[f] else loudest[f]
                    for f in range(num_frequencies):
                        ideal_binary_mask[time, f, channel, n] = loudness[n, f] > loudest[f]
            if source_magnitudes.size:
                for f in range(num_frequencies):
                    inverse[f] = 1 / size[f] if size[f] > 0 else 0.0
                for n in range(num_sources):
                    row = loudness[n]
                    if phase_sensitive:
                        for f in range(num_frequencies):
                            target = row[f] * inverse[f]
                            source_magnitudes[time, f, channel, n] = target if target < size[f] else size[f]
                    else:
                        for f in range(num_frequencies):
                            source_magnitudes[time, f, channel, n] = np.sqrt(row[f])


fill_targets = jit(_fill_targets)
