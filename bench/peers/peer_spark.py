"""Spark Structured Streaming, from PySpark; all work is in the JVM, no Python in the query.

Settings, and why they are the best fair ones here:

* `local[threads]` and as many shuffle partitions: the default of 200 would make 200 tiny tasks.
* `Trigger.AvailableNow` without a limit: the whole topic is one micro-batch, so the fixed costs of a micro-batch (some hundred
  milliseconds) are paid once. With `maxOffsetsPerTrigger` it is slower.
* `from_json` with only the needed fields in its schema, straight from the record's bytes as text.
* A watermark as everyone has it, and the update mode: a row comes with the micro-batch that changes it. The state is in memory (the default
  provider) and written to the checkpoint's folder with the micro-batch, which can't be turned off.
* `spark.sql.streaming.noDataMicroBatches.enabled` off: the batch that only evicts old state would add to the time and nothing to the answer.
* `max.poll.records` of 50,000 and fetches of up to 16 MiB a partition: with each poll Spark asks the broker where the partition begins and
  ends, and at Kafka's default of 500 records a poll those questions took two fifths of a task's time.
* 4 GiB of heap, the JVM's parallel collector (for throughput), the web page off. Rows leave the JVM as Arrow.

A pass is a new query with a new checkpoint in the same session, so that all but the first run in a warm JVM. `done` is when the last
micro-batch's rows are in Python.
"""

import pathlib
import time

import pyspark
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

import job

FIELDS = "match_id BIGINT, team STRUCT<name: STRING>, type STRUCT<name: STRING>, shot STRUCT<statsbomb_xg: DOUBLE>, event_time TIMESTAMP"


def main():
    told = job.arguments(__doc__)
    jars = ",".join(str(jar) for jar in sorted(pathlib.Path(told.jars).glob("*.jar")))
    settings = {
        "spark.jars": jars,
        "spark.driver.memory": "4g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": told.threads,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        "spark.local.dir": told.folder,
    }
    builder = SparkSession.builder.master(f"local[{told.threads}]").appName("peer")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        spark.sparkContext.setLogLevel("ERROR")
        spark.range(1).count()
        job.say_now("ready", version=pyspark.__version__)
        for number in range(told.passes):
            do(spark, told, pathlib.Path(told.folder), number)
    finally:
        spark.stop()


def do(spark, told, folder, number):
    batches = []

    def collect(frame, _number):
        rows = frame.toArrow()
        batches.append((time.time(), rows))

    job.say_now("began")
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", told.bootstrap)
        .option("subscribe", told.topic)
        .option("startingOffsets", "earliest")
        .option("kafka.max.poll.records", 50_000)
        .option("kafka.max.partition.fetch.bytes", 16 << 20)
        .option("kafka.fetch.max.bytes", 64 << 20)
        .load()
    )
    event = f.from_json(f.col("value").cast("string"), FIELDS).alias("event")
    passes, shots = (f.count(f.when(f.col("type.name") == kind, 1)) for kind in ("Pass", "Shot"))
    answer = (
        records.select(event)
        .select("event.*")
        .withWatermark("event_time", "5 seconds")
        .groupBy(f.window("event_time", "1 minute").alias("window"), "match_id", f.col("team.name").alias("team"))
        .agg(f.count("*").alias("events"), passes.alias("passes"), shots.alias("shots"), f.sum("shot.statsbomb_xg").alias("xg"))
        .select(f.col("window.start").cast("long").alias("window_start"), "match_id", "team", "events", "passes", "shots", "xg")
    )
    query = (
        answer.writeStream.outputMode("update")
        .trigger(availableNow=True)
        .option("checkpointLocation", str(folder / f"checkpoint-{number}"))
        .foreachBatch(collect)
        .start()
    )
    query.awaitTermination()
    latest = {}
    for _, rows in batches:
        for row in zip(*(column.to_pylist() for column in rows.columns)):
            latest[row[:3]] = row
    file = folder / f"rows-{number}.csv"
    job.write_rows(file, latest.values())
    job.say("done", at=max(at for at, rows in batches if rows.num_rows), rows=str(file))


if __name__ == "__main__":
    main()
