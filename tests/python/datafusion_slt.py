"""DataFusion's own SQL logic tests, asked over the wire.

The files are those of the published crate `datafusion-sqllogictest` (`tests/slt-datafusion/Cargo.toml`; `tests/run` fetches it). Each file has a
session of its own on one of a few servers, and what it has made is dropped behind it. Not asked is what the `RULES` below name, what needs something
that was not made for that reason, and what `tests/slt-datafusion/skip.txt` lists by file or by line. A listed record that passes is stale, and an error.

    python tests/python/datafusion_slt.py [--show] [PATTERN …]     runs the files whose names match, with what went wrong
"""

import collections
import dataclasses
import fnmatch
import glob
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
DROPPED = re.compile(r"\s*drop\s+(?:table|view)\s+(?:if\s+exists\s+)?([\w.\"$]+)", re.I)
# What DataFusion puts before its sentences, and Tidegate leaves out.
PREFIX = re.compile(
    r"^\^?(DataFusion error|Error during planning|Execution error|Arrow error|External error|This feature is not implemented|SQL error|Schema error"
    r"|Invalid or Unsupported Configuration|Internal error|Resources exhausted|Plan error|Error):?\s*"
)
# And what stands between the sentences of layers, of which Tidegate gives the innermost.
# What Tidegate says in words of its own: (DataFusion's sentence, Tidegate's).
SAME = [
    (r"(Table|View) '.*' doesn't exist", r"there is no (table|view) |is a (table|view): say DROP"),
    (r"Table '.*' already exists", r"exists already"),
    (r"'IF NOT EXISTS' cannot coexist with 'REPLACE'", r"OR REPLACE and IF NOT EXISTS exclude each other"),
    (r"Multiple objects not supported", r"one thing at a time is dropped"),
    (r"Schema contains duplicate unqualified field name (\w+)", r"would have two columns called"),
    (r"Cannot cast (string '.*' to value of \w+ type|to FixedSizeList)", r"of table .* can't be '.*' in row \d+, it is "),
    (r"null but schema specifies non-nullable|is declared as non-nullable but contains null values", r"is NOT NULL, and NULL in row \d+"),
    (r"Inconsistent data length across values list", r"is to have \d+ columns, and its query gives \d+"),
    (r"[Cc]ould not find config namespace|Config value \S+ not found|is a scalar \w+ and does not have nested field", r"there is no setting "),
    (r"parsing '(.*)' as (bool|usize)", r" can't be '.*': "),
    (r"table '.*/.*' not found", r"SQL may not read .*: start the server with --allow-path"),
    (r"ParserError", r"syntax error"),
    (r"Expected: .*, found: ", r"syntax error"),
    (r"^type_coercion$", r"[Cc]oerce"),
]
LAYER = re.compile(r"\\ncaused by\\n|\ncaused by\n|caused by\\n|caused by|failed\[\\s\\S\]\*")


@dataclasses.dataclass
class Record:
    """A statement or query of a file."""

    place: str  # FILE:LINE, or FILE/INCLUDED:LINE
    is_query: bool
    sql: str = ""
    error: str | None = None  # a regular expression of the message
    message: str | None = None  # or all of it
    types: str = ""
    sort: str = "nosort"
    rows: tuple = ()
    threshold: int = 0  # more values than this are compared by their hash; 0: never


@dataclasses.dataclass
class Outcome:
    """What came of a file."""

    name: str
    passed: int = 0
    skipped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    wrong: list = dataclasses.field(default_factory=list)  # (place, sentence)
    known: set = dataclasses.field(default_factory=set)  # listed, and went wrong
    stale: list = dataclasses.field(default_factory=list)  # listed, and passed


