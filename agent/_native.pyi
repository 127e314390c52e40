"""The manual of the Rust half. Times are ns UTC since 1970; qualities are OPC UA StatusCodes (0 = Good).

Pushes hold the GIL (microseconds); `seal` and `decode` release it. Every object may be used from any thread.
"""

from collections.abc import Sequence
from typing import Literal, NotRequired, Protocol, TypeAlias, TypedDict, final, type_check_only

_Scalar: TypeAlias = bool | float | str | bytes
_Value: TypeAlias = _Scalar | Sequence[_Scalar] | None

__version__: str

class HeadraceError(Exception):
    """The root of every error of Headrace."""

class BlockError(HeadraceError, ValueError):
    """The bytes are not a block that can be read: damaged, cut short, of a later major version, or hostile."""

@type_check_only
class _Tag(Protocol):
    """What the buffer reads of a tag; `agent.model.Tag` is one.

    A filter is empty, `on_change`, `deadband=E`, `deadband=P%` (of high - low), `swinging_door=E` or `grid=E`, each
    with or without `; heartbeat=60s` after it. What each promises is in docs/filters.md. Bytes and arrays have no
    distance: they take `on_change` only.
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

    `form` is the encoding where it is not the type's own bytes (`agent.encoding.Form`). `high` takes an 8-bit value
    from the register's high byte instead of its low one. A value whose bits, as a big-endian number in the given order,
    are in `invalid`, or with `nan` any NaN, is a bad reading (BadSensorFailure) without a value.
    """

    tag: int
    at: int
    type: str
    order: str
    bit: int | None
    length: int
    form: NotRequired[str]
    high: NotRequired[bool]
    invalid: NotRequired[Sequence[int]]
    nan: NotRequired[bool]

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
    def set_range(self, tag: int, low: float, high: float) -> None:
        """Says of which range a tag's filter in percent takes its share, in the unit of its readings.

        A tag with such a filter and without low and high lets everything through until then. Raises ValueError for a
        range that has no share (`low` not below `high`, infinite), IndexError for an unknown tag.
        """

    def set_filtering(self, tags: Sequence[int], *, theirs: bool) -> None:
        """Says that the tags' server filters them (`theirs`), so that all it sends is kept, or that we do, as at first.

        Two deadbands in a row keep neither's bound. A filter of ours that is turned on begins anew, so that the next
        reading passes. Raises IndexError for an unknown tag.
        """

    def modbus_plan(self, fields: Sequence[Field], *, bits: bool = False) -> int:
        """Prepares the decoding of one Modbus request's responses; `bits` for function codes 1 and 2.

        Returns the plan for `push_registers`. Raises ValueError where a field or its tag can't be.
        """

    def push_registers(self, plan: int, payload: bytes, time_ns: int) -> int:
        """Decodes one Modbus response: the bytes that follow its byte count. Returns by how many pending grew.

        What its type can't be (text that is not UTF-8, a BCD digit above 9, 30 February) is a bad reading
        (BadDecodingError) without a value; so is a value that the device marks as none (`Field`; BadSensorFailure).

        Raises ValueError, and keeps nothing, where `payload` is not exactly as long as the plan's request asks.
        """

    def opcua_subscription(self, handles: Sequence[tuple[int, int]]) -> int:
        """(ClientHandle, tag) pairs of one OPC UA subscription. Returns the subscription for `push_publish`.

        The same pairs again return the same number. Raises IndexError for an unknown tag, ValueError for a handle that
        stands for two tags.
        """

    def opcua_renewed(self, subscription: int, known_ns: int, *, spans: bool = False) -> None:
        """Says that the server begins anew: it sends the value of every item once, changed or not.

        Of each tag's next value, one with a time up to `known_ns`, or with the time of the tag's last reading, was read
        before: it is kept with the time `received_ns`, as what holds now, and not as the same reading again.
        With `spans`, `Published.begun` says what may be missing before each of them.
        Raises IndexError for an unknown subscription.
        """

    def opcua_resumed(self, subscription: int) -> None:
        """Says that the subscription goes on over a new connection, after all that was missed was pushed.

        Of each tag's next value, one that is its last reading itself (time, value and quality) is left out: a server
        may send it once more, under a sequence number of its own. Raises IndexError for an unknown subscription.
        """

    def opcua_structure(
        self,
        tag: int,
        *,
        types: Sequence[tuple[str, Sequence[tuple[int, bool, bool]]]],
        encoding: bytes,
        fields: Sequence[tuple[int, Sequence[int]]],
    ) -> None:
        """Says that a tag's node has a structure, and which of its fields are which tags, that one too if it is: from
        then on its values are theirs (OPC 10000-6, 5.2.6 to 5.2.8).

        Each of `types` is `plain`, `optional` (a mask says which are there) or `union`, and its fields: the number of a
        built-in type, or -1 - i for the structure types[i], which has to come before; whether it is an array; whether
        it may be left out. The last is the node's. `encoding` is the encoded NodeId of its binary encoding, and
        `fields` are (tag, path), the path by places. Raises ValueError for what can't be, or is past a bound: 256
        types or fields, 16 levels; IndexError for an unknown tag.

        A field that is not there is a null value; an array of structures, or a value of another one, is mistyped.
        """

    def opcua_known(self, after_ns: int) -> list[tuple[int, int]]:
        """The tags whose server published values with times after `after_ns`, and the times in ns of the last ones."""

    def opcua_know(self, known: Sequence[tuple[int, int]]) -> None:
        """Takes over what `opcua_known` said in an earlier run; unknown tags are passed over."""

    def push_publish(self, subscription: int, body: bytes, received_ns: int) -> Published:
        """Decodes one PublishResponse or RepublishResponse, whole as it came: type id, ResponseHeader, and so on
        (OPC 10000-4, 5.14.5 and 5.14.6; OPC 10000-6, 5.2).

        All or nothing: raises ValueError, with the byte and what is wrong there, and keeps nothing, where the body is
        malformed, past a bound, of another type, or says that the service failed (ServiceFault, bad ServiceResult). The
        bounds: 100 values nested in each other, no array of Nulls, no count or length past the end.

        A value's time is its source time stamp with its picoseconds, else the server's, else `received_ns`. A time
        stamp of 0, of the maximum, or that int64 ns can't hold is none. A value becomes what its tag's type is:

        - any integer type, StatusCode, Float and Double: a number that the tag's type holds exactly. An integer never
          comes from Float or Double, and a number neither from nor to Boolean
        - DateTime: int64 ns, at the ends of what that holds where it is out of range
        - String, XmlElement, LocalizedText (its text), QualifiedName (`2:name`, `name` in namespace 0), Guid, NodeId
          and ExpandedNodeId (`ns=2;s=x`, `svr=1;nsu=urn:x;i=5`): string. What is not UTF-8 is kept with
          BadDecodingError and without a value
        - ByteString: bytes
        - an array, or a matrix of one dimension: the array type whose elements these would be, a null String or
          ByteString in it an empty one. Neither an array for a scalar tag nor the other way round
        - anything else is kept with BadTypeMismatch and without a value, and counted as mistyped; a null value, and one
          that does not fit under a bad status, is kept without a value and with its own status

        ExtensionObjects, matrices, and values of type Variant, DataValue or DiagnosticInfo are left to the caller
        (`Published.undecoded`).
        """

    def push_read(self, tags: Sequence[int], body: bytes, received_ns: int) -> Published:
        """Decodes one ReadResponse, as `push_publish` does: result i is of `tags[i]`, at the server's time, not the
        source's.

        Raises ValueError also where there are not as many results as tags, IndexError for an unknown tag.
        """

    def push_history(self, spans: Sequence[tuple[int, int, int]], body: bytes) -> list[History]:
        """Decodes one HistoryReadResponse of raw values (OPC 10000-11, 6.4.3), as `push_publish` does. Result i is of
        `spans[i]`: a tag, and the times in ns of the values that are known before and after what is missing of it.

        What lies between these times is kept, past the tag's filter, which has seen later values. A time that is one of
        the two, cut to us or ms, is that value, and not kept. Raises ValueError, and keeps nothing, also where there
        are not as many results as spans; IndexError for an unknown tag.
        """

    def push(self, rows: Sequence[tuple[int, int, _Value, int]]) -> int:
        """(tag, time_ns, value, quality) rows from any other source. Returns by how many pending grew.

        A value of bytes is bytes or a bytearray; an array is a list or a tuple of at most 1,048,576 values that fit the
        type of its elements, none of them None. A value that does not fit its tag's type is kept as a bad reading
        (BadTypeMismatch) without a value and counted; an unknown tag raises IndexError before anything is kept.
        """

    def regroup(self, groups: bytes) -> None:
        """Byte i is the group of tag i, 0 at first; holds for what is sealed from now on.

        Raises ValueError where there is not one byte for each tag.
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
        group: int | None = None,
    ) -> Block | None:
        """Takes what `cut` set aside, or else everything pushed so far, as one block; None where there is nothing. With
        a `group` only what of it is of the group's tags (`regroup`): the rest stays aside, for the other groups.

        `stream` is the 16 bytes of the stream's uuid, `sealed_ns` the gateway's wall clock, `synchronized` whether
        that clock is known to be right. Readings pushed meanwhile go to the next block.
        """

    @property
    def pending_bytes(self) -> int:
        """Bytes of memory that the next seal would take: what is asked after every push."""

    def stats(self) -> Stats: ...
    def latest(self) -> list[tuple[int, int, _Value, int]]:
        """The last reading of every tag that has one, filtered or not: (tag, time_ns, value, quality)."""

@final
class History:
    """What a history had of one span (`Buffer.push_history`)."""

    @property
    def status(self) -> int:
        """StatusCode of the node's result."""

    @property
    def point(self) -> bytes:
        """The continuation point to ask for the rest with; empty where there is none."""

    @property
    def kept(self) -> int:
        """Readings within the span, kept."""

    @property
    def refused(self) -> int:
        """Readings within the span that could not be: the buffer was full, or nothing here decodes their type."""

    @property
    def reaches_back(self) -> bool:
        """Whether there was a value at or before the span's begin."""

    @property
    def reaches_on(self) -> bool:
        """Whether there was one at or after its end."""

    @property
    def first_ns(self) -> int:
        """The time of the first value within the span; 0 where there is none."""

    @property
    def last_ns(self) -> int:
        """The time of the last value within the span; 0 where there is none."""

