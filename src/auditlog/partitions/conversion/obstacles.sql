-- What stands in the way of a table becoming a partitioned one, and what will be seen to: a code
-- and what it is about. Reads the catalog only.
WITH wanted AS (
    SELECT c.*, (SELECT attnum FROM pg_attribute
                 WHERE attrelid = c.oid AND attname = 'log_date' AND NOT attisdropped) AS date_column
    FROM pg_class c WHERE c.oid = %(table)s
),
found (code, object) AS (
    SELECT 'not owner', pg_get_userbyid(relowner)::text FROM wanted
    WHERE NOT pg_has_role(relowner, 'USAGE')

    UNION ALL
    SELECT 'row security', '' FROM wanted WHERE row_security_active(oid)

    UNION ALL
    SELECT 'no right', 'CREATE ON SCHEMA logstore' FROM wanted
    WHERE NOT has_schema_privilege(relnamespace, 'CREATE')

    UNION ALL
    SELECT 'no right', format('%%s ON %%s', rights, t.oid::regclass)
    FROM pg_class t,
         (VALUES ('logs', 'INSERT'), ('batches', 'INSERT'), ('partitioning', 'SELECT'),
                 ('partitioning', 'INSERT'), ('partitioning', 'UPDATE'), ('partitioning', 'DELETE'),
                 ('retirements', 'SELECT'))
         AS needed (relname, rights)
    WHERE t.relnamespace = 'logstore'::regnamespace AND t.relname = needed.relname
      AND NOT has_table_privilege(t.oid, rights)

    UNION ALL
    SELECT 'unlogged', '' FROM wanted WHERE relpersistence <> 'p'

    UNION ALL
    SELECT 'storage', array_to_string(reloptions, ', ') FROM wanted WHERE reloptions IS NOT NULL

    UNION ALL
    SELECT 'inherits', i.inhparent::regclass::text FROM wanted JOIN pg_inherits i ON inhrelid = oid
    UNION ALL
    SELECT 'inherited', i.inhrelid::regclass::text FROM wanted JOIN pg_inherits i ON inhparent = oid
    UNION ALL
    SELECT 'typed', reloftype::regtype::text FROM wanted WHERE reloftype <> 0

    UNION ALL
    SELECT 'key', coalesce(pg_get_constraintdef(k.oid), 'none')
    FROM wanted LEFT JOIN pg_constraint k ON k.conrelid = wanted.oid AND k.contype = 'p'
    WHERE pg_get_constraintdef(k.oid) IS DISTINCT FROM 'PRIMARY KEY (instance_id, log_id)'

    UNION ALL
    SELECT 'date type', coalesce(format_type(a.atttypid, a.atttypmod), 'no such column')
    FROM wanted LEFT JOIN pg_attribute a ON a.attrelid = oid AND a.attnum = date_column
    WHERE a.atttypid IS DISTINCT FROM 'timestamptz'::regtype OR a.attgenerated <> ''

    UNION ALL
    SELECT 'nullable', '' FROM wanted
    JOIN pg_attribute a ON a.attrelid = oid AND a.attnum = date_column AND NOT a.attnotnull

    UNION ALL
    SELECT 'identity', attname::text FROM pg_attribute
    WHERE attrelid = %(table)s AND attidentity <> ''

    UNION ALL
    SELECT 'extra column', attname::text FROM pg_attribute
    WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
      AND attname <> ALL (%(columns)s::text[])
    UNION ALL
    SELECT 'missing column', column_name FROM unnest(%(columns)s::text[]) AS column_name
    WHERE column_name NOT IN (SELECT attname FROM pg_attribute
                              WHERE attrelid = %(table)s AND NOT attisdropped)

    UNION ALL
    SELECT 'owned sequence', d.objid::regclass::text FROM pg_depend d
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE d.classid = 'pg_class'::regclass AND d.refobjid = %(table)s AND d.deptype = 'a'

    UNION ALL
    SELECT 'invalid index', indexrelid::regclass::text FROM pg_index
    WHERE indrelid = %(table)s AND NOT (indisvalid AND indisready)
    UNION ALL
    SELECT 'unique index', indexrelid::regclass::text FROM wanted JOIN pg_index ON indrelid = oid
    WHERE indisunique AND NOT indisprimary AND date_column <> ALL (indkey::smallint[])
    UNION ALL
    SELECT 'missing index', index_name FROM unnest(%(indexes)s::text[]) AS index_name
    WHERE index_name NOT IN (SELECT relname FROM pg_index JOIN pg_class i ON i.oid = indexrelid
                             WHERE indrelid = %(table)s)

    UNION ALL
    SELECT 'exclusion', conname::text FROM pg_constraint
    WHERE conrelid = %(table)s AND contype = 'x'
    UNION ALL
    SELECT 'unvalidated', conname::text FROM pg_constraint
    WHERE conrelid = %(table)s AND contype = 'c' AND NOT convalidated AND conname <> %(bound)s
    UNION ALL
    SELECT 'not inherited', conname::text FROM pg_constraint
    WHERE conrelid = %(table)s AND contype = 'c' AND connoinherit
    UNION ALL
    SELECT 'refers', conname::text FROM pg_constraint WHERE conrelid = %(table)s AND contype = 'f'
    UNION ALL
    SELECT 'referred to', format('%%s of %%s', conname, conrelid::regclass) FROM pg_constraint
    WHERE confrelid = %(table)s AND contype = 'f'
    UNION ALL
    SELECT 'leftover', conname::text FROM pg_constraint
    WHERE conrelid = %(table)s AND contype = 'c' AND conname = %(bound)s

    UNION ALL
    SELECT 'transition table', tgname::text FROM pg_trigger
    WHERE tgrelid = %(table)s AND tgtype & 1 = 1 AND (tgoldtable IS NOT NULL OR tgnewtable IS NOT NULL)
    UNION ALL
    SELECT 'rule', rulename::text FROM pg_rewrite WHERE ev_class = %(table)s

    UNION ALL
    SELECT CASE WHEN NOT pg_has_role(v.relowner, 'USAGE') THEN 'view of others'
                WHEN v.relkind = 'v' AND r.ev_type = '1' THEN 'view' ELSE 'dependent' END,
           CASE v.relkind WHEN 'm' THEN 'materialized view ' ELSE '' END || v.oid::regclass::text
    FROM (SELECT DISTINCT objid FROM pg_depend
          WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass
            AND refobjid = %(table)s) d
    JOIN pg_rewrite r ON r.oid = d.objid
    JOIN pg_class v ON v.oid = r.ev_class AND v.oid <> %(table)s

    UNION ALL
    SELECT DISTINCT 'dependent', pg_describe_object(classid, objid, 0) FROM wanted, pg_depend
    WHERE deptype = 'n' AND (
        refclassid = 'pg_class'::regclass AND refobjid = oid
            AND classid NOT IN ('pg_rewrite'::regclass, 'pg_constraint'::regclass)
            AND NOT (classid = 'pg_policy'::regclass
                     AND objid IN (SELECT p.oid FROM pg_policy p WHERE polrelid = wanted.oid))
            AND NOT (classid = 'pg_attrdef'::regclass
                     AND objid IN (SELECT d.oid FROM pg_attrdef d WHERE adrelid = wanted.oid))
            AND NOT (classid = 'pg_trigger'::regclass
                     AND objid IN (SELECT t.oid FROM pg_trigger t WHERE tgrelid = wanted.oid))
        OR refclassid = 'pg_type'::regclass
            AND refobjid IN (reltype, (SELECT typarray FROM pg_type WHERE pg_type.oid = reltype))
    )

    UNION ALL
    SELECT CASE WHEN NOT p.pubviaroot THEN 'publication by leaf'
                WHEN to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL
                    THEN 'publication of parts'
                WHEN r.prrelid IS NOT NULL AND NOT pg_has_role(p.pubowner, 'USAGE')
                    THEN 'publication of others'
                ELSE 'publication' END,
           p.pubname::text
    FROM wanted JOIN pg_publication p ON EXISTS (
        SELECT FROM pg_get_publication_tables(p.pubname) AS published WHERE published.relid = wanted.oid
    ) LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = wanted.oid

    UNION ALL
    SELECT 'taken name', t.oid::regclass::text FROM pg_class t
    WHERE t.relnamespace = 'logstore'::regnamespace AND t.relname = ANY (%(names)s::text[])
      AND coalesce(obj_description(t.oid, 'pg_class'), '') NOT LIKE %(mark)s || '%%'

    UNION ALL
    SELECT 'long transaction', format('process %%s (%%s), for %%s', a.pid,
               coalesce(nullif(a.application_name, ''), 'without a name'),
               date_trunc('second', clock_timestamp() - a.xact_start))
    FROM pg_stat_activity a
    WHERE a.pid <> pg_backend_pid() AND a.xact_start < clock_timestamp() - interval '10 seconds'
      AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.relation = %(table)s)
    UNION ALL
    SELECT 'prepared transaction', gid FROM pg_prepared_xacts p
    WHERE EXISTS (SELECT FROM pg_locks l JOIN pg_locks x USING (virtualtransaction)
                  WHERE l.relation = %(table)s AND l.pid IS NULL
                    AND x.transactionid = p.transaction AND x.pid IS NULL)
)
SELECT code, object FROM found ORDER BY code, object
