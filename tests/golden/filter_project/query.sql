SELECT id, customer, doubled, items, size FROM large_orders ORDER BY id
