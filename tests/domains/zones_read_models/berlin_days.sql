-- Sales by the day in Berlin: units added.
SELECT
    (occurred_at AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Berlin')::DATE AS day,
    sum(quantity) AS units
FROM events
WHERE event_type = 'ProductAdded'
GROUP BY day
