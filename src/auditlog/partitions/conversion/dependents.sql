-- What refers to a table by its identity, and is to refer to the one that takes its name: views as
-- they are now, and publications. `other` is what the table is called by then.
SELECT 'view' AS kind,
       format('CREATE OR REPLACE VIEW %%I.%%I %%s AS %%s', n.nspname, v.relname,
              'WITH (' || array_to_string(v.reloptions, ', ') || ')',
              rtrim(pg_get_viewdef(v.oid), '; ')) AS statement
FROM pg_class v
JOIN pg_namespace n ON n.oid = v.relnamespace
WHERE v.relkind = 'v' AND v.oid IN (
    SELECT r.ev_class FROM pg_depend d
    JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s
)
UNION ALL
SELECT 'publication',
       format('ALTER PUBLICATION %%1$I ADD TABLE %%2$s; ALTER PUBLICATION %%1$I DROP TABLE %%3$s',
              pubname, %(called)s::text, %(other)s::text)
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE prrelid = %(table)s
ORDER BY 1, 2