@final
class Published:
    """What an OPC UA response brought (`Buffer.push_publish`, `Buffer.push_read`)."""

    @property
    def sequence(self) -> int:
        """Of the NotificationMessage; of a keep-alive the next one's, of a ReadResponse 0."""

    @property
    def more(self) -> bool:
        """Whether more notifications wait at the server."""

    @property
    def readings(self) -> int:
        """Readings decoded: kept, filtered and refused ones, but neither `undecoded` nor `unknown_handles`."""

    @property
    def grew(self) -> int:
        """By how many pending grew."""

    @property
    def refused(self) -> int:
        """Readings lost because the buffer was at its limit."""

    @property
    def overflows(self) -> list[int]:
        """Tags whose StatusCode says that the server's queue was full and dropped values next to this one."""

    @property
    def missed(self) -> list[tuple[int, int, int]]:
        """The same with times: tag, and the times in ns of the values before and after those that were dropped. The
        first is -2**63 where there was none."""

    @property
    def begun(self) -> list[tuple[int, int, int]]:
        """The same for the first values of a subscription that was made anew (`Buffer.opcua_renewed`), if asked for."""

    @property
    def status(self) -> int | None:
        """The StatusCode of a StatusChangeNotification."""

    @property
    def undecoded(self) -> list[tuple[int, int, int, bytes]]:
        """(tag, time_ns, quality, encoded Variant) of each value that is not decoded here: a row for `push` once it is.

        A Variant and not a DataValue, since asyncua 2.1 reads a DataValue wrongly that has both picoseconds of the
        source and a time of the server: it expects the times first, OPC 10000-6 (5.2.2.17) each with its picoseconds.
        """

    @property
    def dropped(self) -> int:
        """Values and other notifications that were too many to be handed on undecoded, and are lost: past 1,000 in one
        response, or 256 KiB."""

    @property
    def others(self) -> list[bytes]:
        """Encoded ExtensionObjects of other notifications, such as events."""

    @property
    def repeated(self) -> int:
        """Values that were the tag's last reading itself, once more after `opcua_resumed`. They are not kept."""

    @property
    def newest_ns(self) -> int | None:
        """The latest of all its time stamps, the source's and the server's, in ns; None without any."""

    @property
    def unknown_handles(self) -> int:
        """Values of handles that the subscription does not have. They are not kept."""

