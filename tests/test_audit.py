"""Audit ledgers: whatever is done to their files shows, with its line."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from agent import audit, audit_file, config
from agent.audit import AuditError, Head
from agent.audit_file import DAY_NS, AuditFile
from agent.audit_queue import AuditQueue

Lines = list[bytes]


def written(folder: Path, records: int = 20) -> Path:
    """A ledger with that many records in one file; its path."""
    file = AuditFile(folder, "queries")
    for at in range(records):
        file.append([("query", {"who": f"analyst-{at % 3}", "id": "88.118.8/press1.temp", "readings": at})])
    file.close()
    [(_, path)] = audit.files(folder, "queries")
    return path


def again(record: bytes, head: Head) -> tuple[bytes, Head]:
    """The same record behind another head, with the right hash: what a forger would write."""
    found = audit.Record.parse(record.rstrip(b"\n"))
    return audit.line(head, found.kind, found.time_ns, found.facts)


def forged(lines: Lines, at: int) -> Lines:
    """Everything from line `at` on computed anew."""
    parsed = audit.Record.parse(lines[at - 1].rstrip(b"\n"))
    head, done = Head(parsed.n, parsed.hash), lines[:at]
    for each in lines[at:]:
        text, head = again(each, head)
        done.append(text)
    return done


def test_a_ledger_that_nobody_touched_is_sound(tmp_path: Path) -> None:
    path = written(tmp_path)
    report = audit.verify(tmp_path, "queries")
    assert (report.sound, report.records, report.head.n) == (True, 20, 20)
    assert audit.verify_file(path).sound
    assert audit.verify(tmp_path, "queries", [report.head]).sound
    file = AuditFile(tmp_path, "queries")
    assert file.head == report.head
    file.append([("query", {})] * 3)
    file.close()
    assert audit.verify(tmp_path, "queries", [report.head]).records == 23


def renamed(lines: Lines, at: int) -> Lines:
    """Line `at` edited, with the hash that it then must have."""
    before = audit.Record.parse(lines[at - 2].rstrip(b"\n"))
    record, _ = again(lines[at - 1].replace(b"press1", b"press2"), Head(before.n, before.hash))
    return [*lines[: at - 1], record, *lines[at:]]


CHANGES: dict[str, tuple[Callable[[Lines], Lines], int, str]] = {
    "one deleted": (lambda lines: lines[:6] + lines[7:], 7, "1 record is missing"),
    "three deleted": (lambda lines: lines[:6] + lines[9:], 7, "3 records are missing"),
    "the first deleted": (lambda lines: lines[1:], 1, "1 record is missing"),
    "a word edited": (lambda lines: [*lines[:4], lines[4].replace(b"press1", b"press2"), *lines[5:]], 5, "edited"),
    "a number edited": (lambda lines: [*lines[:4], lines[4].replace(b'gs":4', b'gs":5'), *lines[5:]], 5, "edited"),
    "a line replaced": (lambda lines: [*lines[:4], b"{}\n", *lines[5:]], 5, "not a record"),
    "two swapped": (lambda lines: [*lines[:8], lines[9], lines[8], *lines[10:]], 9, "missing before it, or moved"),
    "one twice": (lambda lines: [*lines[:8], lines[7], *lines[8:]], 9, "out of order"),
    "edited with its hash": (lambda lines: renamed(lines, 5), 6, "does not follow"),
    "the last deleted": (lambda lines: lines[:-1], 20, "the head names 20: 1 are missing"),
    "cut off": (lambda lines: lines[:11], 12, "the head names 20: 9 are missing"),
    "cut within a line": (lambda lines: [*lines[:11], lines[11][:30]], 12, "cut off"),
    "emptied": (lambda lines: [], 1, "20 are missing"),
    "the last edited with its hash": (lambda lines: renamed(lines, 20), 20, "not the one that the head names"),
    "computed anew": (lambda lines: forged(renamed(lines, 5), 5), 20, "not the one that the head names"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_found_with_its_line(tmp_path: Path, name: str) -> None:
    change, line, says = CHANGES[name]
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    for report in (audit.verify(tmp_path, "queries"), audit.verify_file(path)):
        assert report.findings, name
        assert report.findings[0].line == line, report.findings
        assert says in report.findings[0].text


@pytest.mark.parametrize("name", ["the last deleted", "cut off", "emptied", "the last edited with its hash"])
def test_writing_on_does_not_cover_it(tmp_path: Path, name: str) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(CHANGES[name][0](lines)))
    file = AuditFile(tmp_path, "queries")
    assert file.head.n == 21, "it goes on behind the head, and says so"
    file.append([("query", {})] * 5)
    file.close()
    assert not audit.verify(tmp_path, "queries").sound
    assert any("changed before record 21" in each.text for each in audit.verify(tmp_path, "queries").findings)


def test_a_missing_head_is_found_and_stays_found(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "queries.head").unlink()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    assert [each.file for each in audit.verify(tmp_path, "queries").findings] == ["queries.head"]
    AuditFile(tmp_path, "queries").close()
    assert not audit.verify(tmp_path, "queries").sound


def test_a_whole_new_chain_shows_only_against_a_head_that_was_kept(tmp_path: Path) -> None:
    written(tmp_path / "kept")
    anchor = audit.verify(tmp_path / "kept", "queries").head
    written(tmp_path / "forged", 25)
    assert audit.verify(tmp_path / "forged", "queries").sound
    [found] = audit.verify(tmp_path / "forged", "queries", [anchor]).findings
    assert found.line == 20
    assert Head.parse(str(anchor)) == anchor


def test_every_cut_of_the_file_is_mended_and_the_rest_is_sound(tmp_path: Path) -> None:
    """A crash while a record was written: nothing that was said to be on the disk is lost, and it is no finding."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(40):
        folder = tmp_path / str(dice.random())
        path = written(folder, 3)
        size = path.stat().st_size
        record, _ = audit.line(audit.verify(folder, "queries").head, "query", 1, {"who": "x"})
        with path.open("ab") as file:
            file.write(record[: dice.randrange(len(record))])
        assert audit.verify(folder, "queries").sound
        ledger = AuditFile(folder, "queries")
        assert path.read_bytes()[:size].count(b"\n") == 3
        ledger.append([("query", {})])
        ledger.close()
        report = audit.verify(folder, "queries")
        assert report.sound, report.findings


