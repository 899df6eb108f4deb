SELECT window_start, sensor, n, low, high FROM quarter_hours ORDER BY window_start, sensor
