// What a JDBC tool does, step by step; prints one line a finding: name, a tab, what came of it. Run as
//   java --add-opens=java.base/java.nio=ALL-UNNAMED -cp flight-sql-jdbc-driver.jar Client.java URL
// A table `scores (id BIGINT, team TEXT, points DOUBLE)` and a continuous view `by_team` are there.

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.sql.*;
import java.util.*;

public class Client {
    interface Step {
        Object run() throws Exception;
    }

    static void step(String name, Step step) {
        String found;
        try {
            found = String.valueOf(step.run());
        } catch (Throwable problem) {
            Throwable root = problem instanceof InvocationTargetException ? problem.getCause() : problem;
            found = "failed: " + root.getClass().getSimpleName() + ": " + String.valueOf(root.getMessage()).replaceAll("\\s+", " ");
        }
        System.out.println(name + "\t" + found.replace("\n", " "));
    }

    static List<String> column(ResultSet rows, int column) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) values.add(rows.getString(column));
        rows.close();
        return values;
    }

    static List<String> column(ResultSet rows, String column) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) values.add(rows.getString(column));
        rows.close();
        return values;
    }

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        step("with a catalog", () -> {
            Connection named = DriverManager.getConnection(url + "&catalog=tidegate");
            List<String> count = column(named.createStatement().executeQuery("SELECT count(*) FROM scores"), 1);
            try {
                named.close();
            } catch (SQLException expected) {
                // 18.3.0 ends its session a second time when the channel has gone.
            }
            return count;
        });
        step("with another catalog", () -> {
            try (Connection named = DriverManager.getConnection(url + "&catalog=nowhere")) {
                return column(named.createStatement().executeQuery("SELECT 1"), 1);
            }
        });

        Connection connection = DriverManager.getConnection(url);
        DatabaseMetaData metadata = connection.getMetaData();

        step("product", metadata::getDatabaseProductName);
        step("getters", () -> everyGetter(metadata));
        step("catalogs", () -> column(metadata.getCatalogs(), "TABLE_CAT"));
        // DBeaver drops a single catalog and then asks without one.
        step("schemas", () -> column(metadata.getSchemas(null, null), "TABLE_SCHEM"));
        step("table types", () -> column(metadata.getTableTypes(), "TABLE_TYPE"));
        step("tables", () -> {
            Map<String, String> types = new TreeMap<>();
            ResultSet rows = metadata.getTables(null, "public", "%", null);
            while (rows.next()) types.put(rows.getString("TABLE_NAME"), rows.getString("TABLE_TYPE"));
            return types;
        });
        step("views alone", () -> column(metadata.getTables(null, null, "%", new String[] {"VIEW"}), "TABLE_NAME"));
        step("columns", () -> {
            Map<String, String> types = new LinkedHashMap<>();
            ResultSet rows = metadata.getColumns(null, "public", "scores", "%");
            while (rows.next()) types.put(rows.getString("COLUMN_NAME"), rows.getString("TYPE_NAME"));
            return types;
        });
        step("keys", () -> column(metadata.getPrimaryKeys(null, "public", "scores"), 1).size() + column(metadata.getImportedKeys(null, "public", "scores"), 1).size()
            + column(metadata.getExportedKeys(null, "public", "scores"), 1).size()
            + column(metadata.getCrossReference(null, "public", "scores", null, "public", "scores"), 1).size());

        step("types", () -> {
            Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery("SELECT CAST(1 AS TINYINT), CAST(-2 AS SMALLINT), 3, CAST(4 AS BIGINT), CAST(1.5 AS REAL), 2.25, CAST(12.34 AS DECIMAL(10, 2)), true, 'text', "
                + "DATE '2024-02-29', TIMESTAMP '2024-02-29 12:34:56.789', X'00ff', NULL, [1, 2], CAST('view' AS TEXT)");
            rows.next();
            List<String> values = new ArrayList<>();
            for (int at = 1; at <= rows.getMetaData().getColumnCount(); at++) {
                Object value = rows.getObject(at);
                values.add(value instanceof byte[] bytes ? Arrays.toString(bytes) : value instanceof java.sql.Array array ? Arrays.toString((Object[]) array.getArray()) : String.valueOf(value));
            }
            statement.close();
            return values;
        });
        step("200 rows of many", () -> {
            Statement statement = connection.createStatement();
            statement.setMaxRows(200);
            int count = 0;
            ResultSet rows = statement.executeQuery("SELECT * FROM generate_series(1, 50000000)");
            while (rows.next()) count++;
            statement.close();
            return count;
        });
        step("prepared", () -> {
            PreparedStatement statement = connection.prepareStatement("SELECT id, team FROM scores WHERE id = ? OR team = ? ORDER BY id");
            List<String> values = new ArrayList<>();
            for (long id = 1; id < 4; id++) {
                statement.setLong(1, id);
                if (id == 2) statement.setNull(2, Types.VARCHAR); else statement.setString(2, "none");
                ResultSet rows = statement.executeQuery();
                while (rows.next()) values.add(rows.getLong(1) + rows.getString(2));
                rows.close();
            }
            statement.close();
            return values;
        });
        step("eleven parameters", () -> {
            PreparedStatement statement = connection.prepareStatement("SELECT " + String.join(" || ", Collections.nCopies(11, "CAST(? AS TEXT)")));
            for (int at = 1; at <= 11; at++) statement.setString(at, Character.toString('a' + at - 1));
            ResultSet rows = statement.executeQuery();
            rows.next();
            String together = rows.getString(1);
            statement.close();
            return together;
        });
        step("update", () -> {
            Statement statement = connection.createStatement();
            int made = statement.executeUpdate("CREATE VIEW made_by_jdbc AS SELECT id FROM scores");
            boolean rows = statement.execute("DROP VIEW made_by_jdbc");
            statement.close();
            return made + " " + rows;
        });
        step("refused", () -> connection.createStatement().executeQuery("SELECT nothing FROM scores"));
        step("syntax", () -> connection.createStatement().executeQuery("SELEKT 1"));
        step("still there", () -> column(connection.createStatement().executeQuery("SELECT 1"), 1));
        step("followed", () -> {
            Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery("SELECT team, n FROM by_team EMIT CHANGES");
            rows.next();
            String first = rows.getString("_op");
            rows.close();
            statement.close();
            return first;
        });
        step("cancelled from another thread", () -> {
            Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery("SELECT team, n FROM by_team EMIT CHANGES");
            Thread other = new Thread(() -> {
                try {
                    Thread.sleep(500);
                    statement.cancel();
                } catch (Exception problem) {
                    throw new RuntimeException(problem);
                }
            });
            other.start();
            long began = System.currentTimeMillis();
            int count = 0;
            try {
                while (rows.next()) count++;
            } catch (SQLException | RuntimeException expected) {
                // Ended by an error or by no more rows: it ended.
            }
            other.join();
            return count > 0 && System.currentTimeMillis() - began < 20_000;
        });
        step("bounded", () -> column(connection.createStatement().executeQuery("SUBSCRIBE by_team WITH (max_rows = 1, timeout = '20 s')"), "_op"));
        step("batch", () -> {
            Statement statement = connection.createStatement();
            statement.executeUpdate("CREATE TABLE batched (a BIGINT, b TEXT)");
            PreparedStatement insert = connection.prepareStatement("INSERT INTO batched VALUES (?, ?)");
            for (long row = 0; row < 5; row++) {
                insert.setLong(1, row);
                insert.setString(2, "row " + row);
                insert.addBatch();
            }
            int[] counts = insert.executeBatch();
            insert.close();
            int deleted = statement.executeUpdate("DELETE FROM batched WHERE a >= 3");
            String left = column(statement.executeQuery("SELECT b FROM batched ORDER BY a"), 1).toString();
            statement.executeUpdate("DROP TABLE batched");
            statement.close();
            return Arrays.stream(counts).sum() + " " + deleted + " " + left;
        });
        // The driver may complain that it has itself leaked buffers of what was cancelled.
        step("closed", () -> {
            connection.close();
            return true;
        });
        System.exit(0);
    }

    /** Calls every method of the metadata that takes nothing; names those that fail. */
    static String everyGetter(DatabaseMetaData metadata) throws Exception {
        int called = 0;
        List<String> failed = new ArrayList<>();
        for (Method method : DatabaseMetaData.class.getMethods()) {
            if (method.getParameterCount() > 0 || method.getDeclaringClass() != DatabaseMetaData.class) continue;
            called++;
            try {
                Object value = method.invoke(metadata);
                if (value instanceof ResultSet rows) while (rows.next()) {}
            } catch (InvocationTargetException problem) {
                failed.add(method.getName() + ": " + problem.getCause());
            }
        }
        return (called > 100) + " " + failed;
    }
}
