"""DICOMweb: asking (QIDO-RS), fetching object by object (WADO-RS) and storing (STOW-RS)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.dicom_header import tolerant
from medseg.imaging.dicom_net import SUCCESS, Peer, UnreachableError, lacking, named
from medseg.imaging.dicom_query import Find, SeriesFound
from medseg.imaging.dicom_store import Answer, Outgoing

if TYPE_CHECKING:
    from pydicom import Dataset

_PAGE = 500
_UID = re.compile(r"[0-9.]{1,64}")
_ANY_SYNTAX = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def asking_web(peer: Peer) -> Find:
    """QIDO-RS as the same kind of function that `dicom_query.asking` gives for C-FIND."""
    client = _client(peer)

    def find(level: str, wanted: Mapping[str, str]) -> list[Dataset]:
        from pydicom import Dataset

        given = {key: value for key, value in wanted.items() if value}
        fields = [key for key in wanted if key != "ModalitiesInStudy"]
        search = _search(client, level, given)
        with _plainly(), tolerant():
            return [Dataset.from_json(answer) for answer in _pages(search, given, fields)]

    return find


def _search(client: Any, level: str, given: dict[str, str]) -> Callable[..., list[Any]]:
    """The search of a level; UIDs of the levels above move from the filters into the address."""
    above = [
        given.pop(key) for key in ("StudyInstanceUID", "SeriesInstanceUID") if _is_above(key, level, given)
    ]
    searches = {
        "STUDY": client.search_for_studies,
        "SERIES": client.search_for_series,
        "IMAGE": client.search_for_instances,
    }
    return lambda **words: searches[level](*above, **words)


def _is_above(key: str, level: str, given: Mapping[str, str]) -> bool:
    levels = {"StudyInstanceUID": ("SERIES", "IMAGE"), "SeriesInstanceUID": ("IMAGE",)}
    return level in levels[key] and key in given


def _pages(search: Callable[..., list[Any]], given: Mapping[str, str], fields: list[str]) -> Iterator[Any]:
    """All answers, page by page. A server that ignores the offset says the same again: that ends it."""
    seen: set[str] = set()
    while True:
        page = search(search_filters=dict(given), fields=fields, limit=_PAGE, offset=len(seen))
        new = [answer for answer in page if repr(sorted(answer.items())) not in seen]
        seen |= {repr(sorted(answer.items())) for answer in new}
        yield from new
        if not new:  # a short page is no end: some servers give fewer than asked for
            return


def fetch_object(
    peer: Peer, series: SeriesFound, sop_uid: str, file: Path, max_object_mb: float, session: Any = None
) -> None:
    """Write one object to `file`, byte for byte as the archive sends it.

    Raises
    ------
    UnreachableError
        No answer, or the transfer was cut off.
    CaseError
        The object is larger than allowed, or a UID is none.
    MedsegError
        The archive refuses.
    """
    uids = (series.study_uid, series.series_uid, sop_uid)
    if not all(_UID.fullmatch(uid) for uid in uids):
        raise CaseError("the archive names an object by something that is no UID")
    address = "{}/studies/{}/series/{}/instances/{}".format(peer.web.url.rstrip("/"), *uids)
    session = session or open_session(peer)
    with (
        _plainly(),
        session.get(
            address, headers={"Accept": _ANY_SYNTAX}, stream=True, timeout=peer.timeout_seconds
        ) as answer,
    ):
        answer.raise_for_status()
        _write_body(answer, file, int(max_object_mb * 2**20))


def _write_body(answer: Any, file: Path, most: int) -> None:
    boundary = re.search(r'boundary="?([^";,]+)', answer.headers.get("Content-Type", ""))
    head, taken = bytearray(), 0
    with file.open("wb") as stream:
        for chunk in answer.iter_content(2**18):
            if head is not None and boundary:  # what stands before the part's own bytes
                head += chunk
                end = head.find(b"\r\n\r\n")
                if end < 0 and len(head) < 2**16:
                    continue
                chunk, head = bytes(head[end + 4 :]), None
            taken += len(chunk)
            if taken > most:
                raise CaseError("an object is larger than allowed", evidence=f"more than {most} bytes",
                                mend="raise pull.max_object_mb")  # fmt: skip
            stream.write(chunk)
    if boundary:
        _cut_at(file, b"\r\n--" + boundary[1].encode())


def _cut_at(file: Path, end: bytes) -> None:
    """Cut a part off where its closing line begins; without one the transfer was not whole."""
    size = file.stat().st_size
    with file.open("r+b") as stream:
        start = max(0, size - 4096)
        stream.seek(start)
        at = stream.read().rfind(end)
        if at < 0:
            raise UnreachableError("a transfer was cut off")
        stream.truncate(start + at)


def stow(peer: Peer, thing: Outgoing) -> Answer:
    """Store one file (STOW-RS).

    Raises
    ------
    UnreachableError
        No answer.
    MedsegError
        Access is refused.
    """
    from pydicom import dcmread
    from requests import HTTPError

    client = _client(peer)
    with tolerant():
        dataset = dcmread(thing.file, force=True)
        try:
            with _plainly(passing=(400, 409)):
                answer = client.store_instances([dataset])
        except HTTPError as error:
            answer = _refusal(error.response)
    return Answer(thing.file, *_stow_status(answer))


def _stow_status(answer: Dataset | None) -> tuple[int, str]:
    """The status of the one instance sent. The list of failures may be there and empty: its length counts."""
    if answer is None:
        return 0xC000, "refused without a reason"
    failed = answer.get("FailedSOPSequence") or []
    if len(failed):
        code = int(failed[0].get("FailureReason") or 0xC000)
        return code, named(code)
    stored = answer.get("ReferencedSOPSequence") or []
    warning = int(stored[0].get("WarningReason") or 0) if len(stored) else 0
    return (warning, named(warning)) if warning else (SUCCESS, named(SUCCESS))


def _refusal(response: Any) -> Dataset | None:
    from pydicom import Dataset

    try:
        content = response.json()
        return Dataset.from_json(content[0] if isinstance(content, list) else content)
    except Exception:  # a refusal in some other form: it says nothing we could read
        return None


def echo_web(peer: Peer) -> float:
    """Seconds that the smallest QIDO-RS question took."""
    start = time.perf_counter()
    client = _client(peer)
    with _plainly():
        client.search_for_studies(limit=1)
    return time.perf_counter() - start


def open_session(peer: Peer) -> Any:
    """An HTTP session with the token and the certificates of the settings.

    Raises
    ------
    MedsegError
        No address, requests is not installed, or the token's variable is not set.
    """
    try:
        import requests
    except ImportError as error:
        raise lacking("dicomweb-client") from error
    web = peer.web
    if not web.url:
        raise MedsegError("the settings name no DICOMweb service", mend="add pacs.web.url=https://...")
    session = requests.Session()
    session.auth = _finished(_token(web.token_variable))
    if web.tls:
        session.verify = web.tls.ca or True
        session.cert = (web.tls.certificate, web.tls.key) if web.tls.certificate else None
    return session


def _token(variable: str) -> str:
    if not variable:
        return ""
    token = os.environ.get(variable, "").strip()
    if not token:
        raise MedsegError(f"the environment variable {variable} holds no token", mend=f"set {variable}")
    return token if " " in token else f"Bearer {token}"


def _finished(token: str) -> Callable[[Any], Any]:
    """The last touch to a request: the token, and wildcards unescaped (Orthanc 1.10 does not decode them)."""

    def finish(request: Any) -> Any:
        request.url = request.url.replace("%2A", "*").replace("%3F", "?")
        if token:
            request.headers["Authorization"] = token
        return request

    return finish


def _client(peer: Peer) -> Any:
    try:
        from dicomweb_client import DICOMwebClient
    except ImportError as error:
        raise lacking("dicomweb-client") from error
    client = DICOMwebClient(peer.web.url, session=open_session(peer), timeout=peer.timeout_seconds)
    client.set_http_retry_params(retry=False)
    return client


@contextmanager
def _plainly(passing: tuple[int, ...] = ()) -> Iterator[None]:
    """Errors of the HTTP library as ours, without addresses: they hold UIDs and what was asked for."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        if code in passing:
            raise
        kind = UnreachableError if code >= 500 else MedsegError
        raise kind(
            "the archive refused the request", evidence=f"HTTP {code}", mend=_MENDS.get(code)
        ) from None
    except requests.RequestException as error:
        raise UnreachableError(
            "there is no connection to the DICOMweb service", evidence=type(error).__name__,
            mend="check pacs.web.url and pacs.web.tls",
        ) from None  # fmt: skip
    except ValueError as error:  # dicomweb-client on what is no UID or no JSON
        raise MedsegError(
            "the DICOMweb service cannot be understood", evidence=type(error).__name__
        ) from None


_MENDS = {
    401: "check the token in the variable of pacs.web.token_variable",
    403: "check that this account may read and write there",
    404: "check the path of pacs.web.url",
}
