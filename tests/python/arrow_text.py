"""Values as DataFusion's own SQL logic tests write them.

The rules are those of the crate `datafusion-sqllogictest` (`engines/conversion.rs`, `engines/datafusion_engine/normalize.rs`) and, for what stands
inside lists, structs and maps, of arrow's `ArrayFormatter`.
"""

import decimal
import functools
import math
import zoneinfo

import numpy
import pyarrow as pa

EXACT = decimal.Context(prec=400, rounding=decimal.ROUND_HALF_EVEN)
TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


@functools.cache
def letter(kind):
    """The letter of a column's type."""
    t = pa.types
    if t.is_dictionary(kind):
        return "T" if letter(kind.value_type) == "T" else "?"
    for test, name in [
        (t.is_boolean, "B"), (t.is_integer, "I"), (t.is_floating, "R"), (t.is_decimal, "R"), (t.is_timestamp, "P"), (t.is_date, "D"), (t.is_time, "D"),
        (t.is_string, "T"), (t.is_large_string, "T"), (t.is_string_view, "T"),
    ]:
        if test(kind):
            return name
    return "?"


def cell(scalar):
    """A value that stands alone in its column."""
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    if not scalar.is_valid or pa.types.is_null(scalar.type):
        return "NULL"
    kind = letter(scalar.type)
    if kind == "T":
        return text(scalar.as_py())
    if kind == "R":
        return rounded(shortest(scalar), 12) if pa.types.is_floating(scalar.type) else rounded(scalar.as_py(), scalar.type.scale)
    return inner(scalar)


def text(value):
    """Text that stands alone in its column."""
    return value.rstrip("\n").replace("\0", "\\0") if value else "(empty)"


# Columns of these need no look at each value's type.
PLAIN = {"T": text, "I": str, "B": lambda value: "true" if value else "false"}


def column(values):
    """A column's cells."""
    plain = PLAIN.get(letter(values.type))
    if plain is None or pa.types.is_dictionary(values.type):
        return [cell(value) for value in values]
    return ["NULL" if value is None else plain(value) for value in values.to_pylist()]


def rounded(number, digits):
    """A number with at most so many digits behind the point, without zeros at its end."""
    if isinstance(number, str):
        return number
    number = EXACT.quantize(number, decimal.Decimal(1).scaleb(-max(digits, 0)))
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def shortest(scalar):
    """A float as the shortest decimal that reads back as it; as text where it is no number."""
    value = scalar.as_py()
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return decimal.Decimal(digits_of(scalar))


def digits_of(scalar):
    """The shortest digits of a finite float."""
    value = scalar.as_py()
    if pa.types.is_float64(scalar.type):
        return repr(float(value))
    # Half floats are shown as the float32 that they are.
    return numpy.format_float_scientific(numpy.float32(value), unique=True, trim="-")


def inner(scalar):
    """A value inside another one, or of a type that has no rule of its own."""
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    if not scalar.is_valid or pa.types.is_null(scalar.type):
        return "NULL"
    kind = scalar.type
    t = pa.types
    if isinstance(scalar, pa.ExtensionScalar):
        return inner(scalar.value)
    if t.is_boolean(kind):
        return "true" if scalar.as_py() else "false"
    if t.is_floating(kind):
        return ryu(scalar)
    if t.is_decimal(kind):
        return format(scalar.as_py(), "f")
    if t.is_timestamp(kind):
        return timestamp(scalar.value, kind)
    if t.is_date32(kind):
        return date(scalar.value)
    if t.is_date64(kind):
        days, rest = divmod(scalar.value, 86_400_000)
        return f"{date(days)}T{clock(rest, 'ms')}"
    if t.is_time(kind):
        return clock(scalar.value, kind.unit)
    if t.is_duration(kind):
        return duration(scalar.value, kind.unit)
    if t.is_interval(kind):
        return interval(scalar.as_py())
    if t.is_map(kind):
        if scalar.values is None or len(scalar.values) == 0:
            return "{}"
        keys, values = scalar.values.flatten()
        return "{" + ", ".join(f"{inner(key)}: {inner(value)}" for key, value in zip(keys, values)) + "}"
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind) or t.is_list_view(kind) or t.is_large_list_view(kind):
        return "[" + ", ".join(inner(item) for item in scalar.values) + "]"
    if t.is_struct(kind):
        return "{" + ", ".join(f"{kind.field(at).name}: {inner(scalar[at])}" for at in range(kind.num_fields)) + "}"
    if t.is_union(kind):
        return "{" + f"{kind.field(scalar.type_code).name}={inner(scalar.value)}" + "}"
    if t.is_run_end_encoded(kind):
        return inner(scalar.value)
    value = scalar.as_py()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def ryu(scalar):
    """A float as the crate `ryu` prints it."""
    value = scalar.as_py()
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if pa.types.is_float16(scalar.type):
        return numpy.format_float_positional(numpy.float32(value), unique=True, trim="-")
    sign, digits, exponent = decimal.Decimal(digits_of(scalar)).as_tuple()
    minus = "-" if sign else ""
    if value == 0:
        return minus + "0.0"
    text = "".join(map(str, digits))
    stripped = text.rstrip("0")
    exponent += len(text) - len(stripped)
    text, point = stripped, len(stripped) + exponent
    most, least = (16, -5) if pa.types.is_float64(scalar.type) else (13, -6)
    if 0 <= exponent and point <= most:
        return minus + text + "0" * exponent + ".0"
    if 0 < point <= most:
        return minus + text[:point] + "." + text[point:]
    if least < point <= 0:
        return minus + "0." + "0" * -point + text
    rest = "." + text[1:] if len(text) > 1 else ""
    return f"{minus}{text[0]}{rest}e{point - 1}"


