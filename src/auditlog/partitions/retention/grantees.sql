SELECT DISTINCT coalesce(role.rolname::text, '') AS grantee
FROM pg_catalog.pg_class AS c
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
CROSS JOIN LATERAL (
    SELECT grantee FROM aclexplode(c.relacl)
    UNION
    SELECT grantee FROM aclexplode(a.attacl)
) AS granted
LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = granted.grantee
WHERE c.oid = %s::oid AND granted.grantee <> c.relowner
