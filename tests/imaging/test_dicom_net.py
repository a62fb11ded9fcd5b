"""Associations with a real archive, and what a hostile or clumsy other end can and cannot do to us."""

from __future__ import annotations

import contextlib
import http.server
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (pip install 'medseg[pacs]')")

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging import dicom_fetch, dicom_net, dicom_query, dicom_store, dicom_web
from medseg.imaging.dicom_door import Gate
from medseg.imaging.dicom_net import Peer, UnreachableError, Web
from medseg.imaging.dicom_query import SeriesFound
from medseg.imaging.dicom_receive import NO_ROOM, Arrival, receiving
from medseg.imaging.dicom_store import Answer, Outgoing
from medseg.imaging.dicom_tls import Tls, client_context, server_context
from tests.pacs_server import AE, OURS, Archive, dcmtk, free_port, orthanc


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="module")
def files(tiny_dicom: Path) -> list[Path]:
    return sorted((tiny_dicom / "patient001").rglob("*.dcm"))


def peer_of(archive: Archive, **more: object) -> Peer:
    web = Web(url=f"http://127.0.0.1:{archive.http}/dicom-web")
    return Peer(host="127.0.0.1", port=archive.port, called_ae=AE, timeout_seconds=10, tries=1, web=web).but(
        **more
    )


def things(files: list[Path]) -> list[Outgoing]:
    return [thing for file in files if (thing := dicom_store.outgoing(file))]


@pytest.fixture
def filled(archive: Archive, files: list[Path]) -> Archive:
    """The archive with one patient in it, brought in by its own interface."""
    archive.clear()
    archive.put(files)
    return archive


def gate(**more: object) -> Gate:
    return Gate(host="127.0.0.1", port=0, callers=("SENDER",), peers=("127.0.0.1",), timeout_seconds=5).but(
        **more
    )


class Shelf:
    """Takes objects and remembers them."""

    def __init__(self, status: int = 0) -> None:
        self.arrivals: list[Arrival] = []
        self.sizes: list[int] = []
        self.ended: list[object] = []
        self.status = status

    def take(self, arrival: Arrival, association: object) -> int:
        self.arrivals.append(arrival)
        self.sizes.append(arrival.file.stat().st_size)
        return self.status

    def over(self, association: object) -> None:
        self.ended.append(association)


# asking, fetching, sending


def test_echo_answers_and_a_wrong_name_is_refused_with_the_reason(archive: Archive) -> None:
    assert dicom_net.echo(peer_of(archive)) < 10
    with pytest.raises(UnreachableError, match="Called AE title not recognised"):
        dicom_net.echo(peer_of(archive, called_ae="SOMEONE"))
    with pytest.raises(UnreachableError, match="no connection"):
        dicom_net.echo(peer_of(archive, port=free_port()))


def test_find_and_qido_tell_the_same_series_with_the_same_counts(filled: Archive, files: list[Path]) -> None:
    peer = peer_of(filled)
    by_find = dicom_query.find_series(dicom_query.asking(peer), {"PatientID": "PHANTOM*"})
    by_qido = dicom_query.find_series(dicom_web.asking_web(peer), {"PatientID": "PHANTOM*"})
    assert by_find == by_qido
    assert {s.modality: s.instances for s in by_find} == {"CT": len(files) - 1, "SEG": 1}
    for find in (dicom_query.asking(peer), dicom_web.asking_web(peer)):
        (ct,) = dicom_query.find_series(find, {"PatientID": "PHANTOM*", "Modality": "CT"})
        objects = dicom_query.objects_of(find, ct)
        assert set(objects.values()) == {"1.2.840.10008.5.1.4.1.1.2"}
        assert len(objects) == len(files) - 1


@pytest.mark.parametrize("more", [
    {"PatientID": "NOBODY"}, {"StudyDate": "19000101-19000102"}, {"Modality": "MR"},
    {"SeriesDescription": "nothing"},
])  # fmt: skip
def test_what_does_not_match_is_not_found(filled: Archive, more: dict[str, str]) -> None:
    query = {"PatientID": "PHANTOM*", **more}
    assert dicom_query.find_series(dicom_query.asking(peer_of(filled)), query) == []
    assert dicom_query.find_series(dicom_web.asking_web(peer_of(filled)), query) == []


