"""Whether this machine can fetch the recordings of speech that Debian packages, asked once for a data directory."""

from __future__ import annotations

import re
import subprocess
import urllib.error
import urllib.request

from separation.experiment.config import Settings
from separation.files.atomic import write_json
from separation.planning.dataset_steps import RECORDINGS, unavailable

_SECONDS = 8


def reachable_packages(settings: Settings) -> str:
    """Why Debian's packages cannot be fetched now, "" where they can; the answer is kept for all jobs and later runs.

    Where the network is left out on purpose (offline), nothing is kept.
    """
    why = unavailable(settings)
    if settings.offline:
        return why
    if not why and not (settings.data / "downloads" / "debian").is_dir():
        why = _cause()
    write_json(settings.data / RECORDINGS, {"recordings": "synthetic" if why else "debian", "why": why})
    return why


def _cause() -> str:
    """Why the first package server of apt does not answer, or ""."""
    try:
        # what an update would ask for; nothing is fetched by this
        told = subprocess.run(
            ["apt-get", "--print-uris", "update"], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"apt-get does not work ({type(error).__name__})"
    addresses = re.findall(r"^'(https?://[^']+)'", told.stdout, flags=re.MULTILINE)
    if not addresses:
        return "apt knows no server"
    try:
        request = urllib.request.Request(addresses[0], method="HEAD")
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answers
    except (OSError, ValueError) as error:
        return f"apt's server does not answer ({getattr(error, 'reason', None) or error})"
