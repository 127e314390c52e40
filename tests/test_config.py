"""The config: what a good one gives, and what each kind of broken one tells its reader to write."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from agent.config import ModbusDevice, OpcUaDevice, check, load, schema
from agent.errors import ConfigError, Problem
from agent.model import Tag, ValueType
from agent.places import Places
from agent.wire import epoch_of

GOOD = """\
[agent]
id = "press-shop-1"
data_dir = "./var/press-shop-1"

[identifiers]
prefix = "88.118.8"
template = "{prefix}/{device}.{tag}"

[seal]
after = "1s"
bytes = "64 KiB"

[outbox]
max_bytes = "2 GiB"
when_full = "drop_oldest"          # or "stop_collecting"

[uplink]
url = "mqtt://127.0.0.1:1883"      # mqtts:// for TLS
format = "block"                   # block | json | sparkplug
confirm = "datacenter"             # datacenter | broker

[[device]]
name = "press1"
protocol = "modbus"
url = "tcp://127.0.0.1:5020"
unit = 1
poll = "500ms"
tags = "press1.csv"

[[device]]
name = "furnace"
protocol = "opcua"
url = "opc.tcp://user.example:4840/plant"
security = "None"
publish = "500ms"
tags = "furnace.csv"

[datacenter]                       # read by `headrace datacenter`
store = "./var/datacenter"
http = "127.0.0.1:8080"
"""
PRESS = """\
name,address,type,order,unit,scale,offset,low,high,filter,identifier,domain,level,description
temp,hr:100,float32,ABCD,°C,,,0,400,deadband=0.1,,production,1,die temperature
count,ir:8,uint32,CDAB,pcs,,,,,,,production,2,strokes since start
running,co:3,bool,,,,,,,,,production,1,
"""
FURNACE = """\
name,address,type,unit,scale,identifier
temp,nsu=urn:plant;s=Furnace.Temp,float64,°C,,
raw,nsu=urn:plant;i=7,int16,,0.1,88.118.8/own
"""


def write(place: Path, toml: str = GOOD, press: str = PRESS, furnace: str = FURNACE) -> Path:
    (place / "press1.csv").write_text(press, encoding="utf-8")
    (place / "furnace.csv").write_text(furnace, encoding="utf-8")
    (place / "agent.toml").write_text(toml, encoding="utf-8")
    return place / "agent.toml"


def problems(place: Path, toml: str = GOOD, press: str = PRESS, furnace: str = FURNACE) -> list[Problem]:
    return check(write(place, toml, press, furnace)).problems


T, P, F = "agent.toml", "press1.csv", "furnace.csv"


def test_the_good_config(tmp_path: Path) -> None:
    path = write(tmp_path)
    checked = check(path)
    (open_line,) = checked.as_dict()["warnings"]
    assert checked.as_dict() == {"ok": True, "problems": [], "warnings": [open_line]}
    assert (open_line["field"], open_line["line"]) == ("device[1].security", 34)
    assert "nothing is signed or encrypted" in open_line["message"]
    config = load(path)
    assert config.path == path
    assert (config.agent.id, config.agent.data_dir) == ("press-shop-1", tmp_path / "var" / "press-shop-1")
    assert (config.seal.after, config.seal.bytes) == (1.0, 65536)
    assert (config.outbox.max_bytes, config.outbox.when_full) == (2 * 1024**3, "drop_oldest")
    assert (config.uplink.url, config.uplink.confirm) == ("mqtt://127.0.0.1:1883", "datacenter")
    assert (config.uplink.root, config.uplink.ca, config.uplink.mqtt) == ("headrace/v1", None, "auto")
    assert config.datacenter is not None
    assert (config.datacenter.store, config.datacenter.http) == (tmp_path / "var" / "datacenter", "127.0.0.1:8080")
    press, furnace = config.devices
    assert isinstance(press, ModbusDevice)
    assert (press.host, press.port, press.unit, press.poll, press.order) == ("127.0.0.1", 5020, 1, 0.5, "ABCD")
    assert isinstance(furnace, OpcUaDevice)
    assert (furnace.security, furnace.publish, furnace.username) == ("None", 0.5, None)
    assert [tag.index for tag in config.tags] == list(range(5))
    assert config.tags == press.tags + furnace.tags
    assert config.tags[0] == Tag(
        0, "press1", "temp", "hr:100", ValueType.FLOAT32, "88.118.8/press1.temp", unit="°C", low=0.0, high=400.0,
        filter="deadband=0.1", domain="production", level=1, description="die temperature",
    )  # fmt: skip
    assert config.tags[1].order == "CDAB"
    assert (config.tags[4].identifier, config.tags[4].reading_type) == ("88.118.8/own", ValueType.FLOAT64)


def test_the_epoch_is_the_same_everywhere_and_changes_with_the_tags(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = load(write(tmp_path)).catalog().encode()
    assert first == load(write(tmp_path / "other", GOOD.replace('"1s"', "2"))).catalog().encode()
    assert f"{epoch_of(first):016x}" == EPOCH
    again = load(write(tmp_path, press=PRESS.replace("pcs", "1"))).catalog().encode()
    assert epoch_of(again) != epoch_of(first)
    assert b'"source":{"address":"hr:100","protocol":"modbus","url":"tcp://127.0.0.1:5020"}' in first


EPOCH = "e4fc582526400efb"
"""Of the good config: agents in the field must not get another one from a new version."""


@pytest.mark.parametrize(
    ("identifiers", "wanted"),
    [
        ("", "press-shop-1/press1.temp"),
        ('[identifiers]\nprefix = "88.1"', "88.1/press1.temp"),
        ('[identifiers]\ntemplate = "urn:{agent}:{device}:{tag}"', "urn:press-shop-1:press1:temp"),
    ],
)
def test_identifiers_without_a_template(tmp_path: Path, identifiers: str, wanted: str) -> None:
    table = GOOD[GOOD.index("[identifiers]") : GOOD.index("[seal]")]
    assert load(write(tmp_path, GOOD.replace(table, f"{identifiers}\n"))).tags[0].identifier == wanted


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    toml = """
        agent = { id = "冲压-1", data_dir = "/var/lib/headrace" }
        uplink = {}
        [[device]]
        name = "press1"
        protocol = "modbus"
        url = "tcp://10.0.0.7"
        order = "DCBA"
        tags = "press1.csv"
    """
    config = load(write(tmp_path, toml))
    assert config.agent.data_dir == Path("/var/lib/headrace")
    assert (config.seal.after, config.uplink.url, config.datacenter) == (1.0, "mqtt://127.0.0.1:1883", None)
    (device,) = config.devices
    assert isinstance(device, ModbusDevice)
    assert (device.port, device.poll, device.timeout) == (502, 1.0, 3.0)
    assert [tag.order for tag in device.tags] == ["ABCD", "CDAB", "DCBA"]


def test_a_data_center_alone_needs_no_agent(tmp_path: Path) -> None:
    config = load(write(tmp_path, '[datacenter]\nstore = "s"\n'))
    assert config.datacenter is not None
    assert config.datacenter.http == "127.0.0.1:8080"
    assert config.tags == ()
    with pytest.raises(ConfigError, match="no \\[agent\\]"):
        _ = config.agent


def test_one_list_for_two_devices(tmp_path: Path) -> None:
    toml = GOOD.replace('"opcua"', '"modbus"').replace("furnace.csv", "press1.csv").replace('"500ms"\nt', '"1s"\nt')
    toml = toml.replace("opc.tcp://user.example:4840/plant", "tcp://10.0.0.8")
    toml = toml.replace('security = "None"\npublish = "500ms"\n', "")
    toml = toml.replace('security = "None"\npublish = "1s"\n', "")
    config = load(write(tmp_path, toml))
    assert [tag.identifier for tag in config.tags if tag.name == "temp"] == [
        "88.118.8/press1.temp",
        "88.118.8/furnace.temp",
    ]
    own = PRESS.replace("deadband=0.1,,", "deadband=0.1,x/1,")
    (one,) = problems(tmp_path, toml, own)
    assert (one.line, one.field) == (2, "identifier")


def test_warnings_leave_the_config_usable(tmp_path: Path) -> None:
    checked = check(write(tmp_path, furnace=FURNACE.replace("nsu=urn:plant;i=7", "ns=2;i=7")))
    assert checked.config is not None
    security, index = checked.warnings
    assert (security.line, security.field) == (34, "device[1].security")
    assert 'security = "auto"' in security.hint
    assert (Path(index.file).name, index.line, index.field) == (F, 3, "address")
    assert "nsu=" in index.hint
    assert checked.config.tags[4].address == "ns=2;i=7"


def test_security_is_the_strongest_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    for line in (
        "",
        'security = "auto"\n',
        'security = "Aes128_Sha256_RsaOaep/Sign"\npassword = "x"\nusername = "y"\n',
    ):
        checked = check(write(tmp_path, GOOD.replace('security = "None"\n', line)))
        assert checked.config is not None
        assert checked.warnings == []
    furnace = load(tmp_path / T).devices[1]
    assert isinstance(furnace, OpcUaDevice)
    assert furnace.pki == tmp_path / "var" / "press-shop-1" / "pki"
    assert furnace.application_uri == "urn:headrace:agent:press-shop-1"
    (warning,) = check(write(tmp_path, GOOD.replace('"None"', '"Basic256/SignAndEncrypt"'))).warnings
    assert "is deprecated" in warning.message


@pytest.mark.parametrize(
    ("line", "field", "says"),
    [
        ('security = "None"\nusername = "a"\npassword = "b"', "password", "would cross the line unencrypted"),
        ('user_key = "x.pem"', "user_key", "write user_certificate as well"),
        ('username = "a"\nuser_key = "x"\nuser_certificate = "x"', "username", "a name and a certificate"),
        ('security = "None"\nuser_key = "x"\nuser_certificate = "x"', "user_certificate", "proves nothing"),
        ('user_key = "none.pem"\nuser_certificate = "none.der"', "user_certificate", "there is no file"),
    ],
)
def test_users_of_opc_ua(tmp_path: Path, line: str, field: str, says: str) -> None:
    found = problems(tmp_path, GOOD.replace('security = "None"', line))
    assert found[0].field == f"device[1].{field}"
    assert says in f"{found[0].message}; {found[0].hint}"


def test_a_password_on_an_open_line_needs_a_word_for_it(tmp_path: Path) -> None:
    more = 'security = "None"\nusername = "a"\npassword = "b"\nplain_password = "allow"'
    checked = check(write(tmp_path, GOOD.replace('security = "None"', more)))
    assert checked.config is not None
    assert [each.field for each in checked.warnings] == ["device[1].security", "device[1].plain_password"]


def test_a_spreadsheet_s_csv(tmp_path: Path) -> None:
    write(tmp_path)
    for delimiter in (",", ";", "\t"):
        rows = PRESS.replace("die temperature", '"die\r\n temperature"').replace(",", delimiter).replace("\n", "\r\n")
        path = tmp_path / "press1.csv"
        path.write_bytes(b"\xef\xbb\xbf" + f"{rows}{delimiter * 13}\r\n".replace("\r\r\n", "\r\n").encode())
        config = load(tmp_path / "agent.toml")
        assert config.tags[0].description == "die temperature"
        assert len(config.devices[0].tags) == 3
        path.write_bytes(path.read_bytes().replace(b"co:3", b"co:99999"))
        (one,) = check(tmp_path / "agent.toml").problems
        assert (one.line, one.field) == (5, "address")  # a cell above has two lines


def test_filters_in_their_canonical_form(tmp_path: Path) -> None:
    press = "name,address,type,filter\na,hr:1,int16,deadband=0\nb,hr:2,int16,deadband = .5\nc,hr:3.1,bool,on_change\n"
    assert [tag.filter for tag in load(write(tmp_path, press=press)).tags[:3]] == [
        "on_change",
        "deadband=.5",
        "on_change",
    ]


def test_lines_of_keys_in_any_toml() -> None:
    text = """\
