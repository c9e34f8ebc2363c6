"""Codecs, and what a client accepts."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import re
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_dtypes, array_shapes, arrays, scalar_dtypes, unicode_string_dtypes

from optml.serving.errors import InferenceError
from optml.serving.http.payload import SPOOL_SIZE, Payload
from optml.serving.model import codecs, optional
from tests.support.bodies import BODIES, VALUES


def payload(data: bytes) -> Payload:
    whole = Payload()
    whole.write(data)
    return whole


def npy(array: numpy.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    numpy.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("header", "bare"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        ("application/x-ndjson", "application/jsonlines"),
        ('text/csv; header="present; x"', "text/csv"),
    ],
)
def test_media_type(header: str, bare: str) -> None:
    assert codecs.media_type(header) == bare


@pytest.mark.parametrize(
    ("header", "first"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/csv;q=0.2, application/x-npy", "application/x-npy"),
        ("image/png;q=0.1, */*;q=0.9", "application/json"),
        ("text/*", "text/csv"),
        (",,,", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
    ],
)
def test_accepted(header: str, first: str) -> None:
    assert codecs.accepted(header, "application/json")[0] == first


def test_accept_with_quality_zero_is_refused() -> None:
    assert codecs.JSON not in codecs.accepted("application/json;q=0, */*", "application/json")


def test_csv_has_rows_and_columns() -> None:
    decoded = codecs.decode(payload(b"1,2.5\n3,4\n"), codecs.CSV)
    assert decoded.tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert codecs.decode(payload(b"1,2\n"), codecs.CSV).shape == (1, 2)


def test_csv_with_text_is_rows() -> None:
    decoded = codecs.decode(payload(b'1,"a, b"\n2,c\n'), codecs.CSV)
    assert decoded == [[1.0, "a, b"], [2.0, "c"]]


def test_csv_of_a_spreadsheet_begins_with_a_byte_order_mark() -> None:
    assert codecs.decode(payload(b"\xef\xbb\xbf1,2\n"), codecs.CSV).tolist() == [[1.0, 2.0]]
    assert codecs.decode(payload(b"\xef\xbb\xbfage,2\n"), codecs.CSV) == [["age", 2.0]]


def test_csv_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "find", lambda name: None)
    assert codecs.decode(payload(b"1,2\n3,4\n"), codecs.CSV) == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(InferenceError) as refused:
        codecs.decode(payload(b""), codecs.NPY)
    assert refused.value.status == 415


def test_arrays_survive_the_round_trip() -> None:
    array = numpy.arange(6, dtype="float32").reshape(2, 3)
    body, mimetype = codecs.encode(array, [codecs.NPY])
    assert mimetype == codecs.NPY
    assert numpy.array_equal(codecs.decode(payload(body), codecs.NPY), array)
    archive = io.BytesIO()
    numpy.savez(archive, a=array)
    assert numpy.array_equal(codecs.decode(payload(archive.getvalue()), codecs.NPZ)["a"], array)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("unpickled what a client sent",))


@pytest.mark.parametrize("content_type", [codecs.NPY, codecs.NPZ])
def test_pickles_are_refused(content_type: str) -> None:
    objects = numpy.array([Bomb()], dtype=object)
    archive = io.BytesIO()
    numpy.savez(archive, a=objects)
    for body in (npy(objects, allow_pickle=True), archive.getvalue(), pickle.dumps(Bomb())):
        with pytest.raises(InferenceError) as refused:
            codecs.decode(payload(body), content_type)
        assert refused.value.status == 400


def test_unknown_types() -> None:
    with pytest.raises(InferenceError) as refused:
        codecs.decode(payload(b""), "image/png")
    assert refused.value.status == 415
    with pytest.raises(InferenceError) as refused:
        codecs.encode([1], ["image/png"])
    assert refused.value.status == 406


def test_a_type_that_cannot_hold_the_prediction_gives_way() -> None:
    ragged = [[1], [2, 3]]
    assert codecs.encode(ragged, [codecs.NPY, codecs.JSON])[1] == codecs.JSON
    with pytest.raises(InferenceError, match="inhomogeneous") as refused:
        codecs.encode(ragged, [codecs.NPY])
    assert refused.value.status == 406
    assert codecs.encode(["\ud800"], [codecs.CSV])[0] == b"?\n"


def test_an_array_with_a_damaged_head_is_no_fault_of_ours() -> None:
    with pytest.raises(InferenceError, match="not valid") as refused:
        codecs.decode(
            payload(npy(numpy.eye(3)).replace(b"'fortran_order':", b"'fortran_order'[")), codecs.NPY
        )
    assert refused.value.status == 400


@pytest.mark.parametrize("sent", ["[[1, 2], [3, 4]]", "[1, 2.5]", "[[[1]], [[2]]]", "[]"])
def test_json_that_is_a_rectangle_of_numbers_is_an_array(sent: str) -> None:
    decoded = codecs.decode(payload(sent.encode()), codecs.JSON)
    assert isinstance(decoded, numpy.ndarray)
    assert decoded.tolist() == json.loads(sent)


@pytest.mark.parametrize(
    "sent",
    [
        *("[[1], [2, 3]]", '["a", 1]', '{"a": [1]}', "[true, 1]", "[null, 1]", "[[1], 2]", "7"),
        *(f"[{2**64}]", "[" * 100 + "]" * 100, f'["{"x" * 1_000_000}", {"1, " * 100_000} 1]'),
    ],
)
def test_json_of_another_shape_stays_as_it_is(sent: str) -> None:
    decoded = codecs.decode(payload(sent.encode()), codecs.JSON)
    assert repr(decoded) == repr(json.loads(sent))


def test_json_without_numpy_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "find", lambda name: None)
    assert codecs.decode(payload(b"[[1, 2]]"), codecs.JSON) == [[1, 2]]


class Color(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Row:
    x: int
    when: date


@dataclass
class Table:
    """A dataclass with attributes that are not fields, a private field, and a method that tables have."""

    columns: list[Any]
    seed: InitVar[int]
    limit: ClassVar[int] = 7
    unset: int = field(init=False, repr=False)
    _key: str = ""

    def __post_init__(self, seed: int) -> None:
        self.further = seed

    def to_dict(self) -> dict[str, Any]:
        raise NotImplementedError


NOW = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
WRITTEN = [
    ([1, 2], "[1,2]"),
    ({"ü": "ß\ud800"}, '{"ü":"ß\\ud800"}'),
    ([float("nan"), float("inf"), {"a": -float("inf")}], '[null,null,{"a":null}]'),
    (numpy.array([[1, numpy.nan]]), "[[1.0,null]]"),
    (numpy.array(["2026-01-02"], "datetime64[ns]"), '["2026-01-02T00:00:00"]'),
    ([Decimal("1.5"), Decimal("NaN")], "[1.5,null]"),
    ([NOW, NOW.date(), NOW.time()], '["2026-01-02T03:04:05.000600+00:00","2026-01-02","03:04:05.000600"]'),
    ({"id": UUID(int=1)}, '{"id":"00000000-0000-0000-0000-000000000001"}'),
    (range(3), "[0,1,2]"),
    ({1: {2}, None: frozenset()}, '{"1":[2],"null":[]}'),
    ([Color.RED, Point(1, 2), Row(1, NOW.date())], '["red",[1,2],{"x":1,"when":"2026-01-02"}]'),
    (
        {"a": Table([Table([2**70], 1), Row(1, NOW.date())], 1)},
        '{"a":{"columns":[{"columns":[1180591620717411303424]},{"x":1,"when":"2026-01-02"}]}}',
    ),
    (Table([Row(1, NOW.date()), float("nan")], 1), '{"columns":[{"x":1,"when":"2026-01-02"},null]}'),
    (2**70, "1180591620717411303424"),
]


@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize(("prediction", "written"), WRITTEN, ids=repr)
def test_json_is_the_same_with_and_without_orjson(
    prediction: Any, written: str, accelerated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not accelerated:
        monkeypatch.setattr(optional, "find", lambda name: None)
    assert (optional.find("orjson") is not None) is accelerated
    assert codecs.encode(prediction, [codecs.JSON]) == (written.encode(), codecs.JSON)


class Opaque:
    pass


@pytest.mark.parametrize(
    ("kind", "prediction", "named"),
    [
        (codecs.CSV, {"a": 1}, "this dict: a dict is not a single value"),
        (codecs.CSV, [{"a": 1}], "this list: a dict is not a single value"),
        (codecs.CSV, numpy.zeros((2, 2, 2)), "this ndarray: a list is not a single value"),
        (codecs.CSV, [[1, [2]]], "this list: a list is not a single value"),
        (codecs.TEXT, [1, 2], "this list: a list is not a single value"),
        (codecs.NPY, [{"a": 1}], "this list"),
    ],
)
def test_what_a_type_cannot_carry_is_refused(kind: str, prediction: Any, named: str) -> None:
    with pytest.raises(InferenceError, match=f"{kind} cannot carry {named}") as refused:
        codecs.encode(prediction, [kind])
    assert refused.value.status == 406
    assert codecs.encode(prediction, [kind, codecs.JSON])[1] == codecs.JSON


@pytest.mark.parametrize("kind", [codecs.JSON, codecs.JSON_LINES, codecs.CSV, codecs.TEXT])
def test_an_object_without_a_form_is_never_written_as_its_repr(kind: str) -> None:
    with pytest.raises(InferenceError, match="Opaque has no known form: convert it in output_fn") as refused:
        codecs.encode([Opaque()] if kind != codecs.TEXT else Opaque(), [kind])
    assert refused.value.status == 500


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_are_records_in_json_and_values_in_csv(library: str) -> None:
    columns = {"a": [1, 2], "b": [0.5, None], "c": ["x", "y"], "d": [NOW.replace(tzinfo=None)] * 2}
    package = importlib.import_module(library)
    table = package.table(columns) if library == "pyarrow" else package.DataFrame(columns)
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for record in records:
        record["d"] = "2026-01-02T03:04:05.000600"
    assert json.loads(codecs.encode(table, [codecs.JSON])[0]) == records
    lines = codecs.encode(table, [codecs.JSON_LINES])[0].splitlines()
    assert [json.loads(line) for line in lines] == records
    csv = codecs.encode(table, [codecs.CSV])[0].decode().replace("nan", "")
    assert csv == "1,0.5,x,2026-01-02T03:04:05.000600\n2,,y,2026-01-02T03:04:05.000600\n"
    column = table["a"]
    assert codecs.encode(column, [codecs.JSON])[0] == b"[1,2]"
    assert codecs.encode(column, [codecs.CSV])[0] == b"1\n2\n"


def test_json_writes_arrays_and_scalars() -> None:
    prediction = {"a": numpy.arange(2), "b": numpy.float32(0.5), "c": {1}, "d": b"x"}
    body, _ = codecs.encode(prediction, [codecs.JSON])
    assert json.loads(body) == {"a": [0, 1], "b": 0.5, "c": [1], "d": "x"}


def test_rows_in_lines() -> None:
    assert codecs.encode(numpy.arange(4).reshape(2, 2), [codecs.CSV])[0] == b"0,1\n2,3\n"
    assert codecs.encode([1, 2], [codecs.CSV])[0] == b"1\n2\n"
    assert codecs.encode([["a\rb", "c\nd"]], [codecs.CSV])[0] == b'"a\rb","c\nd"\n'
    lines = codecs.encode([{"a": 1}, [2]], [codecs.JSON_LINES])[0]
    assert [json.loads(line) for line in lines.splitlines()] == [{"a": 1}, [2]]


TYPED = st.sampled_from([*BODIES.items(), (codecs.OCTETS, st.binary())])
SENT = TYPED.flatmap(lambda typed: st.tuples(st.just(typed[0]), typed[1] | st.binary(max_size=50)))


@pytest.mark.filterwarnings("ignore:loadtxt")
@settings(max_examples=2000, deadline=None)
@given(SENT)
@example((codecs.CSV, b"\n\xef\xbb\xbf,0.0"))
def test_no_bytes_break_a_codec(sent: tuple[str, bytes]) -> None:
    """Whatever a client sends is decoded or refused with 400; decoded data survives the round trip."""
    content_type, body = sent
    try:
        decoded = codecs.decode(payload(body), content_type)
    except InferenceError as refused:
        assert refused.status == 400
        return
    if content_type in codecs.ENCODERS:
        encoded, _ = codecs.encode(decoded, [content_type])
        again, _ = codecs.encode(codecs.decode(payload(encoded), content_type), [content_type])
        assert again == encoded


DTYPES = scalar_dtypes() | unicode_string_dtypes() | array_dtypes()


@pytest.mark.filterwarnings("ignore:Stored array")
@given(arrays(DTYPES, array_shapes(min_dims=0, min_side=0)))
def test_every_array_survives_the_round_trip(array: numpy.ndarray) -> None:
    body, _ = codecs.encode(array, [codecs.NPY])
    decoded = codecs.decode(payload(body), codecs.NPY)
    assert (decoded.dtype, decoded.shape, decoded.tobytes()) == (array.dtype, array.shape, array.tobytes())
    archive = io.BytesIO()
    numpy.savez(archive, a=array)
    assert codecs.decode(payload(archive.getvalue()), codecs.NPZ)["a"].tobytes() == array.tobytes()


TEXT = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not is_number(text))


@given(st.lists(st.lists(TEXT, min_size=1), min_size=1))
def test_rows_of_text_survive_the_round_trip(rows: list[list[str]]) -> None:
    body, _ = codecs.encode(rows, [codecs.CSV])
    assert codecs.decode(payload(body), codecs.CSV) == rows


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@given(st.lists(VALUES.filter(lambda value: re.search(r"\b(nan|inf)\b", repr(value)) is None)))
def test_json_lines_survive_the_round_trip(values: list[object]) -> None:
    body, _ = codecs.encode(values, [codecs.JSON_LINES])
    assert repr(codecs.decode(payload(body), codecs.JSON_LINES)) == repr(values)


def test_what_is_nested_too_deep_to_be_written_is_no_fault_of_the_model() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for kind in (codecs.JSON, codecs.JSON_LINES, codecs.CSV):
        with pytest.raises(InferenceError) as refused:
            codecs.encode(deep, [kind])
        assert refused.value.status == 406


@given(st.text(max_size=60))
def test_no_header_breaks_the_negotiation(header: str) -> None:
    codecs.media_type(header)
    assert isinstance(codecs.accepted(header, "application/json"), tuple)


@given(
    st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=9)
)
def test_json_round_trip(value: object) -> None:
    body, _ = codecs.encode(value, [codecs.JSON])
    decoded = codecs.decode(payload(body), codecs.JSON)
    assert (decoded.tolist() if isinstance(decoded, numpy.ndarray) else decoded) == value


def test_deep_json_is_refused() -> None:
    with pytest.raises(InferenceError):
        codecs.decode(payload(b"[" * 200_000), codecs.JSON)


@given(st.lists(st.binary(max_size=10)), st.booleans())
def test_a_payload_is_what_was_written(pieces: list[bytes], large: bool) -> None:
    whole = Payload()
    if large:
        pieces = [b"x" * SPOOL_SIZE, *pieces, b"y"]
    for piece in pieces:
        whole.write(piece)
    assert whole.read() == whole.file().read() == b"".join(pieces)
    assert whole.size == len(b"".join(pieces))
    whole.close()
