"""The verdict of a sweep in words: the best point by validation loss, its test scores, and reasons for doubt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from separation.analysis import statistics
from separation.analysis.sweep_tables import as_number, swept_keys, varying_keys
from separation.experiment.key_paths import short_names
from separation.files.score_table import BASELINES, ORACLE
from separation.report.charts import SweepData

# With fewer songs, intervals are rough
FEW_SONGS = 10
# Keys that define the loss: points that differ in one of them cannot be ranked by it
LOSS_KEYS = ("loss_function", "loss_weights", "output_type", "weight_type", "data_keys_for_training", "output")
# Keys that change the data of the loss: a ranking of points that differ in one of them is doubtful
LOSS_CHANGERS = ("dataset_config.", "datasets.")


def loss_keys(points: pd.DataFrame) -> list[str]:
    """The swept keys that make the validation losses of points incomparable."""
    return [key for key in varying_keys(points) if key.rsplit(".", 1)[-1] in LOSS_KEYS or "loss_function" in key]


@dataclass(frozen=True)
class Tile:
    """One number at the top of a report."""

    name: str
    value: str
    detail: str


@dataclass
class Verdict:
    """The text at the top of a report."""

    headline: str
    tiles: list[Tile] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)


def decibels(value: float, sign: bool = False) -> str:
    """A number of decibels with two decimals and a true minus."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    if value == 0 or (text == "-0.00" and not sign):
        text = "0.00"
    return text.replace("-", "−")


def interval_in_words(low: float, high: float, sign: bool = False) -> str:
    """An interval in a sentence, or the reason why there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval: too few songs"
    return f"95 % interval {decibels(low, sign)} to {decibels(high, sign)}"


def interval(low: float, high: float, sign: bool = False) -> str:
    """An interval in a table."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    return f"{decibels(low, sign)} to {decibels(high, sign)}"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 song, 2 songs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_sweep(data: SweepData) -> Verdict:
    """The verdict on a sweep."""
    trained = data.rows[~data.rows["baseline"]]
    winners = trained[trained["best"]]
    if winners.empty:
        verdict = Verdict("No best point: no point has a validation loss")
        verdict.cautions = list(_cautions(data, None))
        return verdict
    best = winners.iloc[0]
    score = f"{decibels(best['score'])} {data.unit}"
    title = "SI-SDR improvement" if data.metric == "SI-SDRi" else data.metric
    verdict = Verdict(f"{best['label']}: {score} {title} on test")
    span = interval_in_words(best["low"], best["high"])
    verdict.tiles.append(Tile(f"{title}, test", score, span))
    loss, number = f"{best['validation_loss']:.4g}", trained["point"].nunique()
    verdict.sentences.append(
        f"It was chosen by validation loss alone: its loss ({loss}) is the lowest of {number} points."
        if number > 1
        else f"The sweep has one point; its lowest validation loss is {loss}."
    )
    units = count(int(best["items"]), "test mixture")
    if "songs" in data.scores:
        units += f" from {count(_clusters(data.scores, best), 'song')}"
    verdict.sentences.append(
        f"On {units}, the SI-SDR of the estimates minus that of the unprocessed mixture is {score} on average ({span})."
        if data.metric == "SI-SDRi"
        else f"On {units}, the mean {title} is {score} ({span})."
    )
    _compare_with_baselines(verdict, best, data)
    _compare_with_points(verdict, best, trained, data)
    verdict.cautions = list(_cautions(data, best))
    return verdict


def _clusters(scores: pd.DataFrame, row: pd.Series) -> int:
    return scores.loc[scores["point"] == row["point"], "cluster"].nunique()


def _compare_with_baselines(verdict: Verdict, best: pd.Series, data: SweepData) -> None:
    found = data.comparisons[data.comparisons["kind"] == "baseline"].set_index("against")
    if "mixture" in found.index and found.loc["mixture", "verdict"] != statistics.BETTER:
        verdict.sentences.append("This is not shown to be better than the unprocessed mixture.")
    if "fixed_mask" in found.index:
        row = found.loc["fixed_mask"]
        span = interval_in_words(row["difference_low"], row["difference_high"], True)
        words = {
            statistics.BETTER: "It is better than a fixed mask, which applies the same filter to every mixture",
            statistics.WORSE: "It is worse than a fixed mask, which applies the same filter to every mixture",
        }.get(
            row["verdict"],
            "It is not shown to be better than a fixed mask, which applies the same filter to every mixture",
        )
        difference = f"{decibels(row['difference'], True)} {data.unit}"
        verdict.sentences.append(f"{words}: the difference is {difference} ({span}).")
        verdict.tiles.append(Tile("compared with the fixed mask", difference, span))
    if math.isfinite(best["oracle_share"]):
        share = f"{100 * best['oracle_share']:.0f} %".replace("-", "−")
        means = data.baselines.drop_duplicates("point").set_index("point")["score"]
        reached = f"{decibels(means.get(ORACLE, math.nan))} {data.unit}"
        name = BASELINES[ORACLE].lower()
        verdict.sentences.append(
            f"The {name}, which is computed from the true sources, reaches {reached}. "
            f"The point closes {share} of the gap between the mixture and that mask."
        )
        verdict.tiles.append(Tile(f"of the gap to the {name}", share, f"the mask reaches {reached}"))


