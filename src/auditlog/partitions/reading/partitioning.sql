-- How the table was enabled. A length with hours in it counts as one with a day more.
SELECT
    step,
    (extract(year FROM ahead) * 12 + extract(month FROM ahead))::integer AS months,
    (
        extract(day FROM justify_hours(ahead))
        + (extract(hour FROM justify_hours(ahead)) > 0)::integer
    )::integer AS days,
    maintained_at
FROM logstore.partitioning
WHERE table_name = %(table)s
