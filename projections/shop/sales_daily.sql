-- Sales by day (UTC): units and revenue of all products, and how many products sold.
SELECT
    day,
    sum(units_added - units_removed)::BIGINT AS units,
    sum(revenue_cents)::BIGINT AS revenue_cents,
    count(*) FILTER (units_added > units_removed) AS products
FROM product_daily
GROUP BY day
