-- The guard: rows of the trail and of its ledger are added, never changed or taken away.
--
-- Statement triggers on UPDATE, DELETE and TRUNCATE only, so INSERT and COPY pay nothing. For
-- maintenance, such as a shorter retention for one tenant, the owner of the table lifts the guard
-- for one transaction:
--
--     BEGIN;
--     SET LOCAL auditlog.maintenance = 'on';
--     DELETE FROM logstore.logs WHERE instance_id = '...' AND log_date < '...';
--     COMMIT;
--
-- Statement triggers are not inherited: whoever makes a partition creates the trigger there too.

-- The writer locks the ledger first; in another order the two would wait for each other.
LOCK TABLE logstore.batches IN SHARE ROW EXCLUSIVE MODE;

CREATE FUNCTION logstore.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('auditlog.maintenance', true) = 'on' AND pg_has_role(
        current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE'
    ) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% on %.% refused: the table is append-only',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege',
            HINT = 'For maintenance the owner of the table runs SET LOCAL auditlog.maintenance = ''on'' in the same transaction.';
END
$$;
COMMENT ON FUNCTION logstore.refuse_change() IS
    'Refuses to change an append-only table, but for its owner under auditlog.maintenance = on.';
REVOKE ALL ON FUNCTION logstore.refuse_change() FROM PUBLIC;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON logstore.logs
    FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON logstore.execution_logs
    FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON logstore.quota_logs
    FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON logstore.batches
    FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change();

INSERT INTO logstore.migrations (version, name) VALUES (4, 'append_only');
