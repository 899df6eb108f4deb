"""SQL logic tests over the wire: the format of `sqllogictest`, with a few directives in comments for what stands around the SQL.

    # topic NAME PARTITIONS                       the embedded broker has this topic
    # send NAME PARTITION [word=value …] PAYLOAD  sends a record; words: key, timestamp (milliseconds), header.NAME; `\\n` and `\\xNN` are escapes
    # send NAME PARTITION null                    sends a record without a payload
    # settle VALUE SQL                            asks until the answer is VALUE; fails after half a minute, and the file with it

Every answer comes through the ADBC driver. `${brokers}` in SQL stands for the broker's address. Values are written as NULL, (empty), true,
ISO 8601 times with as many digits as they need, [lists], {structs}; the letters after `query` are T text, I integer, R floating point,
N decimal, B boolean, P timestamp, D date, ? anything else.
"""

import dataclasses
import re

import pyarrow as pa

import tidegate


@dataclasses.dataclass
class Step:
    """One record of a file: a statement, a query or a directive."""

    line: int
    kind: str  # ok, error, query, send, settle
    sql: str = ""
    expected: str = ""  # what an error's message matches, what `settle` waits for
    types: str = ""
    sort: str = "nosort"
    rows: tuple = ()
    record: tuple = ()


def parse(text):
    """A file's topics as {name: partitions}, and its steps in order."""
    topics, steps, lines = {}, [], text.split("\n")
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at].rstrip()
        at += 1
        words = line.split()
        if line.startswith("# topic "):
            topics[words[2]] = int(words[3])
        elif line.startswith("# send "):
            steps.append(Step(number, "send", record=parse_record(line[len("# send "):])))
        elif line.startswith("# settle "):
            _, _, value, sql = line.split(" ", 3)
            steps.append(Step(number, "settle", sql=sql, expected=value))
        elif not line or line.startswith("#"):
            continue
        elif words[0] in ("statement", "query"):
            body = []
            while at < len(lines) and lines[at].strip() and lines[at].strip() != "----":
                body.append(lines[at])
                at += 1
            sql, rows = "\n".join(body), []
            if at < len(lines) and lines[at].strip() == "----":
                at += 1
                while at < len(lines) and lines[at].strip():
                    rows.append(" ".join(lines[at].split()))
                    at += 1
            if words[:2] == ["statement", "ok"]:
                steps.append(Step(number, "ok", sql))
            elif words[1] == "error":
                steps.append(Step(number, "error", sql, expected=line.split("error", 1)[1].strip()))
            elif words[0] == "query":
                steps.append(Step(number, "query", sql, types=words[1], sort=words[2] if len(words) > 2 else "nosort", rows=tuple(rows)))
            else:
                raise ValueError(f"line {number}: {line}")
        else:
            raise ValueError(f"line {number} is neither a record nor a comment: {line}")
    return topics, steps


def parse_record(text):
    """(topic, partition, payload, {key, timestamp, headers}) of a `# send`."""
    topic, partition, rest = text.split(" ", 2)
    more, headers = {}, []
    while match := re.match(r"(key|timestamp|header\.\w+)=(\S*) ", rest):
        name, value = match.groups()
        if name == "timestamp":
            more[name] = int(value)
        elif name == "key":
            more[name] = unescape(value)
        else:
            headers.append((name.removeprefix("header."), unescape(value)))
        rest = rest[match.end():]
    if headers:
        more["headers"] = headers
    return topic, int(partition), None if rest == "null" else unescape(rest), more


def unescape(text):
    """`\\n` and `\\xNN` as bytes, everything else as UTF-8 (JSON's other escapes stay as they are)."""
    out = b""
    for part in re.split(r"(\\n|\\x[0-9a-fA-F]{2})", text):
        if part == r"\n":
            out += b"\n"
        elif part.startswith(r"\x"):
            out += bytes.fromhex(part[2:])
        else:
            out += part.encode()
    return out


def letter(kind):
    """The letter of a column's type."""
    t = pa.types
    for test, name in [
        (t.is_boolean, "B"), (t.is_integer, "I"), (t.is_floating, "R"), (t.is_decimal, "N"), (t.is_timestamp, "P"), (t.is_date, "D"),
        (t.is_string, "T"), (t.is_large_string, "T"), (lambda k: t.is_string_view(k), "T"),
    ]:
        if test(kind):
            return name
    return "?"


def show(scalar):
    """A value as the files write it."""
    if not scalar.is_valid:
        return "NULL"
    kind = scalar.type
    if pa.types.is_timestamp(kind):
        return show_time(scalar.value, kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "[" + ", ".join(show(item) for item in scalar.values) + "]"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(f"{name}: {show(item)}" for name, item in scalar.items()) + "}"
    value = scalar.as_py()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return "x'" + value.hex() + "'"
    if isinstance(value, str):
        return value if value else "(empty)"
    return str(value)


def show_time(value, kind):
    """ISO 8601, with the digits of a second's fraction that it needs, and Z if it has a time zone."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    seconds, fraction = divmod(value, per_second)
    text = pa.scalar(seconds, pa.timestamp("s")).as_py().isoformat()
    if fraction:
        text += "." + str(fraction).zfill(len(str(per_second)) - 1).rstrip("0")
    return text + ("Z" if kind.tz else "")


def answer(table):
    """An answer as (letters, rows)."""
    letters = "".join(letter(field.type) for field in table.schema)
    columns = [[show(value) for value in column] for column in table.columns]
    return letters, [" ".join(" ".join(row).split()) for row in zip(*columns)]


def run(text, server, broker):
    """Runs a file's steps; returns what went wrong, a line each."""
    _, steps = parse(text)
    wrong = []
    for step in steps:
        sql = step.sql.replace("${brokers}", broker.bootstrap if broker else "")
        problem = perform(step, sql, server, broker)
        if problem:
            wrong.append(f"line {step.line}: {problem}\n    {sql.strip()}")
            if step.kind == "settle":
                break  # what follows rests on it, and would only wait as long again
    return wrong


def perform(step, sql, server, broker):
    """Performs one step; returns what went wrong, or nothing."""
    if step.kind == "send":
        topic, partition, payload, more = step.record
        broker.send(topic, [(partition, payload, more)])
        return None
    try:
        if step.kind == "settle":
            got = tidegate.settle(lambda: str(server.value(sql)), step.expected)
            return None if got == step.expected else f"did not settle at {step.expected} but at {got}"
        table = server.table(sql)
    except Exception as error:
        said = tidegate.message(error)
        if step.kind != "error":
            return f"failed: {said}"
        return None if re.search(step.expected, said) else f"said '{said}', which does not match '{step.expected}'"
    if step.kind == "error":
        return "succeeded, but should have failed"
    if step.kind == "query":
        letters, rows = answer(table)
        want = list(step.rows)
        if step.sort == "rowsort":
            rows, want = sorted(rows), sorted(want)
        if rows != want:
            return "gave\n" + "\n".join("        " + row for row in rows) + "\n      instead of\n" + "\n".join("        " + row for row in want)
        if letters != step.types:
            return f"gave columns of types {letters} instead of {step.types}"
    return None
