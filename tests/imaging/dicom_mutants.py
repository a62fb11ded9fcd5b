"""Spoilt DICOM files, made from sound ones by seed; run as a program it reads them one by one.

    python dicom_mutants.py BASES SEED FROM TO

`BASES` is a folder of folders of sound files; in each the file named ``victim*`` is the one to spoil. Every
mutant is announced by a line before it is read and followed by what became of it, so that a crash names its
mutant. The exit code is 1 when one ended in anything but a volume, a refusal, or an error of medseg.
"""

from __future__ import annotations

import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MEMORY_BYTES, SECONDS = 2 * 2**30, 25
CHEAP = {"ct", "enhanced", "enhanced_siemens", "implicit", "mosaic", "rtstruct", "seg"}
"""Bases that need no process for decoding: they come twice as often."""
LONG = {b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"}
PIXELS = (0x7FE0, 0x0010)
Element = tuple[int, int, int, int]  # where it starts, where its length stands, its value, and its end
Mutation = Callable[[bytearray, list[Element], np.random.Generator], bytearray]


def elements(raw: bytes) -> list[Element]:
    """The top-level elements of an explicit little-endian file, as far as they can be followed."""
    found, at = [], 132
    while at + 12 <= len(raw):
        tag, vr = struct.unpack_from("<HH", raw, at), bytes(raw[at + 4 : at + 6])
        if not vr.isalpha():
            break
        place, value = (at + 8, at + 12) if vr in LONG else (at + 6, at + 8)
        length = struct.unpack_from("<I" if vr in LONG else "<H", raw, place)[0]
        if tag == PIXELS or length == 0xFFFFFFFF:
            found.append((at, place, value, value if tag == PIXELS else value + 8))
            if tag == PIXELS:
                break
            length = max(raw.find(b"\xfe\xff\xdd\xe0", value) + 8 - value, 0)  # past the innermost end
        else:
            found.append((at, place, value, min(value + length, len(raw))))
        at = value + length
    return found or [(132, 138, 140, len(raw))]


def _header_end(raw: bytes, known: list[Element]) -> int:
    return max(known[-1][2], 200) if known else len(raw)


def truncated(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """Cut off, in the header as often as in the pixels."""
    end = _header_end(raw, known) if rng.random() < 0.5 else len(raw)
    return raw[: int(rng.integers(0, max(end - 2, 1)))]


def flipped(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """A few bytes of the header replaced."""
    for at in rng.integers(128, _header_end(raw, known), int(rng.integers(1, 20))):
        raw[min(int(at), len(raw) - 1)] = int(rng.integers(256))
    return raw


def spoilt_stream(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """A few bytes at the beginning of the pixel data replaced: there streams say how large they are."""
    start = min(_header_end(raw, known), len(raw) - 1)
    for at in rng.integers(start, min(start + 200, len(raw)), int(rng.integers(1, 12))):
        raw[int(at)] = int(rng.integers(256))
    return raw


def wrong_length(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """The length of an element is another."""
    _, place, value, _ = known[int(rng.integers(len(known)))]
    wrong = int(rng.choice([0, 1, 2, 7, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]))
    size = "<I" if value - place == 4 else "<H"
    if place + 4 <= len(raw):
        struct.pack_into(size, raw, place, wrong & (0xFFFFFFFF if size == "<I" else 0xFFFF))
    return raw


def huge(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """Rows, columns, frames, bits or samples beyond all bounds."""
    frames = b"\x28\x00\x08\x00IS\x0a\x00" + rng.choice([b"2147483647", b"-000000001", b"9999999999"])
    rows = next((at for at, *_ in known if raw[at : at + 4] == b"\x28\x00\x10\x00"), None)
    for element in (0x02, 0x10, 0x11, 0x100, 0x101, 0x103):
        at = next((a for a, *_ in known if raw[a : a + 4] == struct.pack("<HH", 0x28, element)), None)
        if at is not None and rng.random() < 0.5:
            struct.pack_into("<H", raw, at + 8, int(rng.choice([0, 1, 3, 0x7FFF, 0xFFFF])))
    return raw[:rows] + frames + raw[rows:] if rows and rng.random() < 0.5 else raw


def nested(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """A sequence within a sequence, thousands of times."""
    depth = int(rng.choice([3, 50, 3000]))
    inner = b"\x08\x00\x10\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * (depth if rng.random() < 0.5 else 0)
    at = next((a for a, *_ in known if raw[a : a + 2] > b"\x08\x00" and raw[a] > 8), known[-1][0])
    return raw[:at] + inner * depth + closed + raw[at:]


def swapped(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """Two elements change places, or one stands there twice."""
    first, second = sorted(int(n) for n in rng.integers(0, max(len(known) - 1, 1), 2))
    (a, _, _, b), (c, _, _, d) = known[first], known[second]
    if rng.random() < 0.3 or first == second:
        return raw[:b] + raw[a:b] + raw[b:]
    return raw[:a] + raw[c:d] + raw[b:c] + raw[a:b] + raw[d:]


def absurd(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """A number that is none, or no sensible one, where a decimal stands."""
    texts = [e for e in known if raw[e[0] + 4 : e[0] + 6] in (b"DS", b"IS", b"CS", b"UI")]
    for _ in range(int(rng.integers(1, 4))):
        if texts:
            _, _, value, end = texts[int(rng.integers(len(texts)))]
            word = rng.choice(
                [b"nan", b"-inf", b"1e308", b"1e-320", b"\\\\", b"0", b"-1", b"\xff\x00", b"3,75"]
            )
            raw[value:end] = bytes(word)[: end - value].ljust(end - value, b" ")
    return raw


def other_syntax(raw: bytearray, known: list[Element], rng: np.random.Generator) -> bytearray:
    """The file says of itself that it is written in another way."""
    syntaxes = ["1.2", "1.2.1", "1.2.2", "1.2.1.99", "1.2.5", "1.2.4.50", "1.2.4.70", "1.2.4.80", "1.2.4.90"]
    uid = f"1.2.840.10008.{rng.choice(syntaxes)}".encode()
    at = next((e for e in known if raw[e[0] : e[0] + 4] == b"\x02\x00\x10\x00"), known[0])
    raw[at[2] : at[3]] = uid[: at[3] - at[2]].ljust(at[3] - at[2], b"\0")
    return raw


MUTATIONS: list[Mutation] = [
    truncated, flipped, spoilt_stream, wrong_length, huge, nested, swapped, absurd, other_syntax,
]  # fmt: skip


def mutant(raw: bytes, number: int, seed: int) -> tuple[str, bytes]:
    """The name of a mutation and the file it made; the same for the same numbers."""
    rng = np.random.default_rng([seed, number])
    mutation = MUTATIONS[number % len(MUTATIONS)]
    return mutation.__name__, bytes(mutation(bytearray(raw), elements(raw), rng))


class TooLongError(BaseException):
    """Reading did not end in time."""


def ended(folder: Path) -> str:
    """What reading a folder ends in, in a word; anything that is no error of medseg is raised."""
    from medseg.core.errors import MedsegError
    from medseg.imaging.dicom_in import find_dicom, read_series
    from medseg.imaging.dicom_rtstruct_in import read_rtstruct
    from medseg.imaging.dicom_seg_in import read_seg

    try:
        found = find_dicom(folder)
        for series in found.series:
            image = read_series(series)
            assert image.array.shape == (1, *series.shape), "another shape than the header"
            assert np.isfinite(image.array).all(), "values that are no numbers"
            for reference in found.references:
                read = read_seg if reference.kind == "seg" else read_rtstruct
                read(reference.file, series)
    except MedsegError as error:
        error.public()
        return "error"
    return f"{len(found.series)} volume(s), {len(found.left_out)} left out"


def main() -> int:
    """Read the mutants FROM..TO of every base in turn."""
    bases, seed, start, stop = Path(sys.argv[1]), *(int(word) for word in sys.argv[2:5])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _too_long)
    kinds = sorted(path for path in bases.iterdir() if path.is_dir())
    kinds += [path for path in kinds if path.name in CHEAP]
    failed = 0
    for number in range(start, stop):
        base = kinds[number // len(MUTATIONS) % len(kinds)]
        failed += not _survived(base, number, seed)
    return min(failed, 1)


def _survived(base: Path, number: int, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "files")
        shutil.copytree(base, folder)
        victim = next(folder.glob("victim*"))
        name, raw = mutant(victim.read_bytes(), number, seed)
        victim.write_bytes(raw)
        print(f"{number} {base.name} {name}:", end=" ", flush=True)
        signal.alarm(SECONDS)
        try:
            print(ended(folder), flush=True)
        except BaseException:
            print("FAILED", flush=True)
            traceback.print_exc()
            return False
        finally:
            signal.alarm(0)
    return True


def _too_long(*_: Any) -> None:
    raise TooLongError


if __name__ == "__main__":
    sys.exit(main())
