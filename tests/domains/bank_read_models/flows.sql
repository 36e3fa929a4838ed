-- Money moved by kind of event and day of recording.
SELECT event_type, count(*) AS moves, sum(cents)::BIGINT AS cents, avg(cents) AS mean, max(note) AS last_note
FROM events GROUP BY ALL
