"""Names of all files and folders that the workflow writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: environment variables of the three directories that clones can share
DIRECTORY_VARIABLES = {"data": "DATA_DIRECTORY", "cache": "CACHE_DIRECTORY", "artifacts": "ARTIFACTS_DIRECTORY"}

BENCHMARKS = Path("results/benchmarks")
SWEEPS = Path("results/sweeps")
COMPARISONS = Path("results/comparisons")
EXPORTS = Path("results/exports")
SEPARATED_AUDIO = Path("results/separated")
TENSORBOARD_RUNS = Path("results/tensorboard")
MANIFEST = "manifest.json"


def visible_folders(parent: Path) -> list[Path]:
    """The folders in `parent`, by name, without hidden ones, which are unfinished or being removed."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def estimate_index(estimates: Path) -> Path:
    """The list of the audio in a folder of estimates."""
    return Path(estimates) / "index.json"


@dataclass(frozen=True)
class EvaluationFolder:
    """ARTIFACTS/<point>/evaluations/<evaluation>, the results of one evaluation of a point."""

    path: Path

    @property
    def id(self) -> str:
        """The evaluation's id."""
        return self.path.name

    @property
    def scores(self) -> Path:
        return self.path / "scores.parquet"

    @property
    def config(self) -> Path:
        """The point's config with the evaluation's own sections; itself a valid experiment file."""
        return self.path / "config.yml"

    @property
    def spec(self) -> Path:
        """The JSON that the scores depend on, for comparisons with other evaluations."""
        return self.path / "spec.json"

    @property
    def costs(self) -> Path:
        """Parameters, multiply-adds, real-time factor and memory of the network; no result, and not in older ones."""
        return self.path / "costs.json"

    @property
    def estimates(self) -> Path:
        """Audio that is kept to listen to; only where some is kept."""
        return self.path / "estimates"

    @property
    def estimate_index(self) -> Path:
        """The list of kept audio."""
        return estimate_index(self.estimates)


@dataclass(frozen=True)
class PointFolder:
    """ARTIFACTS/<point>, everything that belongs to one training run."""

    path: Path

    @property
    def id(self) -> str:
        """The point's id."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The complete, resolved config of the point; itself a valid experiment file."""
        return self.path / "config.yml"

    @property
    def best_checkpoint(self) -> Path:
        """The network of the lowest validation loss."""
        return self.checkpoint("best")

    @property
    def latest_checkpoint(self) -> Path:
        """The network after the last epoch."""
        return self.checkpoint("latest")

    def checkpoint(self, name: str) -> Path:
        """The network saved as `name`: best, latest or epoch<n>."""
        return self.path / "checkpoints" / f"{name}.model.pth"

    @property
    def history(self) -> Path:
        """Losses, learning rate and speed by epoch."""
        return self.path / "history.csv"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def state(self) -> Path:
        """The state from which training resumes; not an output of a rule."""
        return self.path / "state"

    @property
    def spec(self) -> Path:
        """The JSON that the weights depend on, for comparisons with other points."""
        return self.state / "spec.json"

    @property
    def events(self) -> Path:
        """The event log, the input of trackers."""
        return self.state / "events.jsonl"

    @property
    def progress(self) -> Path:
        """The progress of a running training."""
        return self.state / "progress.json"

    def tracker_state(self, tracker: str) -> Path:
        """The record of data that a tracker has received, with the key of the run."""
        return self.state / "trackers" / f"{tracker}.json"

    def tracker_files(self, tracker: str) -> Path:
        """Files that a tracker's client writes: its offline archive, and working files of a running job."""
        return self.state / "trackers" / tracker

    def evaluation(self, evaluation: str) -> EvaluationFolder:
        """The folder of one evaluation, by its id."""
        return EvaluationFolder(self.path / "evaluations" / evaluation)

    def validation(self, evaluation: str) -> EvaluationFolder:
        """The folder of the scores on the validation split that choose among points, by their id."""
        return EvaluationFolder(self.path / "validations" / evaluation)

    def validations(self) -> list[EvaluationFolder]:
        """The scores on the validation split that exist, by name."""
        return [EvaluationFolder(path) for path in visible_folders(self.path / "validations")]

    def evaluation_state(self, evaluation: str) -> Path:
        """The state from which an evaluation resumes."""
        return self.state / "evaluations" / evaluation

    def evaluations(self) -> list[EvaluationFolder]:
        """The evaluations that exist, by name."""
        return [EvaluationFolder(path) for path in visible_folders(self.path / "evaluations")]


def point_folders(artifacts: Path) -> list[PointFolder]:
    """The points below ARTIFACTS that have a config, by id."""
    return [point for path in visible_folders(artifacts) if (point := PointFolder(path)).config.exists()]


def logged_points(artifacts: Path) -> list[PointFolder]:
    """The points below ARTIFACTS that have an event log, by id."""
    return [point for path in visible_folders(artifacts) if (point := PointFolder(path)).events.exists()]


