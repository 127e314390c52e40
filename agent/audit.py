"""Audit ledgers: what they look like on the disk, and how their chain is checked.

A ledger is a folder's files `NAME-<number of its first record>.jsonl`, each line one record:

    {"n":12,"time_ns":…,"kind":"query", … ,"prev":"<hash of record 11>","hash":"<hash of this one>"}

`hash` is the SHA-256 of the line's own bytes up to `,"hash":`; `prev` of record 1 is 64 zeros. So a record can be
neither edited, taken out, put in nor moved without a break in the chain, except at the end: `NAME.head` beside the
files says where the ledger begins and ends. Whoever can write the folder can compute a whole chain anew, head and all;
that shows only against a head that was kept elsewhere (`Head`, as `headrace audit verify --anchor` takes it).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from agent.errors import HeadraceError

ORIGIN = "0" * 64
"""`prev` of the first record ever."""
MAX_LINE = 1024 * 1024
"""Bytes. A longer line is no record."""
MAX_FINDINGS = 1000
SUSPECT = frozenset({"ends_at", "head_missing", "head_mismatch"})
"""Facts of a `recovered` record that no crash leaves behind: the files were changed while nobody wrote them."""
_MARK = b',"hash":"'
_FILE = re.compile(r"(.+)-(\d{12})\.jsonl")
_TAKEN = frozenset({"n", "time_ns", "kind", "prev", "hash"})


class AuditError(HeadraceError):
    """A ledger can't be written or read now. The message says why; nothing of the call was recorded."""


@dataclass(frozen=True, slots=True)
class Head:
    """A place of the chain: record `n`, and its hash. Kept elsewhere, it proves what the ledger held up to there."""

    n: int = 0
    hash: str = ORIGIN

    def __str__(self) -> str:
        return f"{self.n}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """What `str` gave. Raises ValueError."""
        number, _, digest = text.partition(":")
        if not (number.isascii() and number.isdigit() and re.fullmatch(r"[0-9a-f]{64}", digest)):
            raise ValueError(f"{text!r} is not a head; write NUMBER:HASH, as `headrace audit verify` prints it")
        return cls(int(number), digest)


@dataclass(frozen=True, slots=True)
class Ends:
    """What a `NAME.head` file says: the place before the oldest kept record, and the newest."""

    base: Head
    last: Head

    def encode(self) -> bytes:
        return orjson.dumps({"base": str(self.base), "last": str(self.last)}) + b"\n"

    @classmethod
    def decode(cls, body: bytes) -> Ends:
        """Raises ValueError."""
        found = orjson.loads(body)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004  (a wrong file, not a wrong call)
        return cls(Head.parse(str(found.get("base"))), Head.parse(str(found.get("last"))))


def line(after: Head, kind: str, time_ns: int, facts: Mapping[str, Any]) -> tuple[bytes, Head]:
    """The record behind `after`, with its line end, and its own head. `facts` may not have the chain's own names."""
    if wrong := _TAKEN & facts.keys():
        raise ValueError(f"a record's own names are {', '.join(sorted(wrong))}")
    body = orjson.dumps({"n": after.n + 1, "time_ns": time_ns, "kind": kind, **facts, "prev": after.hash})[:-1]
    digest = hashlib.sha256(body).hexdigest()
    return b"".join((body, _MARK, digest.encode(), b'"}\n')), Head(after.n + 1, digest)


@dataclass(frozen=True, slots=True)
class Record:
    """One line as it is. `computed` is the hash that its bytes have, `hash` the one that it claims."""

    n: int
    time_ns: int
    kind: str
    prev: str
    hash: str
    computed: str
    facts: dict[str, Any]

    @classmethod
    def parse(cls, text: bytes) -> Record:
        """Raises ValueError where the line is no record at all."""
        body, mark, rest = text.rpartition(_MARK)
        if not mark or len(text) > MAX_LINE or len(rest) != 66 or not rest.endswith(b'"}'):
            raise ValueError("not a record of a ledger")
        found = orjson.loads(text)
        n, time_ns, kind, prev = (found.pop(name, None) for name in ("n", "time_ns", "kind", "prev"))
        if type(n) is not int or type(time_ns) is not int or not isinstance(kind, str) or not isinstance(prev, str):
            raise ValueError("a record without its number, time, kind or prev")
        return cls(n, time_ns, kind, prev, str(found.pop("hash")), hashlib.sha256(body).hexdigest(), found)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and where: the line counts from 1 within its file."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(slots=True)
class Report:
    """What a check of one ledger found. `head` is where its chain ends: keep it elsewhere."""

    ledger: str
    records: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    head: Head = field(default_factory=Head)
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return {
            "ledger": self.ledger,
            "sound": self.sound,
            "records": self.records,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "head": str(self.head),
            "findings": [{"file": each.file, "line": each.line, "text": each.text} for each in self.findings],
        }


def files(folder: Path, name: str) -> list[tuple[int, Path]]:
    """The files of a ledger: (number of the first record, path), oldest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        matched = _FILE.fullmatch(path.name)
        if matched and matched[1] == name:
            found.append((int(matched[2]), path))
    return sorted(found)


def names(folder: Path) -> list[str]:
    """The ledgers of a folder; one whose files are all gone is named by its head. Raises PermissionError."""
    found = set()
    for path in folder.iterdir() if folder.is_dir() else ():  # a glob finds nothing where it may not look
        if path.suffix == ".head":
            found.add(path.stem)
        if matched := _FILE.fullmatch(path.name):
            found.add(matched[1])
    return sorted(found)


def read_ends(folder: Path, name: str) -> Ends | None:
    """What the head file says; None where there is none. Raises ValueError where it can't be read."""
    try:
        return Ends.decode((folder / f"{name}.head").read_bytes())
    except FileNotFoundError:
        return None


