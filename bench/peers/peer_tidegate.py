"""Tidegate: `tidegate serve` with a continuous view that emits changes, read over Flight SQL.

Settings: `threads` as everyone has them; checkpoints every ten seconds, which is the default. The view is current after each epoch, so
this is the harder form of the job (`EMIT ON WINDOW CLOSE` would give each window once). The client asks for the number of events until all are
counted, each time when half of the rest should be done, and at the end every 20 ms; then it reads the rows. (Every 20 ms from the beginning on would be
a seventh of the server's work.) Each pass is a new source and view on the same server. The binary: $TIDEGATE_BIN.
"""

import os
import pathlib
import subprocess
import sys
import time

import adbc_driver_flightsql.dbapi as flight

import job

SOURCE = """CREATE SOURCE match_events (match_id BIGINT, team TEXT PATH '$.team.name', type_name TEXT PATH '$.type.name',
  xg DOUBLE PATH '$.shot.statsbomb_xg', event_time TIMESTAMP, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
  WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{bootstrap}', format = 'json')"""
VIEW = """CREATE CONTINUOUS VIEW team_minute AS SELECT window_start, match_id, team, count(*) AS events,
  count(*) FILTER (WHERE type_name = 'Pass') AS passes, count(*) FILTER (WHERE type_name = 'Shot') AS shots, sum(xg) AS xg
  FROM TUMBLE(match_events, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, match_id, team EMIT CHANGES"""
READ = "SELECT date_part('epoch', window_start)::BIGINT AS window_start, match_id, team, events, passes, shots, xg FROM team_minute"
COUNTED = "SELECT coalesce(sum(events), 0) FROM team_minute"
LOOK_AGAIN = 0.02
# No machine is so slow.
PATIENCE = 600


def main():
    told = job.arguments(__doc__)
    binary, folder = os.environ["TIDEGATE_BIN"], pathlib.Path(told.folder)
    # Nothing of the caller's own settings.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder / "data", "--log", "warn"]
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment | {"TIDEGATE_THREADS": str(told.threads)})
    try:
        url = next((line.split()[-1] for line in server.stdout if line.startswith("listening on ")), None)
        if url is None:
            sys.exit(f"`{binary} serve` ended with {server.wait()} before it listened")
        job.say("process", id=server.pid)
        with flight.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
            job.say_now("ready", version=version)
            for number in range(told.passes):
                if number:
                    run(cursor, "DROP SOURCE match_events CASCADE")
                do(cursor, told, folder / f"rows-{number}.csv")
    finally:
        server.terminate()
        server.wait()


def do(cursor, told, file):
    job.say_now("began")
    began = time.monotonic()
    run(cursor, SOURCE.format(topic=told.topic, bootstrap=told.bootstrap))
    run(cursor, VIEW)
    while (counted := run(cursor, COUNTED).column(0)[0].as_py()) < told.events:
        took = time.monotonic() - began
        if took > PATIENCE:
            sys.exit(f"{counted} of {told.events} events were counted within {PATIENCE} s")
        half_of_the_rest = took * (told.events - counted) / counted / 2 if counted else 0
        time.sleep(max(LOOK_AGAIN, min(half_of_the_rest, took)))
    rows = run(cursor, READ)
    at = time.time()
    job.write_rows(file, zip(*(column.to_pylist() for column in rows.columns)))
    job.say("done", at=at, rows=str(file))


def run(cursor, statement):
    cursor.execute(statement)
    return cursor.fetch_arrow_table()


if __name__ == "__main__":
    main()
