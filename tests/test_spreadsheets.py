"""Tag lists as spreadsheets, input methods and tired hands leave them: each mistake is named, with its line and what to
write, and the lines after it are read all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import check, load
from tests.test_config import P, problems, write

HEAD = "name,address,type,scale,poll,filter,level,description\n"


def found(tmp_path: Path, content: bytes) -> list[tuple[int | None, str, str, str]]:
    """(line, field, message, hint) of every problem of a Modbus device's list."""
    path = write(tmp_path)
    (tmp_path / P).write_bytes(content)
    return [(each.line, each.field, each.message, each.hint) for each in check(path).problems]


@pytest.mark.parametrize(
    ("row", "column", "says", "hint"),
    [
        ("a,hr：20,int16,,,,,", "address", "full-width", "write hr:20"),
        ("a,ｈｒ:20,int16,,,,,", "address", "full-width", "write hr:20"),
        ("a,４０１０１,int16,,,,,", "address", "full-width", "write 40101"),
        ("a,１００,int16,,,,,", "address", "full-width", "write co:99 if it is coil 100"),
        ("a,hr: 20,int16,,,,,", "address", "'hr: 20' is not a Modbus address", "write hr:20"),
        ("a,HR20,int16,,,,,", "address", "'HR20' is not a Modbus address", "write hr:20"),
        ("a,4x0101,int16,,,,,", "address", "'4x0101' is not a Modbus address", "write 40101"),
        ("a,hr:-1,int16,,,,,", "address", "'hr:-1' is not a Modbus address", "write hr:100 (holding register)"),
        ("a,4E+05,int16,,,,,", "address", "shortens long numbers", "write hr:100"),
        ("2026/11/22,hr:1,int16,,,,,", "name", "makes dates", "write 1 to 64 letters"),
        ("a,hr:1,ｉｎｔ１６,,,,,", "type", "full-width", "write int16"),
        ("a,hr:1,int 16,,,,,", "type", "'int 16' is not a type", "write int16"),
        ("a,hr:1,int16,０．１,,,,", "scale", "full-width", "write 0.1"),
        ("a,hr:1,int16,0，1,,,,", "scale", "full-width", "write 0.1, with a point"),
        ('a,hr:1,int16,"1,234",,,,', "scale", "'1,234' is not a number", "write 1234, or 1.234"),
        ("a,hr:1,int16,4月1日,,,,", "scale", "makes dates", "write one such as 0.1"),
        ("a,hr:1,int16,1-Apr,,,,", "scale", "makes dates", "write one such as 0.1"),
        ("a,hr:1,int16,,500,,,", "poll", "'500' is not a duration", 'write "500ms" or "500s"'),
        ("a,hr:1,int16,,５００ms,,,", "poll", "full-width", "write 500ms"),
        ("a,hr:1,int16,,,deadband＝0.1,,", "filter", "full-width", "write deadband=0.1"),
        ("a,hr:1,int16,,,on change,,", "filter", "is not a filter", "write on_change"),
        ("a,hr:1,int16,,,,２,", "level", "full-width", "write 2"),
        ("'a,hr:1,int16,,,,,", "name", "an apostrophe in front", "write a"),
        ("a,'40001,int16,,,,,", "address", "an apostrophe in front", "write 40001"),
        ("a,’40001,int16,,,,,", "address", "an apostrophe in front", "write 40001"),
        ("a,hr:1,int16,'0.1,,,,", "scale", "an apostrophe in front", "write 0.1"),
        ('a,hr:1,int16,"1.234,5",,,,', "scale", "'1.234,5' is not a number", "write 1234.5"),
        ('a,hr:1,int16,"1,234.5",,,,', "scale", "'1,234.5' is not a number", "write 1234.5"),
        ("a,hr:1,int16,10%,,,,", "scale", "'10%' is not a number", "write 0.1"),
        ("a,hr:1,int16,#DIV/0!,,,,", "scale", "a spreadsheet's formula that failed", "write one such as 0.1"),
        ("a,#REF!,int16,,,,,", "address", "a spreadsheet's formula that failed", "write hr:100"),
        ("=A1,hr:1,int16,,,,,", "name", "a spreadsheet's formula", "write 1 to 64 letters"),
        ("a,=B2+1,int16,,,,,", "address", "a spreadsheet's formula", "write hr:100"),
        ("a,hr:1,STRING[16],,,,,", "type", "'STRING[16]' is not a type", "write string[16]"),
        ("a,hr:1,string,,,,,", "type", "does not say how long", "write string[16]"),
        ("a,hr:1,int16[4],,,,,", "type", "'int16[4]' is not a type", "write int16"),
        ("a,hr:1,int24,,,,,", "type", "'int24' is not a type", "write one of bool, int8, int16"),
        ("a,hr:1,s16,,,,,", "type", "'s16' is not a type", "write int16"),
        ("a,hr:1,short,,,,,", "type", "'short' is not a type", "write int16"),
        ("a,40101-40102,int16,,,,,", "address", "is not a Modbus address", "write 40101"),
        ("a,hr:100+1,int16,,,,,", "address", "is not a Modbus address", "write hr:100"),
        ("a,%MW100,int16,,,,,", "address", "a PLC's own name", "write the register that the PLC's Modbus table"),
        ("a,DB1.DBD4,int16,,,,,", "address", "a PLC's own name", "write the register that the PLC's Modbus table"),
        ("a,D100,int16,,,,,", "address", "a PLC's own name", "write the register that the PLC's Modbus table"),
    ],
)
def test_a_slip_and_what_was_meant(tmp_path: Path, row: str, column: str, says: str, hint: str) -> None:
    ((line, field, message, instead),) = found(tmp_path, f"{HEAD}{row}\nb,hr:7,int16,,,,,\n".encode())
    assert (line, field) == (2, column)
    assert says in message
    assert instead.startswith(hint)