def verify(folder: Path, name: str, anchors: Iterable[Head] = ()) -> Report:
    """Checks a whole ledger, while it is written too. `anchors` are heads that were kept elsewhere."""
    report = Report(name)
    head_file = f"{name}.head"
    ends: Ends | None = None
    try:
        ends = read_ends(folder, name)
    except ValueError as reason:
        report.findings.append(Finding(head_file, 1, f"can't be read: {reason}"))
    found = files(folder, name)
    while ends and len(found) > 1 and found[1][0] <= ends.base.n + 1:
        del found[0]  # too old to be kept, and not deleted yet
    paths = [path for _, path in found]
    if ends is None and not report.findings and paths:
        report.findings.append(
            Finding(head_file, 1, "is missing: whether records are missing at the end can't be told")
        )
    check = _Check(report, ends.base if ends else None, [*([ends.last] if ends else []), *anchors])
    for path in paths:
        check.read(path)
    check.end(head_file)
    return report


def verify_file(path: Path, anchors: Iterable[Head] = ()) -> Report:
    """Checks one file by itself; where its ledger is around it, and goes on or ends with it, the head as well."""
    matched = _FILE.fullmatch(path.name)
    report = Report(matched[1] if matched else path.name)
    base, ends = None, None
    if matched:
        siblings = files(path.parent, matched[1])
        try:
            ends = read_ends(path.parent, matched[1])
        except ValueError as reason:
            report.findings.append(Finding(f"{matched[1]}.head", 1, f"can't be read: {reason}"))
        base = ends.base if ends and siblings and siblings[0][1].name == path.name else None
        if siblings and siblings[-1][1].name != path.name:
            ends = None
    check = _Check(report, base, [*([ends.last] if ends else []), *anchors])
    check.read(path)
    check.end(path.name)
    return report


class _Check:
    """Walks the chain. After a break it goes on from what the line claims, so that each break is found once."""

    def __init__(self, report: Report, base: Head | None, anchors: list[Head]) -> None:
        self._report = report
        self._at = base
        self._wanted = {anchor.n: anchor.hash for anchor in reversed(anchors) if anchor.n > (base.n if base else 0)}
        self._place = ("", 0)

    def read(self, path: Path) -> None:
        for number, text in _lines(path):
            self._place = (path.name, number)
            if not text.endswith(b"\n"):
                # A crash while a record was written leaves this; the next start says so in a record of its own.
                if self._wanted and max(self._wanted) > self._report.head.n:
                    self._wrong("the line is cut off")
                continue
            try:
                record = Record.parse(text[:-1])
            except ValueError as reason:
                self._wrong(f"is not a record ({reason}): it was edited or put there")
                self._at = None if self._at is None else Head(self._at.n + 1, "")
                continue
            self._follow(record)

    def _follow(self, record: Record) -> None:
        at, report = self._at, self._report
        report.records += 1
        report.first_ns = record.time_ns if report.first_ns is None else report.first_ns
        report.last_ns = record.time_ns
        if record.computed != record.hash:
            self._wrong(f"record {record.n} was edited: its hash is not that of its text")
        if at is not None and record.n != at.n + 1:
            missing = record.n - at.n - 1
            if missing > 0:
                self._wrong(f"record {record.n} follows {at.n}: {missing} record{'s are' * (missing > 1) or ' is'}"
                            " missing before it, or moved")  # fmt: skip
            else:
                self._wrong(f"record {record.n} follows {at.n}: it is out of order")
        elif at is not None and at.hash and record.prev != at.hash:
            self._wrong(f"record {record.n} does not follow from the line before: one of them was put there")
        if record.kind == "recovered" and SUSPECT & record.facts.keys():
            self._wrong(f"the ledger was changed before record {record.n}: {record.facts}")
        self._at = report.head = Head(record.n, record.hash)
        if (wanted := self._wanted.pop(record.n, None)) is not None and wanted != record.hash:
            self._wrong(f"record {record.n} is not the one that the head names: the chain was computed anew")

    def end(self, head_file: str) -> None:
        """Records that a head names must have been there."""
        if self._wanted:
            n = max(self._wanted)
            name, number = self._place
            last = self._report.head.n
            self._place = (name or head_file, number + 1)
            self._wrong(f"ends with record {last}, and the head names {n}: {n - last} are missing at the end")

    def _wrong(self, text: str) -> None:
        if len(self._report.findings) < MAX_FINDINGS:
            self._report.findings.append(Finding(*self._place, text))


def holds(path: Path, head: Head) -> bool:
    """Whether a file has that very record."""
    mark = b'"hash":"%s"}' % head.hash.encode()
    return any(text.rstrip(b"\n").endswith(mark) for _, text in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line with its end); a line without end is cut at MAX_LINE, and its rest is another one."""
    with path.open("rb") as file:
        number = 0
        while text := file.readline(MAX_LINE + 1):
            number += 1
            yield number, text
