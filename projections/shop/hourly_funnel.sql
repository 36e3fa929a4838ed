-- The funnel by hour (UTC, of occurred_at): carts begun, products added and removed, check-outs.
SELECT
    date_trunc('hour', occurred_at) AS hour,
    count(*) FILTER (version = 1) AS carts_begun,
    count(*) FILTER (event_type = 'ProductAdded') AS products_added,
    count(*) FILTER (event_type = 'ProductRemoved') AS products_removed,
    count(*) FILTER (event_type = 'CheckedOut') AS carts_checked_out
FROM events
WHERE aggregate = 'cart'
GROUP BY hour
