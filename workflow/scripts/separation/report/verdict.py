"""The verdict of a sweep in words: the best setting or network by validation loss, its test scores, and doubts.

Two questions are kept apart: which trained network is better (one training per setting can answer that), and which
setting is better when it is trained again (only several trainings can).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from separation.analysis import statistics
from separation.analysis.sweep_tables import as_number, members_of, swept_keys, unit_of, varying_keys
from separation.experiment.key_paths import defines_loss, short_names
from separation.files.score_table import BASELINES, ORACLE
from separation.report.charts import SweepData

# With fewer songs, intervals are rough
FEW_SONGS = 10
# Keys that change the data of the loss: a ranking of points that differ in one of them is doubtful
LOSS_CHANGERS = ("dataset_config.", "datasets.")


def loss_keys(points: pd.DataFrame) -> list[str]:
    """The swept keys that make the validation losses of points incomparable."""
    return [key for key in varying_keys(points) if defines_loss(key)]


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
    #: what the headline names: the best setting or the best trained network
    about: str
    #: how it was chosen, and which question the report answers
    rule: str = ""
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


def interval_in_words(low: float, high: float, difference: bool = False) -> str:
    """An interval in a sentence, or why there is none; those of differences are adjusted for their number."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval: too few songs, speakers or trainings"
    name = "adjusted 95 % interval" if difference else "95 % interval"
    return f"{name} {decibels(low, difference)} to {decibels(high, difference)}"


