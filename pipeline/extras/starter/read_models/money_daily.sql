-- Money by day (UTC, of occurred_at), in cents: ordered, paid, and given back.
SELECT
    occurred_at::DATE AS day,
    coalesce(sum(amount_cents), 0)::BIGINT AS ordered_cents,
    coalesce(sum(paid_cents), 0)::BIGINT AS paid_cents,
    coalesce(sum(refund_cents), 0)::BIGINT AS refunded_cents
FROM events
GROUP BY day
