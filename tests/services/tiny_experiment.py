"""Changes to the tiny experiment in a clone."""

from pathlib import Path

FOLDERS = ("DATA_DIRECTORY", "CACHE_DIRECTORY", "ARTIFACTS_DIRECTORY")
# mixing and filling the cache are one job each
ONE_SPLIT = [
    (f"  {split}: {{dataset: tiny_music}}", f"  {split}: {{dataset: tiny_music, split: train}}")
    for split in ("val", "test")
]


def edit(file: Path, *changes: tuple[str, str]) -> None:
    """Replaces parts of a file, each of which must be there."""
    text = file.read_text()
    for before, after in changes:
        assert before in text, f"{file}: no {before!r}"
        text = text.replace(before, after)
    file.write_text(text)
