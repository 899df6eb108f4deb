-- The queries of the Nexmark benchmark over its three topics, as `tidegate bench nexmark` runs them: an auction house's people, auctions and
-- bids. Each is a continuous view; what follows a `-- q` is its name.

-- q0: bids as they are
SELECT auction, bidder, price, date_time, extra FROM bid

-- q1: prices in another currency
SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid

-- q2: bids on some auctions
SELECT auction, price FROM bid WHERE auction % 123 = 0

-- q3: who sells in some states
SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
WHERE a.category = 10 AND (p.state = 'or' OR p.state = 'id' OR p.state = 'ca')

-- q4: the average of the highest bids by category
SELECT category, avg(final) AS average FROM (
  SELECT max(b.price) AS final, a.category FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
  GROUP BY a.id, a.category)
GROUP BY category

-- q5: the auctions with the most bids of the last ten seconds
SELECT c.auction, c.num, c.window_start FROM (
  SELECT auction, count(*) AS num, window_start, window_end FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
  GROUP BY auction, window_start, window_end) c
JOIN (
  SELECT max(num) AS most, window_start, window_end FROM (
    SELECT count(*) AS num, window_start, window_end FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
    GROUP BY auction, window_start, window_end)
  GROUP BY window_start, window_end) m
ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num = m.most

-- q6: each seller's average over the last ten auctions, by their winning bids
SELECT seller, id, avg(final) OVER (PARTITION BY seller ORDER BY date_time, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS average FROM (
  SELECT a.seller, a.id, b.price AS final, b.date_time,
    row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder, b.extra) AS place
  FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires)
WHERE place = 1

-- q7: the highest bids of each ten seconds
SELECT b.auction, b.price, b.bidder, b.date_time FROM bid b
JOIN (SELECT max(price) AS highest, window_end FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY window_start, window_end) m
ON b.price = m.highest AND b.date_time >= m.window_end - INTERVAL '10 seconds' AND b.date_time < m.window_end

-- q8: who came and sold within ten seconds
SELECT p.id, p.name, p.window_start FROM (
  SELECT id, name, window_start, window_end FROM TUMBLE(person, date_time, INTERVAL '10 seconds') GROUP BY id, name, window_start, window_end) p
JOIN (SELECT seller, window_start, window_end FROM TUMBLE(auction, date_time, INTERVAL '10 seconds') GROUP BY seller, window_start, window_end) a
ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end

-- q9: winning bids
SELECT id, item_name, seller, category, auction, bidder, price, bid_time FROM (
  SELECT a.*, b.auction, b.bidder, b.price, b.date_time AS bid_time,
    row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder, b.extra) AS place
  FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires)
WHERE place <= 1

-- q10: bids by day and minute
SELECT auction, bidder, price, date_time, extra, to_char(date_time, '%Y-%m-%d') AS day, to_char(date_time, '%H:%M') AS minute FROM bid

-- q11: how often people bid while they are there
SELECT bidder, count(*) AS bids, window_start, window_end FROM SESSION(bid PARTITION BY bidder, date_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end

-- q12: how often people bid, by the clock
SELECT bidder, count(*) AS bids, window_start, window_end FROM TUMBLE(bid, proctime(), INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end

-- q13: bids beside a file
SELECT b.auction, b.bidder, b.price, b.date_time, s.value FROM bid b JOIN side_input s ON b.auction % 10000 = s.key

-- q14: much computation
SELECT auction, bidder, 0.908 * price AS price,
  CASE WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'day' WHEN date_part('hour', date_time) <= 6 OR date_part('hour', date_time) >= 20 THEN 'night' ELSE 'other' END AS bid_time,
  date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000

-- q15: each day's bids, bidders and auctions by price
SELECT to_char(date_time, '%Y-%m-%d') AS day, count(*) AS bids,
  count(*) FILTER (WHERE price < 10000) AS low, count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS middle, count(*) FILTER (WHERE price >= 1000000) AS high,
  count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price < 10000) AS low_bidders,
  count(DISTINCT auction) AS auctions, count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS high_auctions
FROM bid GROUP BY to_char(date_time, '%Y-%m-%d')

-- q16: the same by channel
SELECT channel, to_char(date_time, '%Y-%m-%d') AS day, max(to_char(date_time, '%H:%M')) AS minute, count(*) AS bids,
  count(*) FILTER (WHERE price < 10000) AS low, count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price < 10000) AS low_bidders,
  count(DISTINCT auction) AS auctions
FROM bid GROUP BY channel, to_char(date_time, '%Y-%m-%d')

-- q17: each auction's day
SELECT auction, to_char(date_time, '%Y-%m-%d') AS day, count(*) AS bids, count(*) FILTER (WHERE price < 10000) AS low,
  min(price) AS lowest, max(price) AS highest, avg(price) AS average, sum(price) AS total
FROM bid GROUP BY auction, to_char(date_time, '%Y-%m-%d')

-- q18: each bidder's last bid on each auction
SELECT auction, bidder, price, channel, date_time FROM (
  SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC, extra) AS place FROM bid)
WHERE place <= 1

-- q19: the ten highest bids on each auction
SELECT auction, bidder, price, date_time, place FROM (
  SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder, extra) AS place FROM bid)
WHERE place <= 10

-- q20: bids with their auctions
SELECT b.auction, b.bidder, b.price, b.channel, b.date_time, a.item_name, a.seller, a.category
FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10

-- q21: channels by number
SELECT auction, bidder, price, channel,
  CASE WHEN lower(channel) = 'apple' THEN '0' WHEN lower(channel) = 'google' THEN '1' WHEN lower(channel) = 'facebook' THEN '2' WHEN lower(channel) = 'baidu' THEN '3'
    ELSE regexp_replace(url, '.*channel_id=([^&]*).*', '\1') END AS channel_id
FROM bid WHERE lower(channel) IN ('apple', 'google', 'facebook', 'baidu') OR url LIKE '%channel_id=%'

-- q22: folders of addresses
SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3 FROM bid
