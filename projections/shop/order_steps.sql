-- When each order came how far (UTC, of recorded_at), and what became of it.
SELECT
    aggregate_id AS order_id,
    min(recorded_at) FILTER (event_type = 'OrderPlaced') AS placed_at,
    min(recorded_at) FILTER (event_type = 'PaymentAwaited') AS held_at,
    min(recorded_at) FILTER (event_type = 'OrderPaid') AS paid_at,
    min(recorded_at) FILTER (event_type = 'OrderShipped') AS shipped_at,
    min(recorded_at) FILTER (event_type = 'OrderCancelled') AS cancelled_at
FROM events
WHERE aggregate = 'order'
GROUP BY aggregate_id
