-- The functions that make partitions: one algorithm for the writer that meets a row without a
-- partition, for pg_cron, and for `auditlog partitions`.
--
-- A partition is made beside its table and then attached, which takes SHARE UPDATE EXCLUSIVE on the
-- table, so that nobody who reads or writes it waits. CREATE TABLE ... PARTITION OF would take
-- ACCESS EXCLUSIVE. All of it is one transaction: nothing is left half done.
--
-- Bounds, names and windows are in UTC, whatever TimeZone and DateStyle a session has: functions
-- that print or read an instant pin both. Bounds are printed by pg_get_expr(relpartbound, 0):
-- with the table's OID, newer servers would lock the table to do it.
--
-- What may be granted to a role that is not the owner:
--
--     GRANT EXECUTE ON FUNCTION logstore.ensure_partition(text, timestamptz),
--         logstore.covered_until(text) TO the_writer;
--
-- ensure_partition runs with the rights of its owner, which must be the tables' owner or a member of
-- it; it makes only what maintenance would make too, whatever it is asked for and however often.

CREATE FUNCTION logstore.partition_window(
    step text, at timestamptz, OUT lower timestamptz, OUT upper timestamptz
)
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT date_trunc(step, at, 'UTC'),
        date_trunc(step, at, 'UTC') + CASE step
            WHEN 'day' THEN interval '1 day'
            WHEN 'week' THEN interval '7 days'
            WHEN 'month' THEN interval '1 month'
        END
$$;
COMMENT ON FUNCTION logstore.partition_window(text, timestamptz) IS
    'Beginning and end of the day, week (from Monday) or month, in UTC, that an instant lies in.';

CREATE FUNCTION logstore.partition_name(table_name text, step text, lower timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT table_name || CASE
        WHEN NOT isfinite(lower) THEN '_legacy'
        WHEN step = 'month' AND lower = date_trunc('month', lower, 'UTC')
            THEN to_char(lower AT TIME ZONE 'UTC', '"_p"YYYYMM')
        WHEN step = 'week' AND lower = date_trunc('week', lower, 'UTC')
            THEN to_char(lower AT TIME ZONE 'UTC', '"_p"IYYY"w"IW')
        WHEN lower = date_trunc('day', lower, 'UTC')
            THEN to_char(lower AT TIME ZONE 'UTC', '"_p"YYYYMMDD')
        ELSE to_char(lower AT TIME ZONE 'UTC', '"_p"YYYYMMDD"t"HH24MISSUS')
    END
$$;
COMMENT ON FUNCTION logstore.partition_name(text, text, timestamptz) IS
    'Name of the partition that begins then: by its step where it begins as a window of that step does, else by the day, and by the time unless that is midnight.';

CREATE FUNCTION logstore.partitions_of(parent oid) RETURNS TABLE (
    partition regclass, lower timestamptz, upper timestamptz, is_detaching boolean
)
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
    SELECT child.inhrelid,
        CASE WHEN is_read THEN split_part(bounds, '''', 2)::timestamptz END,
        CASE WHEN is_read THEN split_part(bounds, '''', 4)::timestamptz END,
        child.inhdetachpending
    FROM pg_inherits child
    JOIN pg_class c ON c.oid = child.inhrelid
    CROSS JOIN LATERAL replace(
        replace(pg_get_expr(c.relpartbound, 0), '(MINVALUE)', '(''-infinity'')'),
        '(MAXVALUE)', '(''infinity'')'
    ) AS bounds
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM pg_partitioned_table
            JOIN pg_attribute ON attrelid = partrelid AND attnum = partattrs[0]
            WHERE partrelid = parent AND partstrat = 'r' AND partnatts = 1
                AND atttypid = 'timestamptz'::regtype
        ) AND bounds LIKE 'FOR VALUES FROM (%) TO (%)'
    ) AS form (is_read)
    WHERE child.inhparent = parent
$$;
COMMENT ON FUNCTION logstore.partitions_of(oid) IS
    'Partitions of a table with their bounds, whoever made them; also those whose detach was begun and has not ended. The bounds of a DEFAULT partition, and others that are no two instants, are null.';

