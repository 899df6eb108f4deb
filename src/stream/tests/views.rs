//! The views that cases run, and which windows hold a row, worked out by trying.

/// A view's query, and what its windows are.
#[derive(Debug)]
pub struct View {
    pub sql: &'static str,
    pub windows: Windows,
    /// The view's column that holds its window's end, or its start.
    pub column: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub enum Windows {
    None,
    /// Length in seconds.
    Tumble(i64),
    /// Slide and length in seconds.
    Hop(i64, i64),
    /// Step and length in seconds.
    Cumulate(i64, i64),
    /// Gap in seconds; by the column k, or of all rows.
    Session(i64, bool),
}

pub const SECOND: i64 = 1_000_000_000;

impl Windows {
    /// Ends of the windows that hold a row. A window of which one bound lies beyond 64 bits is none.
    pub fn ends(self, ts: i64) -> Vec<i64> {
        let (every, lengths) = match self {
            Windows::Tumble(size) => (size, vec![size]),
            Windows::Hop(slide, size) => (slide, vec![size]),
            Windows::Cumulate(step, size) => (size, (1..=size / step).map(|n| n * step).collect()),
            Windows::None | Windows::Session(..) => return vec![],
        };
        let longest = lengths.iter().copied().max().unwrap_or_default();
        let first = (ts / SECOND - longest).div_euclid(every) - 1;
        let mut ends = vec![];
        for k in first..=first + longest / every + 4 {
            for length in &lengths {
                let bound = |seconds: i64| i64::try_from(i128::from(seconds) * i128::from(SECOND));
                if let (Ok(start), Ok(end)) = (bound(k * every), bound(k * every + length))
                    && (start..end).contains(&ts)
                {
                    ends.push(end);
                }
            }
        }
        ends.sort_unstable();
        ends
    }

    pub fn kind(self) -> &'static str {
        match self {
            Windows::None => "none",
            Windows::Tumble(_) => "TUMBLE",
            Windows::Hop(..) => "HOP",
            Windows::Cumulate(..) => "CUMULATE",
            Windows::Session(..) => "SESSION",
        }
    }
}

const fn view(windows: Windows, column: &'static str, sql: &'static str) -> View {
    View { sql, windows, column }
}

