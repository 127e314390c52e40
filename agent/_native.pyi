"""The manual of the Rust half. Times are ns UTC since 1970; qualities are OPC UA StatusCodes (0 = Good).

Pushes hold the GIL (microseconds); `seal` and `decode` release it. Every object may be used from any thread.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypedDict, final, type_check_only

__version__: str

class HeadraceError(Exception):
    """The root of every error of Headrace."""

class BlockError(HeadraceError, ValueError):
    """The bytes are not a block that can be read: damaged, cut short, of a later major version, or hostile."""

@type_check_only
class _Tag(Protocol):
    """What the buffer reads of a tag; `agent.model.Tag` is one.

    A filter is empty, `on_change`, `deadband=E`, `deadband=P%` (of high - low), `swinging_door=E` or `grid=E`, each
    with or without `; heartbeat=60s` after it. What each promises is in docs/filters.md.
    """

    @property
    def type(self) -> str: ...
    @property
    def scale(self) -> float | None: ...
    @property
    def offset(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def filter(self) -> str: ...

@type_check_only
class Field(TypedDict):
    """Where one tag lies in a Modbus response. `at` counts registers, or bits for coils and discrete inputs, from 0.

    `order` is the byte order of a 4-byte value read from its registers: ABCD, DCBA, BADC or CDAB (and the 8-byte
    forms of the same four rules). `bit` picks one bit of a register (0 = least significant). `length` is the number of
    bytes of a string.
    """

    tag: int
    at: int
    type: str
    order: str
    bit: int | None
    length: int

@type_check_only
class Stats(TypedDict):
    """Counters since the buffer was made; `pending_*` is what the next seal would take."""

    accepted: int
    """Readings that the buffer took, filtered ones included."""
    filtered: int
    """Readings that their tag's filter held back. One that still waits for the next (swinging door) is pending."""
    refused: int
    """Readings lost because the buffer was at its limit."""
    mistyped: int
    """Readings whose value did not fit the tag's type: kept with BadTypeMismatch and no value."""
    pending_readings: int
    pending_bytes: int
    """Bytes of memory, before compression."""
    sealed_readings: int
    sealed_blocks: int

@final
class Block:
    """A sealed, immutable block: the same bytes in the outbox, on the wire and in a file (docs/block-format.md)."""

    @property
    def data(self) -> bytes: ...
    @property
    def sequence(self) -> int: ...
    @property
    def readings(self) -> int: ...
    @property
    def first_ns(self) -> int: ...
    @property
    def last_ns(self) -> int: ...
    def __len__(self) -> int:
        """Bytes."""

@final
class Buffer:
    """The open columns of one epoch. Tag i of `tags` is the `tag` of every push.

    `max_bytes` bounds its memory (default 64 MiB): what is pushed past it is refused and counted.
    Raises ValueError where a tag's type or filter is unknown, and past 128 MiB or 262,144 tags (a block's own limits).
    """

    def __new__(cls, tags: Sequence[_Tag], max_bytes: int = ...) -> Buffer: ...
    def modbus_plan(self, fields: Sequence[Field], *, bits: bool = False) -> int:
        """Prepares the decoding of one Modbus request's responses; `bits` for function codes 1 and 2.

        Returns the plan for `push_registers`. Raises ValueError where a field or its tag can't be.
        """

    def push_registers(self, plan: int, payload: bytes, time_ns: int) -> int:
        """Decodes one Modbus response: the bytes that follow its byte count. Returns by how many pending grew.

        Raises ValueError, and keeps nothing, where `payload` is not exactly as long as the plan's request asks.
        """

    def push(self, rows: Sequence[tuple[int, int, bool | float | str | None, int]]) -> int:
        """(tag, time_ns, value, quality) rows from any other source. Returns by how many pending grew.

        A value that does not fit its tag's type is kept as a bad reading (BadTypeMismatch) without a value and
        counted; an unknown tag raises IndexError before anything is kept.
        """

    def cut(self) -> bool:
        """Sets aside everything pushed so far, in microseconds: the next `seal` makes its block of that, and of nothing
        that is pushed after this. Returns whether there is anything; harmless while what was set aside is not sealed.
        """

    def seal(
        self,
        *,
        stream: bytes = ...,
        sequence: int = 0,
        epoch: int = 0,
        sealed_ns: int = 0,
        synchronized: bool = True,
    ) -> Block | None:
        """Takes what `cut` set aside, or else everything pushed so far, as one block; None where there is nothing.

        `stream` is the 16 bytes of the stream's uuid, `sealed_ns` the gateway's wall clock, `synchronized` whether
        that clock is known to be right. Readings pushed meanwhile go to the next block.
        """

    @property
    def pending_bytes(self) -> int:
        """Bytes of memory that the next seal would take: what is asked after every push."""

    def stats(self) -> Stats: ...
    def latest(self) -> list[tuple[int, int, bool | float | str | None, int]]:
        """The last reading of every tag that has one, filtered or not: (tag, time_ns, value, quality)."""

