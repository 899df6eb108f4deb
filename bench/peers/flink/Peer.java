/* Flink SQL on a cluster inside this JVM; run as a source file: java -cp 'JARS/*' Peer.java --bootstrap … (what job.py's `arguments` has).
 *
 * Settings, and why they are the best fair ones here:
 *
 * - Parallelism `threads`. Kafka's bounded mode up to the newest offset, so that the job ends and closes its last windows.
 * - The window function TUMBLE: rows are added up before the exchange (two phases) and windows are answered once, when the watermark passes.
 *   That is less work than a row for every change, which `GROUP BY` on the start of the window would give, slower even with mini-batches.
 * - Only the needed fields in the table's schema; `json.decode.json-parser.enabled` (the default of Flink 2) reads just these, token by token.
 * - Object reuse: records are not copied between chained operators. Mini-batches are on, for the plan nodes that heed them.
 * - State on the heap. No checkpoints: a bounded job with checkpoints ends with one, so its time would be rounded up to their interval, and
 *   the rows of a collecting client wait for them, too. (Tidegate and Spark do write theirs.)
 * - The JVM's parallel collector for throughput, 4 GiB of heap (see run.py).
 *
 * A pass is a new job on a new cluster in the same JVM, so that all but the first run in a warm one. `done` is when the last row has been
 * collected.
 */

import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.util.EnvironmentInformation;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

public class Peer {
    static final String SOURCE = """
        CREATE TABLE match_events (match_id BIGINT, team ROW<name STRING>, `type` ROW<name STRING>, shot ROW<statsbomb_xg DOUBLE>,
          event_time TIMESTAMP_LTZ(3), WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND)
        WITH ('connector' = 'kafka', 'topic' = '%s', 'properties.bootstrap.servers' = '%s', 'scan.startup.mode' = 'earliest-offset',
          'scan.bounded.mode' = 'latest-offset', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601')""";
    static final String QUERY = """
        SELECT window_start, match_id, team, count(*) AS events, count(*) FILTER (WHERE type_name = 'Pass') AS passes,
          count(*) FILTER (WHERE type_name = 'Shot') AS shots, sum(xg) AS xg
        FROM TUMBLE(TABLE events, DESCRIPTOR(event_time), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, match_id, team""";
    static final String FIELDS = """
        CREATE TEMPORARY VIEW events AS SELECT match_id, match_events.team.name AS team, match_events.`type`.name AS type_name,
          match_events.shot.statsbomb_xg AS xg, event_time FROM match_events""";

    public static void main(String[] arguments) throws Exception {
        Map<String, String> told = new HashMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            told.put(arguments[i].replaceFirst("^--", ""), arguments[i + 1]);
        }
        say("\"is\": \"ready\", \"at\": " + now() + ", \"version\": \"" + EnvironmentInformation.getVersion() + "\"");
        for (int pass = 0; pass < Integer.parseInt(told.get("passes")); pass++) {
            Path file = Path.of(told.get("folder"), "rows-" + pass + ".csv");
            say("\"is\": \"began\", \"at\": " + now());
            List<Row> rows = answer(told);
            String at = now();
            write(rows, file);
            say("\"is\": \"done\", \"at\": " + at + ", \"rows\": \"" + file + "\"");
        }
        // The cluster's threads would keep the JVM.
        System.exit(0);
    }

    static List<Row> answer(Map<String, String> told) throws Exception {
        Configuration settings = new Configuration();
        Map<String, String> texts = Map.of(
            "parallelism.default", told.get("threads"),
            "taskmanager.numberOfTaskSlots", told.get("threads"),
            "taskmanager.memory.managed.size", "512m",
            "pipeline.object-reuse", "true",
            "state.backend.type", "hashmap",
            "table.exec.mini-batch.enabled", "true",
            "table.exec.mini-batch.allow-latency", "1 s",
            "table.exec.mini-batch.size", "50000",
            "table.local-time-zone", "UTC");
        texts.forEach(settings::setString);
        TableEnvironment environment = TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(settings).build());
        environment.executeSql(String.format(SOURCE, told.get("topic"), told.get("bootstrap")));
        environment.executeSql(FIELDS);
        if (told.containsKey("explain")) {
            System.err.println(environment.explainSql(QUERY));
        }
        List<Row> rows = new ArrayList<>();
        try (CloseableIterator<Row> found = environment.executeSql(QUERY).collect()) {
            found.forEachRemaining(rows::add);
        }
        return rows;
    }

    static void write(List<Row> rows, Path file) throws Exception {
        try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(file))) {
            for (Row row : rows) {
                long window = ((LocalDateTime) row.getField(0)).toEpochSecond(ZoneOffset.UTC);
                Object xg = row.getField(6);
                String team = "\"" + ((String) row.getField(2)).replace("\"", "\"\"") + "\"";
                out.println(window + "," + row.getField(1) + "," + team + "," + row.getField(3) + "," + row.getField(4) + "," + row.getField(5) + "," + (xg == null ? "" : xg));
            }
        }
    }

    static String now() {
        return String.format(Locale.ROOT, "%.3f", System.currentTimeMillis() / 1e3);
    }

    static void say(String fields) {
        System.out.println("{" + fields + "}");
        System.out.flush();
    }
}