CREATE FUNCTION logstore.policies_as(source regclass, target regclass) RETURNS TABLE (
    policy name, statement text
)
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    -- An expression with a sub-select names the table that its columns are of, and that must be the
    -- target. It can be printed so where the columns have the same numbers.
    WITH numbered AS (
        SELECT attrelid, array_agg(attnum || ' ' || attname ORDER BY attnum) AS columns
        FROM pg_attribute
        WHERE attrelid IN (source, target) AND attnum > 0 AND NOT attisdropped
        GROUP BY attrelid
    ), printed AS (
        SELECT CASE count(DISTINCT columns) WHEN 1 THEN target ELSE source END AS relation
        FROM numbered
    )
    SELECT polname, concat_ws(' ',
        format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', polname, target,
            CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
            CASE polcmd
                WHEN 'r' THEN 'SELECT'
                WHEN 'a' THEN 'INSERT'
                WHEN 'w' THEN 'UPDATE'
                WHEN 'd' THEN 'DELETE'
                ELSE 'ALL'
            END,
            (
                SELECT string_agg(
                    CASE role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END,
                    ', ' ORDER BY role
                )
                FROM unnest(polroles) AS role
            )
        ),
        'USING (' || pg_get_expr(polqual, relation) || ')',
        'WITH CHECK (' || pg_get_expr(polwithcheck, relation) || ')')
    FROM pg_policy, printed
    WHERE polrelid = source
$$;
COMMENT ON FUNCTION logstore.policies_as(regclass, regclass) IS
    'Policies of a table, and the statements that would give them to another with its columns.';

CREATE FUNCTION logstore.dressing(parent regclass, partition regclass) RETURNS SETOF text
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    WITH pair AS (
        SELECT model.relname AS model_name, model.relowner AS owner,
            model.relrowsecurity AS secured, model.relforcerowsecurity AS forced,
            leaf.oid, leaf.relowner, leaf.relacl, leaf.relrowsecurity, leaf.relforcerowsecurity
        FROM pg_class model, pg_class leaf
        WHERE model.oid = parent AND leaf.oid = partition
    ), wanted AS (
        SELECT policy, statement FROM logstore.policies_as(parent, partition)
    ), present AS (
        SELECT policy, statement FROM logstore.policies_as(partition, partition)
    ), granted AS (
        SELECT grantee FROM pair, aclexplode(relacl)
        UNION
        SELECT grantee FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = partition AND NOT attisdropped
    )
    SELECT statement FROM (
        SELECT 1, format('ALTER TABLE %s OWNER TO %I', partition, pg_get_userbyid(owner))
        FROM pair WHERE relowner <> owner
        UNION ALL
        SELECT 2, format('ALTER TABLE %s %s ROW LEVEL SECURITY', partition,
            CASE WHEN secured THEN 'ENABLE' ELSE 'DISABLE' END)
        FROM pair WHERE relrowsecurity <> secured
        UNION ALL
        SELECT 2, format('ALTER TABLE %s %s ROW LEVEL SECURITY', partition,
            CASE WHEN forced THEN 'FORCE' ELSE 'NO FORCE' END)
        FROM pair WHERE relforcerowsecurity <> forced
        UNION ALL
        SELECT 3, format('DROP POLICY %I ON %s', policy, partition)
        FROM (TABLE present EXCEPT TABLE wanted) AS superfluous
        UNION ALL
        SELECT 4, statement FROM (TABLE wanted EXCEPT TABLE present) AS missing
        UNION ALL
        -- 58: a statement trigger BEFORE UPDATE OR DELETE OR TRUNCATE.
        SELECT 5, format(
            'CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change()',
            partition
        )
        WHERE NOT EXISTS (
            SELECT FROM pg_trigger
            WHERE tgrelid = partition AND tgname = 'append_only' AND tgtype = 58
                AND tgfoid = 'logstore.refuse_change()'::regprocedure
                AND tgenabled IN ('O', 'A') AND tgqual IS NULL
        )
        UNION ALL
        SELECT 6, format('REVOKE ALL ON TABLE %s FROM %s CASCADE', partition,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
        FROM granted, pair WHERE grantee NOT IN (relowner, owner)
        UNION ALL
        SELECT 7, format('COMMENT ON TABLE %s IS %L', partition, concat_ws('. ', mark, remark))
        FROM pair, concat('auditlog partition of ', model_name) AS mark,
            obj_description(partition, 'pg_class') AS remark
        WHERE starts_with(remark, mark) IS NOT TRUE
    ) AS due (place, statement)
    ORDER BY place, statement
$$;
COMMENT ON FUNCTION logstore.dressing(regclass, regclass) IS
    'Statements that give a partition what it lacks of its table, that with the strongest lock first; none where it lacks nothing.';

CREATE FUNCTION logstore.dress_partition(parent regclass, partition regclass) RETURNS void
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statement text;
BEGIN
    FOR statement IN SELECT logstore.dressing(parent, partition) LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION logstore.dress_partition(regclass, regclass) IS
    'Gives a partition what attaching does not: owner and row security of its table, the append-only guard, the comment by which it is known. Rights of others are taken away: rows are read and written through the table, whose policies do not hold for whoever names a partition.';

CREATE FUNCTION logstore.make_partition(
    parent regclass, partition_name text, lower timestamptz, upper timestamptz
) RETURNS text
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    model pg_class := (SELECT c FROM pg_class c WHERE c.oid = parent);
    partition text := format('%I.%I',
        (SELECT nspname FROM pg_namespace WHERE oid = model.relnamespace), partition_name);
    other record;
    clauses text;
BEGIN
    IF NOT isfinite(upper) THEN
        RAISE EXCEPTION 'a partition ends at some time, and not at %', upper
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- One maker at a time, so that what is read below stays true. Writers are not in its way.
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    SELECT p.* INTO other FROM logstore.partitions_of(parent) p
    WHERE p.lower < make_partition.upper AND make_partition.lower < p.upper
    ORDER BY p.lower LIMIT 1;
    IF other.lower = lower AND other.upper = upper AND NOT other.is_detaching THEN
        RETURN 'already';
    ELSIF FOUND THEN
        RAISE EXCEPTION '% from % to % would overlap %', partition, lower, upper, other.partition
            USING ERRCODE = 'invalid_object_definition', DETAIL = format('%s is from %s to %s%s.',
                other.partition, other.lower, other.upper, CASE WHEN other.is_detaching
                    THEN ', and its detach was begun and has not ended' END);
    ELSIF to_regclass(partition) IS NOT NULL THEN
        RAISE EXCEPTION '% has the name that the partition would have',
            pg_describe_object('pg_class'::regclass, to_regclass(partition), 0)
            USING ERRCODE = 'duplicate_table';
    END IF;
    -- A partitioned table has no storage parameters to hand down, so the partition before it does.
    SELECT concat(' WITH (' || string_agg(
        format('%I = %L', split_part(option, '=', 1), substr(option, strpos(option, '=') + 1)), ', '
    ) || ')', ' TABLESPACE ' || (
        SELECT quote_ident(spcname) FROM pg_tablespace WHERE oid = model.reltablespace
    )) INTO clauses
    FROM unnest((
        SELECT c.reloptions FROM logstore.partitions_of(parent) p
        JOIN pg_class c ON c.oid = p.partition AND c.relkind = 'r'
        WHERE p.upper <= make_partition.lower ORDER BY p.upper DESC LIMIT 1
    )) AS option;
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY%s)%s',
        partition, parent,
        CASE WHEN NOT EXISTS (
            SELECT FROM pg_constraint WHERE conrelid = parent AND contype = 'p'
        ) THEN ', PRIMARY KEY (instance_id, log_id)' END,
        clauses);
    PERFORM logstore.dress_partition(parent, partition);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
        parent, partition, lower, upper);
    RETURN 'made';
