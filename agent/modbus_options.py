"""How a Modbus device is reached, and what is odd about it: that part of its [[device]] table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Annotated, Literal, TypeGuard

from pydantic import AfterValidator, Field, model_validator

from agent import quantity
from agent.address import ModbusAddress
from agent.endpoint import Carrier, Endpoint, Framing, LineSettings
from agent.model import Tag
from agent.table import FilePath, Seconds, Table, is_file


def _modbus_url(text: str) -> str:
    Endpoint.parse(text)
    return text


_OF_THE_LINE = "Devices with one url share it, and what is said of the line must be the same for all of them."


class ModbusOptions(Table):
    """A unit id behind a URL. Which devices need which option: docs/modbus.md."""

    url: Annotated[str, AfterValidator(_modbus_url)] = Field(
        description="tcp://host[:502], tls://host[:802], udp://, rtu+tcp://, ascii+tcp://, "
        f"rtu:///dev/ttyUSB0?baudrate=9600&parity=N or ascii:///dev/ttyS1. {_OF_THE_LINE}",
        examples=["tcp://127.0.0.1:502"],
    )
    backup: Annotated[str, AfterValidator(_modbus_url)] | None = Field(
        None, description="Where to connect while nothing answers at url. Of the line.", examples=["tcp://10.0.0.8:502"]
    )
    unit: int = Field(1, ge=0, le=255, description="Unit id.", examples=[1])
    tries: int = Field(
        2, ge=1, le=10, description="How often a request is sent before the device counts as lost.", examples=[2]
    )
    late_after: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "10m"))] | None = Field(
        None,
        alias="late",
        description="Serial framing: the longest that an answer may come after its time-out. Left out: timeout.",
        examples=["2s"],
    )
    first_timeout: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "10m"))] | None = Field(
        None, description="The longest wait for the first answer after connecting. Left out: timeout.", examples=["10s"]
    )
    one_tag_per_request: bool = Field(False, description="Never read two tags in one request.", examples=[True])
    addresses: Literal["zero_based", "one_based"] = Field(
        "zero_based",
        description="one_based: the tag list counts from 1, so that hr:1 is address 0 on the wire.",
        examples=["one_based"],
    )
    any_unit_id: bool = Field(
        False, description="Answers may name any unit (Modbus TCP framing). Of the line.", examples=[True]
    )
    any_transaction_id: bool = Field(
        False,
        description="Answers may have any transaction id: then only their order tells them apart, as on a serial line. "
        "Of the line.",
        examples=[True],
    )
    delay: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "1m"))] | None = Field(
        None,
        description="Silence between an answer and the next request. Left out: what the framing needs. Of the line.",
        examples=["20ms"],
    )
    connect_pause: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "1m"))] | None = Field(
        None, description="Silence after connecting. Of the line.", examples=["500ms"]
    )
    connection: Literal["keep", "each_poll"] = Field(
        "keep", description="each_poll: it is closed after every poll. Of the line.", examples=["each_poll"]
    )
    pipeline: int = Field(
        1, ge=1, le=16, description="Transactions under way at once (Modbus TCP framing). Of the line.", examples=[4]
    )
    echo: bool = Field(
        False, description="The serial adapter gives back what is sent through it. Of the line.", examples=[True]
    )
    ca: FilePath | None = Field(
        None, description="tls: PEM file of the CA, or of the device's own certificate.", examples=["./ca.pem"]
    )
    cert: FilePath | None = Field(None, description="tls: PEM file of our certificate.", examples=["./agent.pem"])
    key: FilePath | None = Field(None, description="tls: PEM file of its key.", examples=["./agent.key"])
    server_name: str | None = Field(
        None, description="tls: the name in the device's certificate. Left out: the host.", examples=["plc7.plant"]
    )

    @model_validator(mode="after")
    def _fits(self) -> ModbusOptions:
        settings = self.line
        first = settings.endpoints[0]
        if any(each.framing is not first.framing for each in settings.endpoints):
            raise ValueError('backup has another framing than url; write backup = "tcp://..." beside url = "tcp://..."')
        serial = first.framing is not Framing.MBAP
        if serial and self.unit == 0:
            raise ValueError("unit 0 is a broadcast, which nobody answers on a serial line; write unit = 1 to 247")
        if self.pipeline > 1 and settings.ordered:
            raise ValueError("only transaction ids tell several answers apart; write pipeline = 1, or a tcp:// url")
        if serial and (self.any_unit_id or self.any_transaction_id):
            raise ValueError("any_unit_id and any_transaction_id are for Modbus TCP framing; write neither here")
        if self.echo and not serial:
            raise ValueError("only serial adapters give an echo; write echo = false")
        tls = any(each.carrier is Carrier.TLS for each in settings.endpoints)
        if not tls and any((self.ca, self.cert, self.key, self.server_name)):
            raise ValueError('ca, cert, key and server_name are for TLS; write url = "tls://host:802"')
        if (self.cert is None) != (self.key is None):
            raise ValueError("a certificate needs its key; write cert and key, or neither")
        return self

    @property
    def line(self) -> LineSettings:
        """What all devices with its URL share."""
        return LineSettings(
            tuple(Endpoint.parse(each) for each in (self.url, self.backup) if each is not None),
            self.delay,
            self.connect_pause or 0.0,
            self.pipeline,
            self.connection == "each_poll",
            self.echo,
            self.any_transaction_id,
            self.any_unit_id,
            self.ca,
            self.cert,
            self.key,
            self.server_name,
        )

    @property
    def host(self) -> str:
        """Empty for a serial port."""
        return Endpoint.parse(self.url).host

    @property
    def port(self) -> int:
        """0 for a serial port."""
        return Endpoint.parse(self.url).port

    def on_wire(self, tag: Tag, address: object) -> Tag:
        """The tag at its address counted from 0. A manual's number such as 40101 means the same in every list."""
        if self._from_one(address) and address.number:
            return replace(tag, address=replace(address, number=address.number - 1).text)
        return tag

    def uncounted(self, address: object) -> str:
        """Why there is no such address in a list that counts from 1; empty where there is."""
        if self._from_one(address) and not address.number:
            return f'{address.text} in a list that counts from 1; write {address.table}:1, or addresses = "zero_based"'
        return ""

    def _from_one(self, address: object) -> TypeGuard[ModbusAddress]:
        return self.addresses == "one_based" and isinstance(address, ModbusAddress) and not address.digits


def misfits(devices: Sequence[tuple[int, ModbusOptions]]) -> Iterator[tuple[int, str, str]]:
    """What only the machine and the other devices can tell: (the given place, key, "what is wrong; write ...")."""
    seen: dict[object, LineSettings] = {}
    for at, device in devices:
        for name, path in (("ca", device.ca), ("cert", device.cert), ("key", device.key)):
            if path is not None and not is_file(path):
                yield at, name, f"there is no file {path}; write the path of one in PEM form"
        mine = device.line
        other = seen.setdefault(mine.endpoints[0].bus, mine)
        if mine.endpoints[0] != other.endpoints[0]:
            place = mine.endpoints[0].place
            yield at, "url", f"a device before this one reaches {place} in another way; write the same url in both"
            continue
        odd = [each.name for each in fields(mine) if getattr(mine, each.name) != getattr(other, each.name)]
        if odd:
            name = {"endpoints": "backup", "each_poll": "connection"}.get(odd[0], odd[0])
            yield at, name, f"a device before this one has the same url and another {name}; write the same in both"
