-- The statements by which a partition, once detached, becomes what its table was: indexes under the
-- table's names, and none of the constraints that a detach has left and the table does not have.
SELECT format('ALTER INDEX %%s RENAME TO %%I', x.indexrelid::regclass,
              CASE WHEN x.indisprimary THEN %(called)s::text || '_pkey' ELSE above.relname END) AS statement
FROM pg_index x
LEFT JOIN pg_inherits i ON i.inhrelid = x.indexrelid
LEFT JOIN pg_class above ON above.oid = i.inhparent
WHERE x.indrelid = %(partition)s AND (x.indisprimary OR above.oid IS NOT NULL)
UNION ALL
SELECT format('COMMENT ON INDEX logstore.%%I IS %%L', above.relname, comment)
FROM pg_index x
JOIN pg_inherits i ON i.inhrelid = x.indexrelid
JOIN pg_class above ON above.oid = i.inhparent,
obj_description(above.oid, 'pg_class') AS comment
WHERE x.indrelid = %(partition)s
    AND comment IS DISTINCT FROM obj_description(x.indexrelid, 'pg_class')
UNION ALL
SELECT format('ALTER TABLE logstore.%%I DROP CONSTRAINT %%I', %(called)s::text, conname)
FROM pg_constraint own
WHERE conrelid = %(partition)s AND contype = 'c' AND NOT EXISTS (
    SELECT FROM pg_constraint theirs
    WHERE theirs.conrelid = %(table)s AND theirs.contype = 'c' AND theirs.conname = own.conname
)
ORDER BY 1
