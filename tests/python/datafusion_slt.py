"""DataFusion's own SQL logic tests, asked over the wire.

The files are those of the published crate `datafusion-sqllogictest` (`tests/slt-datafusion/Cargo.toml`; `tests/run` fetches it). Each file has a
session of its own on one of a few servers, and what it has made is dropped behind it. Not asked is what the `RULES` below name, what needs something
that was not made for that reason, and what `tests/slt-datafusion/skip.txt` lists by file or by line. A listed record that passes is stale, and an error.

    TIDEGATE_DATAFUSION_SLT=…/test_files python tests/python/datafusion_slt.py [PATTERN …]     runs the files whose names match
"""

import collections
import dataclasses
import fnmatch
import hashlib
import multiprocessing
import os
import pathlib
import re
import sys
import tempfile

import adbc_driver_flightsql.dbapi as flight
import adbc_driver_manager
import pyarrow

import arrow_text
import tidegate
from datafusion_records import disagreement, matches, parse

LIST = tidegate.REPOSITORY / "tests/slt-datafusion/skip.txt"

# What is not asked, by what the statement is.
RULES = [
    (r"explain\b", "plans: they are Tidegate's"),
    (r"copy\b", "COPY: a client may not write files"),
    (r"create\s+(or\s+replace\s+)?(unbounded\s+)?external\b", "CREATE EXTERNAL TABLE: files are named in FROM, and the package has none"),
    (r"drop\s+external\b", "CREATE EXTERNAL TABLE: files are named in FROM, and the package has none"),
    (r"(create|drop)\s+(or\s+replace\s+)?function\b", "CREATE FUNCTION"),
    (r"(prepare|execute|deallocate)\b", "PREPARE as SQL: Flight SQL has prepared statements"),
    (r"(create|drop)\s+(schema|database)\b|use\b", "schemas and databases: there is one"),
    (r"merge\b", "MERGE"),
    (r"select\b(?!.*\bfrom\b.*\binto\b).*\binto\b", "SELECT INTO: CREATE TABLE … AS is the same"),
    (r"create\s+(or\s+replace\s+)?temp(orary)?\b", "temporary tables and views"),
    (r"create\s+table\b(?!.*\bas\s+(select|values|with)\b.*\bkey\b).*\b(primary\s+key|unique|foreign\s+key)\b", "keys of tables"),
    (r"(set|reset|show)\s+datafusion\.(catalog|runtime|format|spark)\b", "options of the server's catalog, memory and files"),
    (r"(set|reset)\s+datafusion\.sql_parser\.(dialect|enable_ident_normalization)\b", "the parser's dialect"),
]
RULES = [(re.compile(pattern, re.I | re.S), reason) for pattern, reason in RULES]
REGISTERED = "tables that DataFusion's own test program makes"
CASCADE = "DROP without CASCADE of what views read"
DEPENDENT = "rests on what was not made"

# By file: tables that DataFusion's test program registers before the file runs.
TABLES = {
    "cte.slt": ["strict_schema.orders", "orders"],
    "information_schema_columns.slt": ["my_catalog.my_schema.table_with_many_types"],
    "map.slt": ["table_with_map"],
    "joins.slt": ["test_partition_table", "my_catalog.my_schema.table_with_many_types"],
    "arrow_field.slt": ["table_with_metadata"],
    "metadata.slt": ["table_with_metadata"],
    "range_partitioning.slt": ["range_partitioned", "unbounded_range_like"],
    "union_function.slt": ["union_table"],
    "aggregate.slt": ["approx_distinct_union_test"],
    "dictionary_struct.slt": ["dict_struct_table", "dict_struct_nullable"],
}

INSERTED = re.compile(r"\s*insert\s+(?:into|overwrite)\s+([\w.\"$]+)", re.I)
INTO = re.compile(r"\s*select\b.*\binto\s+([\w.\"$]+)", re.I | re.S)
MADE = re.compile(
    r"\s*create\s+(?:or\s+replace\s+)?(?:unbounded\s+)?(?:external\s+)?(?:temp(?:orary)?\s+)?(?:table|view)\s+(?:if\s+not\s+exists\s+)?([\w.\"$]+)", re.I
)
# What stands before the name of a table or view.
NAMING = r"(\bfrom|\bjoin|\binto|\btable|\bupdate|\bdescribe|\bview|\bexists|\bcolumns|,)[\s(]+"
DROPPED = re.compile(r"\s*drop\s+(?:table|view)\s+(?:if\s+exists\s+)?([\w.\"$]+)", re.I)


