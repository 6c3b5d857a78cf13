SELECT DISTINCT pg_catalog.pg_get_userbyid(g.grantee)
FROM pg_catalog.pg_class AS c
CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS g
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'logstore' AND c.relname = %(name)s AND g.grantee NOT IN (0, c.relowner)
