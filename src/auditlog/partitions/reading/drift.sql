-- What each partition lacks of its table. From the catalog alone, for roles without any right on the
-- functions; `logstore.dressing` has the statements that mend it.
WITH model AS (
    SELECT oid, relname, relowner, relrowsecurity, relforcerowsecurity
    FROM pg_class
    WHERE relname = %(table)s
        AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'logstore')
),
leaf AS (
    SELECT class.oid, class.relname, class.relowner, class.relacl, class.relrowsecurity,
        class.relforcerowsecurity
    FROM model
    JOIN pg_inherits AS inherits ON inherits.inhparent = model.oid
    JOIN pg_class AS class ON class.oid = inherits.inhrelid
    WHERE class.relkind = 'r'
),
policy AS MATERIALIZED (
    -- A sub-select names the table that it is in.
    SELECT polrelid, polname, row (
        polcmd,
        polpermissive,
        (SELECT array_agg(role ORDER BY role) FROM unnest(polroles) AS role),
        replace(pg_get_expr(polqual, polrelid), quote_ident(relname) || '.', '.'),
        replace(pg_get_expr(polwithcheck, polrelid), quote_ident(relname) || '.', '.')
    )::text AS definition
    FROM pg_policy
    JOIN (SELECT oid, relname FROM model UNION ALL SELECT oid, relname FROM leaf) AS class
        ON class.oid = polrelid
),
index AS MATERIALIZED (
    SELECT class.oid, class.relname
    FROM model
    JOIN pg_index ON indrelid = model.oid
    JOIN pg_class AS class ON class.oid = indexrelid
),
has_index AS MATERIALIZED (
    SELECT inhparent, indrelid
    FROM index
    JOIN pg_inherits ON inhparent = index.oid
    JOIN pg_index ON indexrelid = inhrelid
    WHERE indisvalid
),
lacks AS (
    SELECT leaf.oid, 'owner' AS what
    FROM leaf, model
    WHERE leaf.relowner <> model.relowner
    UNION ALL
    SELECT leaf.oid, 'row security'
    FROM leaf, model
    WHERE (leaf.relrowsecurity, leaf.relforcerowsecurity)
            <> (model.relrowsecurity, model.relforcerowsecurity)
        OR (
            SELECT array_agg((polname, definition)::text ORDER BY polname)
            FROM policy WHERE polrelid = leaf.oid
        ) IS DISTINCT FROM (
            SELECT array_agg((polname, definition)::text ORDER BY polname)
            FROM policy WHERE polrelid = model.oid
        )
    UNION ALL
    -- 58: a statement trigger BEFORE UPDATE OR DELETE OR TRUNCATE.
    SELECT leaf.oid, 'guard'
    FROM leaf
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = leaf.oid AND tgname = 'append_only' AND tgtype = 58
            AND tgfoid = (
                SELECT oid FROM pg_proc
                WHERE proname = 'refuse_change' AND pronargs = 0 AND pronamespace = (
                    SELECT oid FROM pg_namespace WHERE nspname = 'logstore'
                )
            )
            AND tgenabled IN ('O', 'A') AND tgqual IS NULL
    )
    UNION ALL
    SELECT leaf.oid, 'grants'
    FROM leaf, aclexplode(leaf.relacl) AS acl
    WHERE acl.grantee <> leaf.relowner
    UNION ALL
    SELECT leaf.oid, 'grants'
    FROM leaf
    JOIN pg_attribute ON attrelid = leaf.oid AND NOT attisdropped AND attacl IS NOT NULL,
        aclexplode(attacl) AS acl
    WHERE acl.grantee <> leaf.relowner
    UNION ALL
    SELECT leaf.oid, 'primary key'
    FROM leaf
    WHERE NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = leaf.oid AND indisprimary AND indisvalid
    )
    UNION ALL
    SELECT leaf.oid, 'index ' || index.relname
    FROM leaf, index
    WHERE NOT EXISTS (
        SELECT FROM has_index WHERE inhparent = index.oid AND indrelid = leaf.oid
    )
)
SELECT oid::bigint, array_agg(DISTINCT what ORDER BY what) AS lacks
FROM lacks
GROUP BY oid
