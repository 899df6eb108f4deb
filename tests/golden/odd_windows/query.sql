SELECT begins, ends, n FROM sevens ORDER BY begins
