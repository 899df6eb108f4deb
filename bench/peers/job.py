"""The job that every peer does, how a peer tells what it did, and when two answers are the same.

One-minute statistics per match and team: events, passes, shots, and the sum of expected goals (null where no event has any).
Of each event five fields are needed: `match_id`, `team.name`, `type.name`, `shot.statsbomb_xg`, `event_time`.

A peer is a program. On standard output it prints JSON, one object a line, with the time of day in seconds:

    {"is": "ready", "at": …, "version": …}            started; the next thing would be the job
    {"is": "process", "id": …}                        it is another process whose memory counts
    {"is": "began", "at": …}                          a pass: the query is handed over
    {"is": "done", "at": …, "rows": FILE}             its final answer is in the client's hands, and stands in FILE; or
    {"is": "done", "at": …, "bytes": N}               it has counted N bytes

What else it has to say goes to standard error. Only Python's own library is used here: peers with other environments import this.
"""

import argparse
import csv
import json
import math
import time

# Sums are added in another order by everyone.
SIGNIFICANT = 1e-9


def arguments(description):
    """What a peer in Python is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--bootstrap", required=True, help="the broker")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--file", required=True, help="the topic's payloads, one a line")
    parser.add_argument("--events", required=True, type=int, help="how many")
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--passes", required=True, type=int)
    parser.add_argument("--folder", required=True, help="an empty folder to work in")
    parser.add_argument("--jars", help="jars that the peer needs")
    return parser.parse_args()


def say(what, **more):
    """One line of the protocol."""
    print(json.dumps({"is": what, **more}), flush=True)


def say_now(what, **more):
    """One line of the protocol, about this moment."""
    say(what, at=time.time(), **more)


def write_rows(file, rows):
    """An answer's rows: (start of the window in seconds since 1970, match, team, events, passes, shots, xg or None)."""
    with open(file, "w", newline="") as out:
        csv.writer(out).writerows(["" if cell is None else cell for cell in row] for row in rows)


def read_rows(file):
    """{(window, match, team): (events, passes, shots, xg or None)}; a key that comes twice is an error."""
    answer = {}
    with open(file, newline="") as rows:
        for window, match, team, events, passes, shots, xg in csv.reader(rows):
            key = int(window), int(match), team
            if key in answer:
                raise ValueError(f"{file} has two rows for {key}")
            answer[key] = int(events), int(passes), int(shots), float(xg) if xg else None
    return answer


def difference(answer, wanted):
    """What is wrong with an answer, in a sentence; None if nothing is."""
    wrong = [key for key in answer.keys() | wanted.keys() if key not in answer or key not in wanted or not _same(answer[key], wanted[key])]
    if not wrong:
        return None
    first = min(wrong)
    return f"{len(wrong)} of {len(wanted)} rows differ; the first is {first}: {answer.get(first)}, wanted {wanted.get(first)}"


def _same(row, wanted):
    *counts, xg = row
    *wanted_counts, wanted_xg = wanted
    if counts != wanted_counts or (xg is None) != (wanted_xg is None):
        return False
    return xg is None or math.isclose(xg, wanted_xg, rel_tol=SIGNIFICANT)