/// By what they try: many aggregates, windows by start or end, filters above and below, odd floats, no window at all.
pub const VIEWS: &[View] = &[
    view(
        Windows::Tumble(10),
        "window_end",
        "SELECT window_start, window_end, k, count(*) AS c, count(x) AS cx, sum(x) AS s, avg(x) AS a, min(f) AS mn, max(k) AS mx, sum(f) AS sf,
           count(DISTINCT x) AS d, count(*) FILTER (WHERE x > 3) AS fc, sum(f) FILTER (WHERE k = 'b') AS ff, bool_or(x > 5) AS bo, min(k) AS mk
         FROM TUMBLE(events, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k",
    ),
    view(
        Windows::Tumble(10),
        "window_start",
        "SELECT window_start, k, count(*) AS c, sum(f) AS s, max(x) AS m FROM TUMBLE(events, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k",
    ),
    view(
        Windows::Tumble(7),
        "window_end",
        "SELECT window_end, count(*) AS c, array_agg(x) AS xs, first_value(id) AS f, last_value(id ORDER BY k) AS l, approx_distinct(k) AS ad
         FROM TUMBLE(events, ts, INTERVAL '7 seconds') GROUP BY window_end",
    ),
    view(
        Windows::Tumble(7),
        "window_start",
        "SELECT window_start, upper(k) AS kk, c * 2 AS c2 FROM (
           SELECT window_start, k, count(*) AS c, sum(x) AS sx FROM TUMBLE(events, ts, INTERVAL '7 seconds') GROUP BY window_start, k) WHERE c > 1 AND sx < 20",
    ),
    view(
        Windows::Tumble(10),
        "window_start",
        "WITH e AS (SELECT *, x + 1 AS y FROM TUMBLE(events, ts, INTERVAL '10 seconds'))
         SELECT window_start, sum(y) AS sy, count(*) AS n FROM e GROUP BY window_start HAVING count(*) > 1",
    ),
    view(
        Windows::Hop(5, 15),
        "window_end",
        "SELECT window_start, window_end, k, count(*) AS c, sum(x) AS s, max(f) AS m, count(DISTINCT x) AS d
         FROM HOP(events, ts, INTERVAL '5 seconds', INTERVAL '15 seconds') GROUP BY window_start, window_end, k",
    ),
    // Slides that don't divide the length: panes are shorter than both.
    view(
        Windows::Hop(4, 10),
        "window_start",
        "SELECT window_start, count(*) AS c, sum(f) AS s, avg(x) AS a FROM HOP(events, ts, INTERVAL '4 seconds', INTERVAL '10 seconds')
         GROUP BY window_start HAVING count(*) > 1",
    ),
    // Rows between the windows are in none.
    view(
        Windows::Hop(10, 4),
        "window_end",
        "SELECT window_end, k, count(*) AS c, min(x) AS m FROM HOP(events, ts, INTERVAL '10 seconds', INTERVAL '4 seconds') GROUP BY window_end, k",
    ),
    // Looks at the window's bounds: the rows are copied.
    view(
        Windows::Hop(5, 15),
        "window_start",
        "SELECT window_start, count(*) AS c, max(ts - window_start) AS newest FROM HOP(events, ts, INTERVAL '5 seconds', INTERVAL '15 seconds') GROUP BY window_start",
    ),
    view(
        Windows::Cumulate(5, 20),
        "window_end",
        "SELECT window_start, window_end, k, count(*) AS c, sum(x) AS s FROM CUMULATE(events, ts, INTERVAL '5 seconds', INTERVAL '20 seconds')
         GROUP BY window_start, window_end, k",
    ),
    view(
        Windows::Session(3, true),
        "window_end",
        "SELECT window_start, window_end, k, count(*) AS c, sum(x) AS s, max(f) AS m, count(DISTINCT x) AS d
         FROM SESSION(events PARTITION BY k, ts, INTERVAL '3 seconds') GROUP BY window_start, window_end, k",
    ),
    view(
        Windows::Session(1, false),
        "window_end",
        "SELECT window_end, count(*) AS c, avg(f) AS a FROM SESSION(events, ts, INTERVAL '1 second') GROUP BY window_end",
    ),
    view(Windows::None, "", "SELECT id, ts, k, x * 2 AS xx FROM events WHERE x % 3 = 0 OR k IS NULL"),
    view(Windows::None, "", "SELECT k, count(*) AS c, sum(x) AS s, max(f) AS m FROM events GROUP BY k"),
    view(Windows::None, "", "SELECT count(*) AS c, sum(f) AS s, min(x) AS m FROM events WHERE x > 2"),
    view(Windows::None, "", "SELECT DISTINCT k, x FROM events"),
    view(Windows::None, "", "SELECT id, k FROM events WHERE x > 3 UNION ALL SELECT id, upper(k) FROM events WHERE x < 6"),
    view(
        Windows::Tumble(10),
        "window_start",
        "SELECT window_start, k, count(*) AS c, sum(x) AS s FROM (
           SELECT window_start, window_end, k, x FROM TUMBLE(events, ts, INTERVAL '10 seconds') WHERE x > 3
           UNION ALL SELECT window_start, window_end, 'rest', x FROM TUMBLE(events, ts, INTERVAL '10 seconds') WHERE x <= 3
           UNION ALL SELECT window_start, window_end, 'none', x FROM TUMBLE(events, ts, INTERVAL '10 seconds') WHERE x IS NULL)
         GROUP BY window_start, window_end, k",
    ),
    // Floats that JSON has no word for, as text: NaN and the infinities; beside them -0.0, the greatest and the smallest. The absolute
    // values have a sum that does not depend on the order.
    view(
        Windows::Tumble(10),
        "window_start",
        "SELECT window_start, k, count(w) AS c, min(w) AS mn, max(w) AS mx, sum(abs(w)) AS s, count(DISTINCT w) AS d
         FROM (SELECT window_start, k, coalesce(g, CAST(h AS DOUBLE)) AS w FROM TUMBLE(events, ts, INTERVAL '10 seconds')) GROUP BY window_start, k",
    ),
    view(
        Windows::Tumble(7),
        "window_end",
        "SELECT window_end, w, count(*) AS c, sum(x) AS s
         FROM (SELECT window_end, x, coalesce(g, CAST(h AS DOUBLE)) AS w FROM TUMBLE(events, ts, INTERVAL '7 seconds')) GROUP BY window_end, w",
    ),
    view(
        Windows::Hop(5, 15),
        "window_end",
        "SELECT window_end, min(w) AS mn, max(w) AS mx, avg(abs(w)) AS a
         FROM (SELECT window_end, coalesce(g, CAST(h AS DOUBLE)) AS w FROM HOP(events, ts, INTERVAL '5 seconds', INTERVAL '15 seconds')) GROUP BY window_end",
    ),
    view(
        Windows::Cumulate(5, 20),
        "window_end",
        "SELECT window_end, k, max(w) AS mx, sum(abs(w)) AS s
         FROM (SELECT window_end, k, coalesce(g, CAST(h AS DOUBLE)) AS w FROM CUMULATE(events, ts, INTERVAL '5 seconds', INTERVAL '20 seconds'))
         GROUP BY window_end, k",
    ),
    view(
        Windows::Session(3, true),
        "window_end",
        "SELECT window_start, window_end, k, min(w) AS mn, max(w) AS mx, count(w) AS c
         FROM (SELECT window_start, window_end, k, coalesce(g, CAST(h AS DOUBLE)) AS w FROM SESSION(events PARTITION BY k, ts, INTERVAL '3 seconds'))
         GROUP BY window_start, window_end, k",
    ),
    view(Windows::None, "", "SELECT w, count(*) AS c FROM (SELECT coalesce(g, CAST(h AS DOUBLE)) AS w FROM events) GROUP BY w"),
    view(Windows::None, "", "SELECT min(w) AS mn, max(w) AS mx, sum(abs(w)) AS s, count(w) AS c FROM (SELECT coalesce(g, CAST(h AS DOUBLE)) AS w FROM events)"),
];
