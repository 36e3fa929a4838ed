-- Sales by name.
SELECT name, count(*) AS sales, sum(price) AS dollars FROM events GROUP BY name
