-- How many rows a partition has, and from when to when; no dates where Python's cannot be those.
SELECT
    count(*),
    CASE WHEN min(log_date) >= '0001-01-02 00:00:00+00' AND max(log_date) < '9999-12-30 00:00:00+00'
        THEN min(log_date) END AS first,
    CASE WHEN min(log_date) >= '0001-01-02 00:00:00+00' AND max(log_date) < '9999-12-30 00:00:00+00'
        THEN max(log_date) END AS last
FROM ONLY {partition}
