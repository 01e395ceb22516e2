"""Coverage of intervals and rates of false verdicts, by simulation: `python benchmarks/false_verdicts.py [repeats]`.

Prints one line per scenario. Scores are drawn with known true means; intervals, p-values and verdicts are those of
`separation.analysis`, as in summary.csv and comparisons.csv. Takes about ten minutes on one core at 1000 repeats.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests" / "unit")]

import simulated_scores as simulated

SONGS = (3, 5, 8, 12, 30)


def show(title: str, rate: float, limit: str) -> None:
    """Prints one scenario."""
    print(f"{title:<76} {rate:6.3f}   {limit}", flush=True)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("Coverage of 95 % intervals of means; `between`: share of the variance between songs")
    for kind, limit in (("normal", 0.93), ("t3", 0.93), ("lognormal", 0.87)):
        for sizes in simulated.SIZES:
            for between in (0.0, 0.5, 1.0):
                for songs in SONGS:
                    rate = simulated.coverage(songs, kind, sizes, between, repeats=4 * repeats, seed=songs)
                    show(f"{kind}, {sizes} songs, between {between:g}, {songs} songs", rate, f">= {limit}")
    print("\nCoverage of 95 % intervals of medians")
    for kind in ("normal", "t3"):
        for songs in (8, 12, 30):
            rate = simulated.coverage(songs, kind, "equal", 0.5, repeats=repeats, seed=songs, median=True)
            show(f"{kind}, equal songs, between 0.5, {songs} songs", rate, ">= 0.93")
    print("\nFalse verdicts on two networks, mixtures of two speakers")
    for layout in ("any", "sexes", "uneven"):
        for speakers, mixtures in ((18, 3000), (18, 200), (8, 200), (4, 100)):
            for effect in (0.0, 0.3, 0.6):
                rate = simulated.false_verdicts_with_speakers(
                    speakers, mixtures, effect, repeats=repeats, seed=mixtures, layout=layout
                )
                show(f"{layout}: {speakers} speakers, {mixtures} mixtures, effect {effect:g} dB", rate, "<= 0.07")
    print("\nAny false verdict in a family of comparisons of networks")
    for points in (8, 20):
        for kind in ("best", "pair"):
            for songs in (3, 5, 8, 20):
                rate = simulated.any_false_verdict_on_networks(points, songs, kind, repeats=repeats, seed=songs)
                show(f"{kind}, {points} points, {songs} songs", rate, "<= 0.07")
    print("\nAny false verdict in the family of settings, which were trained with several seeds")
    for points in (8, 20):
        for seeds in (3, 5):
            for spread in (0.0, 0.3, 1.0):
                for songs in (3, 5, 8, 20):
                    rate = simulated.any_false_verdict_on_settings(
                        points, songs, seeds, repeats=max(repeats // 4, 50), seed=songs, spread=spread
                    )
                    show(
                        f"{points} settings, {seeds} seeds that differ by {spread:g} dB, {songs} songs", rate, "<= 0.07"
                    )
    for seeds in (3, 5):
        rate = simulated.any_false_verdict_on_settings(8, 20, seeds, repeats=max(repeats // 4, 50), wild=3.0)
        show(f"8 settings, {seeds} seeds, one setting's differ 3 times as much, 20 songs", rate, "<= 0.07")
    print("\nAny false verdict in the family of main effects, over matched pairs of trainings")
    for values, pairs in ((2, 4), (4, 3), (4, 6), (8, 3), (20, 3)):
        for spread in (0.0, 0.3, 1.0):
            for songs in (3, 5, 8, 20):
                rate = simulated.any_false_main_effect(
                    values, pairs, songs, repeats=max(repeats // 2, 50), seed=songs, spread=spread
                )
                show(f"{values} values, {pairs} pairs that differ by {spread:g} dB, {songs} songs", rate, "<= 0.07")
    print("\nHow often a true difference of 1 dB is shown")
    for points in (2, 8, 20):
        rate = simulated.any_false_verdict_on_networks(points, 8, "best", repeats=repeats, truth=1.0)
        show(f"networks, {points} points, 8 songs", rate, "")
    for points in (2, 4, 8):
        for seeds in (3, 5):
            rate = simulated.any_false_verdict_on_settings(points, 8, seeds, repeats=max(repeats // 4, 50), truth=1.0)
            show(f"settings, {points} points, {seeds} seeds that differ by 0.3 dB, 8 songs", rate, "")


if __name__ == "__main__":
    main()
