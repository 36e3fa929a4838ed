-- From cart to shipped, of each day on which orders were placed: how many came how far, and in how many seconds (medians).
SELECT
    placed_at::DATE AS day,
    count(*) AS placed,
    count(held_at) AS held,
    count(paid_at) AS paid,
    count(shipped_at) AS shipped,
    count(cancelled_at) AS cancelled,
    median(date_diff('millisecond', carts.first_at, carts.last_at)) / 1000 AS seconds_in_cart,
    median(date_diff('millisecond', placed_at, held_at)) / 1000 AS seconds_to_hold,
    median(date_diff('millisecond', held_at, paid_at)) / 1000 AS seconds_to_pay,
    median(date_diff('millisecond', paid_at, shipped_at)) / 1000 AS seconds_to_ship
FROM order_steps LEFT JOIN carts ON carts.cart_id = order_steps.order_id
GROUP BY day
