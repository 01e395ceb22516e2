"""Recordings of speech from Debian packages, which are downloaded and unpacked but not installed."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from separation.errors import UserError
from separation.files.atomic import sha256_of
from separation.files.layout import debian_packages

logger = logging.getLogger(__name__)

_ASTERISK = "usr/share/asterisk/sounds"
_APT_SECONDS = 300


@dataclass(frozen=True)
class Package:
    """A Debian package with recordings.

    Attributes:
        name: Name of the package.
        folder: Folder of the recordings in the package.
        pattern: Regular expression of the recordings' relative paths.
        speakers: Regular expressions of the file names, by speaker.
        sha256: SHA-256 of the sorted lines `<SHA-256>  <relative path>` of all recordings, which does not depend on
            the build of the package.
        credit: Authors and licence.
    """

    name: str
    folder: str
    pattern: str
    speakers: dict[str, str]
    sha256: str
    credit: str


def _asterisk(language: str, speaker: str, sha256: str, credit: str) -> Package:
    return Package(
        f"asterisk-core-sounds-{language}-wav", _ASTERISK, r"^[^/]+/(?!silence/).*\.wav$", {speaker: ""}, sha256, credit
    )


PACKAGES = (
    _asterisk(
        "en", "allison_en", "809abec438200361857ef4096863195f7cbeff4f0c22699392911b44f26f0d10",
        "Allison Smith (http://www.theivrvoice.com), financial contributions by Digium, Inc.; "
        "(C) 2003-2010 Allison Smith; CC-BY-SA-3.0",
    ),
    _asterisk(
        "fr", "june_fr", "2791a40a4bbdb16c72d1c6fffbd8a6d8580f2bdac88032127863c004e8db816b",
        "June Wallack (http://www.junewallack.com), translated by Clod Patry, Kristopher Lalletti and June Wallack, "
        "financial contributions by Digium, Unlimitel and BGM Informatique; (C) 2006-2008 June Wallack; CC-BY-SA-3.0",
    ),
    _asterisk(
        "it", "carlo_it", "02ff465f244d4291b57acc1b72ea57646c6f8fc9e4ebe1e180ef8ef2473bf371",
        "Carlo Flora (http://www.carloflora.com, http://www.segreterietelefoniche.it), translated by Silvia Petrin; "
        "(C) 2012 Carlo Flora; CC-BY-3.0",
    ),
    _asterisk(
        "ru", "ivrvoice_ru", "6b8b4946c06403c1824ae9666c3a13d3099a6c0093a72e76de7422d13fb0a985",
        "a speaker of http://www.ivrvoice.ru, provided by Maxim Topal; (C) 2010 Maxim; CC-BY-3.0",
    ),
    Package(
        "fillets-ng-data-cs", "usr/share/games/fillets-ng/sound", r"-[mv]-[^-/]*\.ogg$",
        # the small and the big fish of the game
        {"fish_small_cs": r"-m-[^-/]*$", "fish_big_cs": r"-v-[^-/]*$"},
        "69e975cf5bb42928c4a8b3a9e3c9bcc97767d1846bb411b030161efff6d6a7ed",
        "ALTAR interactive, Ivo Danihelka, Pavel Danihelka and others (http://fillets.sourceforge.net); "
        "GNU General Public License, version 2",
    ),
)  # fmt: skip
LICENCES = {
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "GPL-2": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
}


def recordings_of_packages(downloads: Path, *, offline: bool) -> dict[str, list[tuple[str, Path]]]:
    """The recordings of each speaker; missing packages are downloaded.

    Args:
        downloads: Folder of downloads; its folder `debian` has the unpacked packages.
        offline: Whether downloads are forbidden.

    Returns:
        (name, path) of each recording by speaker, sorted by name.

    Raises:
        UserError: A package is missing and cannot be downloaded, or the checksum of its recordings does not match.
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for package in PACKAGES:
        folder = debian_packages(downloads) / package.name
        if not folder.is_dir():
            _fetch(package, folder, offline)
        files = _files(package, folder)
        if _digest(files) != package.sha256:
            raise UserError(
                f"checksum mismatch of the recordings in the Debian package {package.name}; delete this folder to "
                "fetch them again, or set source.args.recordings: synthetic in the recipe",
                file=folder,
            )
        for speaker, pattern in package.speakers.items():
            recordings = {name: path for name, path in files.items() if re.search(pattern, name)}
            found[speaker] = [(re.sub(r"\W+", "_", name.rpartition(".")[0]), path) for name, path in recordings.items()]
    return found


def attribution_of_packages() -> str:
    """Speakers and licences of the recordings."""
    credits = "\n".join(f"    {package.name}: {package.credit}" for package in PACKAGES)
    licences = "\n".join(f"    {name}: {address}" for name, address in LICENCES.items())
    return (
        "The recordings in this folder come from packages of Debian, unchanged but for their format:\n\n"
        f"{credits}\n\nLicences:\n\n{licences}\n\n"
        "The copyright file of each package lies in downloads/debian/<package>/usr/share/doc of the data directory.\n"
        "Mixtures of these recordings are adaptations of them: whoever passes them on does so under these licences.\n"
    )


def _files(package: Package, folder: Path) -> dict[str, Path]:
    root = folder / package.folder
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {name: root / name for name in names if re.search(package.pattern, name)}


def _digest(files: dict[str, Path]) -> str:
    lines = hashlib.sha256()
    for name, path in files.items():
        lines.update(f"{sha256_of(path)}  {name}\n".encode())
    return lines.hexdigest()


def _fetch(package: Package, folder: Path, offline: bool) -> None:
    """Downloads and unpacks a package into a new folder, which appears only when complete."""
    remedy = (
        f"unpack the Debian package {package.name} there (dpkg-deb -x), or set "
        "source.args.recordings: synthetic in the recipe"
    )
    if offline:
        raise UserError(f"missing, and offline is set; {remedy}", file=folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{package.name}.", dir=folder.parent) as temporary:
        work = Path(temporary)
        try:
            (archive,) = _download(package.name, work)
            _run(["dpkg-deb", "-x", archive.name, "unpacked"], work)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise UserError(f"cannot be fetched: {_cause(error)}; {remedy}", file=folder) from None
        if not folder.exists():
            os.replace(work / "unpacked", folder)
    logger.info("fetched the Debian package %s", package.name)


def _download(name: str, work: Path) -> list[Path]:
    """Downloads a package with apt.

    Container images often lack apt's package lists. They are then updated in a private folder, without root.
    """
    try:
        _run(["apt-get", "download", name], work)
    except subprocess.SubprocessError:
        state, cache = work / "state", work / "cache"
        (state / "lists" / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
        private = ["-o", f"Dir::State::lists={state / 'lists'}", "-o", f"Dir::Cache={cache}"]
        _run(["apt-get", *private, "update"], work)
        _run(["apt-get", *private, "download", name], work)
    return list(work.glob("*.deb"))


def _run(command: list[str], folder: Path) -> None:
    if not shutil.which(command[0]):
        raise FileNotFoundError(f"{command[0]} is not installed")
    # apt verifies the package by Debian's signed index
    limits = ["-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=20"] if command[0] == "apt-get" else []
    subprocess.run(
        [command[0], *limits, *command[1:]],
        cwd=folder, check=True, capture_output=True, text=True, timeout=_APT_SECONDS,
    )  # fmt: skip


def _cause(error: Exception) -> str:
    lines = [line for line in (getattr(error, "stderr", None) or "").splitlines() if line.startswith("E:")]
    return " ".join(lines) or str(error)
