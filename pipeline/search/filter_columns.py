"""The values of one field of an index, and how filters compare them, by the rules of the field's type."""

import ipaddress
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.text import java_string
from pipeline.errors import PipelineError, did_you_mean
from pipeline.search.open_index import Bools, SearchIndex
from transforms.dates import Moment, date_math
from transforms.index.filter_values import MILLISECOND
from transforms.plain_values import PlainField, boolean, plain_address

_COMPARE = {"gt": pc.greater, "gte": pc.greater_equal, "lt": pc.less, "lte": pc.less_equal}
_INTEGERS = ("long", "integer", "short", "byte", "unsigned_long")
_FLOATS = {"float": "float32", "half_float": "float16", "double": "float64"}


@dataclass(frozen=True)
class FilterColumn:
    """All values of a field.

    Attributes:
        field: the field.
        values: its values, those of a document together.
        rows: the document of each value.
        count: number of documents.
    """

    field: PlainField
    values: pa.Array
    rows: npt.NDArray[np.int64]
    count: int

    @property
    def name(self) -> str:
        """Full name of the field."""
        return self.field.name

    def has_value(self) -> Bools:
        """Which documents have a value."""
        return self._documents(np.ones(len(self.values), bool))

    def equal_to(self, wanted: Sequence[Any]) -> Bools:
        """Which documents have one of some values.

        Raises:
            PipelineError: a value is not of the field's type.
        """
        result = np.zeros(self.count, bool)
        single = []
        for value in wanted:
            if self.field.type in ("date", "date_nanos") or (self.field.type == "ip" and "/" in str(value)):
                result |= self.between({"gte": value, "lte": value})
            else:
                single += self._single(value)
        if single:
            result |= self._documents(
                _mask(pc.is_in(self.values, value_set=pa.array(single, self.values.type)))
            )
        return result

    def between(
        self, bounds: Mapping[str, Any], *, format: str | None = None, zone: str | None = None
    ) -> Bools:
        """Which documents have a value within bounds.

        Args:
            bounds: ``gt``, ``gte``, ``lt``, ``lte`` -> value.
            format: of dates in the bounds; None is the field's.
            zone: time zone of dates that name none.

        Raises:
            PipelineError: a bound is not of the field's type, or the type has no order here.
        """
        if self.field.type == "version":
            raise PipelineError(
                f"[{self.name}] is of type [version], whose order filters do not know; use term"
            )
        values = (
            self.values
            if self.field.type != "ip"
            else pa.array([_address(one) for one in self.values.to_pylist()])
        )
        inside = np.ones(len(values), bool)
        for name, bound in bounds.items():
            limit = self._limit(name, bound, format, zone)
            if isinstance(limit, bool) and self.field.type != "boolean":
                inside &= limit
            elif len(values):
                inside &= _mask(_COMPARE[name](values, pa.scalar(limit, values.type)))
        return self._documents(inside)

    def _documents(self, of_values: npt.NDArray[np.bool_]) -> Bools:
        result = np.zeros(self.count, bool)
        result[self.rows[of_values]] = True
        return result

    def _single(self, value: Any) -> list[Any]:
        """A value as it is compared; none where no document can have it, such as 1.5 among integers."""
        try:
            if self.field.type == "boolean":
                return [boolean(value)]
            if self.field.type in _INTEGERS:
                number = _number(value)
                return [int(number)] if number == int(number) and _fits(number, self.values.type) else []
            if self.field.type in _FLOATS:
                return [float(np.dtype(_FLOATS[self.field.type]).type(float(_number(value))))]
            if self.field.type == "scaled_float":
                return [self._scaled(value, lambda steps: math.floor(steps + Decimal("0.5")))]
            if self.field.type == "ip":
                return [plain_address(str(value))]
        except (ValueError, InvalidOperation, OverflowError, TypeError) as error:
            self._refuse(value, error)
        return [value if isinstance(value, str) else java_string(value)]

    def _limit(self, name: str, bound: Any, format: str | None, zone: str | None) -> Any:
        """A bound as values are compared with it; True or False where it includes or excludes all of them."""
        try:
            if self.field.type in ("date", "date_nanos"):
                return self._date_limit(name, bound, format, zone)
            if self.field.type == "ip":
                network = ipaddress.ip_network(str(bound), strict=False)
                return _address(network[-1] if name in ("lte", "gt") else network[0])
            if self.field.type in _INTEGERS:
                number = _number(bound)
                if not _fits(number, self.values.type):
                    return (number > 0) == (name in ("lt", "lte"))
                # Towards the integers that are inside: above 1.5 begins at 2, below it ends at 1.
                return int(number.to_integral_value(ROUND_CEILING if name in ("gte", "lt") else ROUND_FLOOR))
            if self.field.type in _FLOATS:
                return float(np.dtype(_FLOATS[self.field.type]).type(float(_number(bound))))
            if self.field.type == "scaled_float":
                towards = math.ceil if name in ("gte", "lt") else math.floor
                return self._scaled(bound, towards)
            if self.field.type == "boolean":
                return boolean(bound)
        except (ValueError, InvalidOperation, OverflowError, TypeError) as error:
            self._refuse(bound, error)
        return bound if isinstance(bound, str) else java_string(bound)

    def _scaled(self, value: Any, rounded: Callable[[Decimal], int]) -> float:
        """A number in the steps of a ``scaled_float``; as decimals, for the doubles 0.29 and 100 make less than 29."""
        number, factor = float(_number(value)), self.field.scaling_factor
        return number if factor is None else rounded(Decimal(repr(number)) * Decimal(repr(factor))) / factor

    def _date_limit(self, name: str, bound: Any, format: str | None, zone: str | None) -> int:
        """A date stands for its whole day, month or year: ``gte`` and ``lt`` mean its beginning, the others the end."""
        formats = tuple(format.split("||")) if format else self.field.formats
        text = bound if isinstance(bound, str) else java_string(bound)
        if not isinstance(bound, str) and "epoch_millis" not in formats:
            formats = (*formats, "epoch_millis")
        moment: Moment = date_math(text, formats, time.time_ns(), zone)
        limit = moment.first if name in ("gte", "lt") else moment.last
        return limit // MILLISECOND if self.field.type == "date" else limit

    def _refuse(self, value: Any, error: Exception) -> None:
        why = f": {error}" if str(error) and not isinstance(error, InvalidOperation) else ""
        raise PipelineError(
            f"[{self.name}] is of type [{self.field.type}], and {value!r} is none{why}"
        ) from None