def test_an_archive_that_ignores_a_key_hands_out_no_more_than_was_asked_for() -> None:
    from pydicom import Dataset

    def find(level: str, wanted: object) -> list[Dataset]:
        answers = []
        for number in ("1", "2"):
            answer = Dataset()
            answer.PatientID, answer.StudyInstanceUID = number, f"1.{number}"
            answer.SeriesInstanceUID, answer.Modality = f"1.{number}.1", "CT"
            answers.append(answer)
        return answers

    found = dicom_query.find_series(find, {"PatientID": "2"})
    assert {s.study_uid for s in found} == {"1.2"}
    assert dicom_query.find_series(find, {"PatientID": "2", "SeriesDescription": "liver"}) == []


@pytest.mark.parametrize(
    ("query", "says"),
    [({}, "whole archive"), ({"Modality": "CT"}, "whole archive"), ({"PatientID": "*"}, "whole archive"),
     ({"PatientId": "1"}, "did you mean 'PatientID'")],
)  # fmt: skip
def test_a_query_that_is_none_is_refused(query: dict[str, str], says: str) -> None:
    with pytest.raises(MedsegError, match=says):
        dicom_query.check_query(query)


def the_ct(archive: Archive) -> SeriesFound:
    query = {"PatientID": "PHANTOM*", "Modality": "CT"}
    (series,) = dicom_query.find_series(dicom_query.asking(peer_of(archive)), query)
    return series


def test_get_and_move_bring_every_object_and_single_ones(
    filled: Archive, files: list[Path], tmp_path: Path
) -> None:
    series, peer = the_ct(filled), peer_of(filled)
    objects = dicom_query.objects_of(dicom_query.asking(peer), series)
    classes, some = sorted(set(objects.values())), sorted(objects)[:3]
    moving = Gate(host="127.0.0.1", port=filled.move_port, callers=(AE,), peers=("127.0.0.1",))
    for only, expected in (((), set(objects)), (some, set(some))):
        got, moved = Shelf(), Shelf()
        dicom_fetch.get_objects(peer, series, classes, only, got.take, inbox=tmp_path, max_object_mb=10)
        dicom_fetch.move_objects(peer, series, only, moved.take, inbox=tmp_path, gate=moving)
        for shelf in (got, moved):
            assert {a.sop_uid for a in shelf.arrivals} == expected
            assert all(a.is_image and a.series_uid == series.series_uid for a in shelf.arrivals)
    assert list(tmp_path.iterdir()) == []


def test_get_needs_no_classes_from_the_archive(filled: Archive, files: list[Path], tmp_path: Path) -> None:
    got = Shelf()
    dicom_fetch.get_objects(
        peer_of(filled), the_ct(filled), (), (), got.take, inbox=tmp_path, max_object_mb=10
    )
    assert len(got.arrivals) == len(files) - 1


def test_compressed_objects_come_and_go_in_the_syntax_they_have(
    archive: Archive, shared_data: Path, tmp_path: Path
) -> None:
    from pydicom import dcmread

    found = {}
    for file in sorted((shared_data / "dicom").rglob("*")):
        thing = dicom_store.outgoing(file) if file.is_file() and file.stat().st_size < 2e6 else None
        if thing and thing.whole and ".4." in thing.syntax[15:]:
            found.setdefault(thing.syntax, thing)
    if len(found) < 2:
        pytest.skip("no compressed objects in the shared data")
    archive.clear()
    answers: list[Answer] = []
    dicom_store.send(peer_of(archive), list(found.values()), answers.append)
    taken = [answer.file for answer in answers if answer.stored]
    assert len(taken) >= 2
    find = dicom_query.asking(peer_of(archive))
    for file in taken:
        head = dcmread(file, stop_before_pixels=True)
        series = SeriesFound(str(head.StudyInstanceUID), str(head.SeriesInstanceUID), "", None)
        uid = str(head.SOPInstanceUID)
        classes = sorted(set(dicom_query.objects_of(find, series).values()))
        dicom_fetch.get_objects(
            peer_of(archive), series, classes, [uid], _copying(tmp_path / "got.dcm"), inbox=tmp_path / "in",
            max_object_mb=10,
        )  # fmt: skip
        dicom_web.fetch_object(peer_of(archive), series, uid, tmp_path / "web.dcm", 10)
        for name in ("got.dcm", "web.dcm"):
            came = dcmread(tmp_path / name)
            assert came.file_meta.TransferSyntaxUID == head.file_meta.TransferSyntaxUID
            assert came.PixelData == dcmread(file).PixelData