def test_files_follow_each_other_and_only_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "FILE_BYTES", 1000)
    file = AuditFile(tmp_path, "egress", max_bytes=9000)
    day = [0]
    monkeypatch.setattr(time, "time_ns", lambda: day[0] * DAY_NS)
    written, refused = 0, 0
    for day[0] in range(0, 400, 8):
        try:
            file.append([("x", {"day": day[0]})])
            written += 1
        except AuditError:
            refused += 1
        assert file.size == sum(path.stat().st_size for _, path in audit.files(tmp_path, "egress"))
    first = audit.verify(tmp_path, "egress")
    assert first.sound
    assert (refused, first.head.n) == (0, written)
    assert first.first_ns is not None
    assert 400 - 8 - first.first_ns / DAY_NS >= 200, "what is younger is kept"
    assert first.records < written
    # A quota that is reached too early refuses rather than deletes.
    for _ in range(60):
        try:
            file.append([("x", {"text": "y" * 200})])
        except AuditError:
            refused += 1
    assert refused
    assert audit.verify(tmp_path, "egress").sound
    file.close()
    with pytest.raises(ValueError, match="180 days"):
        AuditFile(tmp_path, "egress", keep_days=179)


def test_a_clock_that_was_years_ahead_takes_nothing_young_and_keeps_nothing_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, day, ahead = AuditFile(tmp_path, "egress"), 0, 0
    monkeypatch.setattr(time, "time_ns", lambda: (20_000 + day + ahead) * DAY_NS)
    for day in range(0, 600, 3):
        ahead = 5 * 365 if day in (99, 102, 300) else -20_000 if day == 150 else 0
        file.append([("x", {"day": day})])
        oldest = audit.files(tmp_path, "egress")[0][1]
        kept = orjson.loads(oldest.read_bytes().split(b"\n")[0])["day"]
        assert kept <= max(0, day - 180), "what is younger is kept"
        assert kept >= day - 206, "what is older goes, and a leap makes little difference"
    assert audit.verify(tmp_path, "egress").sound
    file.close()