# a comment with [brackets] and = signs
title = \'\'\'
[not.a.table]
a = 1\'\'\'
"quoted key" = { a = 1, 'b' = [1,
   2, { c = 3 }] }
a.b.c = "x # y" # z
a.b.d = [ # one
  "]",

  [2]
]
[x . y]\r
k = 1979-05-27 07:32:00
[[x.z]]
k = \"\"\"
"q\\\"" [[x.z]]
\"\"\"\"\"
[[x.z]]
k = 1
[x.z.w]
v = 2
"""
    tomllib.loads(text)
    places = Places(text)
    wanted: dict[tuple[str | int, ...], int] = {
        ("title",): 2, ("quoted key",): 5, ("quoted key", "b", 1): 6, ("quoted key", "b", 2, "c"): 6,
        ("a", "b", "c"): 7, ("a", "b", "d", 0): 9, ("a", "b", "d", 1, 0): 11, ("x", "y"): 13, ("x", "y", "k"): 14,
        ("x", "z", 0): 15, ("x", "z", 0, "k"): 16, ("x", "z", 1): 19, ("x", "z", 1, "k"): 20,
        ("x", "z", 1, "w", "v"): 22, ("x", "z", 1, "w", "missing"): 21,
    }  # fmt: skip
    assert {path: places.line(path) for path in wanted} == wanted
    assert places.line(("nowhere",)) is None


def test_the_schema_of_the_docs_is_the_models_schema() -> None:
    file = Path(__file__).parent.parent / "docs" / "config.schema.json"
    command = "python -m agent.config > docs/config.schema.json"
    assert json.loads(file.read_text(encoding="utf-8")) == schema(), f"the schema has changed; run: {command}"
