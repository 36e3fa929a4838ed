-- The first and the last event of each cart, and the seconds between them.
SELECT
    aggregate_id AS cart_id,
    any_value(event_type) FILTER (version = 1) AS first_event,
    last(event_type ORDER BY version) AS last_event,
    min(occurred_at) AS first_at,
    max(occurred_at) AS last_at,
    date_diff('second', min(occurred_at), max(occurred_at)) AS seconds
FROM events
WHERE aggregate = 'cart'
GROUP BY aggregate_id
