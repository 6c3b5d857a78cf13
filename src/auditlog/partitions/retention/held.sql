SELECT hold_id::text
FROM logstore.holds
WHERE released_at IS NULL
    AND (table_name IS NULL OR table_name = %(table)s)
    AND (%(tenant)s::text IS NULL OR instance_id IS NULL OR instance_id = %(tenant)s)
    AND from_date < %(until)s AND until_date > %(lower)s
ORDER BY placed_at
LIMIT 1
