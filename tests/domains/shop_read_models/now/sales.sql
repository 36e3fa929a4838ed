-- Sales by name and channel.
SELECT name, channel, count(*) AS sales, sum(cents)::BIGINT AS cents FROM events GROUP BY name, channel
