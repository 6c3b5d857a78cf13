-- Quotas: what is limited, how much of it is used, and which thresholds were crossed.
--
-- Usage is a counter for each quota, tenant, subject and period; nothing is ever counted by reading
-- logs. What was decided is told in quota_logs. The functions that count are in the next file.

-- The writer locks the ledger first; in another order the two would wait for each other.
LOCK TABLE logstore.batches IN SHARE MODE;

CREATE TABLE logstore.quotas (
    quota_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL DEFAULT '',
    counts text NOT NULL DEFAULT 'requests',
    per text[] NOT NULL DEFAULT '{tenant}',
    quota_limit bigint NOT NULL,
    period text NOT NULL DEFAULT '1 month',
    rolling boolean NOT NULL DEFAULT false,
    anchor timestamptz,
    time_zone text NOT NULL DEFAULT 'UTC',
    thresholds integer[] NOT NULL DEFAULT '{}',
    enforced boolean NOT NULL DEFAULT true,
    exact boolean NOT NULL DEFAULT false,
    on_unavailable text NOT NULL DEFAULT 'open',
    refunds text[] NOT NULL DEFAULT '{server_error,cancelled,401,429}',
    routes text[] NOT NULL DEFAULT '{}',
    methods text[] NOT NULL DEFAULT '{}',
    log_allowed boolean NOT NULL DEFAULT false,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL DEFAULT session_user,
    CONSTRAINT quotas_pkey PRIMARY KEY (quota_id, instance_id),
    CONSTRAINT quotas_limit_not_negative CHECK (quota_limit >= 0),
    CONSTRAINT quotas_on_unavailable_known CHECK (on_unavailable IN ('open', 'closed'))
);
COMMENT ON TABLE logstore.quotas IS
    'Limits that `auditlog quota set` has laid down. They go before those of the same name in the application''s code, and apply within seconds, without a restart.';
COMMENT ON COLUMN logstore.quotas.quota_id IS 'Name of the quota.';
COMMENT ON COLUMN logstore.quotas.instance_id IS
    'Tenant that it is for; empty for every tenant that has none of its own of that name.';
COMMENT ON COLUMN logstore.quotas.counts IS
    'What is counted: requests, authenticated, writes, bytes, execution_ms, or what a handler has reported.';
COMMENT ON COLUMN logstore.quotas.per IS
    'Whose usage is added up, within the tenant: tenant, organisation, user, key, route, address, or several of them together.';
COMMENT ON COLUMN logstore.quotas.quota_limit IS
    'How much is allowed in a period; exactly as much is still allowed.';
COMMENT ON COLUMN logstore.quotas.period IS 'Length of a period, as in 1 month, or of the window.';
COMMENT ON COLUMN logstore.quotas.rolling IS
    'True for a window of that length that ends now; false for periods that begin at the anchor.';
COMMENT ON COLUMN logstore.quotas.anchor IS
    'An instant at which a period begins, past or future; null for 2001-01-01, a Monday, in the time zone.';
COMMENT ON COLUMN logstore.quotas.time_zone IS
    'Name in the IANA database: whose days, weeks, months and years are meant.';
COMMENT ON COLUMN logstore.quotas.thresholds IS
    'Per cent of the limit whose crossing is told, once in a period.';
COMMENT ON COLUMN logstore.quotas.enforced IS 'False: usage is observed, and nothing is refused.';
COMMENT ON COLUMN logstore.quotas.exact IS
    'True: every decision asks the database; false: processes take units in advance.';
COMMENT ON COLUMN logstore.quotas.on_unavailable IS
    'What is decided while the database is away: open allows, closed refuses.';
COMMENT ON COLUMN logstore.quotas.refunds IS
    'Outcomes and statuses of requests that are given back.';
COMMENT ON COLUMN logstore.quotas.routes IS 'Globs of the paths that count; none: all.';
COMMENT ON COLUMN logstore.quotas.methods IS 'Methods that count; none: all.';
COMMENT ON COLUMN logstore.quotas.log_allowed IS
    'True: what is allowed leaves a row in quota_logs too.';
COMMENT ON COLUMN logstore.quotas.changed_at IS 'When it was last set.';
COMMENT ON COLUMN logstore.quotas.changed_by IS 'By which login, or the person named at the time.';

CREATE TABLE logstore.quota_usage (
    quota_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    used bigint NOT NULL DEFAULT 0,
    quota_limit bigint NOT NULL,
    told_percent integer NOT NULL DEFAULT 0,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT quota_usage_pkey PRIMARY KEY (quota_id, instance_id, subject, period_start),
    CONSTRAINT quota_usage_not_negative CHECK (used >= 0)
)
-- A counter is updated in place: no index has any of the columns that change.
WITH (fillfactor = 70);
CREATE INDEX quota_usage_ended ON logstore.quota_usage (period_end);
COMMENT ON INDEX logstore.quota_usage_ended IS 'The counters of periods that are over';
COMMENT ON TABLE logstore.quota_usage IS
    'Counters: how much of a quota a subject has used in a period. Units that processes have taken in advance are in it, and come back when they stay unused.';
COMMENT ON COLUMN logstore.quota_usage.quota_id IS 'Name of the quota.';
COMMENT ON COLUMN logstore.quota_usage.instance_id IS 'Tenant.';
COMMENT ON COLUMN logstore.quota_usage.subject IS
    'Whose usage it is within the tenant; empty for all of the tenant''s.';
COMMENT ON COLUMN logstore.quota_usage.period_start IS 'First instant of the period.';
COMMENT ON COLUMN logstore.quota_usage.period_end IS 'First instant after it.';
COMMENT ON COLUMN logstore.quota_usage.used IS 'Units that are spent, or taken in advance.';
COMMENT ON COLUMN logstore.quota_usage.quota_limit IS 'The limit, as it was when last asked for.';
COMMENT ON COLUMN logstore.quota_usage.told_percent IS
    'Highest threshold whose crossing was told in this period.';
