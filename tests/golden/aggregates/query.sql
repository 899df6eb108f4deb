SELECT * FROM hourly ORDER BY window_start, k