@final
class Header:
    """What a block says of itself, readable without decoding its columns."""

    @property
    def kind(self) -> Literal["readings", "gap"]: ...
    @property
    def version(self) -> tuple[int, int]: ...
    @property
    def stream(self) -> bytes: ...
    @property
    def sequence(self) -> int:
        """The block's own place in its stream; of a gap, the first place that it stands for."""

    @property
    def last_sequence(self) -> int:
        """The last place that a gap stands for; of any other block `sequence`."""

    @property
    def epoch(self) -> int: ...
    @property
    def first_ns(self) -> int: ...
    @property
    def last_ns(self) -> int: ...
    @property
    def sealed_ns(self) -> int: ...
    @property
    def synchronized(self) -> bool: ...
    @property
    def readings(self) -> int:
        """Readings in the block; of a gap, readings that are lost (0 where nobody can know)."""

    @property
    def columns(self) -> int: ...
    @property
    def reason(self) -> str:
        """Why a gap is one; empty for readings."""

@final
class Column:
    """One tag of a block, for people and tools."""

    @property
    def tag(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def readings(self) -> int: ...
    @property
    def time_codec(self) -> str: ...
    @property
    def value_codec(self) -> str: ...
    @property
    def problem(self) -> str:
        """Why this column can't be read (an unknown codec); empty where it can."""

@final
class Readings:
    """A decoded block, as an Arrow stream of one batch (PyCapsule interface: duckdb, polars, pandas, pyarrow).

    Columns: tag uint32, time int64 (ns UTC), quality uint32, and the value in the one of these that fits its tag's
    type, null in the others and where the reading has no value: boolean, integer (int64, every signed type), unsigned
    (uint64, every unsigned type), real (float64, both floating types), text (utf8).
    Rows are ordered by tag, then as they were pushed.
    """

    @property
    def header(self) -> Header: ...
    @property
    def columns(self) -> list[Column]: ...
    def __len__(self) -> int: ...
    def rows(self) -> list[tuple[int, int, bool | float | str | None, int]]:
        """The readings as Python values, in the same order: for tools and tests, not for bulk."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

def header(data: bytes) -> Header:
    """Verifies a block's checksum and reads its header. Raises BlockError."""

def decode(data: bytes) -> Readings:
    """Verifies and decodes a block; a gap has no rows. Raises BlockError. A column of an unknown codec is left out,
    and named in `columns`."""

def to_json(block: bytes) -> bytes:
    """Verifies and decodes a block, and writes it as one JSON object in UTF-8 (docs/json-form.md), many times faster
    than `rows()` and a JSON library. Raises BlockError; also past 512 MiB of text.
    """

def gap(
    *,
    stream: bytes,
    first: int,
    last: int,
    epoch: int,
    from_ns: int,
    to_ns: int,
    readings: int,
    reason: str,
    sealed_ns: int,
) -> Block:
    """A block that stands for the places `first` to `last` of a stream, whose readings are known to be missing."""

def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as the trailer of a block has it."""
