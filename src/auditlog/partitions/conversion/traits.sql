-- What a table has beside columns, constraints and indexes, as the statements that give it to
-- another one: in order, each with its kind. Owner, row security and guard are `dress_partition`'s.
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
    SELECT 2, 'column comment',
           format('COMMENT ON COLUMN %%s.%%I IS %%L', target, attname,
                  col_description(attrelid, attnum))
    FROM source, pg_attribute
    WHERE attrelid = source.oid AND attnum > 0 AND NOT attisdropped

    UNION ALL
    SELECT 3, 'identity',
           format('ALTER TABLE %%s REPLICA IDENTITY %%s', target,
                  CASE relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END)
    FROM source

    UNION ALL
    SELECT 4, 'comment', format('COMMENT ON TABLE %%s IS %%L', target, obj_description(oid, 'pg_class'))
    FROM source

    UNION ALL
    -- The first ON is the trigger's own: a condition comes after it.
    SELECT 7, 'trigger',
           regexp_replace(
               overlay(definition PLACING format(' ON %%s ', target)
                       FROM strpos(definition, format(' ON %%s ', name)) FOR length(name) + 5),
               '^CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER')
           || CASE tgenabled WHEN 'O' THEN '' ELSE
               format('; ALTER TABLE %%s %%s TRIGGER %%I', target,
                      CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                                     ELSE 'ENABLE REPLICA' END, tgname) END
    FROM source JOIN pg_trigger ON tgrelid = source.oid AND NOT tgisinternal
        AND tgparentid = 0 AND tgname <> 'append_only',
         pg_get_triggerdef(pg_trigger.oid) AS definition

    UNION ALL
    SELECT 8, 'grant',
           format('GRANT %%s%%s ON %%s TO %%s%%s', privilege_type, of_columns, target,
                  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM source, rights WHERE grantee <> relowner
)
SELECT kind, statement FROM traits ORDER BY position, statement
