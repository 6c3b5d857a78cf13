SELECT relname::text
FROM pg_catalog.pg_class
WHERE relnamespace = 'logstore'::regnamespace AND relkind = 'p' AND relname = ANY (%s)
