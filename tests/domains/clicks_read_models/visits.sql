-- Sessions by device and channel: one row for each two.
SELECT
    device,
    channel,
    count(*) AS sessions,
    count(place) AS placed,
    min(begun_at) AS first_begun_at,
    max(place.latitude) AS northernmost
FROM events WHERE event_type = 'SessionBegun' GROUP BY device, channel
