-- Partitions ahead from inside the database, by the extension pg_cron: a net under the cron job.
-- It retires nothing; for that, and for everything else, `auditlog partitions maintain` runs elsewhere.
-- Run this as the owner of the tables, in the database of cron.database_name.

SELECT cron.schedule(
    'auditlog-partitions',
    '41 * * * *',
    'SELECT * FROM logstore.make_partitions()'
);

-- In another database than pg_cron's own:
--
-- SELECT cron.schedule_in_database(
--     'auditlog-partitions', '41 * * * *', 'SELECT * FROM logstore.make_partitions()', 'shop');

-- What became of it:
--
-- SELECT start_time, status, return_message FROM cron.job_run_details ORDER BY start_time DESC LIMIT 5;
