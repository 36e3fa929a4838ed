-- The first and the last event of each cart, and the time between them.
SELECT
    aggregate_id AS cart_id,
    first(event_type ORDER BY version) AS first_event,
    last(event_type ORDER BY version) AS last_event,
    min(occurred_at) AS first_at,
    max(occurred_at) AS last_at,
    max(occurred_at) - min(occurred_at) AS span
FROM events
GROUP BY aggregate_id