@dataclass(frozen=True)
class ExportFolder:
    """A trained point as `make export` writes it, results/exports/<point> by default."""

    path: Path

    @classmethod
    def of(cls, point: str) -> ExportFolder:
        """The default folder for a point, by its id."""
        return cls(EXPORTS / point)

    @property
    def checkpoint(self) -> Path:
        return self.path / "model.pth"

    @property
    def config(self) -> Path:
        return self.path / "config.yml"

    @property
    def weights(self) -> Path:
        """Weights of a network with a class of its own."""
        return self.path / "model.safetensors"

    @property
    def network(self) -> Path:
        """Class and arguments of such a network, and the audio that it reads."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """Mean scores by dataset, split and source."""
        return self.path / "metrics.json"

    @property
    def scores(self) -> Path:
        return self.path / "scores.parquet"

    @property
    def model_card(self) -> Path:
        return self.path / "README.md"

    @property
    def licences(self) -> Path:
        """Licences of the weights and of the training data."""
        return self.path / "LICENCES.md"


@dataclass(frozen=True)
class SweepFiles:
    """results/sweeps/<sweep>, or the folder of a comparison of sweeps: tables, figures and report."""

    path: Path

    @classmethod
    def of(cls, sweep: str) -> SweepFiles:
        """The results of a sweep, by its name."""
        return cls(SWEEPS / sweep)

    @property
    def name(self) -> str:
        """The name of the sweep or of the comparison."""
        return self.path.name

    @property
    def record(self) -> Path:
        """Which experiment file the results come from."""
        return self.path / "sweep.json"

    @property
    def points(self) -> Path:
        """Settings of every point; columns: analysis.summarize.collect_scores."""
        return self.path / "points.csv"

    @property
    def scores(self) -> Path:
        """Scores of every estimate; columns: files.score_table.SCORE_KEYS, then metrics and mixing conditions."""
        return self.path / "scores.parquet"

    @property
    def summary(self) -> Path:
        """Scores of each point and baseline; columns: analysis.summarize.summarize_sweep."""
        return self.path / "summary.csv"

    @property
    def comparisons(self) -> Path:
        """Paired differences between points; columns: analysis.comparisons.COMPARISON_COLUMNS."""
        return self.path / "comparisons.csv"

    @property
    def groups(self) -> Path:
        """Settings over their seeds."""
        return self.path / "groups.csv"

    @property
    def published(self) -> Path:
        """Numbers from papers; only where the experiment has some."""
        return self.path / "published.json"

    @property
    def metrics(self) -> Path:
        """Unit, direction and definition of every metric."""
        return self.path / "metrics.csv"

    @property
    def conditions(self) -> Path:
        """Scores by mixing condition."""
        return self.path / "conditions.csv"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def figure_index(self) -> Path:
        """The list of figures, written after them."""
        return self.figures / "index.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def sheet(self) -> Path:
        """The results table for spreadsheets, as CSV."""
        return self.path / "sheet.csv"

    @property
    def workbook(self) -> Path:
        return self.path / "sheet.xlsx"

    def receipt(self, service: str) -> Path:
        """The record of data sent to a service (sheet, or a tracker)."""
        return self.path / "published" / f"{service}.json"


def evaluation_benchmark(benchmarks: Path, point: str, evaluation: str) -> Path:
    """Run time and memory of the job of an evaluation, as Snakemake measures them."""
    return Path(benchmarks) / "evaluate_point" / point / f"{evaluation}.tsv"


# datasets and caches -------------------------------------------------------------------------------------------------


def source_manifest(data: Path, source: str, step: str) -> Path:
    """The manifest of one step of a source: script, fetched, organized_<hex> or resampled_<rate>_<hex>."""
    return Path(data) / source / step / MANIFEST


def downloads_folder(data: Path) -> Path:
    """Downloaded files and packages, which sources share."""
    return Path(data) / "downloads"


def debian_packages(downloads: Path) -> Path:
    """Unpacked Debian packages with recordings, by name."""
    return Path(downloads) / "debian"


def attribution_file(manifest: Path) -> Path:
    """Authors and licence of the audio beside a manifest."""
    return Path(manifest).with_name("ATTRIBUTION.txt")


def file_times(manifest: Path) -> Path:
    """When the files of a manifest were last written, for links to files elsewhere: an older file is noticed, too."""
    return Path(manifest).with_name("times.json")


def problem_table(manifest: Path) -> Path:
    """All problems that were found in the files of a source."""
    return Path(manifest).with_name("problems.csv")


def shard_records(manifest: Path) -> Path:
    """The folder of the records `<number>.json` of shards; removed when the manifest is complete."""
    return Path(manifest).with_name("shards")


def script_output(manifest: Path) -> Path:
    """The folder of the files that a user's script wrote."""
    return Path(manifest).with_name("files")


def split_manifest(data: Path, dataset: str, split: str) -> Path:
    """The manifest of a split of mixtures."""
    return Path(data) / dataset / split / MANIFEST


def cache_manifest(cache_directory: Path, cache: str, split: str) -> Path:
    """The manifest of the cache of a split; it stays when the arrays beside it are pruned."""
    return Path(cache_directory) / cache / f"{split}.json"


def cache_store(manifest: Path) -> Path:
    """The zarr group with the arrays of a cache."""
    return Path(manifest).with_suffix(".zarr")


def systems_folder(artifacts: Path) -> Path:
    """The folder of the scores of other programs' estimates; each has a folder in it."""
    return Path(artifacts) / "systems"


def system_scores(artifacts: Path, system: str) -> Path:
    """The scores of the estimates of another program."""
    return systems_folder(artifacts) / system / "scores.parquet"


def baselines_folder(artifacts: Path) -> Path:
    """The folder of all baselines; each has a folder in it."""
    return Path(artifacts) / "baselines"


def baseline_scores(artifacts: Path, baselines: str) -> Path:
    """The scores of the baselines that points are compared with."""
    return baselines_folder(artifacts) / baselines / "scores.parquet"
