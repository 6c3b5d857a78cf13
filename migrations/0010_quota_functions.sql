-- The functions that count: all spending of quotas goes through them, on the database's clock.
--
-- What a process wants at one moment is one call, and a call is a transaction with nothing else in
-- it: it takes counters in the order of their keys, and then those who wait do not wait for each
-- other. Instants and lengths of time in JSON are microseconds, instants since 1970.
--
-- A call takes 0.29 ms with one ask, of which 0.10 are the way there and back, 0.62 with ten and
-- 3.7 with a hundred; with refused asks 0.22, 0.40 and 2.0 (PostgreSQL 18, without fsync,
-- 2026-11-28).
--
-- What may be granted to a role that is not the owner, beside USAGE on the schema:
--
--     GRANT SELECT ON logstore.quotas TO the_application;
--     GRANT EXECUTE ON FUNCTION logstore.spend_quotas(jsonb), logstore.return_quotas(jsonb),
--         logstore.unfinished_crossings(interval, integer), logstore.crossings_called(uuid[])
--         TO the_application;

CREATE FUNCTION logstore.uuid7(at timestamptz) RETURNS uuid
LANGUAGE sql VOLATILE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    -- All but the version is random in a UUIDv4 too, and the variant is the same.
    SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
        || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;
COMMENT ON FUNCTION logstore.uuid7(timestamptz) IS
    'A UUIDv7 (RFC 9562, section 5.7) of an instant from 1970 on.';