def _copying(target: Path) -> dicom_fetch.Take:
    def take(arrival: Arrival, association: object) -> int:
        target.write_bytes(arrival.file.read_bytes())
        return 0

    return take


def test_each_sent_file_has_its_answer(archive: Archive, files: list[Path], tmp_path: Path) -> None:
    archive.clear()
    answers: list[Answer] = []
    dicom_store.send(peer_of(archive), things(files), answers.append)
    assert [answer.file for answer in answers] == files
    assert all(answer.stored and answer.said == "0x0000 (success)" for answer in answers)
    assert len(archive.instances()) == len(files)


def test_stow_tells_stored_from_refused_although_the_list_of_failures_is_always_there(
    archive: Archive, files: list[Path], tmp_path: Path
) -> None:
    from pydicom import Dataset

    archive.clear()
    assert dicom_web.stow(peer_of(archive), things(files)[0]).stored
    assert len(archive.instances()) == 1
    answer = Dataset()
    answer.FailedSOPSequence, answer.ReferencedSOPSequence = [], [Dataset()]
    assert dicom_web._stow_status(answer) == (0, "0x0000 (success)")
    failure = Dataset()
    failure.FailureReason = 0xA700
    answer.FailedSOPSequence = [failure]
    assert dicom_web._stow_status(answer) == (0xA700, "0xA700 (out of resources)")
    with answering(409, answer.to_json().encode()) as url:
        said = dicom_web.stow(peer_of(archive, web=Web(url=url)), things(files)[0])
    assert (said.stored, said.said) == (False, "0xA700 (out of resources)")
    with answering(409, b"no") as url:
        assert not dicom_web.stow(peer_of(archive, web=Web(url=url)), things(files)[0]).stored