def test_what_was_meant_is_taken_when_it_is_written(tmp_path: Path) -> None:
    """Whoever does as the hints of the cells say has a good list."""
    row = ["温度", "hr：20", "ｉｎｔ１６", "０.１", "５００ms", "deadband＝０.１", "２", "ok"]
    wrong = found(tmp_path, f"{HEAD}{','.join(row)}\n".encode())
    columns = HEAD.strip().split(",")
    for _, field, _, hint in wrong:
        row[columns.index(field)] = hint.removeprefix("write ")
    assert len(wrong) == 6
    assert problems(tmp_path, press=f"{HEAD}{','.join(row)}\n") == []


@pytest.mark.parametrize(
    ("encoding", "says"),
    [("gbk", "GBK"), ("gb18030", "GBK"), ("cp1252", "not UTF-8"), ("shift_jis", "not UTF-8")],
)
def test_another_encoding_hides_no_other_mistake(tmp_path: Path, encoding: str, says: str) -> None:
    text = {"cp1252": "Ölstand über 80 °C", "shift_jis": "温度センサー"}.get(encoding, "一号压机，上模温度")
    rows = f"{HEAD}a,hr:1,int16,,,,,{text}\nb,hr:2,int17,,,,1,{text}\nc,hr:3,int16,,,,,\na,hr:4,int16,,,,,\n"
    wrong = found(tmp_path, rows.encode(encoding))
    assert [(line, field) for line, field, _, _ in wrong] == [(2, "(file)"), (3, "type"), (5, "name")]
    assert says in wrong[0][2]
    assert "CSV UTF-8" in wrong[0][3]


def test_names_that_could_not_be_read_are_not_complained_of_one_by_one(tmp_path: Path) -> None:
    rows = "name,address,type,备注\n" + "".join(f"温度{n},hr:{n},int16,注\n" for n in range(50))
    ((line, field, _, _),) = found(tmp_path, rows.encode("gbk"))
    assert (line, field) == (1, "(file)")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name\taddress\ttype\na\thr:1\tint16\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04\x14\x00\x06\x00", "a spreadsheet's own file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet's own file"),
        ("名称,地址,类型\na,hr:1,int16\n".encode(), "'名称,地址,类型' is no header line"),
        ("name，address，type\na，hr:1，int16\n".encode(), "is no header line"),
        (b"name|address|type\na|hr:1|int16\n", "is no header line"),
        (b"a,hr:1,int16\nb,hr:2,int16\n", "'a,hr:1,int16' is no header line"),
        ("name，address，type\na，hr:1，int16\n".encode(), "(it has full-width characters)"),
        (b"Press shop tags,,\n,,\nname,address,type\na,hr:1,int16\n", "is no header line"),
    ],
)
def test_a_file_without_a_header_is_one_problem(tmp_path: Path, content: bytes, says: str) -> None:
    ((_, _, message, hint),) = found(tmp_path, content)
    assert says in message
    assert hint.startswith(("write a header line such as name,address,type,", "write it as 'CSV UTF-8'"))