END
$$;
COMMENT ON FUNCTION logstore.make_partition(regclass, text, timestamptz, timestamptz) IS
    'Makes and attaches a partition: "made", or "already" where the table has one with these bounds. It fails with 42P07 if something else has the name, with 42P17 if another partition overlaps.';

CREATE FUNCTION logstore.due_partition(
    table_name text, at timestamptz,
    OUT verdict text, OUT parent regclass, OUT partition_name text,
    OUT lower timestamptz, OUT upper timestamptz
)
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    plan record;
    around record;
    retired_until timestamptz;
BEGIN
    SELECT p.table_name, p.step, p.ahead, c.oid::regclass AS parent INTO plan
    FROM logstore.partitioning p
    JOIN pg_class c ON c.relname = p.table_name AND c.relkind = 'p'
        AND c.relnamespace = 'logstore'::regnamespace
    WHERE p.table_name = due_partition.table_name;
    IF NOT FOUND THEN
        verdict := 'not_partitioned';
        RETURN;
    END IF;
    parent := plan.parent;
    SELECT
        max(CASE WHEN p.is_detaching THEN 'detaching' ELSE 'already' END)
            FILTER (WHERE p.lower <= at AND at < p.upper) AS verdict,
        min(p.lower) AS oldest,
        max(p.upper) FILTER (WHERE p.upper <= at) AS ended,
        min(p.lower) FILTER (WHERE p.lower > at) AS beginning
    INTO around FROM logstore.partitions_of(parent) p;
    SELECT max(r.upper_bound) INTO retired_until
    FROM logstore.retirements r
    WHERE r.table_name = plan.table_name AND r.instance_id IS NULL
        AND r.state IN ('detached', 'archived', 'dropped') AND r.upper_bound <= clock_timestamp();
    verdict := CASE
        WHEN around.verdict IS NOT NULL THEN around.verdict
        -- Rows of now always have a partition.
        WHEN at < retired_until OR at < least(
            around.oldest, (logstore.partition_window(plan.step, clock_timestamp())).lower
        ) THEN 'retired'
        WHEN at >= clock_timestamp() + plan.ahead + ('1 ' || plan.step)::interval THEN 'too_far'
        ELSE 'due'
    END;
    IF verdict = 'due' THEN
        SELECT greatest(w.lower, retired_until, around.ended), least(w.upper, around.beginning)
        INTO lower, upper FROM logstore.partition_window(plan.step, at) w;
        partition_name := logstore.partition_name(plan.table_name, plan.step, lower);
    END IF;