def open_column(index: SearchIndex, name: str) -> FilterColumn:
    """The values of a field, or of ``_id``.

    Raises:
        PipelineError: there is no such field.
    """
    count = len(index.alive)
    if name == "_id":
        ids = _combined(index.documents["_id"])
        return FilterColumn(PlainField("_id", "keyword"), ids, np.arange(count), count)
    field = index.state.filters().get(name)
    if field is None:
        known = list(index.state.plain)
        raise PipelineError(
            f"[{name}] is no field that a filter can use{did_you_mean(name, known)}; there are: "
            f"{', '.join(['_id', *known])} (fields of type text are for searching)"
        )
    lists = _combined(index.documents[name])
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return FilterColumn(field, lists.flatten(), np.repeat(np.arange(count), lengths), count)


def _combined(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _number(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise ValueError("a boolean is no number")
    number = Decimal(str(value).strip())
    if not number.is_finite():
        raise ValueError("it is not finite")
    return number


def _fits(number: Decimal, type_: pa.DataType) -> bool:
    return 0 <= number < 2**64 if type_ == pa.uint64() else -(2**63) <= number < 2**63


def _address(text: Any) -> bytes:
    """An address as 16 bytes, which are ordered as Elasticsearch orders addresses."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def _mask(values: Any) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask.astype(np.bool_)
