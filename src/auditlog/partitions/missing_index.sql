-- An index of a table: how it is built on a partition, and one like it that the partition has
-- already. What follows USING in a definition is the same for table and partition.
SELECT
    wanted.indisunique AS is_unique,
    substr(definition, strpos(definition, ' USING ')) AS method,
    (
        SELECT class.relname::text
        FROM pg_index AS other
        JOIN pg_class AS class ON class.oid = other.indexrelid
        WHERE other.indrelid = %(partition)s::oid
            AND other.indisvalid AND NOT other.indisprimary AND NOT class.relispartition
            AND other.indisunique = wanted.indisunique
            AND starts_with(
                reverse(pg_get_indexdef(other.indexrelid)),
                reverse(substr(definition, strpos(definition, ' USING ')))
            )
        ORDER BY class.relname
        LIMIT 1
    ) AS present
FROM pg_index AS wanted
JOIN pg_class AS class ON class.oid = wanted.indexrelid,
    pg_get_indexdef(wanted.indexrelid) AS definition
WHERE wanted.indrelid = %(table)s::oid AND class.relname = %(index)s
