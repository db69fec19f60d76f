"""Types of Arrow columns: as rows are stored, as they are read, and as a release writes them.

Arrow's JSON type (`datasets` gives it to columns whose values are of several types) is text that
spells a value: rows are stored by the text, read by the value, and released with the type.
"""

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poisonwatch.errors import SourceError
from poisonwatch.sources.json_row import parse_json_value
from poisonwatch.text.display import excerpt

Decode = Callable[[Any], Any]
MAX_COLUMNS = 2000  # with those in structs; each takes time in every row


def simplify_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without types whose values lie outside the row (dictionaries, runs, views), and
    without extensions but Arrow's JSON type.
    """
    return _map_types(schema, keep_json=True)


def widen_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with types that `datasets` reads in place of those that it does not: decimals of
    less than 128 bits get as many.
    """
    return pa.schema([_widen_field(field) for field in schema], schema.metadata)


def _widen_field(field: pa.Field) -> pa.Field:
    return field.with_type(_widen(field.type))


def _widen(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return _rebuild(kind, _widen_field)


def _rebuild(kind: pa.DataType, change: Callable[[pa.Field], pa.Field]) -> pa.DataType:
    """A type with other fields in it."""
    if pa.types.is_struct(kind):
        return pa.struct([change(field) for field in kind])
    if pa.types.is_map(kind):
        key, item = change(kind.key_field), change(kind.item_field)
        return pa.map_(key, item, keys_sorted=kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(change(kind.value_field), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(change(kind.value_field))
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(change(kind.value_field))
    return kind


def get_storage_schema(schema: pa.Schema) -> pa.Schema:
    """The simplified schema, with JSON as the text that it is stored as. Rows have the same bytes
    by both.
    """
    return _map_types(schema, keep_json=False)


def _map_types(schema: pa.Schema, keep_json: bool) -> pa.Schema:
    fields = [field.with_type(_simplify(field.type, keep_json)) for field in schema]
    return pa.schema(fields, schema.metadata)


def _simplify(kind: pa.DataType, keep_json: bool) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        storage = _simplify(kind.storage_type, keep_json)
        if keep_json and is_json(kind):
            return pa.json_(storage)
        return storage
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _simplify(kind.value_type, keep_json)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    return _rebuild(kind, lambda field: field.with_type(_simplify(field.type, keep_json)))


def is_json(kind: pa.DataType) -> bool:
    """Whether a type is Arrow's JSON."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"


def unpack_batch(batch: pa.RecordBatch, storage: pa.Schema) -> pa.RecordBatch:
    """A batch, whose columns are those of the storage schema, by that schema.

    Raises pa.ArrowException where a column cannot be.
    """
    columns = []
    for column, field in zip(batch.columns, storage, strict=True):
        columns.append(_unpack(column, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=storage)


def _unpack(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_run_end_encoded(column.type):
        return _unpack(pc.run_end_decode(column), kind)
    # Casting loses the lists of a view that lie behind one that is missing (pyarrow 25).
    if _holds_list_views(column.type):
        return pa.array(column.to_pylist(), kind)
    # A copy: of a slice, everything would be cast that it is a slice of.
    return pa.concat_arrays([column]).cast(kind)


def _holds_list_views(kind: pa.DataType) -> bool:
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return True
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return any(map(_holds_list_views, inner))


def list_records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch as records, maps as mappings.

    Raises KeyError where a key stands twice in a map.
    """
    # Asking for mappings takes many times as long.
    if any(_holds_maps(field.type) for field in batch.schema):
        return list(batch.to_pylist(maps_as_pydicts="strict"))
    return list(batch.to_pylist())


def _holds_maps(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return True
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return any(map(_holds_maps, inner))


def make_decoder(schema: pa.Schema) -> Decode | None:
    """What reads the JSON in a row's record, in place; None where no column holds any.

    It raises ValueError, naming the column, where a text spells no value.
    """
    decoders = _find_decoders(schema)
    if not decoders:
        return None

    def decode(record: dict[str, Any]) -> dict[str, Any]:
        for name, decode_value in decoders.items():
            try:
                record[name] = decode_value(record[name])
            except ValueError as error:
                raise ValueError(f"{name_column(name)} holds JSON: {error}") from None
        return record

    return decode


def _find_decoders(fields: Iterable[pa.Field]) -> dict[str, Decode]:
    """What reads the JSON in fields, by their names; none for those that hold none."""
    decoders: dict[str, Decode] = {}
    for field in fields:
        found = _find_decoder(field.type)
        if found is not None:
            decoders[field.name] = found
    return decoders


def _find_decoder(kind: pa.DataType) -> Decode | None:
    """What reads the JSON in a value of a type; None where the type holds none."""
    if is_json(kind):
        return _decode_json
    if pa.types.is_struct(kind):
        return _find_struct_decoder(kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list and not pa.types.is_fixed_size_list(kind) and not pa.types.is_map(kind):
        return None
    inner = _find_decoder(kind.item_type if pa.types.is_map(kind) else kind.value_type)
    if inner is None:
        return None

    def decode(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, Mapping):
            return {key: inner(item) for key, item in value.items()}
        return [inner(item) for item in value]

    return decode


def _find_struct_decoder(kind: pa.StructType) -> Decode | None:
    decoders = _find_decoders(kind)
    if not decoders:
        return None

    def decode(value: Any) -> Any:
        if value is None:
            return None
        return value | {name: decode_it(value[name]) for name, decode_it in decoders.items()}

    return decode


def _decode_json(text: str | None) -> Any:
    if text is None:
        return None
    return parse_json_value(text)


def count_all_columns(schema: pa.Schema) -> int:
    """The columns of a schema, each with those in it."""
    waiting = [field.type for field in schema]
    count = 0
    while waiting:
        kind = waiting.pop()
        count += 1
        waiting.extend(kind.field(index).type for index in range(kind.num_fields))
    return count


def refuse_many_columns(count: int, name: str) -> None:
    """Raises SourceError where a row would have more columns than MAX_COLUMNS."""
    if count > MAX_COLUMNS:
        raise SourceError(
            f"{name} has {count:,} columns, of at most {MAX_COLUMNS:,}: leave those out that "
            "nothing is trained on"
        )


def refuse_unwritable_columns(schema: pa.Schema, name: str) -> None:
    """Raises SourceError where Parquet has no type for a column: a release could not hold it."""
    for field in schema:
        try:
            pq.ParquetWriter(BytesIO(), pa.schema([field])).close()
        except pa.ArrowException:
            raise SourceError(
                f"{name}: {name_column(field.name)} is of the type {excerpt(str(field.type))}, "
                "which Parquet cannot hold, so it could not be released: leave it out, or convert "
                "it"
            ) from None


def name_column(name: str) -> str:
    """A column, for messages."""
    return f"the column {excerpt(name, 60)!a}"