@contextlib.contextmanager
def answering(code: int, body: bytes, kind: str = "application/dicom+json") -> Iterator[str]:
    """A web server that gives one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_transfer_that_was_cut_off_is_no_object(archive: Archive, tmp_path: Path) -> None:
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + b"x" * 5000
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    series = SeriesFound("1.2", "1.3", "CT", 1)
    with answering(200, part, kind) as url, pytest.raises(UnreachableError, match="cut off"):
        dicom_web.fetch_object(peer_of(archive, web=Web(url=url)), series, "1.4", tmp_path / "x", 1)
    with answering(200, part + b"\r\n--b--\r\n", kind) as url:
        dicom_web.fetch_object(peer_of(archive, web=Web(url=url)), series, "1.4", tmp_path / "x", 1)
    assert (tmp_path / "x").read_bytes() == b"x" * 5000


def test_a_file_without_header_is_sent_all_the_same_and_what_is_none_is_known(
    archive: Archive, files: list[Path], tmp_path: Path
) -> None:
    from pydicom import dcmread

    bare = dcmread(files[0])
    del bare.file_meta
    bare.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True, enforce_file_format=False)
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    assert dicom_store.outgoing(tmp_path / "junk") is None
    archive.clear()
    answers: list[Answer] = []
    dicom_store.send(peer_of(archive), things([tmp_path / "bare"]), answers.append)
    assert [answer.said for answer in answers] == ["0x0000 (success)"]


def test_more_kinds_than_one_association_can_name_are_split() -> None:
    many = [Outgoing(Path("x"), f"1.2.{n}", "1", "1.2.840.10008.1.2.1", True) for n in range(150)]
    parts = list(dicom_store.groups(many))
    assert [thing for part in parts for thing in part] == many
    assert all(len(dicom_store._contexts(part)) <= 128 for part in parts)


def test_a_web_service_without_its_token_or_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACS_TOKEN", raising=False)
    with pytest.raises(MedsegError, match="PACS_TOKEN"):
        dicom_web.open_session(Peer(web=Web(url="http://127.0.0.1:1", token_variable="PACS_TOKEN")))
    with pytest.raises(MedsegError, match="no DICOMweb service"):
        dicom_web.open_session(Peer())
    monkeypatch.setenv("PACS_TOKEN", "secret")
    session = dicom_web.open_session(Peer(web=Web(url="http://127.0.0.1:1", token_variable="PACS_TOKEN")))
    import requests

    request = session.prepare_request(requests.Request("GET", "http://127.0.0.1:1/studies?PatientID=A%2A"))
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.url == "http://127.0.0.1:1/studies?PatientID=A*"


def test_errors_of_the_web_name_no_address(archive: Archive) -> None:
    peer = peer_of(archive)
    series = SeriesFound("1.2.3.4711", "1.2.3.4712", "CT", 1)
    with pytest.raises(MedsegError, match="HTTP 404") as caught:
        dicom_web.fetch_object(peer, series, "1.2.3.4713", archive.folder / "x", 1)
    assert "4711" not in str(caught.value)
    nowhere = peer.but(web=Web(url=f"http://127.0.0.1:{free_port()}/4711"))
    with pytest.raises(UnreachableError, match="no connection") as caught:
        dicom_web.asking_web(nowhere)("STUDY", {"PatientID": "4711"})
    assert "4711" not in str(caught.value)


def test_a_web_object_that_is_too_large_or_no_uid_is_refused(filled: Archive, tmp_path: Path) -> None:
    series = the_ct(filled)
    uid = sorted(dicom_query.objects_of(dicom_query.asking(peer_of(filled)), series))[0]
    with pytest.raises(CaseError, match="larger than allowed"):
        dicom_web.fetch_object(peer_of(filled), series, uid, tmp_path / "x", 0.0001)
    with pytest.raises(CaseError, match="no UID"):
        dicom_web.fetch_object(peer_of(filled), series, "../../system", tmp_path / "x", 1)


@pytest.mark.parametrize(
    ("more", "limit"), [(0, 0.0005), (2_000_000, 0.5)], ids=["one packet", "many packets"]
)
def test_a_get_object_that_is_too_large_is_named(
    more: int, limit: float, archive: Archive, files: list[Path], tmp_path: Path
) -> None:
    from pydicom import dcmread

    archive.clear()
    large = dcmread(files[0])
    large.add_new(0x00091001, "OB", b"\0" * more)
    large.save_as(tmp_path / "large.dcm")
    archive.put([tmp_path / "large.dcm"])
    shelf, inbox = Shelf(), tmp_path / "inbox"
    with pytest.raises(CaseError, match="larger than allowed"):
        dicom_fetch.get_objects(
            peer_of(archive), the_ct(archive), (), (), shelf.take, inbox=inbox, max_object_mb=limit
        )
    assert shelf.arrivals == []
    until_empty(inbox)


def until_empty(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(folder.iterdir()) == []


# receiving


def storescu(port: int, files: list[Path], *more: str) -> subprocess.CompletedProcess[str]:
    words = [
        dcmtk("storescu"),
        "-aet",
        "SENDER",
        "-aec",
        OURS,
        *more,
        "127.0.0.1",
        str(port),
        *map(str, files),
    ]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)


def test_dcmtk_sends_and_echoes_and_may_not_ask(files: list[Path], tmp_path: Path) -> None:
    shelf = Shelf()
    ct = [file for file in files if file.parent.name == "ct"]
    with receiving(gate(), tmp_path, shelf.take, shelf.over) as port:
        assert storescu(port, ct).returncode == 0
        echo = [dcmtk("echoscu"), "-aet", "SENDER", "-aec", OURS, "127.0.0.1", str(port)]
        assert subprocess.run(echo, capture_output=True, check=False, timeout=30).returncode == 0
        find = [
            dcmtk("findscu"),
            "-S",
            "-aet",
            "SENDER",
            "-aec",
            OURS,
            "-k",
            "PatientID",
            "127.0.0.1",
            str(port),
        ]
        asked = subprocess.run(find, capture_output=True, text=True, check=False, timeout=30)
        assert asked.returncode != 0
        assert "No Acceptable Presentation Contexts" in asked.stdout + asked.stderr
        deadline = time.monotonic() + 10
        while len(shelf.ended) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len({arrival.sop_uid for arrival in shelf.arrivals}) == len(ct)
    assert len(shelf.ended) == 3 and getattr(shelf.ended[0], "was_released", False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("closed", "words"),
    [({"callers": ("OTHER",)}, ()), ({}, ("-aec", "WRONG")), ({"peers": ("10.0.0.0/8",)}, ())],
    ids=["caller", "called", "address"],
)
def test_who_is_not_on_the_list_is_refused(
    closed: dict[str, object], words: tuple[str, ...], files: list[Path], tmp_path: Path
) -> None:
    shelf = Shelf()
    with receiving(gate(**closed), tmp_path, shelf.take) as port:
        assert storescu(port, files[:1], *words).returncode != 0
    assert shelf.arrivals == []


@pytest.mark.parametrize("lists", [{"callers": ()}, {"peers": ()}, {"peers": ("pacs.example",)}])
def test_a_gate_without_lists_is_not_opened(lists: dict[str, object], tmp_path: Path) -> None:
    with (
        pytest.raises(MedsegError, match=r"list of|neither an address"),
        receiving(gate(**lists), tmp_path, Shelf().take),
    ):
        pass


def test_an_object_over_the_limit_ends_its_association_and_leaves_nothing(
    files: list[Path], tmp_path: Path
) -> None:
    from pydicom import dcmread

    big = dcmread(files[0])
    big.add_new(0x00091001, "OB", b"\0" * 2_000_000)
    big.save_as(tmp_path / "big.dcm")
    shelf = Shelf()
    with receiving(gate(max_object_mb=1), tmp_path / "inbox", shelf.take, shelf.over) as port:
        assert storescu(port, [tmp_path / "big.dcm"]).returncode != 0
        assert storescu(port, files[:1]).returncode == 0
        assert list((tmp_path / "inbox").iterdir()) == []
    assert len(shelf.arrivals) == 1


def test_a_refusal_is_told_to_the_sender(files: list[Path], tmp_path: Path) -> None:
    with receiving(gate(), tmp_path, Shelf(NO_ROOM).take) as port:
        said = storescu(port, files[:1], "-v")
    assert "OutOfResources" in said.stdout + said.stderr


def test_an_object_cut_off_on_its_way_is_never_handed_over(files: list[Path], tmp_path: Path) -> None:
    """A sender that vanishes in the middle of an object."""
    import pynetdicom

    shelf = Shelf()
    with receiving(gate(), tmp_path, shelf.take, shelf.over) as port:
        entity = pynetdicom.AE("SENDER")
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
        made = entity.associate("127.0.0.1", port, ae_title=OURS)
        assert made.is_established
        connection = made.dul.socket.socket
        command = _store_command("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4")
        connection.sendall(_pdv(made.accepted_contexts[0].context_id, 3, command))
        connection.sendall(_pdv(made.accepted_contexts[0].context_id, 0, files[0].read_bytes()[500:900]))
        deadline = time.monotonic() + 10
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(list(tmp_path.iterdir())) == 1
        connection.shutdown(socket.SHUT_RDWR)
        while (list(tmp_path.iterdir()) or not shelf.ended) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert list(tmp_path.iterdir()) == []
        made.kill()
        connection.close()
    assert shelf.arrivals == [] and not getattr(shelf.ended[0], "was_released", False)


def _store_command(sop_class: str, sop_uid: str) -> bytes:
    from pydicom import Dataset
    from pynetdicom.dsutils import encode

    command = Dataset()
    command.CommandGroupLength, command.AffectedSOPClassUID, command.CommandField = 0, sop_class, 1
    command.MessageID, command.Priority, command.CommandDataSetType = 1, 0, 0
    command.AffectedSOPInstanceUID = sop_uid
    body = encode(command, True, True)
    assert body is not None
    command.CommandGroupLength = len(body) - 12
    return encode(command, True, True) or b""


def _pdv(context: int, control: int, data: bytes) -> bytes:
    import struct

    item = struct.pack(">IBB", len(data) + 2, context, control) + data
    return struct.pack(">BBI", 4, 0, len(item)) + item


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 64,
        b"\x01\x00\xff\xff\xff\xff" + b"A" * 4096,
        b"\x04\x00\x00\x00\x00\x06" * 9,
    ],
    ids=["http", "zeros", "four gigabytes", "data before an association"],
)
def test_junk_on_the_port_leaves_the_server_serving(junk: bytes, files: list[Path], tmp_path: Path) -> None:
    shelf = Shelf()
    with receiving(gate(), tmp_path, shelf.take) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
            wire.sendall(junk)
            wire.settimeout(0.3)
            with contextlib.suppress(ConnectionResetError, TimeoutError):
                while wire.recv(4096):
                    pass
        assert storescu(port, files[:1]).returncode == 0
    assert len(shelf.arrivals) == 1


def test_a_silent_guest_at_the_tls_door_holds_nobody_up(files: list[Path], tmp_path: Path) -> None:
    tls = certificates(tmp_path)
    shelf = Shelf()
    with (
        receiving(gate(tls=tls.but(ca="")), tmp_path / "in", shelf.take) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5),
    ):
        assert storescu(port, files[:1], "+tla", "-ic").returncode == 0
    assert len(shelf.arrivals) == 1


def test_an_object_that_does_not_say_what_it_is_is_refused(files: list[Path], tmp_path: Path) -> None:
    from pydicom import dcmread

    nameless = dcmread(files[0])
    nameless.StudyInstanceUID = ""
    nameless.save_as(tmp_path / "nameless.dcm")
    shelf = Shelf()
    with receiving(gate(), tmp_path / "in", shelf.take) as port:
        said = storescu(port, [tmp_path / "nameless.dcm"], "-v")
    assert shelf.arrivals == []
    assert "CannotUnderstand" in said.stdout + said.stderr


# TLS


def certificates(folder: Path) -> Tls:
    """A self-signed certificate for 127.0.0.1, which vouches for itself."""
    pytest.importorskip("cryptography", reason="cryptography is not installed: no certificate can be made")
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([address]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    (folder / "own.crt").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "own.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return Tls(ca=str(folder / "own.crt"), certificate=str(folder / "own.crt"), key=str(folder / "own.key"))


def test_tls_on_both_sides_with_both_certificates_checked(files: list[Path], tmp_path: Path) -> None:
    tls = certificates(tmp_path)
    shelf = Shelf()
    with receiving(gate(tls=tls), tmp_path / "in", shelf.take) as port:
        ours = Peer(
            host="127.0.0.1",
            port=port,
            called_ae=OURS,
            ae_title="SENDER",
            timeout_seconds=5,
            tries=1,
            tls=tls,
        )
        answers: list[Answer] = []
        dicom_store.send(ours, things(files[:2]), answers.append)
        assert [answer.stored for answer in answers] == [True, True]
        assert dicom_net.echo(ours) < 10
        for bad in (None, tls.but(certificate="", key=""), tls.but(ca="")):
            with pytest.raises(UnreachableError):
                dicom_net.echo(ours.but(tls=bad))
    assert len(shelf.arrivals) == 2


def test_a_certificate_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    with pytest.raises(MedsegError, match="cannot be read"):
        client_context(Tls(ca=str(tmp_path / "x.pem")))
    with pytest.raises(MedsegError, match="without a certificate"):
        server_context(Tls())


# manners


def test_nothing_that_identifies_is_logged(
    filled: Archive, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with dicom_net.silently():
        (ct,) = dicom_query.find_series(
            dicom_web.asking_web(peer_of(filled)), {"PatientID": "PHANTOM*", "Modality": "CT"}
        )
        dicom_fetch.get_objects(peer_of(filled), ct, (), (), Shelf().take, inbox=tmp_path, max_object_mb=10)
    assert not [record for record in caplog.records if record.name.startswith(dicom_net._TALKERS)]
    assert "PHANTOM" not in caplog.text and ct.study_uid not in caplog.text
    assert ct.study_uid not in repr(ct)


def test_without_the_extra_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pynetdicom", "dicomweb_client"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MedsegError, match="pip install 'medseg"):
        dicom_net.echo(Peer(host="127.0.0.1"))
    with pytest.raises(MedsegError, match="pip install 'medseg"):
        dicom_web.echo_web(Peer(web=Web(url="http://127.0.0.1:1")))


def test_pauses_end_with_the_last_try_and_other_errors_are_not_tried_again() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise UnreachableError("away")

    with pytest.raises(UnreachableError):
        dicom_net.persistently(work, 3, first_pause_s=0.001)
    assert len(calls) == 3

    def refuse() -> None:
        calls.append(1)
        raise MedsegError("no")

    with pytest.raises(MedsegError):
        dicom_net.persistently(refuse, 3, first_pause_s=0.001)
    assert len(calls) == 4


def test_no_thread_is_left_behind(files: list[Path], tmp_path: Path) -> None:
    before = threading.active_count()
    with receiving(gate(), tmp_path, Shelf().take) as port:
        assert storescu(port, files[:1]).returncode == 0
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