END
$$;
COMMENT ON FUNCTION logstore.due_partition(text, timestamptz) IS
    'Which partition a row of that log_date should have: "due", with its bounds between its neighbours, or why none is to be made.';

CREATE FUNCTION logstore.ensure_partition(table_name text, at timestamptz) RETURNS text
LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET lock_timeout = '1500ms'
SET default_tablespace = ''
SET default_table_access_method = 'heap'
AS $$
DECLARE
    due record := logstore.due_partition(table_name, at);
BEGIN
    IF due.verdict <> 'due' THEN
        RETURN due.verdict;
    END IF;
    RETURN logstore.make_partition(due.parent, due.partition_name, due.lower, due.upper);
END
$$;
COMMENT ON FUNCTION logstore.ensure_partition(text, timestamptz) IS
    'Makes the partition that a row of that log_date lacks, with the rights of the owner: "made", "already"; or not: "retired", older than what is kept; "too_far", ahead of what is made; "detaching"; "not_partitioned".';

CREATE FUNCTION logstore.cover_end(parent oid, at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    WITH cover AS MATERIALIZED (
        SELECT p.lower, p.upper FROM logstore.partitions_of(parent) p
        WHERE NOT p.is_detaching AND p.upper > at
    )
    SELECT min(upper) FROM cover
    WHERE NOT EXISTS (SELECT FROM cover AS next WHERE next.lower = cover.upper)
        AND EXISTS (SELECT FROM cover WHERE lower <= at)
$$;
COMMENT ON FUNCTION logstore.cover_end(oid, timestamptz) IS
    'Until when a table has partitions without a gap, from an instant on; null if it has none for that.';

CREATE FUNCTION logstore.covered_until(table_name text) RETURNS timestamptz
LANGUAGE sql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE relkind WHEN 'r' THEN timestamptz 'infinity'
        ELSE logstore.cover_end(oid, statement_timestamp()) END
    FROM pg_class
    WHERE relname = table_name AND relnamespace = 'logstore'::regnamespace
        AND relkind IN ('r', 'p')
$$;
COMMENT ON FUNCTION logstore.covered_until(text) IS
    'Until when rows that are recorded from now on have a partition, without a gap; "infinity" for a table that is not partitioned, null if there is none even now.';

CREATE FUNCTION logstore.make_partitions() RETURNS TABLE (
    table_name text, partition_name text, result text
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET lock_timeout = '1500ms'
AS $$
DECLARE
    plan record;
    instant timestamptz;
    due record;
    tries integer;
BEGIN
    FOR plan IN
        SELECT p.table_name, p.step, clock_timestamp() + p.ahead AS until, c.oid AS parent
        FROM logstore.partitioning p
        JOIN pg_class c ON c.relname = p.table_name AND c.relkind = 'p'
            AND c.relnamespace = 'logstore'::regnamespace
        ORDER BY p.table_name
    LOOP
        table_name := plan.table_name;
        instant := clock_timestamp();
        tries := 0;
        LOOP
            instant := coalesce(logstore.cover_end(plan.parent, instant), instant);
            EXIT WHEN instant >= plan.until OR tries = 20;
            due := logstore.due_partition(plan.table_name, instant);
            instant := coalesce(
                due.upper, (logstore.partition_window(plan.step, instant)).upper
            );
            CONTINUE WHEN due.verdict <> 'due';
            partition_name := due.partition_name;
            tries := tries + 1;
            BEGIN
                result := logstore.make_partition(
                    due.parent, due.partition_name, due.lower, due.upper
                );
            EXCEPTION WHEN OTHERS THEN
                result := 'failed: ' || SQLERRM;
                RAISE WARNING '%: %', partition_name, SQLERRM USING ERRCODE = SQLSTATE;
            END;
            RETURN NEXT;
            EXIT WHEN result NOT IN ('made', 'already');
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION logstore.make_partitions() IS
    'Makes the partitions that all tables are to have from now on, the nearest first and at most 20 for each table in one call: the line for pg_cron.';

REVOKE ALL ON FUNCTION
    logstore.partition_window(text, timestamptz),
    logstore.partition_name(text, text, timestamptz),
    logstore.partitions_of(oid),
    logstore.policies_as(regclass, regclass),
    logstore.dressing(regclass, regclass),
    logstore.dress_partition(regclass, regclass),
    logstore.make_partition(regclass, text, timestamptz, timestamptz),
    logstore.due_partition(text, timestamptz),
    logstore.ensure_partition(text, timestamptz),
    logstore.make_partitions(),
    logstore.cover_end(oid, timestamptz),
    logstore.covered_until(text)
FROM PUBLIC;

INSERT INTO logstore.migrations (version, name) VALUES (8, 'partition_functions');
