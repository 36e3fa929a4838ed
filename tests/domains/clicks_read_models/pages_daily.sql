-- Clicks on each page by day (UTC): one row a page and day.
SELECT
    page,
    clicked_at::DATE AS day,
    count(*) AS clicks,
    sum(spent) AS spent,
    sum(dwell) AS dwell_us,
    max(clicked_at) AS last_clicked_at,
    min(local) AS earliest_local,
    max(interest) AS highest_interest,
    last(scores ORDER BY clicked_at) AS last_scores
FROM events WHERE event_type = 'Clicked' GROUP BY page, day
