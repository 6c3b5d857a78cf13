SELECT
    NOT EXISTS (
        SELECT FROM logstore.retirements
        WHERE table_name = %(table)s AND instance_id IS NULL AND state <> 'attached'
            AND lower_bound < %(upper)s AND upper_bound > %(lower)s
    ) OR EXISTS (
        SELECT FROM logstore.holds
        WHERE released_at IS NULL AND coalesce(table_name, %(table)s) = %(table)s
            AND from_date < %(upper)s AND until_date > %(lower)s
    )