def _compare_with_points(verdict: Verdict, best: pd.Series, trained: pd.DataFrame, data: SweepData) -> None:
    comparisons = data.comparisons
    others = trained[(trained["point"] != best["point"]) & trained["validation_loss"].notna()]
    found = comparisons[(comparisons["kind"] == "best") & (comparisons["point"] != best["point"])]
    for _, second in others.head(1).iterrows():
        match = found[(found["point"] == second["point"]) & (found["evaluation"] == second["evaluation"])]
        for _, row in match.iterrows():
            # The table has runner-up minus best
            difference = f"{decibels(-row['difference'], True)} {data.unit}"
            span = interval_in_words(-row["difference_high"], -row["difference_low"], True)
            words = {
                statistics.BETTER: "the runner-up is shown to be better",
                statistics.WORSE: "the best point is shown to be better",
            }.get(row["verdict"], row["verdict"])
            verdict.sentences.append(
                f"The runner-up by validation loss ({second['validation_loss']:.4g}) is {second['label']} with "
                f"{decibels(second['score'])} {data.unit} on test. On the same mixtures, the best point minus the "
                f"runner-up is {difference} ({span}): {words}."
            )
            verdict.tiles.append(Tile("compared with the runner-up", difference, f"{span}; {words}"))
    if len(found) > 1:
        worse, better = ((found["verdict"] == words).sum() for words in (statistics.WORSE, statistics.BETTER))
        verdict.sentences.append(
            f"Of the {len(found)} others, {worse} are shown to be worse on test and {better} better; "
            f"no difference is shown for {len(found) - worse - better}."
        )


def _cautions(data: SweepData, best: pd.Series | None) -> Iterator[str]:
    """Every reason in the numbers to doubt the verdict."""
    trained = data.rows[~data.rows["baseline"]]
    missing = trained[trained["score"].isna()]
    if len(missing):
        names = ", ".join(missing["label"].head(5)) + (" and others" if len(missing) > 5 else "")
        yield f"{len(missing)} of {count(len(trained), 'point')} have no test score: {names}."
    losses = loss_keys(data.points)
    if losses:
        yield (
            f"The points differ in {' and '.join(losses)}, so their validation losses measure different things and are "
            "not comparable. The ranking and the choice of the best point are meaningful only among points with the "
            "same loss; the best point of each loss is listed below."
        )
    changers = [key for key in varying_keys(data.points) if key.startswith(LOSS_CHANGERS) and key not in losses]
    if changers:
        yield (
            f"The points differ in {' and '.join(changers)}, so their validation losses may measure different "
            "things: treat the ranking with caution."
        )
    if best is not None:
        yield from _cautions_on_best(data.points, data.scores, data.histories, best)
    lost = int((~np.isfinite(data.scores[data.metric].astype(float))).sum())
    if lost:
        yield (
            f"{lost} of {count(len(data.scores), 'score')} in {data.metric} are not finite (a silent source or "
            "estimate) and are excluded from all means."
        )
    shown = int(data.comparisons["kind"].isin(["best", "pair"]).sum())
    if shown >= 10:
        yield (
            f"{shown} pairs of points were compared, each at 95 %: about {max(1, round(shown / 20))} would show a "
            "difference even if all points were equal."
        )


def _cautions_on_best(
    points: pd.DataFrame, scores: pd.DataFrame, histories: Mapping[str, pd.DataFrame], best: pd.Series
) -> Iterator[str]:
    clusters = _clusters(scores, best)
    if clusters < FEW_SONGS:
        unit = count(clusters, "song" if "songs" in scores else "mixture")
        yield f"The test set covers only {unit}. The intervals are widened accordingly and are still rough."
    several = {"group", "seed"} <= set(points.columns) and points.groupby("group")["seed"].nunique().max() > 1
    if not several:
        yield (
            "Each point was trained with one seed. The intervals show how other test songs might change the score, "
            "not how another seed might; list several seeds in the sweep to find out."
        )
    history = histories.get(best["point"])
    losses = pd.Series(dtype=float) if history is None else history["validation_loss"].reset_index(drop=True)
    if losses.notna().any() and losses.idxmin() == len(losses) - 1:
        yield (
            f"The best point's validation loss was lowest in its last epoch ({int(history['epoch'].iloc[-1])}): "
            "training may not have converged."
        )
    names = short_names(swept_keys(points))
    for key in varying_keys(points):
        numbers = sorted({number for number in map(as_number, points[key]) if number is not None})
        chosen = as_number(points.loc[points["point"] == best["point"], key].iloc[0])
        if len(numbers) > 2 and chosen in (numbers[0], numbers[-1]):
            end = "smallest" if chosen == numbers[0] else "largest"
            yield f"The best {names[key]} ({chosen:g}) is the {end} value tried: the optimum may be outside this range."
