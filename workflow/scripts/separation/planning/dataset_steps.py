"""From a dataset's recipe to its steps and their ids.

The names and sizes of a user's files enter the ids; the folder's path does not, it reaches jobs in `locations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.experiment.config import ROOT, Recipe, Settings
from separation.experiment.ids import STAGE_VERSIONS, canonical_json, digest, slug, without_excluded
from separation.files.atomic import read_json, sha256_of
from separation.files.listing import is_audio, listing
from separation.planning.specs import JobSpec
from separation.planning.speech_recordings import RECORDINGS, packages_unavailable_reason

# options added later, with their neutral value: at that value they are left out of ids
NEUTRAL: dict[str, Any] = {
    "allow_repeated_label": False, "background": None, "reverb": None, "guards": {"action": "stop"},
    "organize.copy": False,
}  # fmt: skip
# kinds of source whose audio comes from elsewhere and is checked before mixing
GUARDED = frozenset({"folder", "musdb18", "script"})


@dataclass(frozen=True)
class Dataset:
    """A dataset of a recipe, with the source it is mixed from."""

    id: str
    name: str
    source: str
    resampled: str
    splits: tuple[str, ...]
    recipe: Mapping[str, Any]


@dataclass
class Steps:
    """The steps of a recipe.

    Attributes:
        dataset: Their result.
        source, organized, resampled: Spec of each step; the ids are folders, the latter two below the source's.
        mixtures: Specs by split.
        locations: Paths of a user's folders, lists and scripts, and downloads; no part of ids.
        notices: Lines for the user.
        resample_shards: Number of jobs for resampling.
        mix_shards: Number of jobs for mixing, by split.
    """

    dataset: Dataset
    source: JobSpec
    organized: JobSpec
    resampled: JobSpec
    mixtures: dict[str, JobSpec]
    locations: dict[str, Any]
    notices: list[str] = field(default_factory=list)
    resample_shards: int = 1
    mix_shards: dict[str, int] = field(default_factory=dict)


def steps_of(recipe: Recipe, settings: Settings, unreachable_reason: Callable[[], str] | None = None) -> Steps:
    """The steps of a recipe.

    Args:
        recipe: Recipe with all defaults.
        settings: Settings of the workflow.
        unreachable_reason: Returns why Debian's packages cannot be downloaded now, "" if they can; None does not check.

    Raises:
        UserError: A folder, list or script of the recipe is missing.
    """
    value = without_excluded(recipe.value, neutral=NEUTRAL)
    given, locations, notices = _source(recipe, value["source"], settings, unreachable_reason)
    value = {**value, "source": given}
    source_spec = {"source": given, "version": STAGE_VERSIONS["fetch_source"]}
    source = f"{slug(given['name'])}-{digest(source_spec)}"
    organize_spec = {"organize": _organize(recipe, value, locations), "version": STAGE_VERSIONS["organize_source"]}
    if given["kind"] in GUARDED:
        organize_spec["guards"] = _guards(value)
    organized = f"organized_{digest(organize_spec)[:8]}"
    resample_spec = {
        **{key: value[key] for key in ("sample_rate", "num_channels") if key in value},
        "version": STAGE_VERSIONS["resample_source"],
    }
    resampled = f"resampled_{value['sample_rate']}_{digest([organize_spec, resample_spec])[:8]}"
    versions = [
        STAGE_VERSIONS[stage] for stage in ("fetch_source", "organize_source", "resample_source", "mix_dataset")
    ]
    whole = {**value, "organize": organize_spec["organize"], "version": versions}
    dataset = f"{slug(recipe.name)}-{digest(whole)}"
    mixtures, shards = {}, {}
    for split, parameters in value["mixture_parameters"].items():
        mixing = {key: inner for key, inner in value.items() if key not in ("source", "organize", "guards")}
        mixing |= {"mixture_parameters": {split: parameters}, "version": STAGE_VERSIONS["mix_dataset"]}
        mixtures[split] = JobSpec(dataset, canonical_json(mixing))
        shards[split] = math.ceil(parameters["num_mixtures"] / settings.shards["mixtures"])
    files = locations.get("files") or 0
    return Steps(
        dataset=Dataset(dataset, recipe.name, source, resampled, tuple(mixtures), recipe.value),
        source=JobSpec(source, canonical_json(source_spec)),
        organized=JobSpec(organized, canonical_json(organize_spec)),
        resampled=JobSpec(resampled, canonical_json(resample_spec)),
        mixtures=mixtures,
        locations=locations,
        notices=notices,
        resample_shards=max(1, math.ceil(files / settings.shards["files"])),
        mix_shards=shards,
    )


def _source(
    recipe: Recipe, source: Mapping[str, Any], settings: Settings, unreachable_reason: Callable[[], str] | None
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The source as part of ids, its locations, and notices."""
    if source["kind"] == "toy_speech":
        args, notices = _toy_speech(recipe, source.get("args") or {}, settings, unreachable_reason)
        return {**source, "args": args}, {}, notices
    if source["kind"] == "toy_music":
        return dict(source), {}, []
    given = {key: inner for key, inner in source.items() if key not in ("path", "folders", "script", "download")}
    locations: dict[str, Any] = {}
    if source["kind"] == "script":
        script = source.get("script") or {}
        if not script.get("file"):
            raise recipe.document.error("missing key 'file', the script to run", ("source",))
        for key in ("file", "yaml"):
            if script.get(key):
                path = _file(recipe, script[key], ("source", "script", key))
                locations[key] = str(path)
                given[key] = sha256_of(path)
        given["arguments"] = script.get("arguments") or ["--yml", "{yaml}"] * bool(script.get("yaml"))
        return given, locations, []
    folders = source.get("folders") or ({"": source["path"]} if source.get("path") else {})
    folders = {name: path for name, path in folders.items() if path}
    if folders:
        locations["folders"] = {name: str(_folder(recipe, path)) for name, path in folders.items()}
        found = {name: _audio_listing(Path(path)) for name, path in locations["folders"].items()}
        for name, path in locations["folders"].items():
            if not found[name]:
                raise recipe.document.error(f"the folder {path} holds no audio files", ("source",))
        locations["files"] = sum(map(len, found.values()))
        given["listing"] = digest(found)
        return given, locations, []
    if source.get("download"):
        # the same file from another server keeps its id
        given["download"] = [
            {key: inner for key, inner in each.items() if key != "urls"} for each in source["download"]
        ]
        locations["download"] = source["download"]
        locations["files"] = source.get("expected_files") or 0
        given.pop("expected_files", None)
        return given, locations, []
    raise recipe.document.error(
        "expected a folder: `path`, or `folders` by name"
        + (f"; {source['needs']}" if source.get("needs") else ""),
        ("source",),
    )  # fmt: skip