@dataclasses.dataclass
class Outcome:
    """What came of a file."""

    name: str
    passed: int = 0
    skipped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    wrong: list = dataclasses.field(default_factory=list)  # (place, sentence)
    known: set = dataclasses.field(default_factory=set)  # listed, and went wrong
    stale: list = dataclasses.field(default_factory=list)  # listed, and passed


def listed():
    """What `skip.txt` lists: {file pattern: reason}, {place: reason}."""
    files, places, reason = {}, {}, None
    for number, line in enumerate(LIST.read_text().splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            reason = line[1:-1]
            continue
        if reason is None:
            raise ValueError(f"{LIST}:{number}: a reason in [brackets] comes first")
        name, _, lines = line.partition(":")
        if not lines:
            files[name] = reason
        for one in lines.split():
            places[f"{name}:{one}"] = reason
    return files, places


def plain(name):
    """A name as it is compared."""
    return name.replace('"', "").lower()


class File:
    """One file over one connection."""

    def __init__(self, folder, name, url, places):
        self.name, self.places = name, places
        self.path = folder / name
        self.connection = flight.connect(url, autocommit=True)
        self.missing = set(map(plain, TABLES.get(name, [])))
        self.outcome = Outcome(name)

    def run(self):
        """Asks all records; leaves nothing behind."""
        self.ask("SET datafusion.execution.target_partitions = 4")
        for record in parse(self.path, self.name):
            self.record(record)
        for name in self.ask("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").column(0).to_pylist():
            self.drop('"' + name.replace('"', '""') + '"')
        self.connection.close()
        return self.outcome

    def drop(self, name):
        """Drops a table or view and what reads it, if it is there."""
        for kind in ("VIEW", "TABLE"):
            try:
                self.ask(f"DROP {kind} IF EXISTS {name} CASCADE")
            except Exception:
                pass  # it is the other one

    def ask(self, sql):
        """A statement's answer. Below a cursor, which would prepare each one first: that is three calls more."""
        with adbc_driver_manager.AdbcStatement(self.connection.adbc_connection) as statement:
            statement.set_sql_query(sql)
            stream, _ = statement.execute_query()
            with pyarrow.RecordBatchReader._import_from_c(stream.address) as reader:
                return reader.read_all()

    def change(self, sql):
        """How many rows a statement has touched."""
        with adbc_driver_manager.AdbcStatement(self.connection.adbc_connection) as statement:
            statement.set_sql_query(sql)
            return statement.execute_update()

    def record(self, record):
        sql = record.sql.strip()
        reason = self.by_rule(sql)
        if reason is not None:
            self.outcome.skipped[reason] += 1
            if made := MADE.match(sql) or INSERTED.match(sql) or INTO.match(sql):
                self.missing.add(plain(made[1]))
            return
        problem = self.compare(record, sql)
        if problem is not None and (below := re.search(r"can't be dropped, (.*) depends? on it", problem)):
            # There, what has lost its table stays and fails.
            self.drop(DROPPED.match(sql)[1])
            self.missing.update(below[1].split(", "))
            self.outcome.skipped[CASCADE] += 1
            return
        known = self.places.get(record.place)
        if problem is None and known is None:
            self.outcome.passed += 1
        elif problem is None:
            self.outcome.stale.append(record.place)
        elif known is not None:
            self.outcome.skipped[known] += 1
            self.outcome.known.add(record.place)
        else:
            self.outcome.wrong.append((record.place, f"{problem}\n    {sql}"))
        if (made := MADE.match(sql)) and record.error is None:
            (self.missing.discard if problem is None else self.missing.add)(plain(made[1]))
        elif problem is not None and record.error is None and (into := INSERTED.match(sql)):
            self.missing.add(plain(into[1]))

    def by_rule(self, sql):
        """Why a statement is not asked, if it isn't."""
        bare = re.sub(r"^(\s*--[^\n]*\n)+", "", sql).lstrip()
        for rule, reason in RULES:
            if rule.match(bare):
                return reason
        text = plain(bare)
        for name in self.missing:
            if re.search(rf"{NAMING}(datafusion\.)?(public\.)?{re.escape(name)}(?![\w$])", text):
                if dropped := DROPPED.match(bare):
                    self.missing.discard(plain(dropped[1]))
                    self.drop(dropped[1])  # what is there may lack rows
                return REGISTERED if name in TABLES.get(self.name, []) else DEPENDENT
        return None

    def compare(self, record, sql):
        """Asks one record; returns what went wrong, or nothing."""
        sql = sql.replace("datafusion.public.", "tidegate.public.")
        try:
            if record.is_query and re.match(r"(insert|update|delete)\b", sql, re.I):
                letters, rows = "I", [[str(self.change(sql))]]
            else:
                table = self.ask(sql)
                letters = "".join(arrow_text.letter(field.type) for field in table.schema)
                rows = arrow_text.rows(table)
        except Exception as error:
            said = tidegate.message(error).removeprefix("[FlightSQL] ")
            said = re.sub(r"\s*\(\w+; [\w: ]+\[\d*\]\)$", "", said).replace("'tidegate.", "'datafusion.")
            return f"failed: {said}" if record.error is None else disagreement(record, said)
        if record.error is not None:
            return f"succeeded, but should have failed: {record.error or record.message or ''}"
        if not record.is_query:
            return None
        if record.sort == "rowsort":
            rows = sorted(rows)
        elif record.sort == "valuesort":
            rows = sorted([value] for row in rows for value in row)
        values = [value for row in rows for value in row]
        if record.threshold and len(values) > record.threshold:
            digest = hashlib.md5("".join(f"{value}\n" for value in values).encode()).hexdigest()
            rows = [[f"{len(values)} values hashing to {digest}"]]
        got = [" ".join(row).rstrip().replace("tidegate", "datafusion") for row in rows]
        want = [row.rstrip() for row in record.rows]
        if not matches(got, want):
            return "gave\n" + "\n".join("        " + row for row in got[:40]) + "\n      instead of\n" + "\n".join("        " + row for row in want[:40])
        wanted = "".join(letter if letter in "BDIPRT" else "?" for letter in record.types)
        return None if letters == wanted else f"gave columns of types {letters} instead of {wanted}"


# --- all files --------------------------------------------------------------------------------------------------------

_url = _lists = None


def _start(urls):
    global _url, _lists
    _url, _lists = urls.get(), listed()


def _run(task):
    folder, name = task
    try:
        return File(pathlib.Path(folder), name, _url, _lists[1]).run()
    except Exception as error:
        outcome = Outcome(name)
        outcome.wrong.append((f"{name}:0", f"could not be run to its end: {tidegate.message(error)}"))
        return outcome


def run_all(folder, servers, patterns=()):
    """Runs all files that are not skipped on these servers; returns (outcomes, {skipped file: reason}, stale places of the list)."""
    files, places = listed()
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.slt"))
    skipped = {name: reason for name in names for pattern, reason in files.items() if fnmatch.fnmatch(name, pattern)}
    chosen = [name for name in names if name not in skipped and (not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns))]
    chosen.sort(key=lambda name: -(folder / name).stat().st_size)
    context = multiprocessing.get_context("spawn")
    urls = context.Queue()
    for server in servers:
        urls.put(server.url)
    with context.Pool(len(servers), _start, (urls,)) as pool:
        outcomes = pool.map(_run, [(str(folder), name) for name in chosen], chunksize=1)
    unmatched = [pattern for pattern in files if not any(fnmatch.fnmatch(name, pattern) for name in names)]
    seen = set().union(*(outcome.known | set(outcome.stale) for outcome in outcomes))
    unmatched += [place for place in places if place not in seen and any(place.startswith((f"{name}:", f"{name}/")) for name in chosen)]
    return outcomes, skipped, unmatched


