SELECT m.window_start, m.n, m.ids, sum(k.n) AS same_n, count(*) AS kinds FROM by_minute m JOIN by_kind k ON k.window_start = m.window_start
GROUP BY m.window_start, m.n, m.ids ORDER BY m.window_start
