-- Events by kind of aggregate and id.
SELECT aggregate, aggregate_id, count(*) AS events FROM events GROUP BY ALL