def parse(path, name):
    """A file's records, those that it includes among them."""
    lines = path.read_text().split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    at, unless, threshold = 0, False, 0
    while at < len(lines):
        number, words = at + 1, lines[at].split()
        line = lines[at]
        at += 1
        if line.startswith("#") or not words:
            continue
        if words[0] == "include":
            for included in sorted(glob.glob(str(path.parent / words[1]))):
                yield from parse(pathlib.Path(included), f"{name}/{pathlib.Path(included).name}")
            continue
        if words[0] in ("skipif", "onlyif"):
            unless = unless or (words[0] == "onlyif") != (words[1].lower() == "datafusion")
            continue
        if words[0] == "hash-threshold":
            threshold = int(words[1])
            continue
        if words[0] not in ("statement", "query"):
            raise ValueError(f"{name}:{number}: {line}")
        record, body = Record(f"{name}:{number}", words[0] == "query", threshold=threshold), []
        has_results = False
        while at < len(lines) and (lines[at] != "" or not body):
            at += 1
            if lines[at - 1] == "----":
                has_results = True
                break
            body.append(lines[at - 1])
        record.sql = "\n".join(body)
        is_error = words[1:2] == ["error"]
        if is_error:
            record.error = " ".join(words[2:])
        elif record.is_query:
            record.types = words[1] if len(words) > 1 else ""
            record.sort = words[2] if len(words) > 2 else "nosort"
        if has_results and is_error:
            text = []
            while at < len(lines) and not (lines[at] == "" and (at + 1 >= len(lines) or lines[at + 1] == "")):
                text.append(lines[at])
                at += 1
            record.message = "\n".join(text).strip()
        elif has_results:
            rows = []
            while at < len(lines) and lines[at] != "":
                rows.append(lines[at])
                at += 1
            record.rows = tuple(rows)
        if not unless:
            yield record
        unless = False


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
            if re.search(rf"(\bfrom|\bjoin|\binto|\btable|\bupdate|\bdescribe|\bview|\bexists|\bcolumns|,)[\s(]+(datafusion\.)?(public\.)?{re.escape(name)}(?![\w$])", text):
                if dropped := DROPPED.match(bare):
                    self.missing.discard(plain(dropped[1]))
                    self.drop(dropped[1])  # what is there may lack rows
                return REGISTERED if name in TABLES.get(self.name, []) else DEPENDENT + (f": {self.name} {name}" if os.environ.get("DETAIL") else "")
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
            said = re.sub(r"\s*\(\w+; [\w: ]+\[\d*\]\)$", "", tidegate.message(error)).replace("'tidegate.", "'datafusion.")
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


def matches(got, want):
    """Whether rows are what was wanted, where `<slt:ignore>` stands for anything."""
    marker = "<slt:ignore>"
    if not any(marker in row for row in want):
        return got == want
    text, at = "\n".join(got), 0
    for number, fragment in enumerate("\n".join(want).split(marker)):
        found = text.find(fragment, at)
        if found < 0 or (number == 0 and fragment and found != 0):
            return False
        at = found + len(fragment)
    return True


def disagreement(record, said):
    """How a message differs from what was expected, if it does."""
    pattern = innermost(record.error if record.message is None else record.message)
    if any(re.search(theirs, pattern.replace("\\", "")) and re.search(ours, said) for theirs, ours in SAME):
        return None
    if record.message is None:
        agrees = re.search(pattern, said) is not None
    else:
        wanted, got = " ".join(pattern.split()), " ".join(said.split())
        agrees = wanted in got or got in wanted
    return None if agrees else f"said '{said}', which does not match '{pattern}'"


def innermost(text):
    """The sentence of the innermost layer."""
    text = [part for part in LAYER.split(text) if part.strip()][-1:] or [""]
    text = text[0].strip()
    while shorter := PREFIX.match(text):
        text = text[shorter.end():]
    return text


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
    folder = pathlib.Path(os.environ["TIDEGATE_DATAFUSION_SLT"])
    with tempfile.TemporaryDirectory() as scratch:
        servers = []
        try:
            for at in range(int(os.environ.get("SERVERS", "2"))):
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
            print(f"{place}: STALE\n")
    why = sum((outcome.skipped for outcome in outcomes), collections.Counter())
    for reason, count in why.most_common():
        print(f"{count:6} {reason}")
    print(summary(outcomes, skipped), unmatched or "")
    print(sum(len(outcome.wrong) for outcome in outcomes), "wrong,", sum(len(outcome.stale) for outcome in outcomes), "stale")


if __name__ == "__main__":
    main(sys.argv[1:])
