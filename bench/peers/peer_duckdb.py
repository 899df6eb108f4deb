"""DuckDB: one batch query over the same events in a file. It answers the job once, and streams nothing.

Settings: only the needed fields, with their types, in `read_json` (no inference); rows may come in any order; `threads` as everyone has
them. The file lies in the page cache from the second pass on, as the broker's log does. Each pass is a new connection to a database in memory.
"""

import pathlib

import duckdb

import job

QUERY = """SELECT epoch(date_trunc('minute', event_time))::BIGINT AS window_start, match_id, team.name AS team, count(*) AS events,
  count(*) FILTER (WHERE type.name = 'Pass') AS passes, count(*) FILTER (WHERE type.name = 'Shot') AS shots, sum(shot.statsbomb_xg) AS xg
  FROM read_json(?, format = 'newline_delimited', columns = {match_id: 'BIGINT', team: 'STRUCT("name" VARCHAR)', type: 'STRUCT("name" VARCHAR)',
    shot: 'STRUCT(statsbomb_xg DOUBLE)', event_time: 'TIMESTAMP'})
  GROUP BY ALL"""


def main():
    told = job.arguments(__doc__)
    job.say_now("ready", version=duckdb.__version__)
    for number in range(told.passes):
        file = pathlib.Path(told.folder) / f"rows-{number}.csv"
        with duckdb.connect(config={"threads": told.threads, "preserve_insertion_order": False}) as connection:
            job.say_now("began")
            rows = connection.sql(QUERY, params=[told.file]).to_arrow_table()
            job.say_now("done", rows=str(file))
        job.write_rows(file, zip(*(column.to_pylist() for column in rows.columns)))


if __name__ == "__main__":
    main()
