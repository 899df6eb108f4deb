"""The records of DataFusion's SQL logic tests: reading them, and whether an answer or a message is what they want.

The format is that of the crate `sqllogictest`, with `<slt:ignore>` for anything.
"""

import dataclasses
import glob
import pathlib
import re

# What DataFusion puts before its sentences, and Tidegate leaves out.
PREFIX = re.compile(
    r"^\^?\(?(DataFusion error|Plan error\|Error during planning\|This feature is not implemented\)"
    r"|Error during planning|Execution error|Arrow error|External error|This feature is not implemented|SQL error|Schema error"
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
    (r"requested length .*too large|string size overflow|[Rr]ange too large|exceeds( the)? maximum array size|values overflowed usize", r" would make values of \d+ bytes at once"),
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