def interval(low: float, high: float, sign: bool = False) -> str:
    """An interval in a table."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    return f"{decibels(low, sign)} to {decibels(high, sign)}"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 song, 2 songs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def p_in_words(p_value: float) -> str:
    """An adjusted p-value in a table or sentence."""
    if not math.isfinite(p_value):
        return "–"
    return "below 0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def describe_sweep(data: SweepData) -> Verdict:
    """The verdict on a sweep: on settings if any was trained several times, else on trained networks."""
    trained = data.rows[~data.rows["baseline"]]
    best = trained[trained["best"]].head(1)
    if several_trainings(data):
        verdict = _describe_settings(data, trained)
    elif data.across:
        verdict = _describe_across(data)
    elif trained.empty:
        verdict = Verdict("No trained network: systems of other programs, and baselines", about="Systems")
    elif best.empty:
        verdict = Verdict(f"No best network: no point has a {data.criterion}", about="Best trained network")
    else:
        verdict = _describe_networks(data, best.iloc[0], trained)
    verdict.cautions = list(_cautions(data, None if best.empty else best.iloc[0]))
    return verdict


def _describe_across(data: SweepData) -> Verdict:
    """The verdict on points with different data: there is no best one."""
    verdict = Verdict("No best network: the points have different data", about="Trained networks")
    verdict.rule = (
        "Validation losses and scores compare only on the same data. The table lists the best network of each; its "
        "score says nothing about the others."
    )
    numbers = data.comparisons.loc[data.comparisons["kind"] == "pair", "verdict"].value_counts()
    differ, same, apart = (
        int(sum(numbers.get(words, 0) for words in kinds))
        for kinds in (
            (statistics.BETTER, statistics.WORSE), (statistics.NO_DIFFERENCE,), (statistics.NOTHING_IN_COMMON,)
        )
    )  # fmt: skip
    unknown = int(numbers.sum()) - differ - same - apart
    if len(numbers):
        rest = f", and for {unknown} there is no verdict" if unknown else ""
        verdict.sentences.append(
            f"Of {count(int(numbers.sum()), 'pair')} of networks, {apart} have no test mixture in common and are not "
            f"compared. Of the others, {differ} are shown to differ on test; no difference is shown for {same}{rest}."
        )
    return verdict


def several_trainings(data: SweepData) -> bool:
    """Whether a setting that was trained several times is the best one."""
    return "best" in data.groups and bool(data.groups["best"].any())


def _any_trained_again(data: SweepData) -> bool:
    return "seeds" in data.groups and bool((data.groups["seeds"] > 1).any())


def metric_title(metric: str) -> str:
    """The name of a metric in a headline."""
    return "SI-SDR improvement" if metric == "SI-SDRi" else metric


def _describe_networks(data: SweepData, best: pd.Series, trained: pd.DataFrame) -> Verdict:
    score, title = f"{decibels(best['score'])} {data.unit}", metric_title(data.metric)
    verdict = Verdict(f"{best['label']}: {score} {title} on test", about="Best trained network")
    reason = (
        "No setting has a validation loss of every training"
        if _any_trained_again(data)
        else "Each setting was trained once"
    )
    verdict.rule = (
        f"The network is chosen on validation and reported on test. {reason}: this report says "
        "which trained network is better, not which setting would be better if it were trained again."
    )
    span = interval_in_words(best["low"], best["high"])
    verdict.tiles.append(Tile(f"{title}, test", score, span))
    loss, number = f"{best['criterion']:.4g}", trained["point"].nunique()
    noun = data.chosen_by or "loss"
    verdict.sentences.append(
        f"It was chosen by {data.criterion} alone: its {noun} ({loss}) is the {data.extreme} of {number} trained "
        "networks."
        if number > 1
        else f"The sweep has one point; its {data.extreme} {data.criterion} is {loss}."
    )
    verdict.sentences.append(_score_in_words(data, _units(data, best["point"], int(best["items"])), score, span))
    _compare_with_baselines(verdict, data, "baseline", "The network")
    _oracle(verdict, data, "baseline", best["oracle_share"], "The network")
    found = data.comparisons[(data.comparisons["kind"] == "best") & (data.comparisons["point"] != best["point"])]
    others = trained[(trained["point"] != best["point"]) & trained["criterion"].notna()]
    for _, second in others.head(1).iterrows():
        match = found[(found["point"] == second["point"]) & (found["evaluation"] == second["evaluation"])]
        _compare_with_runner_up(verdict, match, second["label"], second["criterion"], second["score"], "network", data)
    _count_verdicts(verdict, found, "networks")
    return verdict


def _describe_settings(data: SweepData, trained: pd.DataFrame) -> Verdict:
    groups, metric, title = data.groups, data.metric, metric_title(data.metric)
    best = groups[groups["best"]].iloc[0]
    score, seeds = f"{decibels(best[metric])} {data.unit}", int(best["seeds"])
    verdict = Verdict(f"{best['label']}: {score} {title} on test, the mean of {seeds} trainings", about="Best setting")
    unit = unit_of(data.scores)
    verdict.rule = (
        f"The setting is chosen by the mean {data.criterion} of its trainings and reported on test. Seeds of one "
        f"setting do not compete with each other; intervals and verdicts allow for other {unit}s and for other "
        "trainings."
    )
    span = interval_in_words(best[f"{metric}_low"], best[f"{metric}_high"])
    spread = f"seeds differ by {decibels(best[f'{metric}_seed_spread'])} {data.unit} (standard deviation)"
    verdict.tiles.append(Tile(f"{title}, test, mean of {seeds} trainings", score, f"{span}; {spread}"))
    repeated = groups[groups["seeds"] > 1]
    loss, plural = f"{best['criterion']:.4g}", "scores" if data.chosen_by else "losses"
    verdict.sentences.append(
        f"It was chosen by {data.criterion} alone: the mean of its trainings' {plural} ({loss}) is the {data.extreme} "
        f"of {count(len(repeated), 'setting')} that were trained several times."
        if len(repeated) > 1
        else f"It is the only setting that was trained several times; the mean of its validation {plural} is {loss}."
    )
    members = trained[trained["point"] == best["network"]]
    items = int(members["items"].iloc[0]) if len(members) else 0
    verdict.sentences.append(_score_in_words(data, _units(data, best["network"], items), score, span))
    _compare_with_baselines(verdict, data, "group_baseline", "The setting")
    _oracle(verdict, data, "group_baseline", best["oracle_share"], "On average over its trainings, the setting")
    found = data.comparisons[data.comparisons["kind"] == "group"]
    others = repeated[~repeated["best"] & repeated["criterion"].notna()].sort_values("chosen")
    for _, second in others.head(1).iterrows():
        match = found[found["point"] == second["group"]]
        _compare_with_runner_up(verdict, match, second["label"], second["criterion"], second[metric], "setting", data)
    _count_verdicts(verdict, found, "settings")
    _name_network(verdict, best, trained, data)
    return verdict


def _name_network(verdict: Verdict, setting: pd.Series, trained: pd.DataFrame, data: SweepData) -> None:
    """Names the network to use."""
    network = trained[trained["best"]].head(1)
    for _, row in network.iterrows():
        whose = (
            "It is a training of the best setting"
            if row["point"] == setting["network"]
            else "Its setting is another one"
        )
        score = f"{decibels(row['score'])} {data.unit}"
        verdict.sentences.append(
            f"To separate with one network, use {row['point']} ({row['label']}): its {data.criterion} "
            f"({row['criterion']:.4g}) is the {data.extreme} of all {trained['point'].nunique()} networks, and it "
            f"scores {score} on test. {whose}. Another training with the same setting may score differently."
        )
        verdict.tiles.append(Tile("the network to use, test", score, row["label"]))


def _units(data: SweepData, point: str, items: int) -> str:
    """How much was tested: 48 test mixtures of 8 songs."""
    unit = unit_of(data.scores)
    words = count(items, "test mixture")
    return words if unit == "mixture" else f"{words} of {count(_members(data.scores, point), unit)}"


def _members(scores: pd.DataFrame, point: str) -> int:
    return len(members_of(scores.loc[scores["point"] == point, "cluster"]))


def _score_in_words(data: SweepData, units: str, score: str, span: str) -> str:
    if data.metric == "SI-SDRi":
        return (
            f"On {units}, the SI-SDR of the estimates minus that of the unprocessed mixture is {score} on average "
            f"({span})."
        )
    return f"On {units}, the mean {metric_title(data.metric)} is {score} ({span})."


def _compare_with_baselines(verdict: Verdict, data: SweepData, kind: str, what: str) -> None:
    found = data.comparisons[data.comparisons["kind"] == kind].set_index("against")
    if "mixture" in found.index and found.loc["mixture", "verdict"] != statistics.BETTER:
        verdict.sentences.append(f"{what} is not shown to be better than the unprocessed mixture.")
    if "fixed_mask" in found.index:
        row = found.loc["fixed_mask"]
        span = interval_in_words(row["difference_low"], row["difference_high"], True)
        words = {
            statistics.BETTER: f"{what} is better than a fixed mask, which applies the same filter to every mixture",
            statistics.WORSE: f"{what} is worse than a fixed mask, which applies the same filter to every mixture",
        }.get(
            row["verdict"],
            f"{what} is not shown to be better than a fixed mask, which applies the same filter to every mixture",
        )
        difference = f"{decibels(row['difference'], True)} {data.unit}"
        reason = "" if row["verdict"] in (statistics.BETTER, statistics.WORSE) else f"; {row['verdict']}"
        verdict.sentences.append(f"{words}: the difference is {difference} ({span}{reason}).")
        verdict.tiles.append(Tile("compared with the fixed mask", difference, f"{span}{reason}"))


def _oracle(verdict: Verdict, data: SweepData, kind: str, oracle_share: float, what: str) -> None:
    """The share of the gap to the oracle on the same mixtures, which the comparisons of a kind name."""
    if not math.isfinite(oracle_share):
        return
    share = f"{100 * oracle_share:.0f} %".replace("-", "−")
    named = data.comparisons[(data.comparisons["kind"] == kind) & (data.comparisons["against"] == ORACLE)]
    oracles = data.baselines[data.baselines["point"] == ORACLE]
    oracles = oracles[oracles["evaluation"].isin(named["against_evaluation"])]
    reached = f"{decibels(oracles['score'].iloc[0] if len(oracles) else math.nan)} {data.unit}"
    name = BASELINES[ORACLE].lower()
    verdict.sentences.append(
        f"The {name}, which is computed from the true sources, reaches {reached}. "
        f"{what} closes {share} of the gap between the mixture and that mask."
    )
    verdict.tiles.append(Tile(f"of the gap to the {name}", share, f"the mask reaches {reached}"))


def _compare_with_runner_up(
    verdict: Verdict, match: pd.DataFrame, label: str, loss: float, score: float, noun: str, data: SweepData
) -> None:
    for _, row in match.iterrows():
        # The table has runner-up minus best
        difference = f"{decibels(-row['difference'], True)} {data.unit}"
        span = interval_in_words(-row["difference_high"], -row["difference_low"], True)
        words = {
            statistics.BETTER: f"the runner-up {noun} is shown to be better",
            statistics.WORSE: f"the best {noun} is shown to be better",
        }.get(row["verdict"], row["verdict"])
        verdict.sentences.append(
            f"The runner-up by {data.criterion} ({loss:.4g}) is {label} with {decibels(score)} {data.unit} on test. On "
            f"the same mixtures, the best {noun} minus the runner-up is {difference} ({span}): {words}."
        )
        verdict.tiles.append(Tile(f"compared with the runner-up {noun}", difference, f"{span}; {words}"))


def _count_verdicts(verdict: Verdict, found: pd.DataFrame, noun: str) -> None:
    if len(found) < 2:
        return
    numbers = found["verdict"].value_counts()
    worse, better, same = (
        int(numbers.get(words, 0)) for words in (statistics.WORSE, statistics.BETTER, statistics.NO_DIFFERENCE)
    )
    apart = int(numbers.get(statistics.NOTHING_IN_COMMON, 0))
    unknown = len(found) - worse - better - same - apart
    rest = f"; {apart} have no test mixture in common with it" if apart else ""
    rest += f"; for {unknown} there is no verdict" if unknown else ""
    verdict.sentences.append(
        f"Of the {len(found)} other {noun}, {worse} are shown to be worse on test and {better} better; "
        f"no difference is shown for {same}{rest}."
    )


def _cautions(data: SweepData, best: pd.Series | None) -> Iterator[str]:
    """Every reason in the numbers to doubt the verdict."""
    trained = data.rows[~data.rows["baseline"]]
    missing = trained[trained["score"].isna()]
    if len(missing):
        names = ", ".join(missing["label"].head(5)) + (" and others" if len(missing) > 5 else "")
        yield f"{len(missing)} of {count(len(trained), 'point')} have no test score: {names}."
    losses = loss_keys(data.points)
    if losses and not data.chosen_by and not data.across:
        yield (
            f"The points differ in {' and '.join(losses)}, so their validation losses measure different things and are "
            "not comparable. The ranking and the choice of the best point are meaningful only among points with the "
            "same loss; the best point of each loss is listed below."
        )
    # scores compare even where losses do not, but not on other data
    doubtful = LOSS_CHANGERS[1:] if data.chosen_by else LOSS_CHANGERS
    changers = [key for key in varying_keys(data.points) if key.startswith(doubtful) and key not in losses]
    if changers:
        yield (
            f"The points differ in {' and '.join(changers)}, so their validation "
            f"{'scores' if data.chosen_by else 'losses'} may measure different things: treat the ranking with caution."
        )
    if best is not None:
        yield from _cautions_on_units(data, best)
        yield from _cautions_on_best(data.points, data.histories, best)
    lost = int((~np.isfinite(data.scores[data.metric].astype(float))).sum())
    if lost:
        yield (
            f"{lost} of {count(len(data.scores), 'score')} in {data.metric} are not finite (a silent source or "
            "estimate) and are excluded from all means."
        )


def _cautions_on_units(data: SweepData, best: pd.Series) -> Iterator[str]:
    """Doubts about the number of songs, speakers and trainings."""
    scores = data.scores[data.scores["point"] == best["point"]]
    unit, number = unit_of(scores), len(members_of(scores["cluster"]))
    if number < statistics.MIN_MEMBERS:
        yield (
            f"The test set covers only {count(number, unit)}, too few for any verdict: at least "
            f"{statistics.MIN_MEMBERS} {unit}s are needed, and small differences need many more. Intervals, where "
            "shown, are rough."
        )
    elif number < FEW_SONGS:
        yield f"The test set covers only {count(number, unit)}: intervals are wide, small differences are not shown."
    if unit == "mixture":
        yield (
            "The songs or speakers of the test mixtures are not recorded, so each mixture counts as independent of all "
            "others. If mixtures share songs or speakers, the intervals are too narrow and verdicts may be false."
        )
    elif unit == "song" and scores["cluster"].map(len).min() > 1:
        yield (
            "Every test mixture combines several recordings, and their speakers are not recorded. If recordings share "
            "speakers, the intervals are too narrow and verdicts may be false: name the {speaker} in the recipe's "
            "organize section."
        )
    if not _any_trained_again(data):
        yield (
            "Each point was trained with one seed. Intervals and verdicts show how other test "
            f"{unit}s might change the scores of these trained networks, not what another seed would give. To compare "
            "settings, list several seeds in the sweep, for example seeds: [0, 1, 2]."
        )
    elif (few := int((data.groups["seeds"] < statistics.MIN_TRAININGS).sum())) > 0:
        yield (
            f"{few} of {count(len(data.groups), 'setting')} were trained fewer than {statistics.MIN_TRAININGS} times, "
            "too few for a verdict on them: list more seeds."
        )
    pairs = data.comparisons[data.comparisons["kind"] == "effect"]
    without = int((pairs["verdict"] == statistics.TOO_FEW_PAIRS).sum())
    if without:
        yield (
            f"{without} of {count(len(pairs), 'main effect')} are computed from fewer than {statistics.MIN_PAIRS} "
            "matched pairs of trainings, too few for a verdict: more seeds or more values of other keys give more."
        )


def _cautions_on_best(points: pd.DataFrame, histories: Mapping[str, pd.DataFrame], best: pd.Series) -> Iterator[str]:
    history = histories.get(best["point"])
    losses = pd.Series(dtype=float) if history is None else history["validation_loss"].reset_index(drop=True)
    if losses.notna().any() and losses.idxmin() == len(losses) - 1:
        yield (
            f"The best network's validation loss was lowest in its last epoch ({int(history['epoch'].iloc[-1])}): "
            "training may not have converged."
        )
    names = short_names(swept_keys(points))
    for key in [key for key in varying_keys(points) if not key.endswith("seed")]:
        numbers = sorted({number for number in map(as_number, points[key]) if number is not None})
        chosen = as_number(points.loc[points["point"] == best["point"], key].iloc[0])
        if len(numbers) > 2 and chosen in (numbers[0], numbers[-1]):
            end = "smallest" if chosen == numbers[0] else "largest"
            yield (
                f"The best network's {names[key]} ({chosen:g}) is the {end} value tried: the optimum may be outside "
                "this range."
            )
