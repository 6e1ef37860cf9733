-- name: SQL. With # only the number of rows is defined, but every run gives the same; with > their order is; ! is refused.
union all: SELECT id, s FROM t UNION ALL SELECT v, 'x' || s AS z FROM u UNION ALL SELECT id, s FROM e
union all, grouped: SELECT k, count(*), sum(v) FROM (SELECT k, v FROM t UNION ALL SELECT k, v FROM u UNION ALL SELECT k, v FROM e) GROUP BY k
union: SELECT k FROM t UNION SELECT k FROM u
interleave: SELECT k, sum(v) FROM (SELECT k, sum(v) v FROM t GROUP BY k UNION ALL SELECT k, max(v) FROM u GROUP BY k) GROUP BY k
left, build kept: SELECT u.id, t.id AS other FROM u LEFT JOIN t ON u.id = t.v
full: SELECT u.id, t.id AS other FROM u FULL JOIN t ON u.id = t.v
semi: SELECT id FROM u WHERE EXISTS (SELECT 1 FROM t WHERE t.v = u.id AND t.id > 30)
anti: SELECT id FROM u WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.v = u.id AND t.id > 30)
mark: SELECT id FROM u WHERE EXISTS (SELECT 1 FROM t WHERE t.v = u.id AND t.id > 30) OR id = 41
not in, null among: SELECT id FROM w WHERE k NOT IN (SELECT k FROM t WHERE id < 5)
not in, null outside: SELECT id FROM u WHERE k NOT IN (SELECT k FROM w WHERE id < 44)
not in, empty: SELECT id FROM u WHERE k NOT IN (SELECT k FROM e)
not in, big list: SELECT id FROM t WHERE k NOT IN (SELECT k FROM w WHERE id < 44)
scalar subquery: SELECT id FROM t WHERE v > (SELECT avg(v) FROM u)
scalar subquery, selected: SELECT id, (SELECT max(v) FROM e), (SELECT count(*) FROM u) FROM t
correlated: SELECT id FROM t WHERE v >= (SELECT avg(v) FROM u WHERE u.k = t.k)
intersect: SELECT k, s FROM t INTERSECT SELECT k, s FROM u
except: SELECT k, s FROM t EXCEPT SELECT k, s FROM u
intersect all: SELECT k FROM t INTERSECT ALL SELECT k FROM u
except all: SELECT k FROM u EXCEPT ALL SELECT k FROM t WHERE id < 3
limit: #SELECT id FROM t LIMIT 7
limit, offset: #SELECT id FROM t LIMIT 9 OFFSET 55
limit inside: SELECT count(*) FROM (SELECT * FROM t LIMIT 13)
limit over union: SELECT count(*) FROM (SELECT id FROM t UNION ALL SELECT id FROM u LIMIT 66)
limit collected: SELECT count(*) FROM (SELECT * FROM t LIMIT 3) a CROSS JOIN t b
cross join: SELECT count(*), sum(t.v * u.v) FROM t, u
cross join, empty: SELECT t.id FROM t CROSS JOIN e
loop join: SELECT t.id, u.id AS other FROM t JOIN u ON t.v < u.v - 30
loop join, left: SELECT u.id, t.id AS other FROM u LEFT JOIN t ON t.v < u.v - 40
loop join, full: SELECT t.id, u.id AS other FROM t FULL JOIN u ON t.v < u.v - 50
loop join, anti: SELECT id FROM u WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.v < u.v - 40)
window, whole: SELECT id, row_number() OVER (ORDER BY id), sum(v) OVER () FROM t
window, keyed: SELECT id, rank() OVER (PARTITION BY k ORDER BY v), lag(v) OVER (PARTITION BY s ORDER BY id) FROM t
window, constant key: SELECT id, row_number() OVER (PARTITION BY k, s ORDER BY id) FROM t WHERE k = 2 AND s = 's1'
window over groups: SELECT k, s, sum(sum(v)) OVER (PARTITION BY k ORDER BY s) FROM t WHERE k = 2 GROUP BY k, s
grouping sets: SELECT k, s, count(*), grouping(k) FROM t GROUP BY GROUPING SETS ((k), (s), (k, s), ())
cube, empty: SELECT k, s, count(*) FROM e GROUP BY CUBE (k, s)
cte twice: WITH c AS (SELECT k, sum(v) s FROM t GROUP BY k) SELECT a.k, b.s, (SELECT max(s) FROM c) FROM c a JOIN c b ON a.k = b.k
empty, aggregate: SELECT count(*), sum(v), max(s) FROM e
empty, grouped: SELECT k, count(*) FROM e GROUP BY k
empty, joined: SELECT t.id FROM t JOIN e ON t.k = e.k
empty, left: SELECT t.id, e.id AS other FROM t LEFT JOIN e ON t.k = e.k
false: SELECT k, count(*) FROM t WHERE 1 = 0 GROUP BY k UNION ALL SELECT 1, 2
values: SELECT a, count(*) FROM (VALUES (1), (2), (2), (NULL)) x(a) GROUP BY a
values joined: SELECT t.id, b FROM t JOIN (VALUES (1, 'p'), (2, 'q')) x(a, b) ON t.k = a
no table: SELECT 1, 'a'
zeros and NaN, grouped: SELECT f, count(*) FROM t GROUP BY f
zeros and NaN, joined: SELECT t.id, u.id AS other FROM t JOIN u ON t.f = u.f
distinct: SELECT count(DISTINCT s), count(DISTINCT k) FROM t
aggregate in order: SELECT k, array_agg(id ORDER BY v), first_value(id ORDER BY v DESC) FROM t GROUP BY k
order: >SELECT id, v FROM t ORDER BY s DESC, v
order of an expression: >SELECT id FROM t ORDER BY v % 5, id DESC
order of nulls: >SELECT k, id FROM t ORDER BY k NULLS FIRST, id
order of floats: >SELECT f, id FROM t ORDER BY f DESC, id
order of few values: >SELECT s, k, count(*) FROM t GROUP BY s, k ORDER BY s, k DESC NULLS LAST
order of no rows: >SELECT id, v FROM e ORDER BY v, id
top: >SELECT id, v FROM t ORDER BY v DESC LIMIT 5 OFFSET 2
order by constant: >SELECT k, id FROM t WHERE k = 2 ORDER BY k, id
union sorted: SELECT * FROM (SELECT id FROM t ORDER BY v LIMIT 3) UNION ALL SELECT * FROM (SELECT id FROM u ORDER BY v LIMIT 3)
recursive: WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r
union, other names: SELECT a, sum(b) FROM (SELECT k AS a, v AS b FROM t WHERE id > 3 UNION ALL SELECT id, k FROM u) WHERE b > 2 GROUP BY a HAVING sum(b) > 9 ORDER BY a
union, joined: SELECT x.a, y.id FROM (SELECT k AS a, s AS b FROM t UNION ALL SELECT v, concat(s, 'q') FROM u) x JOIN t y ON x.a = y.k AND x.b < y.s
count: SELECT count(*) FROM t
count, filtered: SELECT count(*) FROM t WHERE v > 30
count of a join: SELECT count(*) FROM t JOIN u ON t.k = u.k
union probed: SELECT x.id, w.v FROM (SELECT id, k FROM t UNION ALL SELECT id, k FROM u) x JOIN w ON x.k = w.k
union collected: SELECT x.id, t.v FROM (SELECT id, k FROM u UNION ALL SELECT id, k FROM w) x JOIN t ON x.k = t.k
union of unions: SELECT id FROM t UNION ALL (SELECT id FROM u UNION ALL SELECT id FROM w)
unions joined: SELECT a.k, count(*) FROM (SELECT k FROM t UNION ALL SELECT k FROM u) a JOIN (SELECT k FROM w UNION ALL SELECT k FROM e) b ON a.k = b.k GROUP BY a.k
unions crossed: SELECT count(*) FROM (SELECT k FROM u UNION ALL SELECT k FROM w) a, (SELECT k FROM t UNION ALL SELECT k FROM u) b
window over union: SELECT id, row_number() OVER (PARTITION BY k ORDER BY id, v) FROM (SELECT * FROM t UNION ALL SELECT * FROM w)
top collected: SELECT t.id, x.v FROM (SELECT k, v FROM u ORDER BY v DESC LIMIT 3) x JOIN t ON t.k = x.k
ties: #SELECT id FROM t ORDER BY s LIMIT 20
key by expression: SELECT k + 1, count(*), sum(v) OVER (PARTITION BY k + 1) FROM t GROUP BY k, v
series: SELECT t.id, g.n FROM t JOIN generate_series(1, 3) AS g(n) ON t.k = g.n
now: SELECT count(*) FROM t WHERE now() > TIMESTAMP '2020-01-01'
filter, nothing: SELECT id, k FROM t WHERE id > 1000
filter, counted: SELECT count(*), count(k), max(s) FROM t WHERE id < 0
filter, range: SELECT id FROM t WHERE id BETWEEN 7 AND 12 AND k IS NOT NULL
filter, nulls: SELECT id FROM t WHERE k IS NULL OR k = 6
filter, null list: SELECT id FROM t WHERE k IN (3, NULL, 5, 6, 1)
filter, list: SELECT id FROM t WHERE id IN (3, 4, 5, 50, 51) AND s <> 's1'
filter, NaN: SELECT id FROM t WHERE f > 1 AND f >= 1.5
filter, zeros: SELECT id FROM t WHERE f = 0 OR f < 0
filter, casts: SELECT id FROM t WHERE CAST(id AS DOUBLE) > 57.5 OR CAST(v AS VARCHAR) = '3'
filter, other type: SELECT id FROM t WHERE id = '7' OR id > 57.5
filter, outer: SELECT u.id, t.id AS other FROM u LEFT JOIN t ON u.id = t.v AND t.id < 10 WHERE t.id IS NULL
filter, both sides: SELECT a.id FROM t a JOIN t b ON a.id = b.v WHERE a.id < 10 AND b.id > 20
filter, limit: SELECT count(*) FROM (SELECT id FROM t WHERE id >= 30 LIMIT 8)
joins of joins: SELECT a.id, count(*) FROM (SELECT t.id FROM t JOIN u ON t.s = u.s) a JOIN w ON a.id = w.id JOIN t ON t.k = w.k GROUP BY a.id
window, lag read backwards: >SELECT x, row_number() OVER (ORDER BY x DESC) AS r, lag(x) OVER (ORDER BY x) AS l FROM (VALUES (1),(2),(3)) y(x) ORDER BY x
window, lag of nulls: >SELECT x, lag(a) IGNORE NULLS OVER (ORDER BY x) AS l FROM (VALUES (1,'a'),(2,NULL),(3,NULL)) y(x,a) ORDER BY x
window, filter: >SELECT x, sum(x) FILTER (WHERE x > 1) OVER (ORDER BY x) AS s FROM (VALUES (1),(2),(3)) y(x) ORDER BY x
window, lag and lead backwards: SELECT id, row_number() OVER (ORDER BY id DESC) AS r, lag(v, 2, -1) OVER (ORDER BY id) AS a, lead(v, 3, -2) OVER (ORDER BY id) AS b FROM t
window, keyed backwards: SELECT id, row_number() OVER (PARTITION BY s ORDER BY id DESC) AS r, lag(v) OVER (PARTITION BY s ORDER BY id) AS a, lead(k) OVER (PARTITION BY s ORDER BY id) AS b FROM t
window, values backwards: SELECT id, row_number() OVER (ORDER BY id DESC) AS r, first_value(v) OVER (ORDER BY id) AS a, last_value(v) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) AS b, nth_value(v, 2) OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND 1 FOLLOWING) AS c FROM t
window, values of nulls: SELECT id, first_value(k) IGNORE NULLS OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS a, last_value(k) IGNORE NULLS OVER (ORDER BY id) AS b, lag(k) IGNORE NULLS OVER (ORDER BY id) AS c FROM t
window, nulls backwards: SELECT id, row_number() OVER (ORDER BY id DESC) AS r, first_value(k) IGNORE NULLS OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) AS a, last_value(k) IGNORE NULLS OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING) AS b FROM t
window, nulls kept and not: SELECT id, lag(k) IGNORE NULLS OVER (PARTITION BY s ORDER BY id) AS a, lag(k) OVER (PARTITION BY s ORDER BY id) AS b FROM t
window, filter in frames: SELECT id, sum(v) FILTER (WHERE k > 2) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS a, min(v) FILTER (WHERE s = 's1') OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND 1 FOLLOWING) AS b, max(v) FILTER (WHERE k IS NULL) OVER (ORDER BY id ROWS BETWEEN 9 PRECEDING AND 1 PRECEDING) AS c FROM t
window, filter keyed: SELECT id, count(*) FILTER (WHERE v > 30) OVER (PARTITION BY k ORDER BY id) AS a, count(k) FILTER (WHERE v > 9) OVER (PARTITION BY s) AS b, avg(v) FILTER (WHERE id % 2 = 0) OVER (PARTITION BY s ORDER BY id) AS c FROM t
window, filter of none: SELECT id, sum(v) FILTER (WHERE id < 0) OVER () AS a, count(*) FILTER (WHERE id < 0) OVER () AS b FROM t
window, filter unnamed: SELECT id, sum(v) FILTER (WHERE k > 2) OVER (ORDER BY id) FROM t
window, filter backwards: SELECT id, row_number() OVER (ORDER BY id DESC) AS r, sum(v) FILTER (WHERE k > 2) OVER (ORDER BY id) AS a FROM t
window, filter of an array: !SELECT id, array_agg(v) FILTER (WHERE k > 2) OVER (ORDER BY id) AS a FROM t
windows under a join: SELECT a.id, a.r, a.l, a.c, u.v FROM (SELECT id, k, row_number() OVER (ORDER BY id DESC) AS r, lag(v) OVER (ORDER BY id) AS l, sum(v) FILTER (WHERE v > 20) OVER (ORDER BY id) AS c FROM t) a JOIN u ON a.k = u.k
windows on both sides: SELECT a.id, a.l, b.f AS other FROM (SELECT id, lag(k) IGNORE NULLS OVER (ORDER BY id) AS l FROM t) a JOIN (SELECT id, row_number() OVER (ORDER BY id DESC) AS r, lead(v) OVER (ORDER BY id) AS f FROM u) b ON a.id = b.id
windows over windows: SELECT id, lag(l) IGNORE NULLS OVER (ORDER BY id) AS m FROM (SELECT id, row_number() OVER (ORDER BY id DESC) AS r, lag(k) OVER (ORDER BY id) AS l FROM t) WHERE r > 5
checksums: SELECT id, md5(s) AS m, encode(sha256(s), 'hex') AS h, digest(s, 'blake3') AS d, sha512(s) AS l FROM t WHERE md5(s) <> 'x'
checksums, grouped: SELECT md5(s) AS m, count(*) AS n, max(encode(digest(s, 'blake2b'), 'hex')) AS d FROM t GROUP BY md5(s)