def date(days):
    """A day of the proleptic Gregorian calendar, of any year."""
    days += 719_468
    era, day = divmod(days, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (month <= 2)
    shown = f"{year:04}" if 0 <= year <= 9999 else f"{year:+05}"
    return f"{shown}-{month:02}-{day + 1:02}"


def fraction(value, unit):
    """Three, six or nine digits behind the second, or none."""
    nanos = value * (10**9 // TICKS[unit])
    for digits in (0, 3, 6):
        step = 10 ** (9 - digits)
        if nanos % step == 0:
            return f".{nanos // step:0{digits}}" if digits else ""
    return f".{nanos:09}"


def clock(value, unit):
    """A time of day."""
    seconds, rest = divmod(value, TICKS[unit])
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction(rest, unit)}"


def timestamp(value, kind):
    """A moment; with a time zone as it is there."""
    offset, suffix = 0, ""
    if kind.tz is not None:
        offset = offset_of(kind.tz, value // TICKS[kind.unit])
        hours, minutes = divmod(abs(offset) // 60, 60)
        suffix = "Z" if offset == 0 else f"{'-' if offset < 0 else '+'}{hours:02}:{minutes:02}"
    days, rest = divmod(value + offset * TICKS[kind.unit], 86_400 * TICKS[kind.unit])
    return f"{date(days)}T{clock(rest, kind.unit)}{suffix}"


def offset_of(zone, seconds):
    """A time zone's offset at a moment, in seconds."""
    if zone[:1] in "+-":
        text = zone[1:].replace(":", "")
        offset = int(text[:2]) * 3600 + int(text[2:4] or 0) * 60
        return -offset if zone[0] == "-" else offset
    import datetime

    inside = min(max(seconds, -62_000_000_000), 253_000_000_000)
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(seconds=inside)
    return int(moment.astimezone(zoneinfo.ZoneInfo(zone)).utcoffset().total_seconds())


def duration(value, unit):
    """A length of time, "pretty"."""
    negative, value = value < 0, abs(value)
    seconds, rest = divmod(value, TICKS[unit])
    parts = [seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60, seconds % 60]
    shown = [-part if negative else part for part in parts]
    if unit == "s":
        return "{} days {} hours {} mins {} secs".format(*shown)
    second = f"{'-' if negative and rest else ''}{parts[3] if rest else shown[3]}.{rest:0{DIGITS[unit]}}"
    return f"{shown[0]} days {shown[1]} hours {shown[2]} mins {second} secs"


def interval(value):
    """Months, days and nanoseconds."""
    parts = []
    if value.months:
        parts.append(f"{value.months} mons")
    if value.days:
        parts.append(f"{value.days} days")
    seconds, nanos = divmod(abs(value.nanoseconds), 10**9)
    sign = "-" if value.nanoseconds < 0 else ""
    for number, name in ((seconds // 3600, "hours"), (seconds // 60 % 60, "mins")):
        if number:
            parts.append(f"{sign}{number} {name}")
    if seconds % 60 or nanos:
        parts.append(f"{sign}{seconds % 60}.{nanos:09} secs")
    return " ".join(parts) or "0 secs"


def rows(table):
    """An answer's rows as lists of cells; a last cell of several lines becomes as many rows, numbered."""
    out = []
    for row in zip(*map(column, table.columns)):
        *first, last = row
        lines = last.split("\n")
        if len(lines) < 2:
            out.append(list(row))
            continue
        out.append(first)
        for number, line in enumerate(lines, 1):
            content = line.lstrip()
            out.append([f"{number:02})" + "-" * (len(line) - len(content)) + content])
    return out
