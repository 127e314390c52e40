"""Broken configs: each gives every problem at once, with its place and what to write instead."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent import taglist
from agent.config import check, load
from agent.errors import ConfigError
from tests.test_config import FURNACE, GOOD, PRESS, F, P, T, problems, write


@dataclass
class Case:
    """A good config with `old` replaced by `new` in one of its files, and the one problem that this must give."""

    old: str
    new: str
    file: str
    line: int | None
    where: str
    message: str
    hint: str
    also: list[str] = field(default_factory=list)
    """Fields of further problems."""


PRESS_HEAD = PRESS
INVALID_HEAD = "name,address,type,invalid\n"

CASES = {
    "missing key": Case('id = "press-shop-1"\n', "", T, 1, "agent.id", "id is missing", 'write id = "press-shop-1"'),
    "unknown key": Case('poll = "5', 'pol = "5', T, 27, "device[0].pol", "unknown key 'pol'", "write poll"),
    "key of elsewhere": Case(
        "unit = 1", 'publish = "1s"', T, 26, "device[0].publish", "unknown key",
        'a [[device]] with protocol = "opcua"',
    ),
    "unknown table": Case("[seal]", "[seel]", T, 9, "seel", "unknown key 'seel'", "write seal"),
    "one bracket": Case(
        GOOD[GOOD.index('[[device]]\nname = "press1"') : GOOD.index("[datacenter]")], '[device]\nname = "press1"\n',
        T, 22, "device", "a table where a list of tables is wanted", "write [[device]]",
    ),
    "not a table": Case("[outbox]", "[[outbox]]", T, 13, "outbox", "a list where a table is wanted", "write [outbox]"),
    "bad duration": Case('"500ms"\ntags', '"500"\ntags', T, 27, "device[0].poll", "'500' is not a duration", '"500ms"'),
    "negative duration": Case(
        'after = "1s"', "after = -1", T, 10, "seal.after", "-1 is not a duration above", '"500ms"',
    ),
    "endless duration": Case('after = "1s"', "after = inf", T, 10, "seal.after", "inf is not a duration", '"500ms"'),
    "duration bounds": Case('after = "1s"', 'after = "2h"', T, 10, "seal.after", "7200 s is out of range", '"1h"'),
    "bad size": Case('"2 GiB"', '"2 gigs"', T, 14, "outbox.max_bytes", "'2 gigs' is not a size", '"64 KiB"'),
    "fractional size": Case('"2 GiB"', "2.5", T, 14, "outbox.max_bytes", "2.5 is not a size", '"64 KiB"'),
    "choice": Case('"drop_oldest" ', '"drop_old" ', T, 15, "outbox.when_full", "not known here", "write drop_oldest"),
    "number for text": Case(
        'id = "press-shop-1"', "id = 7", T, 2, "agent.id", "a number where text is wanted", 'id = "',
    ),
    "text for number": Case("unit = 1", 'unit = "1"', T, 26, "device[0].unit", "text where a whole number", "unit = 1"),
    "unit bounds": Case("unit = 1", "unit = 256", T, 26, "device[0].unit", "256 is out of range", "at most 255"),
    "name": Case('"press1"\nprot', '"press/1"\nprot', T, 23, "device[0].name", "the character '/'", "1 to 64 letters"),
    "agent wildcard": Case(
        '"press-shop-1"\nd', '"press+1"\nd', T, 2, "agent.id", "the character '+'", "1 to 64 letters",
    ),
    "no protocol": Case('protocol = "modbus"\n', "", T, 22, "device[0].protocol", "protocol is missing", '"opcua"'),
    "protocol": Case('"modbus"', '"modbuss"', T, 24, "device[0].protocol", "is not a protocol", "write modbus"),
    "serial option": Case(
        "tcp://127.0.0.1:5020", "rtu:///dev/ttyUSB0?baud=9600", T, 25, "device[0].url",
        "'baud' is not an option of a serial port", "write one of baudrate",
    ),
    "serial parity": Case(
        "tcp://127.0.0.1:5020", "ascii:///dev/ttyS1?parity=even", T, 25, "device[0].url",
        "'even' is not a parity", "parity=N, E, O, M or S",
    ),
    "serial port with a host": Case(
        "tcp://127.0.0.1:5020", "rtu://gateway/dev/ttyS1", T, 25, "device[0].url", "names no port", "rtu:///dev/tty",
    ),
    "broadcast unit": Case(
        'url = "tcp://127.0.0.1:5020"\nunit = 1', 'url = "rtu+tcp://127.0.0.1:5020"\nunit = 0', T, 22, "device[0]",
        "unit 0 is a broadcast", "unit = 1 to 247",
    ),
    "backup of another framing": Case(
        "unit = 1", 'backup = "rtu+tcp://127.0.0.1:5021"', T, 22, "device[0]", "another framing", 'backup = "tcp://',
    ),
    "pipeline without ids": Case(
        "unit = 1", "pipeline = 2\nany_transaction_id = true", T, 22, "device[0]", "only transaction ids",
        "pipeline = 1",
    ),
    "certificate without TLS": Case(
        "unit = 1", 'ca = "ca.pem"', T, 22, "device[0]", "are for TLS", 'url = "tls://host:802"',
    ),
    "modbus URL": Case(
        '"tcp://127.0.0.1:5020"', '"127.0.0.1"', T, 25, "device[0].url", "not a Modbus address", "tcp://host:502",
    ),
    "port": Case("0.1:5020", "0.1:502000", T, 25, "device[0].url", "not a URL", 'write url = "tcp://host:502"'),
    "opcua URL": Case(
        "opc.tcp://user", "tcp://user", T, 33, "device[1].url", "not an OPC UA address", "opc.tcp://host:4840",
    ),
    "opcua port": Case("example:4840", "example", T, 33, "device[1].url", "has no port", "opc.tcp://host:4840"),
    "security of none": Case(
        '"None"', '"Basic256Sha256"', T, 34, "device[1].security", "not a security policy",
        'security = "None"',
    ),
    "security": Case('"None"', '"high"', T, 34, "device[1].security", "not a security policy", 'security = "None"'),
    "password alone": Case(
        'security = "None"', 'security = "None"\npassword = "s3cret"', T, 35, "device[1].password", "without a user",
        "username",
    ),
    "format of later": Case(
        '"block" ', '"sparkplug" ', T, 19, "uplink.format", "not in this version", 'format = "block"',
    ),
    "broker URL": Case(
        '"mqtt://127.0.0.1:1883"', '"http://u:s3cret@b"', T, 18, "uplink.url", "is not a broker", "mqtt://host",
    ),
    "http": Case('"127.0.0.1:8080"', '"8080"', T, 40, "datacenter.http", "not a host and port", '"127.0.0.1:8080"'),
    "template": Case("{device}.{tag}", "{dev}.{tag}", T, 7, "identifiers.template", "unknown {dev}", "{device}"),
    "template without tag": Case(
        ".{tag}", "", T, 7, "identifiers.template", "one identifier", "{prefix}/{device}.{tag}",
    ),
    "template without prefix": Case(
        'prefix = "88.118.8"\n', "", T, 6, "identifiers.template", "there is no prefix", "prefix =",
    ),
    "no agent": Case(GOOD[: GOOD.index("[ident")], "", T, None, "agent", "there is no [agent]", "write [agent]"),
    "no uplink": Case(
        GOOD[GOOD.index("[uplink]") : GOOD.index("[[device]]")], "", T, None, "uplink", "there is no [uplink]",
        "mqtt://127",
    ),
    "device twice": Case(
        '"furnace"', '"press1"', T, 31, "device[1].name", "taken by the device of line 23", "write another",
    ),
    "no such list": Case('"press1.csv"', '"pres1.csv"', T, 28, "device[0].tags", "there is no file", "path of its CSV"),
    "syntax": Case("unit = 1", "unit = ", T, 26, "(syntax)", "Invalid value", 'write key = "text"'),
    "syntax at the end": Case('http = "127.0.0.1:8080"', 'http = "', T, 40, "(syntax)", "Illegal", "close every quote"),
    "key twice": Case("unit = 1", 'poll = "1s"', T, 27, "(syntax)", "overwrite", "each key and each table once"),
    "column missing": Case(
        "name,address,type,order", "name,addr,type,order", P, 1, "address", "address is missing", "name,address,type",
        also=["addr"],
    ),
    "column unknown": Case("domain,level", "domains,level", P, 1, "domains", "unknown column", "write domain"),
    "column twice": Case("domain,level", "unit,level", P, 1, "unit", "twice", "once"),
    "cell empty": Case("count,ir:8,uint32", "count,,uint32", P, 3, "address", "the cell is empty", "such as hr:100"),
    "address": Case("ir:8", "input 8", P, 3, "address", "not a Modbus address", "ir:8 (input register)"),
    "coil of a spreadsheet": Case("co:3", "4", P, 4, "address", "drops the zeros", "write co:3 if it is coil 4"),
    "five and six digits": Case(
        "hr:100,float32,ABCD,°C,,,0,400,deadband=0.1,,production,1,die temperature\ncount,ir:8",
        "400101,float32,ABCD,°C,,,0,400,deadband=0.1,,production,1,\ncount,30009",
        P, 3, "address", "five digits, and one of six in line 2", "six digits",
    ),
    "bit of a spreadsheet": Case("ir:8", "30009.1", P, 3, "address", "may have been .10", "ir:8.1 or ir:8.10"),
    "type on a byte": Case("hr:100,float32", "hr:100.h,int16", P, 2, "type", "hr:100.h is one byte", "int8 or uint8"),
    "form on OPC UA": Case(
        "i=7,int16,,0.1", "i=7,bcd16,,", F, 3, "type", "'bcd16' is not a type", "write uint16, which is what an OPC UA",
    ),
    "datetime": Case("uint32", "datetime", P, 3, "type", "'datetime' is not a type", "datetime[unix32], datetime"),
    "scaled datetime": Case(
        "hr:100,float32,ABCD,°C,", "hr:100,datetime[cp56],ABCD,°C,2", P, 2, "scale", "can't be scaled", "nothing",
    ),
    "invalid too wide": Case(
        PRESS_HEAD, INVALID_HEAD + "a,hr:1,int16,0x18000\n", P, 2, "invalid", "more than the 16 bits", "0xFFFF",
    ),
    "invalid out of range": Case(
        PRESS_HEAD, INVALID_HEAD + "a,hr:1,int16,0x8000|40000\n", P, 2, "invalid", "40000 is no int16",
        "-32768 to 32767",
    ),
    "invalid NaN": Case(
        PRESS_HEAD, INVALID_HEAD + "a,hr:1,int16,NaN\n", P, 2, "invalid", "int16 has no NaN", "0xFFFF",
    ),
    "invalid word": Case(
        PRESS_HEAD, INVALID_HEAD + "a,hr:1,float32,none\n", P, 2, "invalid", "'none' is not a raw value", "0x7FFF",
    ),
    "invalid bool": Case(
        PRESS_HEAD, INVALID_HEAD + "a,hr:1.2,bool,1\n", P, 2, "invalid", "every bool is a value", "write nothing",
    ),
    "poll of a tag": Case(
        PRESS_HEAD, "name,address,type,poll\na,hr:1,int16,5\n", P, 2, "poll", "'5' is not a duration", '"5ms" or "5s"',
    ),
    "alone and together": Case(
        PRESS_HEAD, "name,address,type,together,alone\na,hr:1,int16,x,yes\n", P, 2, "alone", "alone and together",
        "write yes, or",
    ),
    "group too wide": Case(
        PRESS_HEAD, "name,address,type,together\na,hr:1,int16,x\nb,hr:126,int16,x\n", P, 3, "together",
        "hr:1 to hr:126, 126 registers, and one request has at most 125", "several words",
    ),
    "group of two tables": Case(
        PRESS_HEAD, "name,address,type,together\na,hr:1,int16,x\nb,ir:2,int16,x\n", P, 3, "together",
        "another table", "a word for each table",
    ),
    "group of two polls": Case(
        PRESS_HEAD, "name,address,type,together,poll\na,hr:1,int16,x,\nb,hr:2,int16,x,1s\n", P, 3, "poll",
        "every 0.5 s (a)", "the same poll",
    ),
    "span": Case(
        "unit = 1", 'unit = 1\nforbidden = ["hr:9-1"]', T, 27, "device[0].forbidden[0]", "ends before", "hr:200-299",
    ),
    "registers": Case(
        "unit = 1", "unit = 1\nmax_registers = 126", T, 27, "device[0].max_registers", "out of range", "at most 125",
    ),
    "type on a coil": Case("co:3,bool", "co:3,float32", P, 4, "type", "co:3 is one bit", "write bool"),
    "type on a bit": Case(
        "hr:100,float32", "hr:100.2,float32", P, 2, "type", "hr:100.2 is one bit", "leave out the bit",
    ),
    "past the end": Case("hr:100,", "hr:65535,", P, 2, "type", "takes 2 registers", "up to 65534"),
    "type of a PLC": Case("hr:100,float32", "hr:100,REAL", P, 2, "type", "'REAL' is not a type", "write float32"),
    "type mistyped": Case("uint32", "unit32", P, 3, "type", "'unit32' is not a type", "write uint32"),
    "string length": Case("uint32", "string", P, 3, "type", "how long it is", "write string[16]"),
    "order": Case("CDAB", "BACD", P, 3, "order", "not a byte order", "CDAB"),
    "decimal comma": Case(
        "0,400,dead", '"0,5",400,dead', P, 2, "low", "'0,5' is not a number", "write 0.5, with a point",
    ),
    "high and low": Case("0,400", "400,0", P, 2, "high", "high is 0 and low is 400", "above the low"),
    "scaled bool": Case("co:3,bool,,,", "co:3,bool,,,2", P, 4, "scale", "a bool can't be scaled", "write nothing"),
    "filter": Case("deadband=0.1", "deadbnd=0.1", P, 2, "filter", "is not a filter", "write deadband=0.1"),
    "deadband": Case("deadband=0.1", "deadband=-1", P, 2, "filter", "below zero", "write deadband=0.1"),
    "level": Case("production,2", "production,4", P, 3, "level", "not a level", "write 1, 2 or 3"),
    "tag twice": Case("count,ir", "temp,ir", P, 3, "name", "taken by line 2", "write another"),
    "too many cells": Case("die temperature", "die, temperature", P, 2, "(row)", "in cell 15 stands", "double quotes"),
    "open quote": Case("die temperature", '"die temperature', P, 2, "(row)", "unexpected end", "close every quote"),
    "node": Case("nsu=urn:plant;i=7", "Plant.Raw", F, 3, "address", "not an OPC UA node id", "write nsu=urn:plant"),
    "OPC UA string": Case("i=7,int16,,0.1", "i=7,string[9],,", F, 3, "type", "brings its own length", "write string"),
    "identifier twice": Case("88.118.8/own", "88.118.8/press1.count", F, 3, "identifier", "taken by", "write another"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_broken_config_says_what_to_write(tmp_path: Path, case: Case) -> None:
    texts = {T: GOOD, P: PRESS, F: FURNACE}
    assert texts[case.file].count(case.old) >= 1
    texts[case.file] = texts[case.file].replace(case.old, case.new, 1)
    found = problems(tmp_path, *texts.values())
    assert {problem.field for problem in found} == {case.where, *case.also}, found
    one = next(problem for problem in found if problem.field == case.where)
    assert one.file == str(tmp_path / case.file)
    assert one.line == case.line
    assert case.message in one.message
    assert case.hint in one.hint
    assert "s3cret" not in str(one)


def test_tags_that_no_request_may_read_are_named_with_their_lines(tmp_path: Path) -> None:
    limited = GOOD.replace("unit = 1", 'unit = 1\nmax_registers = 1\nforbidden = ["hr:90-100", "co:3"]')
    found = problems(tmp_path, limited)
    assert [(problem.line, problem.field) for problem in found] == [(2, "address"), (3, "type"), (4, "address")]
    assert "of press1: it lies in hr:90-100" in found[0].message
    assert "takes 2 registers, and the device's max_registers is 1" in found[1].message
    assert all(problem.file == str(tmp_path / P) and "write" in problem.hint for problem in found)
    also = problems(tmp_path, limited, PRESS.replace("uint32", "int23"))
    assert {(problem.line, problem.field) for problem in also} == {(2, "address"), (3, "type"), (4, "address")}
    assert any("'int23' is not a type" in problem.message for problem in also)


def test_every_problem_of_all_files_comes_at_once(tmp_path: Path) -> None:
    toml = GOOD.replace('"1s"', '"1 week"').replace('"drop_oldest" ', "true ").replace("5020", "x")
    press = PRESS.replace("ir:8", "ir:99999").replace("deadband=0.1", "sometimes")
    furnace = FURNACE.replace("int16", "INT")
    found = [(Path(one.file).name, one.line, one.field) for one in problems(tmp_path, toml, press, furnace)]
    assert found == [
        (T, 10, "seal.after"),
        (T, 15, "outbox.when_full"),
        (T, 25, "device[0].url"),
        (P, 2, "filter"),
        (P, 3, "address"),
        (F, 3, "type"),
    ]


def test_load_raises_every_problem(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('"1s"', "0").replace("unit = 1", "unit = -1"))
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert [problem.field for problem in refused.value.problems] == ["seal.after", "device[0].unit"]
    assert f"{path}:26: device[0].unit: -1 is out of range\n    hint: write" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "line", "message", "hint"),
    [
        (None, None, "there is no such file", "write the path"),
        (b"", None, "nothing to do", "[[device]]"),
        (b"[agent]\nid = \"\xb0C\"\n", 2, "not UTF-8", "UTF-8"),
        ("[agent]\n".encode("utf-16"), 1, "not UTF-8", "UTF-8"),
        (b"#" * (1024 * 1024 + 1), None, "larger than 1 MiB", "CSV"),
        (b"a = " + b"[" * 100_000, None, "nested too deep", "flat"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_config(
    tmp_path: Path, content: bytes | None, line: int | None, message: str, hint: str
) -> None:
    path = tmp_path / "agent.toml"
    if content is not None:
        path.write_bytes(content)
    (one,) = check(path).problems
    assert (one.file, one.line) == (str(path), line)
    assert message in one.message
    assert hint in one.hint


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", None, "the file is empty"),
        (b"\n\n", None, "the file is empty"),
        (b"name,address,type\n", None, "no tags"),
        (b"name,address,type\na,hr:1,bool\n\xb0,hr:2,bool\n", 3, "not UTF-8"),
        (b"name,address,type\na,hr:1,bo\x00ol\n", 2, "is not a type"),
        (b'name,address,type\na,hr:1,"' + b"x" * 200_000 + b'"\n', 2, "field limit"),
    ],
)
def test_a_file_that_is_no_tag_list(tmp_path: Path, content: bytes, line: int | None, message: str) -> None:
    path = write(tmp_path)
    (tmp_path / "press1.csv").write_bytes(content)
    (one,) = check(path).problems
    assert (Path(one.file).name, one.line) == (P, line)
    assert message in one.message
    assert one.hint.startswith("write ")


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    (one,) = check(tmp_path).problems
    assert "not a file" in one.message


def test_problems_and_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "name,address,type\n"
    found = problems(tmp_path, press=header + "".join(f"t{n},hr:{n},real\n" for n in range(3000)))
    assert 1000 < len(found) < 1010
    assert "more than 1000 problems" in found[-1].message
    monkeypatch.setattr(taglist, "MAX_ROWS", 500)
    (one,) = problems(tmp_path, press=header + "".join(f"t{n},hr:{n},bool\n" for n in range(501)))
    assert (one.line, one.message) == (502, "more than 500 tags")
    monkeypatch.setattr(taglist, "MAX_BYTES", 1 << 20)
    (one,) = problems(tmp_path, press=header + "\n" * (1 << 20))
    assert one.message == "larger than 1 MiB"


def test_no_mutation_of_a_good_config_gives_anything_but_problems(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    pieces = ['"', "'", "[", "]]", "{", "}", "=", ",", "\n", "\r", "#", "\0", ".", "nan", "-1", "true", "1979-05-27"]
    pieces += [
        "[[device]]\n",
        "[device]\n",
        "x = [{a=[1]}]\n",
        '"""',
        "'''",
        "9" * 5000,
        "é",
        "\ud83d\ude00",
        "device.x = 1\n",
    ]
    values = [
        *pieces[10:16],
        '""',
        '" "',
        "[]",
        "{}",
        "[[[1]]]",
        '"\\u0000"',
        '"mqtt://[::1"',
        '"tcp://h:0"',
        "0x7fffffffffffffffff",
    ]
    for _ in range(300):
        texts = [GOOD, PRESS, FURNACE]
        for _ in range(chance.randint(1, 4)):
            which = chance.choice((0, 0, 1, 2))
            text = texts[which]
            at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
            match chance.randrange(6):
                case 0:
                    text = text[:at] + chance.choice(pieces) + text[at:]
                case 1:
                    text = text[:at] + text[min(to, at + chance.randrange(30)) :]
                case 2:
                    text = text[:at] + chance.choice(pieces) + text[min(len(text), at + 3) :]
                case 3 | 4 if which == 0:
                    line = chance.choice([line for line in text.split("\n") if " = " in line] or [" = "])
                    text = text.replace(line, f"{line.partition(' = ')[0]} = {chance.choice(values)}", 1)
                case _:
                    text = text[:to] + text[at : at + 40] + text[to:]
            texts[which] = text
        for name, text in zip((T, P, F), texts, strict=True):
            (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        checked = check(tmp_path / T)
        assert (checked.config is None) == bool(checked.problems)
        for problem in checked.problems + checked.warnings:
            assert problem.file, seed
            assert problem.field, seed
            assert problem.message, seed
            assert "write" in problem.hint, (seed, problem)
        if checked.config is not None and checked.config.devices:
            assert checked.config.catalog().encode(), seed


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ('url = "mqtt://u:p@plant:1883"', "url"),
        ('url = "mqtt://plant"\nbackup = ["mqtt://u:p@second"]', "backup"),
        ('url = "mqtt://plant"\nbacklog = "fast"', "backlog"),
        ('url = "mqtts://plant"\nkey = "me.key"', "key"),
        ('url = "mqtt://u:p@127.0.0.1:1883"', ""),
        ('url = "mqtts://u:p@plant"', ""),
        ('url = "mqtt://u:p@plant"\ninsecure_password = "allow"', ""),
    ],
)
def test_a_password_does_not_cross_a_line_in_the_open(tmp_path: Path, lines: str, found: str) -> None:
    (tmp_path / "a.csv").write_text("name,address,type,order\nt,hr:0,float32,ABCD\n")
    (tmp_path / "a.toml").write_text(
        f'[agent]\nid = "a"\ndata_dir = "./a"\n[uplink]\n{lines}\n'
        '[[device]]\nname = "d"\nprotocol = "modbus"\nurl = "tcp://127.0.0.1:502"\ntags = "a.csv"\n'
    )
    checked = check(tmp_path / "a.toml")
    assert [found in problem.field for problem in checked.problems] == [True] * bool(found) or (
        found == "key" and len(checked.problems) == 2
    )
    assert "p@" not in str(checked.problems)
