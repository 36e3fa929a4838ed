-- Sales by month, the best day of each, and the change from the month before.
SELECT
    date_trunc('month', day)::DATE AS month,
    sum(units)::BIGINT AS units,
    sum(revenue_cents)::BIGINT AS revenue_cents,
    arg_max(day, revenue_cents) AS best_day,
    sum(revenue_cents)::BIGINT - lag(sum(revenue_cents)::BIGINT) OVER (ORDER BY month) AS change_cents
FROM sales_daily
GROUP BY month