def _audio_listing(folder: Path) -> list[list[Any]]:
    return [[name, size] for name, size in listing(folder) if is_audio(name)]


def _folder(recipe: Recipe, path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        needs = recipe.value["source"].get("needs")
        raise recipe.document.error(
            f"no such folder: {path} (relative paths start at the repository's root)" + (f"; {needs}" if needs else ""),
            ("source",),
        )
    return folder.resolve()


def _file(recipe: Recipe, path: str, key: tuple) -> Path:
    for candidate in (Path(path).expanduser(), ROOT / path):
        if candidate.is_file():
            return candidate.resolve()
    raise recipe.document.error(f"no such file: {path} (relative paths start at the repository's root)", key)


def _organize(recipe: Recipe, value: Mapping[str, Any], locations: dict[str, Any]) -> dict[str, Any]:
    """`organize` as part of ids: lists and tables by their contents."""
    organize = dict(value["organize"])
    lists = {("lists", name): path for name, path in (organize.get("lists") or {}).items()}
    if organize.get("table"):
        lists["table", "file"] = organize["table"]["file"]
    for (section, name), path in lists.items():
        inside = [Path(folder) / path for folder in locations.get("folders", {}).values()]
        found = next((file for file in (*inside, Path(path), ROOT / path) if file.is_file()), None)
        if found is None and ("download" in locations or "file" in locations):
            continue  # it is part of the source
        if found is None:
            raise recipe.document.error(
                f"no such file: {path} (searched in the source's folder and at the repository's root)",
                ("organize", section, name),
            )
        locations.setdefault("lists", {})[path] = str(found.resolve())
        organize[section] = {**organize[section], name: path, f"{name}_sha256": sha256_of(found)}
    return organize


def _guards(value: Mapping[str, Any]) -> dict[str, Any]:
    """The guards of a recipe, with the requirements of mixing."""
    guards = dict(value.get("guards") or {"action": "stop"})
    if guards.get("min_duration") is None:
        guards["min_duration"] = _min_event_duration(value)
    guards["num_channels"], guards["sample_rate"] = value.get("num_channels", 1), value["sample_rate"]
    guards["splits"] = sorted(value["mixture_parameters"])
    return guards


def _min_event_duration(value: Mapping[str, Any]) -> float:
    """The shortest event that mixtures may use, in seconds: the lower bound of its distributions."""
    least = []
    for parameters in value["mixture_parameters"].values():
        events = {**value["event_parameters"], **(parameters.get("event_parameters") or {})}
        distributions = [events["event_duration"]]
        distributions += [
            overrides["event_duration"]
            for overrides in (events.get("by_label") or {}).values()
            if overrides.get("event_duration")
        ]
        for kind, *numbers in distributions:
            bound = {
                "const": lambda n: n[0], "choose": lambda n: min(n[0]), "choose_weighted": lambda n: min(n[0]),
                "uniform": lambda n: n[0], "truncnorm": lambda n: n[2],
            }.get(kind, lambda n: 0)(numbers)  # fmt: skip
            least.append(min(bound, parameters["scene_duration"]))
    return max(0, min(least))


def _toy_speech(
    recipe: Recipe, args: Mapping[str, Any], settings: Settings, unreachable_reason: Callable[[], str] | None
) -> tuple[dict[str, Any], list[str]]:
    """The arguments with the kind of recordings available on this machine; each kind has its own ids.

    The kind is stored in the data directory, so that every job and every later run uses the same one.
    """
    if args.get("recordings", "auto") != "auto":
        return dict(args), []
    record = settings.data / RECORDINGS
    if record.exists():
        known = read_json(record)
        recordings, why = known["recordings"], known["why"]
    else:
        recordings, why = "debian", packages_unavailable_reason(settings)
        if not why and unreachable_reason is not None:
            why = unreachable_reason()
        if why:
            recordings = "synthetic"
    notices = []
    if recordings == "synthetic":
        notices.append(
            f"{recipe.document.file}: using synthetic voices instead of recorded speech: {why}; "
            f"delete {record} to try again"
        )
    return {**args, "recordings": recordings}, notices
