-- An index of the table that a partition lacks: how it is built there, and one like it that is there
-- already. What follows USING in a definition is the same for table and partition.
WITH wanted AS (
    SELECT indexrelid, indisunique, strpos(definition, ' USING ') AS place, definition
    FROM pg_index, pg_get_indexdef(indexrelid) AS definition
    WHERE indrelid = %(parent)s::oid
        AND indexrelid = (
            SELECT oid FROM pg_class
            WHERE relname = %(index)s
                AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = %(parent)s::oid)
        )
)
SELECT
    wanted.indisunique AS is_unique,
    substr(definition, place) AS method,
    (
        SELECT class.relname
        FROM pg_index AS other
        JOIN pg_class AS class ON class.oid = other.indexrelid,
            pg_get_indexdef(other.indexrelid) AS likewise
        WHERE other.indrelid = %(leaf)s::oid AND other.indisvalid
            AND other.indisunique = wanted.indisunique
            AND right(likewise, length(substr(definition, place))) = substr(definition, place)
            AND NOT class.relispartition
        LIMIT 1
    ) AS present
FROM wanted