COMMENT ON COLUMN logstore.quota_usage.first_at IS 'When the first unit was taken.';
COMMENT ON COLUMN logstore.quota_usage.last_at IS 'When it last changed.';

CREATE TABLE logstore.quota_windows (
    quota_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    window_length interval NOT NULL,
    newest bigint NOT NULL,
    counts bigint[] NOT NULL,
    quota_limit bigint NOT NULL,
    told_window bigint NOT NULL DEFAULT 0,
    told_percent integer NOT NULL DEFAULT 0,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT quota_windows_pkey PRIMARY KEY (quota_id, instance_id, subject, window_length)
)
WITH (fillfactor = 70);
COMMENT ON TABLE logstore.quota_windows IS
    'Counters of rolling windows: what a subject has used in each of the slices of the window.';
COMMENT ON COLUMN logstore.quota_windows.quota_id IS 'Name of the quota.';
COMMENT ON COLUMN logstore.quota_windows.instance_id IS 'Tenant.';
COMMENT ON COLUMN logstore.quota_windows.subject IS
    'Whose usage it is within the tenant; empty for all of the tenant''s.';
COMMENT ON COLUMN logstore.quota_windows.window_length IS
    'Length of the window; each length is counted by itself, so that processes with another one do no harm.';
COMMENT ON COLUMN logstore.quota_windows.newest IS
    'Number of the newest slice: the time since 1970 divided by the length of a slice.';
COMMENT ON COLUMN logstore.quota_windows.counts IS
    'Units in each slice, the newest first; one more slice than fit into the window, for the oldest counts until all of it has left.';
COMMENT ON COLUMN logstore.quota_windows.quota_limit IS 'The limit, as it was when last asked for.';
COMMENT ON COLUMN logstore.quota_windows.told_window IS
    'Number of the stretch of the window''s length in which a crossing was last told.';
COMMENT ON COLUMN logstore.quota_windows.told_percent IS
    'Highest threshold whose crossing was told in that stretch.';
COMMENT ON COLUMN logstore.quota_windows.first_at IS 'When the first unit was taken.';
COMMENT ON COLUMN logstore.quota_windows.last_at IS 'When it last changed.';

CREATE TABLE logstore.quota_crossings (
    crossing_id uuid NOT NULL,
    quota_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    percent integer NOT NULL,
    previous_usage bigint NOT NULL,
    current_usage bigint NOT NULL,
    quota_limit bigint NOT NULL,
    resource_owner text,
    user_id text,
    action text,
    crossed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    stored_at timestamptz,
    called_at timestamptz,
    CONSTRAINT quota_crossings_pkey PRIMARY KEY (crossing_id)
);
CREATE UNIQUE INDEX quota_crossings_once ON logstore.quota_crossings
    (quota_id, instance_id, subject, period_start, period_end, percent);
COMMENT ON INDEX logstore.quota_crossings_once IS 'The crossings of a quota in a period';
CREATE INDEX quota_crossings_unfinished ON logstore.quota_crossings (claimed_at)
    WHERE stored_at IS NULL OR called_at IS NULL;
COMMENT ON INDEX logstore.quota_crossings_unfinished IS
    'Crossings that a process was about to tell, and did not';
COMMENT ON TABLE logstore.quota_crossings IS
    'Thresholds that were crossed: committed with the spending that crossed them, and told from here, so that none is told twice or not at all.';
COMMENT ON COLUMN logstore.quota_crossings.crossing_id IS
    'Identity, and the log_id of its row in quota_logs.';
COMMENT ON COLUMN logstore.quota_crossings.quota_id IS 'Name of the quota.';
COMMENT ON COLUMN logstore.quota_crossings.instance_id IS 'Tenant.';
COMMENT ON COLUMN logstore.quota_crossings.subject IS
    'Whose usage it is within the tenant; empty for all of the tenant''s.';
COMMENT ON COLUMN logstore.quota_crossings.period_start IS
    'First instant of the period; of a rolling window, of the stretch of its length.';
COMMENT ON COLUMN logstore.quota_crossings.period_end IS 'First instant after it.';
COMMENT ON COLUMN logstore.quota_crossings.percent IS 'The threshold.';
COMMENT ON COLUMN logstore.quota_crossings.previous_usage IS 'Usage before the spending.';
COMMENT ON COLUMN logstore.quota_crossings.current_usage IS 'Usage after it.';
COMMENT ON COLUMN logstore.quota_crossings.quota_limit IS 'The limit then.';
COMMENT ON COLUMN logstore.quota_crossings.resource_owner IS 'Organisation of who spent.';
COMMENT ON COLUMN logstore.quota_crossings.user_id IS 'Who spent.';
COMMENT ON COLUMN logstore.quota_crossings.action IS 'On what.';
COMMENT ON COLUMN logstore.quota_crossings.crossed_at IS
    'When, by the database''s clock; the log_date of its row.';
COMMENT ON COLUMN logstore.quota_crossings.claimed_at IS
    'When a process last undertook to tell it.';
COMMENT ON COLUMN logstore.quota_crossings.stored_at IS
    'When its row was seen in quota_logs; null until then.';
COMMENT ON COLUMN logstore.quota_crossings.called_at IS
    'When the callback had returned; null until then.';

REVOKE ALL ON logstore.quotas, logstore.quota_usage, logstore.quota_windows,
    logstore.quota_crossings FROM PUBLIC;

INSERT INTO logstore.migrations (version, name) VALUES (9, 'quotas');
