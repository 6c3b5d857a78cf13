-- The newest dead letters, without what is in them.
SELECT letter_id, died_at, writer, table_name, instance_id, log_id, sqlstate, reason, attempts,
    octet_length("row") AS size
FROM logstore.dead_letters
WHERE %(tenant)s::bytea IS NULL OR instance_id = %(tenant)s
ORDER BY died_at DESC, letter_id DESC
LIMIT %(limit)s