CREATE FUNCTION logstore.microseconds(at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT
RETURN (extract(epoch FROM at) * 1000000)::bigint;
COMMENT ON FUNCTION logstore.microseconds(timestamptz) IS 'Microseconds since 1970 of an instant.';

CREATE FUNCTION logstore.instant(us bigint) RETURNS timestamptz
LANGUAGE sql STABLE STRICT
-- Intervals are multiplied as floating point: microseconds alone would be exact to the year 2255.
RETURN timestamptz 'epoch' + us / 3600000000 * interval '1 hour'
    + us % 3600000000 * interval '1 microsecond';
COMMENT ON FUNCTION logstore.instant(bigint) IS 'The instant of microseconds since 1970.';

CREATE TYPE logstore.quota_ask AS (
    q text,
    t text,
    s text,
    n bigint,
    a bigint,
    extra bigint,
    "limit" bigint,
    enforced boolean,
    forced boolean,
    thresholds integer[],
    start bigint,
    "end" bigint,
    "window" bigint,
    actors jsonb
);
COMMENT ON TYPE logstore.quota_ask IS
    'n spendings of a units each, of the quota q, tenant t and subject s, and extra units in advance; in the period from start to end, or in a rolling window.';

CREATE TYPE logstore.quota_answer AS (
    granted bigint,
    extra bigint,
    previous bigint,
    usage bigint,
    told_percent integer,
    crossings jsonb,
    free_us bigint
);
COMMENT ON TYPE logstore.quota_answer IS
    'How many spendings were granted and how many units in advance, the counter before and after, the highest threshold told, what was crossed, and when the next spending fits.';

CREATE FUNCTION logstore.check_quota_ask(ask logstore.quota_ask, place bigint) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- What JSON carries without loss; a limit times a threshold is then a bigint too.
    most CONSTANT bigint := 9007199254740991;
BEGIN
    IF (
        ask.q IS NOT NULL AND ask.t IS NOT NULL AND ask.s IS NOT NULL
        AND ask.n BETWEEN 1 AND most AND ask.a BETWEEN 0 AND most
        AND ask.extra BETWEEN 0 AND most AND ask."limit" BETWEEN 0 AND most
        AND ask.enforced IS NOT NULL AND ask.forced IS NOT NULL
        AND 0 < ALL (ask.thresholds) AND 1000 >= ALL (ask.thresholds)
        AND CASE WHEN ask."window" IS NULL THEN ask.start < ask."end"
            ELSE ask."window" BETWEEN 60000000 AND most END
    ) IS NOT TRUE THEN
        RAISE EXCEPTION 'ask % is none that can be answered', place
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'See the comment of logstore.spend_quotas.';
    END IF;
END
$$;
COMMENT ON FUNCTION logstore.check_quota_ask(logstore.quota_ask, bigint) IS
    'Fails with 22023 for an ask that lacks something, or has a number out of its range.';

CREATE FUNCTION logstore.threshold_due(quota_limit bigint, percent integer) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT
RETURN greatest(1, (quota_limit * percent + 99) / 100);
COMMENT ON FUNCTION logstore.threshold_due(bigint, integer) IS
    'Usage that reaches so many per cent of a limit: rounded up, and never none.';

CREATE FUNCTION logstore.quota_share(ask logstore.quota_ask, used bigint, told integer)
RETURNS logstore.quota_answer
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    full_at CONSTANT bigint := 4611686018427387904;
    threshold integer;
    due bigint;
    next_due bigint := full_at + 1;
    share logstore.quota_answer;
BEGIN
    share.previous := used;
    share.told_percent := told;
    share.granted := CASE WHEN ask.a = 0 OR ask.forced OR NOT ask.enforced THEN ask.n
        ELSE greatest(0, least(ask.n, (ask."limit" - used) / ask.a)) END;
    share.usage := least(used + share.granted::numeric * ask.a, full_at);
    FOREACH threshold IN ARRAY ask.thresholds LOOP
        CONTINUE WHEN threshold <= told;
        due := logstore.threshold_due(ask."limit", threshold);
        IF ask.a > 0 AND due <= share.usage THEN
            share.told_percent := greatest(share.told_percent, threshold);
        ELSE
            next_due := least(next_due, due);
        END IF;
    END LOOP;
    share.extra := CASE WHEN ask.forced OR share.granted < ask.n THEN 0 ELSE greatest(0, least(
        ask.extra, next_due - 1 - share.usage,
        CASE WHEN ask.enforced THEN (ask."limit" - share.usage) / 8 END
    )) END;
    share.usage := share.usage + share.extra;
    RETURN share;
END
$$;
COMMENT ON FUNCTION logstore.quota_share(logstore.quota_ask, bigint, integer) IS
    'What an ask gets of a counter. Units in advance are at most an eighth of what is left, if a limit is enforced, and end before the next threshold, so that it is a spending that crosses it.';

CREATE FUNCTION logstore.is_change(
    ask logstore.quota_ask, share logstore.quota_answer, told integer, known_limit bigint
) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN share.usage <> share.previous OR share.told_percent <> told
    OR ask.a > 0 AND known_limit <> ask."limit" IS TRUE;
COMMENT ON FUNCTION logstore.is_change(
    logstore.quota_ask, logstore.quota_answer, integer, bigint
) IS
    'Whether there is anything to write. A refusal writes nothing, and so waits for nobody.';

CREATE FUNCTION logstore.cross_thresholds(
    ask logstore.quota_ask, share logstore.quota_answer, told integer,
    period_start timestamptz, period_end timestamptz, at timestamptz
) RETURNS jsonb
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    WITH crossed AS (
        -- A limit that was lowered may be reached already: that is told of the first who spends.
        SELECT DISTINCT threshold, greatest(1, (
            logstore.threshold_due(ask."limit", threshold) - share.previous + ask.a - 1
        ) / ask.a) AS spending
        FROM unnest(ask.thresholds) AS threshold
        WHERE threshold > told AND threshold <= share.told_percent
    ), outbox AS (
        INSERT INTO logstore.quota_crossings AS c (
            crossing_id, quota_id, instance_id, subject, period_start, period_end, percent,
            previous_usage, current_usage, quota_limit, user_id, resource_owner, action,
            crossed_at, claimed_at
        )
        SELECT logstore.uuid7(at), ask.q, ask.t, ask.s, period_start, period_end, threshold,
            share.previous + (spending - 1) * ask.a,
            share.previous + least(spending, share.granted) * ask.a,
            ask."limit", actor ->> 0, actor ->> 1, actor ->> 2, at, at
        FROM crossed, LATERAL (
            SELECT ask.actors -> least(spending - 1, 2147483647)::integer
        ) AS spender (actor)
        ON CONFLICT DO NOTHING
        RETURNING c.*
    )
    SELECT jsonb_agg(to_jsonb(outbox) ORDER BY percent) FROM outbox
$$;
COMMENT ON FUNCTION logstore.cross_thresholds(
    logstore.quota_ask, logstore.quota_answer, integer, timestamptz, timestamptz, timestamptz
) IS
    'Keeps the crossings of an ask, each with the spending that reached it, to be told when they are committed; returns those that are the first in their period.';

CREATE FUNCTION logstore.spend_in_period(ask logstore.quota_ask, at timestamptz)
RETURNS logstore.quota_answer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    since CONSTANT timestamptz := logstore.instant(ask.start);
    until CONSTANT timestamptz := logstore.instant(ask."end");
    counter logstore.quota_usage;
    told integer;
    share logstore.quota_answer;
BEGIN
    IF at < since OR at >= until THEN
        RETURN NULL;
    END IF;
    LOOP
        SELECT * INTO counter FROM logstore.quota_usage
        WHERE quota_id = ask.q AND instance_id = ask.t AND subject = ask.s AND period_start = since;
        told := coalesce(counter.told_percent, 0);
        share := logstore.quota_share(ask, coalesce(counter.used, 0), told);
        EXIT WHEN NOT logstore.is_change(ask, share, told, counter.quota_limit);
        IF counter.quota_id IS NULL THEN
            INSERT INTO logstore.quota_usage (
                quota_id, instance_id, subject, period_start, period_end,
                used, quota_limit, told_percent, first_at, last_at
            ) VALUES (
                ask.q, ask.t, ask.s, since, until,
                share.usage, ask."limit", share.told_percent, at, at
            ) ON CONFLICT DO NOTHING;
        ELSE
            UPDATE logstore.quota_usage
            SET used = share.usage, told_percent = share.told_percent,
                quota_limit = ask."limit", period_end = until, last_at = at
            WHERE quota_id = ask.q AND instance_id = ask.t AND subject = ask.s
                AND period_start = since
                AND used = counter.used AND told_percent = counter.told_percent;
        END IF;
        -- Otherwise somebody was faster; the counter that was waited for stays locked.
        EXIT WHEN FOUND;
    END LOOP;
    IF share.told_percent > told THEN
        share.crossings := logstore.cross_thresholds(ask, share, told, since, until, at);
    END IF;
    share.free_us := ask."end";
    RETURN share;
END
$$;
COMMENT ON FUNCTION logstore.spend_in_period(logstore.quota_ask, timestamptz) IS
    'Spends from the counter of a period; null if the instant is not in it.';

CREATE FUNCTION logstore.slid_counts(counts bigint[], slices bigint) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT
RETURN CASE WHEN slices <= 0 THEN counts
    ELSE array_fill(0::bigint, ARRAY[least(slices, 61)::integer])
        || counts[1:61 - least(slices, 61)::integer] END;
COMMENT ON FUNCTION logstore.slid_counts(bigint[], bigint) IS
    'The counts of a rolling window, newest first, when so many slices have begun since.';

CREATE FUNCTION logstore.slice_that_fits(counts bigint[], newest bigint, room bigint)
RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    -- The newest slices whose units have room may stay; the one before them has to leave.
    SELECT CASE WHEN room >= 0 THEN newest + 61 - count(*) FILTER (WHERE units <= room) END
    FROM (
        SELECT sum(count) OVER (ORDER BY place) AS units
        FROM unnest(counts) WITH ORDINALITY AS slices (count, place)
    ) AS summed
$$;
COMMENT ON FUNCTION logstore.slice_that_fits(bigint[], bigint, bigint) IS
    'Number of the slice with which so few units are left in a rolling window, newest first, as there is room for, if nobody spends meanwhile; null if there never are.';

CREATE FUNCTION logstore.spend_in_window(ask logstore.quota_ask, at timestamptz)
RETURNS logstore.quota_answer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    length CONSTANT interval := ask."window" * interval '1 microsecond';
    slice CONSTANT bigint := (ask."window" + 59) / 60;
    counter logstore.quota_windows;
    current bigint;
    is_ahead boolean;
    stretch bigint;
    told integer;
    slid bigint[];
    share logstore.quota_answer;
BEGIN
    LOOP
        SELECT * INTO counter FROM logstore.quota_windows
        WHERE quota_id = ask.q AND instance_id = ask.t AND subject = ask.s
            AND window_length = length;
        current := logstore.microseconds(at) / slice;
        -- Somebody whose clock was read later may have been here before. But a window that lies
        -- wholly in the future is of a clock that was wrong; its counts end now.
        is_ahead := coalesce(counter.newest > current + 60, false);
        IF counter.newest > current AND NOT is_ahead THEN
            current := counter.newest;
        END IF;
        slid := coalesce(
            logstore.slid_counts(counter.counts, current - counter.newest),
            array_fill(0::bigint, ARRAY[61])
        );
        stretch := greatest(logstore.microseconds(at), current * slice) / ask."window";
        told := CASE WHEN counter.told_window = stretch THEN counter.told_percent ELSE 0 END;
        share := logstore.quota_share(
            ask, (SELECT sum(units) FROM unnest(slid) AS units)::bigint, told
        );
        EXIT WHEN NOT (
            is_ahead OR logstore.is_change(ask, share, told, counter.quota_limit)
        );
        slid[1] := slid[1] + share.usage - share.previous;
        IF counter.quota_id IS NULL THEN
            INSERT INTO logstore.quota_windows (
                quota_id, instance_id, subject, window_length, newest, counts,
                quota_limit, told_window, told_percent, first_at, last_at
            ) VALUES (
                ask.q, ask.t, ask.s, length, current, slid,
                ask."limit", stretch, share.told_percent, at, at
            ) ON CONFLICT DO NOTHING;
        ELSE
            UPDATE logstore.quota_windows
            SET newest = current, counts = slid, quota_limit = ask."limit",
                told_window = stretch, told_percent = share.told_percent, last_at = at
            WHERE quota_id = ask.q AND instance_id = ask.t AND subject = ask.s
                AND window_length = length
                AND (newest, counts, told_window, told_percent)
                    = (counter.newest, counter.counts, counter.told_window, counter.told_percent);
        END IF;
        EXIT WHEN FOUND;
    END LOOP;
    IF share.told_percent > told THEN
        share.crossings := logstore.cross_thresholds(
            ask, share, told, logstore.instant(stretch * ask."window"),
            logstore.instant((stretch + 1) * ask."window"), at
        );
    END IF;
    share.free_us := CASE WHEN share.usage + greatest(1, ask.a) <= ask."limit"
        THEN logstore.microseconds(at)
        ELSE logstore.slice_that_fits(
            slid, current, ask."limit" - greatest(1, ask.a)
        ) * slice END;
    RETURN share;
END
$$;
COMMENT ON FUNCTION logstore.spend_in_window(logstore.quota_ask, timestamptz) IS
    'Spends from the counter of a rolling window.';

CREATE FUNCTION logstore.spend_quotas_at(asks jsonb, at timestamptz) RETURNS TABLE (
    ask integer, state text, granted bigint, extra bigint, previous bigint, usage bigint,
    now_us bigint, crossings jsonb, free_us bigint
)
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    defaults logstore.quota_ask;
    listed record;
    answer logstore.quota_answer;
BEGIN
    now_us := logstore.microseconds(at);
    defaults.extra := 0;
    defaults.enforced := true;
    defaults.forced := false;
    defaults.thresholds := '{}';
    FOR listed IN
        WITH listed AS MATERIALIZED (
            SELECT place - 1 AS place, jsonb_populate_record(defaults, each) AS ask
            FROM jsonb_array_elements(asks) WITH ORDINALITY AS listed (each, place)
        )
        SELECT l.place, l.ask FROM listed l
        ORDER BY (l.ask).q COLLATE "C", (l.ask).t COLLATE "C", (l.ask).s COLLATE "C",
            (l.ask).start, (l.ask)."window", l.place
    LOOP
        PERFORM logstore.check_quota_ask(listed.ask, listed.place);
        answer := CASE WHEN (listed.ask)."window" IS NULL
            THEN logstore.spend_in_period(listed.ask, at)
            ELSE logstore.spend_in_window(listed.ask, at) END;
        ask := listed.place;
        state := CASE WHEN answer.granted IS NULL THEN 'elsewhen' ELSE 'ok' END;
        granted := coalesce(answer.granted, 0);
        extra := coalesce(answer.extra, 0);
        previous := coalesce(answer.previous, 0);
        usage := coalesce(answer.usage, 0);
        crossings := answer.crossings;
        free_us := answer.free_us;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION logstore.spend_quotas_at(jsonb, timestamptz) IS
    'What spend_quotas does, with the clock at an instant.';

CREATE FUNCTION logstore.spend_quotas(asks jsonb) RETURNS TABLE (
    ask integer, state text, granted bigint, extra bigint, previous bigint, usage bigint,
    now_us bigint, crossings jsonb, free_us bigint
)
LANGUAGE sql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- A session keeps its plans. While a table is of one page, reading all of it would be the best of
-- them, and the worst when counters have come by the thousand.
SET enable_seqscan = off
AS $$
    SELECT * FROM logstore.spend_quotas_at(asks, clock_timestamp())
$$;
COMMENT ON FUNCTION logstore.spend_quotas(jsonb) IS
    'Spends units of quotas, and takes units in advance. asks is an array of objects: q, t, s: quota, tenant, subject; n, a: how many spendings of how many units each, 0 units for the usage alone; extra: units in advance, if any; limit; enforced, true if left out; forced: true to charge what was used already, whatever the limit; thresholds: per cents, if any; start and end of the period, or window, the length of a rolling one, in microseconds; actors: [user_id, resource_owner, action] of each spending, if known. There is an answer for each: ask, its place in the array; state, "elsewhen" if the clock is not in the period, else "ok"; granted, how many of the n; extra, how many units in advance; previous and usage, the counter before and after; now_us, the clock; crossings, the rows of quota_crossings that this has made; free_us, when as many units as one spending has fit again, at least one, if nobody spends meanwhile: of a period its end, of a rolling window null if they never do.';

CREATE FUNCTION logstore.counts_without(counts bigint[], age bigint, units bigint) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(count - greatest(0, least(count, coalesce(rest, 0)))::bigint ORDER BY place)
    FROM (
        SELECT place, count, CASE WHEN place > age THEN
            units - sum(CASE WHEN place > age THEN count ELSE 0 END) OVER (ORDER BY place) + count
        END AS rest
        FROM unnest(counts) WITH ORDINALITY AS slices (count, place)
    ) AS summed
$$;
COMMENT ON FUNCTION logstore.counts_without(bigint[], bigint, bigint) IS
    'The counts of a rolling window, newest first, without so many units of the slice of that age. What it has not is taken from older ones: those leave sooner, so never too much is allowed for it.';

CREATE FUNCTION logstore.return_quotas_at(returns jsonb, at timestamptz) RETURNS integer
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    each record;
    returned integer := 0;
BEGIN
    FOR each IN
        SELECT r.* FROM jsonb_to_recordset(returns) AS r (
            q text, t text, s text, start bigint, "window" bigint, at bigint, units bigint
        )
        ORDER BY q COLLATE "C", t COLLATE "C", s COLLATE "C", start, "window"
    LOOP
        IF (each.units >= 0 AND CASE WHEN each."window" IS NULL THEN each.start IS NOT NULL
            ELSE each."window" > 0 AND each.at >= 0 END) IS NOT TRUE THEN
            RAISE EXCEPTION 'units that are returned need a number of them and an instant'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF each."window" IS NULL THEN
            UPDATE logstore.quota_usage
            SET used = greatest(0, used - each.units), last_at = return_quotas_at.at
            WHERE quota_id = each.q AND instance_id = each.t AND subject = each.s
                AND period_start = logstore.instant(each.start);
        ELSE
            UPDATE logstore.quota_windows
            SET counts = logstore.counts_without(
                    counts, newest - each.at / ((each."window" + 59) / 60), each.units
                ),
                last_at = return_quotas_at.at
            WHERE quota_id = each.q AND instance_id = each.t AND subject = each.s
                AND window_length = each."window" * interval '1 microsecond';
        END IF;
        returned := returned + FOUND::integer;
    END LOOP;
    RETURN returned;
END
$$;
COMMENT ON FUNCTION logstore.return_quotas_at(jsonb, timestamptz) IS
    'What return_quotas does, with the clock at an instant.';

CREATE FUNCTION logstore.return_quotas(returns jsonb) RETURNS integer
LANGUAGE sql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    SELECT logstore.return_quotas_at(returns, clock_timestamp())
$$;
COMMENT ON FUNCTION logstore.return_quotas(jsonb) IS
    'Takes units back that were not used. returns is an array of objects: q, t, s: quota, tenant, subject; units; start of the period, or window, the length of a rolling one, and at, when they were spent, in microseconds. Returns how many of them had their counter still.';

CREATE FUNCTION logstore.unfinished_crossings(older_than interval, most integer)
RETURNS SETOF logstore.quota_crossings
LANGUAGE sql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- Whoever locks crossings does it in the order of their identities: even what skips locked rows
    -- waits for one that was updated since the statement began, and is locked again.
    WITH waiting AS MATERIALIZED (
        SELECT crossing_id FROM logstore.quota_crossings
        WHERE (stored_at IS NULL OR called_at IS NULL)
            AND claimed_at < clock_timestamp() - older_than
        ORDER BY claimed_at LIMIT most
    ), due AS MATERIALIZED (
        SELECT crossing_id FROM logstore.quota_crossings JOIN waiting USING (crossing_id)
        WHERE (stored_at IS NULL OR called_at IS NULL)
            AND claimed_at < clock_timestamp() - older_than
        ORDER BY crossing_id
        FOR UPDATE OF quota_crossings SKIP LOCKED
    ), claimed AS (
        UPDATE logstore.quota_crossings c
        SET claimed_at = clock_timestamp(), stored_at = coalesce(stored_at, CASE WHEN EXISTS (
            SELECT FROM logstore.quota_logs l
            WHERE l.instance_id = c.instance_id AND l.log_id = c.crossing_id::text
                AND l.log_date = c.crossed_at
        ) THEN clock_timestamp() END)
        FROM due WHERE c.crossing_id = due.crossing_id
        RETURNING c.*
    )
    SELECT * FROM claimed WHERE stored_at IS NULL OR called_at IS NULL
    ORDER BY crossed_at, percent
$$;
COMMENT ON FUNCTION logstore.unfinished_crossings(interval, integer) IS
    'Hands crossings to the caller, to be told, that nobody has undertaken to tell for so long, and that lack their row in quota_logs (stored_at) or the callback (called_at).';

CREATE FUNCTION logstore.crossings_called(ids uuid[]) RETURNS integer
LANGUAGE sql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS MATERIALIZED (
        SELECT crossing_id FROM logstore.quota_crossings
        WHERE crossing_id = ANY (ids) AND called_at IS NULL
        ORDER BY crossing_id FOR UPDATE
    ), called AS (
        UPDATE logstore.quota_crossings c SET called_at = clock_timestamp()
        FROM due WHERE c.crossing_id = due.crossing_id
        RETURNING c.crossing_id
    )
    SELECT count(*)::integer FROM called
$$;
COMMENT ON FUNCTION logstore.crossings_called(uuid[]) IS
    'Notes that the callback has returned for these crossings; returns for how many it had not.';

CREATE FUNCTION logstore.clean_quotas(keep interval, most integer) RETURNS TABLE (
    counters bigint, windows bigint, crossings bigint
)
LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    horizon CONSTANT timestamptz := clock_timestamp() - keep;
    due record;
BEGIN
    IF keep < interval '0' THEN
        RAISE EXCEPTION 'usage is kept for some time, and not for %', keep
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    counters := 0;
    windows := 0;
    FOR due IN
        SELECT * FROM (
            (
                SELECT quota_id, instance_id, subject, period_start, NULL AS window_length
                FROM logstore.quota_usage
                WHERE period_end < horizon ORDER BY period_end LIMIT most
            ) UNION ALL (
                SELECT quota_id, instance_id, subject, NULL, window_length
                FROM logstore.quota_windows
                WHERE last_at + window_length < horizon LIMIT most
            )
        ) AS ended
        ORDER BY quota_id, instance_id, subject, period_start, window_length
    LOOP
        IF due.period_start IS NOT NULL THEN
            DELETE FROM logstore.quota_usage
            WHERE quota_id = due.quota_id AND instance_id = due.instance_id
                AND subject = due.subject AND period_start = due.period_start
                AND period_end < horizon;
            counters := counters + FOUND::integer;
        ELSE
            DELETE FROM logstore.quota_windows
            WHERE quota_id = due.quota_id AND instance_id = due.instance_id
                AND subject = due.subject AND window_length = due.window_length
                AND last_at + window_length < horizon;
            windows := windows + FOUND::integer;
        END IF;
    END LOOP;
    WITH finished AS MATERIALIZED (
        SELECT crossing_id FROM logstore.quota_crossings
        WHERE period_end < horizon AND stored_at IS NOT NULL AND called_at IS NOT NULL
        ORDER BY crossing_id LIMIT most
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM logstore.quota_crossings c USING finished
    WHERE c.crossing_id = finished.crossing_id;
    GET DIAGNOSTICS crossings = ROW_COUNT;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION logstore.clean_quotas(interval, integer) IS
    'Deletes counters of periods and windows that ended longer ago than what is kept, and crossings that were told, at most so many of each.';

REVOKE ALL ON FUNCTION
    logstore.uuid7(timestamptz),
    logstore.microseconds(timestamptz),
    logstore.instant(bigint),
    logstore.check_quota_ask(logstore.quota_ask, bigint),
    logstore.threshold_due(bigint, integer),
    logstore.quota_share(logstore.quota_ask, bigint, integer),
    logstore.is_change(logstore.quota_ask, logstore.quota_answer, integer, bigint),
    logstore.cross_thresholds(
        logstore.quota_ask, logstore.quota_answer, integer, timestamptz, timestamptz, timestamptz
    ),
    logstore.spend_in_period(logstore.quota_ask, timestamptz),
    logstore.slid_counts(bigint[], bigint),
    logstore.slice_that_fits(bigint[], bigint, bigint),
    logstore.spend_in_window(logstore.quota_ask, timestamptz),
    logstore.spend_quotas_at(jsonb, timestamptz),
    logstore.spend_quotas(jsonb),
    logstore.return_quotas_at(jsonb, timestamptz),
    logstore.counts_without(bigint[], bigint, bigint),
    logstore.return_quotas(jsonb),
    logstore.unfinished_crossings(interval, integer),
    logstore.crossings_called(uuid[]),
    logstore.clean_quotas(interval, integer)
FROM PUBLIC;
REVOKE ALL ON TYPE logstore.quota_ask, logstore.quota_answer FROM PUBLIC;

INSERT INTO logstore.migrations (version, name) VALUES (10, 'quota_functions');
