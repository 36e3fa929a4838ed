-- Who has ordered: one row a customer; cancelled orders count too. Amounts are in cents.
SELECT
    customer_id,
    count(*) AS orders,
    sum(amount_cents)::BIGINT AS ordered_cents,
    max(occurred_at) AS last_order_at
FROM events
WHERE event_type = 'OrderPlaced'
GROUP BY customer_id
