"""The words everything else is written in: tag, reading, quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple, TypeAlias

Scalar: TypeAlias = bool | int | float | str | bytes
Value: TypeAlias = Scalar | Sequence[Scalar] | None
"""An array is a list or a tuple of values of one type, none of them None. An empty one is a value, None is not."""


class ValueType(StrEnum):
    """What a tag's readings are. PLC names: REAL is float32, LREAL float64, INT int16, UDINT uint32."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    BYTES = "bytes"
    BOOL_ARRAY = "bool[]"
    INT8_ARRAY = "int8[]"
    INT16_ARRAY = "int16[]"
    INT32_ARRAY = "int32[]"
    INT64_ARRAY = "int64[]"
    UINT8_ARRAY = "uint8[]"
    UINT16_ARRAY = "uint16[]"
    UINT32_ARRAY = "uint32[]"
    UINT64_ARRAY = "uint64[]"
    FLOAT32_ARRAY = "float32[]"
    FLOAT64_ARRAY = "float64[]"
    STRING_ARRAY = "string[]"
    BYTES_ARRAY = "bytes[]"

    @property
    def element(self) -> ValueType:
        """The type of an array's elements; of any other type itself."""
        return ValueType(self.removesuffix("[]"))

    @property
    def is_array(self) -> bool:
        return self.endswith("[]")

    @property
    def is_number(self) -> bool:
        """Whether its values have a distance, a scale and limits."""
        return not self.is_array and self not in (ValueType.BOOL, ValueType.STRING, ValueType.BYTES)


class StatusCode(IntEnum):
    """The OPC UA StatusCodes (OPC 10000-6 annex A.2) that the agent itself gives. Any other may pass through."""

    GOOD = 0x0000_0000
    BAD_INTERNAL_ERROR = 0x8002_0000
    BAD_COMMUNICATION_ERROR = 0x8005_0000
    BAD_DECODING_ERROR = 0x8007_0000
    BAD_TIMEOUT = 0x800A_0000
    BAD_NODE_ID_UNKNOWN = 0x8034_0000
    BAD_NOT_READABLE = 0x803A_0000
    BAD_OUT_OF_RANGE = 0x803C_0000
    BAD_NOT_CONNECTED = 0x808A_0000
    BAD_DEVICE_FAILURE = 0x808B_0000
    BAD_SENSOR_FAILURE = 0x808C_0000
    BAD_TYPE_MISMATCH = 0x8074_0000


class Reading(NamedTuple):
    """One observed value. `tag` is the index in the tag table, `time_ns` the source time in ns UTC since 1970.

    `quality` is an OPC UA StatusCode. `value` is None where a bad reading has no value: it is never turned into 0.
    """

    tag: int
    time_ns: int
    value: Value
    quality: int = 0


@dataclass(frozen=True, slots=True)
class Tag:
    """One configured data item of a device. `index` is its place in the tag table of the epoch.

    `type` is the type of the raw value; `reading_type` what its readings are (a scaled integer reads as float64).
    `value = raw * scale + offset`, in float64.
    """

    index: int
    device: str
    name: str
    address: str
    type: ValueType
    identifier: str
    order: str = "ABCD"
    unit: str = ""
    scale: float | None = None
    offset: float | None = None
    low: float | None = None
    high: float | None = None
    filter: str = ""
    """Empty, `on_change`, `deadband=0.1`, `deadband=2%` (of high - low), `swinging_door=0.5` or `grid=0.05`; each
    also with `; heartbeat=60s` after it (docs/filters.md). Bytes and arrays have only `on_change`."""
    domain: str = ""
    level: int | None = None
    description: str = ""
    length: int = 0
    """Bytes of a string in registers; 0 for every other type."""
    form: str = ""
    """How the device encodes `type` where it is not by the type's own bytes (`agent.encoding.Form`)."""
    invalid: str = ""
    """Raw values that mean "no value", such as `0x7FFF|NaN` (`agent.encoding.sentinels`)."""
    poll: float | None = None
    """Seconds between its reads; None: as often as its device."""
    together: str = ""
    """Tags of a device with the same word here are read in one request."""
    alone: bool = False
    """Whether it is read in a request of its own."""

    @property
    def scaled(self) -> bool:
        return self.scale is not None or self.offset is not None

    @property
    def reading_type(self) -> ValueType:
        return ValueType.FLOAT64 if self.scaled else self.type