def test_one_process_writes(tmp_path: Path) -> None:
    file = AuditFile(tmp_path, "grants")
    with pytest.raises(AuditError, match="in use"):
        AuditFile(tmp_path, "grants")
    file.close()
    AuditFile(tmp_path, "grants").close()


def test_the_queue_is_bounded_and_says_when_a_record_is_safe(tmp_path: Path) -> None:
    queue = AuditQueue(AuditFile(tmp_path, "queries"), limit=100)
    done = [queue.put("query", {"at": at}) for at in range(100)]
    assert max(each.result(10).n for each in done) == 100
    with pytest.raises(AuditError):
        queue.put("query", {"at": object()}).result(10)
    assert not queue.put("query", {}).cancel(), "whoever stops waiting does not stop the writing"
    queue.close()
    with pytest.raises(AuditError, match="takes no more"):
        queue.put("query", {})
    assert audit.verify(tmp_path, "queries").records == 101


_KILLED = """\
import sys
from pathlib import Path
from agent.audit_file import AuditFile
from agent.audit_queue import AuditQueue
queue = AuditQueue(AuditFile(Path(sys.argv[1]), "queries"))
while True:
    print(queue.put("query", {"who": "someone"}).result().n, flush=True)
"""


def test_kill_9_loses_no_record_that_was_safe(tmp_path: Path) -> None:
    for _ in range(3):
        command = [sys.executable, "-c", _KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(50):
                told = int(child.stdout.readline())
            child.kill()
            # The last line may be cut off.
            told = max([told, *map(int, child.stdout.read().split("\n")[:-1])])
        report = audit.verify(tmp_path, "queries")
        assert report.sound, report.findings
        assert report.head.n >= told


def test_a_full_disk_is_said_and_nothing_half_stays(tmp_path: Path) -> None:
    code = """\
import resource, sys
from pathlib import Path
from agent.audit_file import AuditFile
file = AuditFile(Path(sys.argv[1]), "queries")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for _ in range(9):
    try:
        file.append([("query", {"who": "x" * 100})])
    except Exception as reason:
        print(reason)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.append([("query", {})])
print(file.head.n)
"""
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "can't be written" in found.stdout
    report = audit.verify(tmp_path, "queries")
    assert report.sound
    assert report.head.n == int(found.stdout.split()[-1])
    assert audit.files(tmp_path, "queries")[0][1].stat().st_size > 500


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ('[audit]\nkeep = "179d"', "audit.keep", "180d"),
        ('[audit]\nkeep = "24h"', "audit.keep", "180d"),
        ('[audit]\nmax_bytes = "1 KiB"', "audit.max_bytes", "out of range"),
        ('[audit]\nkeep = "180d"\nmax_bytes = "2 GiB"', "", ""),
    ],
)
def test_a_config_can_not_keep_records_for_less_than_180_days(tmp_path: Path, text: str, field: str, says: str) -> None:
    path = tmp_path / "plant.toml"
    path.write_text(f'[datacenter]\nstore = "./store"\n{text}\n')
    found = config.check(path).problems
    assert [each.field for each in found] == [field] * bool(field)
    assert all(says in f"{each.message} {each.hint}" for each in found)


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ('http = "127.0.0.1:8080"', False),
        ('http = "[::1]:8080"', False),
        ('http = "localhost:8080"', False),
        ('http = "0.0.0.0:8080"', True),
        ('http = "10.1.2.3:8080"\naccess = "open"', True),
        ('http = "[::]:8080"', True),
        ('http = "10.1.2.3:8080"\naccess = "token"', False),
    ],
)
def test_an_open_data_center_that_others_reach_is_warned_of(tmp_path: Path, text: str, warned: bool) -> None:
    path = tmp_path / "plant.toml"
    path.write_text(f'[datacenter]\nstore = "./store"\n{text}\n')
    checked = config.check(path)
    assert checked.config is not None
    assert [warning.field for warning in checked.warnings] == ["datacenter.http"] * warned
    assert all("token" in warning.hint for warning in checked.warnings)
