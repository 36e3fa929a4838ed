-- The same by the day in UTC, by way of an instant.
SELECT
    (occurred_at AT TIME ZONE 'UTC')::DATE AS day,
    strftime(occurred_at AT TIME ZONE 'UTC', '%A %H:%M') AS shown,
    sum(quantity) AS units,
    max(occurred_at AT TIME ZONE 'UTC') AS last_instant,
    last(occurred_at AT TIME ZONE 'UTC' AT TIME ZONE 'Asia/Kathmandu' ORDER BY occurred_at) AS last_there
FROM events
WHERE event_type = 'ProductAdded'
GROUP BY ALL
