-- A table's indexes; what follows the table in the statement that makes each is `tail`.
SELECT i.relname::text AS name, x.indisprimary AS is_primary, x.indisunique AS is_unique,
       substr(pg_get_indexdef(i.oid), length(format(
           'CREATE %%sINDEX %%I ON %%s%%I.%%I', CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END,
           i.relname, CASE i.relkind WHEN 'I' THEN 'ONLY ' ELSE '' END, n.nspname, c.relname
       )) + 1) AS tail,
       obj_description(i.oid, 'pg_class') AS comment
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class c ON c.oid = x.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE x.indrelid = %(table)s
ORDER BY 1