def summary(outcomes, skipped):
    """One line."""
    passed = sum(outcome.passed for outcome in outcomes)
    left = sum(sum(outcome.skipped.values()) for outcome in outcomes)
    return (
        f"datafusion .slt: {len(outcomes)} of {len(outcomes) + len(skipped)} files, {passed:,} records passed, {left:,} skipped "
        f"(why: tests/slt-datafusion/skip.txt, and RULES of tests/python/datafusion_slt.py)"
    )


def main(arguments):
    """Runs files with two servers of their own, and prints what went wrong."""
    folder = pathlib.Path(os.environ["TIDEGATE_DATAFUSION_SLT"])
    with tempfile.TemporaryDirectory() as scratch:
        servers = []
        try:
            for at in range(2):
                (pathlib.Path(scratch) / str(at)).mkdir()
                servers.append(tidegate.Server(pathlib.Path(scratch) / str(at)).start())
            outcomes, skipped, unmatched = run_all(folder, servers, arguments)
        finally:
            for server in servers:
                server.close()
    for outcome in sorted(outcomes, key=lambda outcome: outcome.name):
        for place, sentence in outcome.wrong:
            print(f"{place}: {sentence}\n")
        for place in outcome.stale:
            print(f"{place}: listed, and passes\n")
    why = sum((outcome.skipped for outcome in outcomes), collections.Counter())
    for reason, count in why.most_common():
        print(f"{count:6} {reason}")
    print(summary(outcomes, skipped), unmatched or "")
    print(sum(len(outcome.wrong) for outcome in outcomes), "wrong,", sum(len(outcome.stale) for outcome in outcomes), "stale")


if __name__ == "__main__":
    main(sys.argv[1:])