@final
class PublishHeader:
    """What a PublishResponse or RepublishResponse says around its values. A ServiceFault has only `service_result`."""

    @property
    def service_result(self) -> int: ...
    @property
    def subscription_id(self) -> int:
        """0 of a RepublishResponse, which does not say."""

    @property
    def available(self) -> list[int]:
        """Sequence numbers that the server can send again."""

    @property
    def more(self) -> bool:
        """Whether more notifications wait at the server."""

    @property
    def sequence(self) -> int:
        """Of the NotificationMessage; of a keep-alive the next one's."""

    @property
    def publish_time_ns(self) -> int:
        """When the server made the notification; 0 where it does not say (node-opcua never does)."""

    @property
    def sent_ns(self) -> int:
        """When the server sent this response; 0 where it does not say."""

    @property
    def keep_alive(self) -> bool:
        """Whether it notifies of nothing."""

    @property
    def results(self) -> list[int]:
        """The StatusCode of each acknowledgement, in the order of the request."""

    @property
    def status(self) -> int | None:
        """The StatusCode of a StatusChangeNotification."""

@final
class Identifier:
    """A resolvable industrial identifier: Handle, OID, Ecode, GS1, IRDI, DID, MA, IEC 61406 link or OPC UA node.

    Equal to another where both name the same thing by the rules of their scheme. `Identifier(str(i)) == i`, always.
    Raises ValueError that says which character is wrong, and what to write.
    """

    def __new__(cls, text: str) -> Identifier: ...
    @property
    def scheme(self) -> Literal["handle", "oid", "ecode", "gs1", "irdi", "did", "ma", "link", "opcua"]: ...
    @property
    def text(self) -> str:
        """The canonical form."""

    @property
    def key(self) -> str:
        """What is compared within a scheme; a Handle's prefix has no case, its suffix has."""

    @property
    def concept(self) -> str:
        """The key without the version of an IRDI; the key itself for every other scheme."""

    @property
    def path(self) -> str:
        """The percent-encoded path in a resolver's URL (RFC 3986), `/` left as it is."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Header:
    """What a block says of itself, readable without decoding its columns."""

    @property
    def kind(self) -> Literal["readings", "gap", "correction"]: ...
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
        """Why a gap is one; empty for any other block."""

    @property
    def corrects(self) -> tuple[bytes, int, int, int] | None:
        """Of a correction: the uuid of a stream, the first and the last place of blocks in it, and what is to be added
        to the times that the gateway itself gave to what is in them, ns."""

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
    (uint64, every unsigned type), real (float64, both floating types), text (utf8), bytes (binary); and of arrays the
    lists of the same: boolean_array, integer_array, unsigned_array, real_array, text_array, bytes_array. An empty array
    is a list without elements, and is not null; no element is. Every block has all of these columns, in this order.
    Rows are ordered by tag, then as they were pushed.
    """

    @property
    def header(self) -> Header: ...
    @property
    def columns(self) -> list[Column]: ...
    def __len__(self) -> int: ...
    def rows(self) -> list[tuple[int, int, _Value, int]]:
        """The readings as Python values, in the same order: for tools and tests, not for bulk."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

def header(data: bytes) -> Header:
    """Verifies a block's checksum and reads its header. Raises BlockError."""

def publish_header(body: bytes) -> PublishHeader:
    """Reads what is around the values of a PublishResponse or RepublishResponse, without reading those: what to know
    before `Buffer.push_publish`. Raises ValueError where the body is malformed there, or of another type."""

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
    synchronized: bool = True,
) -> Block:
    """A block that stands for the places `first` to `last` of a stream, whose readings are known to be missing.

    Not `synchronized`: its bounds are of a gateway's clock that was not known to be right."""

def correction(
    *,
    stream: bytes,
    sequence: int,
    epoch: int,
    corrected: bytes,
    first: int,
    last: int,
    offset_ns: int,
    sealed_ns: int,
) -> Block:
    """A block at place `sequence` of `stream` that says: to the times which the gateway itself gave to what is in the
    blocks `first` to `last` of the stream `corrected`, `offset_ns` is to be added. Raises ValueError where `last` is
    before `first`."""

def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as the trailer of a block has it."""
