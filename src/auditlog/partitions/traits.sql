-- What a table has beside its columns and constraints, as the statements that give it to another:
-- in order, each with its kind, and what it is about. What the other one gets as the indexes' names is the caller's.
WITH source AS (
    SELECT c.*, format('%%I.%%I', n.nspname, c.relname) AS name, %(target)s::text AS target
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = %(source)s
),
rights AS (
    SELECT '' AS of_columns, (aclexplode(relacl)).* FROM source
    UNION ALL
    SELECT format(' (%%I)', attname), (aclexplode(attacl)).*
    FROM pg_attribute WHERE attrelid = %(source)s AND NOT attisdropped
),
traits (position, kind, statement) AS (
    SELECT 1, 'owner', format('ALTER TABLE %%s OWNER TO %%I', target, pg_get_userbyid(relowner))
    FROM source WHERE pg_get_userbyid(relowner) <> current_user

    UNION ALL
    SELECT 2, 'column',
           format('ALTER TABLE %%s ALTER COLUMN %%I SET STATISTICS %%s', target, attname, attstattarget)
    FROM source, pg_attribute
    WHERE attrelid = source.oid AND attnum > 0 AND NOT attisdropped AND attstattarget >= 0

    UNION ALL
    SELECT 2, 'column',
           format('ALTER TABLE %%s ALTER COLUMN %%I SET (%%s)', target, attname,
                  array_to_string(attoptions, ', '))
    FROM source, pg_attribute
    WHERE attrelid = source.oid AND attnum > 0 AND NOT attisdropped AND attoptions IS NOT NULL

    UNION ALL
    SELECT 3, 'identity',
           format('ALTER TABLE %%s REPLICA IDENTITY %%s', target,
                  CASE relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END)
    FROM source WHERE relreplident IN ('f', 'n')

    UNION ALL
    SELECT 4, 'comment', format('COMMENT ON TABLE %%s IS %%L', target, obj_description(oid, 'pg_class'))
    FROM source

    UNION ALL
    SELECT 5, 'policy',
           format('CREATE POLICY %%I ON %%s AS %%s FOR %%s TO %%s', polname, target,
                  CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                  CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                              WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                  (SELECT string_agg(
                       CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END, ', '
                   ) FROM unnest(polroles) AS role))
           || coalesce(format(' USING (%%s)', pg_get_expr(polqual, polrelid)), '')
           || coalesce(format(' WITH CHECK (%%s)', pg_get_expr(polwithcheck, polrelid)), '')
    FROM source JOIN pg_policy ON polrelid = source.oid

    UNION ALL
    SELECT 6, 'policy', format('ALTER TABLE %%s %%s ROW LEVEL SECURITY', target, action)
    FROM source, (VALUES ('ENABLE'), ('FORCE')) AS actions (action)
    WHERE CASE action WHEN 'ENABLE' THEN relrowsecurity ELSE relforcerowsecurity END

    UNION ALL
    -- The first ON is the trigger's own: a condition comes after it.
    SELECT 7, CASE WHEN tgtype & 1 = 1 THEN 'row trigger' ELSE 'trigger' END,
           overlay(definition PLACING format(' ON %%s ', target)
                   FROM strpos(definition, format(' ON %%s ', name)) FOR length(name) + 5)
           || CASE tgenabled WHEN 'O' THEN '' ELSE
               format('; ALTER TABLE %%s %%s TRIGGER %%I', target,
                      CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                                     ELSE 'ENABLE REPLICA' END, tgname) END
    FROM source JOIN pg_trigger ON tgrelid = source.oid AND NOT tgisinternal,
         pg_get_triggerdef(pg_trigger.oid) AS definition

    UNION ALL
    SELECT 8, 'grant',
           format('GRANT %%s%%s ON %%s TO %%s%%s', privilege_type, of_columns, target,
                  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM source, rights WHERE grantee <> relowner
)
SELECT kind, statement FROM traits ORDER BY position, statement
