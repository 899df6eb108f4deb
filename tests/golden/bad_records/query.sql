SELECT 'view' AS what, window_start, k, n, ids FROM counted
UNION ALL SELECT 'errors', NULL, NULL, count(*), NULL FROM "events$errors" WHERE reason <> ''
ORDER BY what, window_start, k
