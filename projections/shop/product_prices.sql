-- Prices by product, in cents: the last one asked (by occurred_at), and the range.
SELECT
    product_id,
    last(unit_price_cents ORDER BY occurred_at) AS last_price_cents,
    min(unit_price_cents) AS lowest_price_cents,
    max(unit_price_cents) AS highest_price_cents,
    max(occurred_at) AS last_at
FROM events
WHERE event_type = 'ProductAdded'
GROUP BY product_id