@pytest.mark.parametrize("name", ["3-Mar", "Mar-03", "1-Apr-26", "3月1日", "2026年3月1日"])
def test_a_name_that_a_spreadsheet_made_a_date_is_warned_of(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, press=f"name,address,type\na,hr:1,int16\n{name},hr:2,int16\n3-1,hr:3,int16\n")
    (warning,) = [each for each in check(path).warnings if each.field == "name"]
    assert (warning.line, "dates" in warning.message) == (3, True)
    assert "make the column's format text" in warning.hint


def test_a_cell_under_no_column_is_shown(tmp_path: Path) -> None:
    rows = f"{HEAD}a,hr:1,int16,,,,1,dies,upper\nb,hr:2,int17,,,,,\n"
    wrong = found(tmp_path, rows.encode())
    assert [(line, field) for line, field, _, _ in wrong] == [(2, "(row)"), (3, "type")]
    assert wrong[0][2] == "'upper' in cell 9 stands under no column of the header"
    assert "in double quotes" in wrong[0][3]
    ((line, field, message, _),) = found(tmp_path, b"name;address;type;;\na;hr:1;int16;;seen\nb;hr:2;int16;;\n")
    assert (line, field, message) == (2, "(row)", "'seen' in cell 5 stands under no column of the header")
    ((_, _, message, _),) = found(tmp_path, b",name,address,type\nold,a,hr:1,int16\n,b,hr:2,int16\n")
    assert message == "'old' in cell 1 stands under no column of the header"


def test_utf_16_hides_no_other_mistake(tmp_path: Path) -> None:
    rows = "name\taddress\ttype\n温度\thr:1\tint16\nb\thr:2\tint17\n"
    for content in (rows.encode("utf-16"), rows.encode("utf-16-le"), b"\xfe\xff" + rows.encode("utf-16-be")):
        wrong = found(tmp_path, content)
        assert [(line, field) for line, field, _, _ in wrong] == [(1, "(file)"), (3, "type")]
        assert wrong[0][2].startswith("UTF-16")
        assert "Notepad" in wrong[0][3]


def test_excel_s_line_about_the_delimiter_is_none_of_the_tags(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / P).write_bytes(b"\xef\xbb\xbfsep=;\r\nname;address;type;description\r\na;hr:1;int16;x,y,z\r\n")
    (tag, *_) = load(path).tags
    assert (tag.name, tag.description) == ("a", "x,y,z")
    (tmp_path / P).write_bytes(b"sep=;\r\nname;address;type\r\n\r\na;hr:1;int17\r\n")
    ((line, field, _, _),) = [(each.line, each.field, 0, 0) for each in check(path).problems]
    assert (line, field) == (4, "type")


def test_a_quote_that_nobody_closed_hides_no_line(tmp_path: Path) -> None:
    rows = f'{HEAD}a,hr:1,int16,,,,,"5 inch\nb,hr:2,int17,,,,,\n\nc,hr:3,int16,,,,,"x"y\nc,hr:4,int16,,,,,"z\n'
    assert [(line, field) for line, field, _, _ in found(tmp_path, rows.encode())] == [
        (2, "(row)"), (3, "type"), (5, "(row)"), (6, "(row)"),
    ]  # fmt: skip


def test_rows_that_are_no_csv_are_bounded(tmp_path: Path) -> None:
    wrong = found(tmp_path, HEAD.encode() + b'a,hr:1,"x"y\n' * 200_000)
    assert len(wrong) == 102
    assert (wrong[-1][0], wrong[-1][2]) == (102, "more than 100 rows like these")


def test_a_name_of_full_width_letters_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path, press="name,address,type\nＴ１,hr:1,int16\n温度,hr:2,int16\n")
    (warning,) = [each for each in check(path).warnings if each.field == "name"]
    assert (warning.line, warning.hint) == (2, "write T1, unless they are meant")


def test_a_full_width_character_in_the_toml_is_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    good = path.read_text(encoding="utf-8")
    for old, new, odd in (
        ('"press-shop-1"', "“press-shop-1”", "“"),
        ("unit = 1", "unit ＝ 1", "＝"),
        ("= 1", "= １", "１"),
    ):
        path.write_text(good.replace(old, new, 1), encoding="utf-8")
        (one,) = check(path).problems
        assert f"the character {odd} is not a plain one" in one.message
    path.write_text(good.replace("unit = 1", "unit = x # 一号，压机", 1), encoding="utf-8")
    (one,) = check(path).problems
    assert "plain" not in one.message
