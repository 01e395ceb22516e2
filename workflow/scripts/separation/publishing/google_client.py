"""Talking to Google Sheets as a service account: bounded in time, and every refusal explained in one line."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gspread
import requests
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account
from gspread.auth import DEFAULT_SCOPES
from gspread.exceptions import APIError
from gspread.http_client import HTTPClient

from separation.errors import UserError

logger = logging.getLogger(__name__)

VARIABLE = "PATH_TO_GOOGLE_CREDENTIALS"
# another server in the place of Google's, such as a proxy of one's own: scheme, host and port
ENDPOINT_VARIABLE = "GOOGLE_API_URL"
PASSING = frozenset({429, 500, 502, 503, 504})  # what may be gone a moment later
_QUOTA_REASONS = ("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED")
_TIMEOUT = (5, 20)  # seconds to connect, and to wait for an answer


class _Credentials(service_account.Credentials):
    """A service account's credentials, without the background look-up of regions that an upload of one table can do
    without (it asks a server of its own, and outlives the job)."""

    def _is_regional_access_boundary_lookup_required(self) -> bool:
        return False


class BoundedClient(HTTPClient):
    """gspread's client, which asks again for a while where a refusal passes: a quota, a server's error, a lost
    connection.

    All requests made with it are safe to repeat: they read, or they set cells to values.

    Attributes:
        patience: seconds that attempts that failed and the waiting after them may take in all.
        calls: requests made so far, repeated ones too.
    """

    def __init__(self, auth: Any, session: Any = None):
        super().__init__(auth, session or AuthorizedSession(auth))
        self.set_timeout(_TIMEOUT)
        self.patience = 90.0
        self.calls = 0
        self._spent = 0.0
        self._endpoint = os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/")

    def request(self, method: str, endpoint: str, *arguments: Any, **options: Any) -> requests.Response:
        """As gspread's, with repetitions; raises what the last attempt raised."""
        if self._endpoint:
            parts = urlsplit(endpoint)
            endpoint = f"{self._endpoint}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        attempt = 0
        while True:
            self.calls += 1
            began = time.monotonic()
            try:
                return super().request(method, endpoint, *arguments, **options)
            except APIError as refusal:
                if not _passes(refusal):
                    raise
                asked = refusal.response.headers.get("Retry-After", "")
                wait = float(asked) if asked.isdigit() else _backoff(attempt)
                what = f"HTTP {refusal.response.status_code}"
                problem: Exception = refusal
            except (requests.ConnectionError, requests.Timeout, GoogleAuthError) as lost:
                if isinstance(lost, GoogleAuthError) and not (isinstance(lost, TransportError) or lost.retryable):
                    raise
                wait, what, problem = _backoff(attempt), type(lost).__name__, lost
            attempt += 1
            self._spent += time.monotonic() - began + wait
            if self._spent > self.patience:
                raise problem
            logger.info("Google Sheets: %s; trying again in %.1f s", what, wait)
            time.sleep(wait)


def _backoff(attempt: int) -> float:
    # Google counts requests by the minute; jitter keeps several uploads apart
    return min(2.0**attempt, 32.0) * random.uniform(0.5, 1.0)


def _passes(refusal: APIError) -> bool:
    status = refusal.response.status_code
    return status in PASSING or (status == 403 and any(reason in refusal.response.text for reason in _QUOTA_REASONS))


def connect(credentials: Path, patience: float) -> tuple[gspread.Client, str]:
    """A client for the service account of a credentials file, and the account's address.

    Raises:
        UserError: the file is missing or is not a service account's; nothing of its content is told.
    """
    try:
        content = json.loads(credentials.read_text(encoding="utf-8"))
        account = _Credentials.from_service_account_info(content, scopes=DEFAULT_SCOPES)
    except OSError as problem:
        raise UserError(f"cannot be read ({problem.strerror})", file=credentials, key=VARIABLE) from None
    except (ValueError, TypeError, KeyError, AttributeError, GoogleAuthError):
        raise UserError(
            "expected the JSON key file of a Google service account", file=credentials, key=VARIABLE
        ) from None
    client = gspread.Client(auth=account, http_client=BoundedClient)
    client.http_client.patience = patience
    return client, str(content["client_email"])


def explained(problem: Exception, *, spreadsheet: str, account: str) -> UserError:
    """What a refusal means for the user, in one line.

    Args:
        problem: what the client raised.
        spreadsheet: name or key of the spreadsheet.
        account: the service account's address.
    """
    place = f"spreadsheet {spreadsheet}"
    share = f"share it with {account} as an editor (Share, in the spreadsheet's window)"
    if isinstance(problem, RefreshError) and not problem.retryable:
        return UserError(f"Google does not accept the key of {account}; make a new one", key=VARIABLE)
    if isinstance(problem, APIError):
        status, message = problem.response.status_code, _message(problem.error)
        if status == 401:
            return UserError(f"Google does not accept the key of {account}: {message}", key=VARIABLE)
        if status == 403 and not _passes(problem):
            return UserError(f"{account} may not write to it: {message}; {share}", file=place)
        if status == 404:
            return UserError(f"{account} finds no such spreadsheet; check its name, and {share}", file=place)
        if _passes(problem):
            return UserError(
                f"Google refuses for too long (HTTP {status}: {message}); the table is in sheet.csv, and "
                "the upload can be repeated at any time",
                file=place,
            )
        return UserError(f"Google answers HTTP {status}: {message}", file=place)
    if isinstance(problem, (requests.RequestException, GoogleAuthError)):
        return UserError(
            f"Google Sheets cannot be reached ({type(problem).__name__}); the table is in sheet.csv, and the "
            "upload can be repeated at any time",
            file=place,
        )
    raise problem


def _message(error: Mapping[str, Any]) -> str:
    return str(error.get("message", ""))[:300]
