INSERT INTO logstore.holds (
    hold_id, table_name, instance_id, from_date, until_date, reason, placed_by
)
VALUES (
    %(hold_id)s, %(table)s, %(instance_id)s, %(start)s, %(end)s, %(reason)s,
    coalesce(%(by)s, session_user)
)
