INSERT INTO logstore.retirements (
    retirement_id, table_name, partition_name, partition_oid, instance_id,
    lower_bound, upper_bound, state, package_version
)
VALUES (
    %(retirement_id)s, %(table)s, %(partition)s, %(oid)s, %(tenant)s,
    %(lower)s, %(upper)s, %(state)s, %(version)s
)
