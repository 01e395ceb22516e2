"""Google Sheets client for a service account: bounded retries, and one-line explanations of errors."""

from __future__ import annotations

import json
import logging
import os
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
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random_exponential

from separation.errors import UserError

logger = logging.getLogger(__name__)

VARIABLE = "PATH_TO_GOOGLE_CREDENTIALS"
# scheme, host and port of a server to use instead of Google's, such as a proxy
ENDPOINT_VARIABLE = "GOOGLE_API_URL"
TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})
_QUOTA_REASONS = ("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED")
_TIMEOUT = (5, 20)  # seconds to connect, and to wait for a response
# 1, 2, 4 ... 32 s times a random factor of 0.5 to 1: Google counts requests by the minute, and jitter keeps several
# uploads apart
_BACKOFF = wait_exponential(multiplier=0.5, max=16) + wait_random_exponential(multiplier=0.5, max=16)


class _Credentials(service_account.Credentials):
    """A service account's credentials without the background look-up of regions, which calls another server and
    outlives the job."""

    def _is_regional_access_boundary_lookup_required(self) -> bool:
        return False


class RetryingClient(HTTPClient):
    """gspread's client, which retries transient errors: quotas, server errors, lost connections.

    Every request it makes is safe to repeat: it reads, or it sets cells to values.

    Attributes:
        patience: Longest total time of failed attempts and the waits after them, in seconds.
        calls: Number of requests so far, including retries.
    """

    def __init__(self, auth: Any, session: Any = None):
        super().__init__(auth, session or AuthorizedSession(auth))
        self.set_timeout(_TIMEOUT)
        self.patience = 90.0
        self.calls = 0
        self._spent = self._attempt_started = 0.0
        self._endpoint = os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/")

    def request(self, method: str, endpoint: str, *arguments: Any, **options: Any) -> requests.Response:
        """gspread's request, with retries; raises the last attempt's exception."""
        if self._endpoint:
            parts = urlsplit(endpoint)
            endpoint = f"{self._endpoint}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        retrying = Retrying(
            retry=retry_if_exception(_is_transient),
            wait=_wait_seconds,
            stop=self._is_out_of_patience,
            before=self._start_attempt,
            before_sleep=_log_retry,
            reraise=True,
        )
        return retrying(super().request, method, endpoint, *arguments, **options)

    def _start_attempt(self, _: RetryCallState) -> None:
        self.calls += 1
        self._attempt_started = time.monotonic()

    def _is_out_of_patience(self, state: RetryCallState) -> bool:
        # the budget is shared by all requests of an upload, so that a slow server cannot hold up a job at each of them
        self._spent += time.monotonic() - self._attempt_started + state.upcoming_sleep
        return self._spent > self.patience


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, APIError):
        return _is_transient_response(error)
    if isinstance(error, GoogleAuthError):
        return isinstance(error, TransportError) or error.retryable
    return isinstance(error, (requests.ConnectionError, requests.Timeout))


def _is_transient_response(error: APIError) -> bool:
    status = error.response.status_code
    over_quota = status == 403 and any(reason in error.response.text for reason in _QUOTA_REASONS)
    return status in TRANSIENT_STATUSES or over_quota


def _wait_seconds(state: RetryCallState) -> float:
    error = state.outcome.exception()
    requested = error.response.headers.get("Retry-After", "") if isinstance(error, APIError) else ""
    return float(requested) if requested.isdigit() else _BACKOFF(state)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception()
    cause = f"HTTP {error.response.status_code}" if isinstance(error, APIError) else type(error).__name__
    logger.info("Google Sheets: %s; retrying in %.1f s", cause, state.upcoming_sleep)


def connect(credentials: Path, patience: float) -> tuple[gspread.Client, str]:
    """A client for the service account of a credentials file, and the account's address.

    Raises:
        UserError: The file is missing or is not a service account's; the message quotes none of its content.
    """
    try:
        content = json.loads(credentials.read_text(encoding="utf-8"))
        account = _Credentials.from_service_account_info(content, scopes=DEFAULT_SCOPES)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=credentials, key=VARIABLE) from None
    except (ValueError, TypeError, KeyError, AttributeError, GoogleAuthError):
        raise UserError(
            "expected the JSON key file of a Google service account", file=credentials, key=VARIABLE
        ) from None
    client = gspread.Client(auth=account, http_client=RetryingClient)
    client.http_client.patience = patience
    return client, str(content["client_email"])


def explain(error: Exception, *, spreadsheet: str, account: str) -> UserError:
    """The meaning of an error for the user, in one line.

    Args:
        error: Exception raised by the client; one that is not Google's is raised again.
        spreadsheet: Name or key of the spreadsheet.
        account: Address of the service account.
    """
    subject = f"spreadsheet {spreadsheet}"
    share = f"share it with {account} as an editor (Share, in the spreadsheet's window)"
    retry_later = "the table is in sheet.csv, and the upload can be repeated at any time"
    if isinstance(error, RefreshError) and not error.retryable:
        return UserError(f"Google does not accept the key of {account}; create a new one", key=VARIABLE)
    if isinstance(error, APIError):
        status, message = error.response.status_code, _message(error.error)
        if status == 401:
            return UserError(f"Google does not accept the key of {account}: {message}", key=VARIABLE)
        if status == 403 and not _is_transient_response(error):
            return UserError(f"{account} has no edit permission: {message}; {share}", file=subject)
        if status == 404:
            return UserError(f"not found by {account}; check its name, and {share}", file=subject)
        if _is_transient_response(error):
            return UserError(f"Google still rejects requests (HTTP {status}: {message}); {retry_later}", file=subject)
        return UserError(f"Google answered HTTP {status}: {message}", file=subject)
    if isinstance(error, (requests.RequestException, GoogleAuthError)):
        return UserError(f"Google Sheets cannot be reached ({type(error).__name__}); {retry_later}", file=subject)
    raise error


def _message(error: Mapping[str, Any]) -> str:
    return str(error.get("message", ""))[:300]
