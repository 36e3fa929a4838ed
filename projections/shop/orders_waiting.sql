-- Orders that are not at their end, what they wait for, and since when (UTC).
SELECT
    order_id,
    CASE status
        WHEN 'reserving' THEN 'stock'
        WHEN 'awaiting payment' THEN 'payment'
        ELSE 'shipping'
    END AS waits_for,
    CASE status
        WHEN 'reserving' THEN placed_at
        WHEN 'awaiting payment' THEN held_at
        ELSE paid_at
    END AS since,
    value_cents
FROM orders JOIN order_steps USING (order_id)
WHERE status NOT IN ('shipped', 'cancelled')
